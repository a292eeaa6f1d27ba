"""Teaching the embedded planner model: next-token prediction on lessons, answers counting most."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rapport.agents.lm.example import Lesson
from rapport.agents.lm.model import Llama
from rapport.agents.lm.tokenizer import Tokenizer

_TOGETHER = 24
"""Rows of a lesson that are read together."""
_PROMPT_EVERY = 4
"""Of this many rows one is asked to predict its prompt, too."""


@dataclass(frozen=True)
class Teaching:
    """How it is taught."""

    steps: int = 1_800
    """Updates."""
    learning_rate: float = 3e-3
    """AdamW's, after the warm-up; falls to a twentieth along a cosine."""
    warm_up: int = 100
    """Steps in which the learning rate rises from zero."""
    weight_decay: float = 0.05
    """AdamW's, of matrices."""
    prompt_weight: float = 0.2
    """What predicting a token of the prompt counts against one of the answer."""
    clip: float = 1.0
    """Largest norm of a gradient."""


@dataclass(frozen=True)
class Rows:
    """A lesson in tokens.

    Attributes:
        start: shape (P,), what all rows begin with.
        tokens: shape (B, L), how each goes on, filled up at the right by zeros.
        answers: shape (B, L), bool, tokens of answers, the end of the text included.
        prompts: shape (B, L), bool, tokens of prompts, the first of each row left out: `start` predicts it.
    """

    start: Tensor
    tokens: Tensor
    answers: Tensor
    prompts: Tensor


def rows_of(lesson: Lesson, tokenizer: Tokenizer) -> Rows:
    """A lesson in tokens."""
    rests = [tokenizer.encode(text) for text in lesson.rests]
    answers = [[*tokenizer.encode(text), tokenizer.eos] for text in lesson.answers]
    longest = max(len(rest) + len(answer) for rest, answer in zip(rests, answers, strict=True))
    tokens = torch.zeros(len(rests), longest, dtype=torch.long)
    is_answer, is_prompt = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool)
    for row, (rest, answer) in enumerate(zip(rests, answers, strict=True)):
        end = len(rest) + len(answer)
        tokens[row, :end] = torch.tensor(rest + answer)
        is_prompt[row, 1 : len(rest)] = True
        is_answer[row, len(rest) : end] = True
    return Rows(torch.tensor([tokenizer.bos, *tokenizer.encode(lesson.start)]), tokens, is_answer, is_prompt)


def losses(model: Llama, lessons: Sequence[Rows]) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, in nats a token, of the answers and, of every fourth row, the prompts."""
    sums, counts = [], torch.zeros(2)
    for rows in lessons:
        prefix = model.read(rows.start)
        lengths = (rows.answers | rows.prompts).int().mul(torch.arange(rows.tokens.shape[1])).amax(dim=1) + 1
        for part in torch.split(lengths.argsort(), _TOGETHER):  # rows of like length together: less to fill up
            width = int(lengths[part].max())
            tokens, answers = rows.tokens[part, :width], rows.answers[part, 1:width]
            counted = answers | (rows.prompts[part, 1:width] & (part % _PROMPT_EVERY == 0)[:, None])
            hidden = model.hidden(tokens[:, :-1], prefix)[counted]
            each = F.cross_entropy(model.logits(hidden), tokens[:, 1:][counted], reduction="none")
            kind = answers[counted]
            sums.append(torch.stack([each[kind].sum(), each[~kind].sum()]))
            counts += torch.stack([kind.sum(), (~kind).sum()])
    answer, prompt = torch.stack(sums).sum(dim=0) / counts.clamp(min=1)
    return answer, prompt


class Teacher:
    """Teaches a model, in place, a few lessons a step.

    Args:
        model: to be taught.
        tokenizer: its vocabulary.
        lessons: the lessons of each step.
        settings: how.
    """

    def __init__(
        self, model: Llama, tokenizer: Tokenizer, lessons: Callable[[int], Sequence[Lesson]], settings: Teaching
    ) -> None:
        self.model, self.tokenizer, self.lessons, self.settings = model, tokenizer, lessons, settings
        self.step = 0
        matrices = [p for p in model.parameters() if p.dim() == 2]
        others = [p for p in model.parameters() if p.dim() != 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))

    def teach(self, report: Callable[[int, float], None] = lambda step, loss: None) -> None:
        """Go on to the last step.

        Args:
            report: told after each step how many are done and the loss of its answers, in nats a token.
        """
        while self.step < self.settings.steps:
            for group in self.optimiser.param_groups:
                group["lr"] = self.settings.learning_rate * pace(self.step, self.settings)
            rows = [rows_of(lesson, self.tokenizer) for lesson in self.lessons(self.step)]
            answer, prompt = losses(self.model, rows)
            self.optimiser.zero_grad()
            (answer + self.settings.prompt_weight * prompt).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.optimiser.step()
            self.step += 1
            report(self.step, float(answer.detach()))

    def save(self, path: Path) -> None:
        """Keep where the teaching stands; an older file is replaced in one step."""
        state = {"step": self.step, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from what `save` kept.

        Raises:
            ValueError: the file is damaged or of another model.
        """
        try:
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} cannot be gone on from ({error}): delete it to begin anew") from error
        self.step = int(state["step"])


def pace(step: int, settings: Teaching) -> float:
    """Share of the learning rate at a step: a linear rise, then a cosine down to a twentieth."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    done = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
