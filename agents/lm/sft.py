"""Supervised fine-tuning: next-token prediction on examples, the loss of completions weighted most."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rapport.agents.lm.example import Example
from rapport.agents.lm.model import Llama
from rapport.agents.lm.tokenizer import Tokenizer

_MICRO_BATCH = 24
"""Rows of an example in one forward pass."""
_PROMPT_EVERY = 4
"""One row in this many also adds the loss of its prompt."""


@dataclass(frozen=True)
class SFTConfig:
    """Hyper-parameters of supervised fine-tuning."""

    steps: int = 1_800
    """Updates."""
    learning_rate: float = 3e-3
    """AdamW's learning rate after the warm-up; it falls to a twentieth along a cosine."""
    warm_up: int = 100
    """Steps in which the learning rate rises linearly from zero."""
    weight_decay: float = 0.05
    """AdamW's weight decay, of matrices only."""
    prompt_weight: float = 0.2
    """Weight of the prompts' loss; the completions' loss has weight 1."""
    clip: float = 1.0
    """Largest norm of a gradient."""


@dataclass(frozen=True)
class TokenBatch:
    """An example in tokens.

    Attributes:
        prefix: shape (P,), tokens that all rows begin with.
        tokens: shape (B, L), the tokens after the prefix, padded at the right with zeros.
        completion_mask: shape (B, L), bool, tokens of completions with the end-of-text token.
        prompt_mask: shape (B, L), bool, tokens of prompts but the first of each row, which the prefix predicts.
    """

    prefix: Tensor
    tokens: Tensor
    completion_mask: Tensor
    prompt_mask: Tensor


def tokenize(example: Example, tokenizer: Tokenizer) -> TokenBatch:
    """An example in tokens."""
    suffixes = [tokenizer.encode(text) for text in example.suffixes]
    completions = [[*tokenizer.encode(text), tokenizer.eos] for text in example.completions]
    longest = max(len(suffix) + len(completion) for suffix, completion in zip(suffixes, completions, strict=True))
    tokens = torch.zeros(len(suffixes), longest, dtype=torch.long)
    completion_mask, prompt_mask = (torch.zeros_like(tokens, dtype=torch.bool) for _ in range(2))
    for row, (suffix, completion) in enumerate(zip(suffixes, completions, strict=True)):
        end = len(suffix) + len(completion)
        tokens[row, :end] = torch.tensor(suffix + completion)
        prompt_mask[row, 1 : len(suffix)] = True
        completion_mask[row, len(suffix) : end] = True
    prefix = torch.tensor([tokenizer.bos, *tokenizer.encode(example.prefix)])
    return TokenBatch(prefix, tokens, completion_mask, prompt_mask)


def losses(model: Llama, batches: Sequence[TokenBatch]) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, in nats per token, of the completions and of the prompts of every fourth row."""
    sums, counts = [], torch.zeros(2)
    for batch in batches:
        prefix = model.read_prefix(batch.prefix)
        is_text = batch.completion_mask | batch.prompt_mask
        lengths = is_text.int().mul(torch.arange(batch.tokens.shape[1])).amax(dim=1) + 1
        for part in torch.split(lengths.argsort(), _MICRO_BATCH):  # rows of similar length need little padding
            width = int(lengths[part].max())
            tokens, completion = batch.tokens[part, :width], batch.completion_mask[part, 1:width]
            with_prompt = (part % _PROMPT_EVERY == 0)[:, None]
            counted = completion | (batch.prompt_mask[part, 1:width] & with_prompt)
            hidden = model.hidden(tokens[:, :-1], prefix)[counted]
            each = F.cross_entropy(model.logits(hidden), tokens[:, 1:][counted], reduction="none")
            kind = completion[counted]
            sums.append(torch.stack([each[kind].sum(), each[~kind].sum()]))
            counts += torch.stack([kind.sum(), (~kind).sum()])
    completion_loss, prompt_loss = torch.stack(sums).sum(dim=0) / counts.clamp(min=1)
    return completion_loss, prompt_loss


class SFTTrainer:
    """Trains a model in place, on a few examples per step.

    Args:
        model: the model to train.
        tokenizer: its vocabulary.
        examples: the examples of each step.
        config: hyper-parameters.
    """

    def __init__(
        self, model: Llama, tokenizer: Tokenizer, examples: Callable[[int], Sequence[Example]], config: SFTConfig
    ) -> None:
        self.model, self.tokenizer, self.examples, self.config = model, tokenizer, examples, config
        self.step = 0
        matrices = [p for p in model.parameters() if p.dim() == 2]
        others = [p for p in model.parameters() if p.dim() != 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))

    def train(self, report: Callable[[int, float], None] = lambda step, loss: None) -> None:
        """Train up to the last step.

        Args:
            report: called after each step with the number of steps done and the completions' loss in nats per token.
        """
        while self.step < self.config.steps:
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate * learning_rate_factor(self.step, self.config)
            batches = [tokenize(example, self.tokenizer) for example in self.examples(self.step)]
            completion_loss, prompt_loss = losses(self.model, batches)
            self.optimiser.zero_grad()
            (completion_loss + self.config.prompt_weight * prompt_loss).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimiser.step()
            self.step += 1
            report(self.step, float(completion_loss.detach()))

    def save(self, path: Path) -> None:
        """Write a checkpoint; it replaces an older file atomically."""
        state = {"step": self.step, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint of `save`.

        Raises:
            ValueError: the file is damaged or belongs to another model.
        """
        try:
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"training cannot resume from {path} ({error}): delete the file to start from the beginning"
            ) from error
        self.step = int(state["step"])


def learning_rate_factor(step: int, config: SFTConfig) -> float:
    """Share of the learning rate at a step: a linear warm-up, then a cosine down to a twentieth."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    done = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
