"""The model in torch at work: many answers at once to prompts that begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rapport.agents.llm.structured import decode_json
from rapport.agents.lm.example import split_prompts
from rapport.agents.lm.model import Llama, Prefix
from rapport.agents.lm.tokenizer import Tokenizer
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.planner import BoolArray, Planner, SessionViews


@dataclass(frozen=True)
class Written:
    """Answers to B prompts.

    Attributes:
        tokens: of each answer, the end of the text included where it was reached.
        texts: the answers.
    """

    tokens: list[list[int]]
    texts: list[str]


@torch.no_grad()
def write(
    model: Llama,
    tokenizer: Tokenizer,
    prefix: Prefix,
    rests: Sequence[str],
    *,
    temperature: float,
    generator: torch.Generator,
    longest: int = 96,
) -> Written:
    """Continue prompts until the end of the text.

    Args:
        model: writes.
        tokenizer: its vocabulary.
        prefix: what all prompts begin with, as the model has read it.
        rests: how each goes on, B of them.
        temperature: of drawing tokens; 0 takes the likeliest.
        generator: draws them.
        longest: most tokens in an answer.
    """
    encoded = [tokenizer.encode(rest) for rest in rests]
    lengths = torch.tensor([len(tokens) for tokens in encoded])
    tokens = torch.zeros(len(encoded), int(lengths.max()), dtype=torch.long)
    for row, own in enumerate(encoded):
        tokens[row, : len(own)] = torch.tensor(own)
    logits, cache = model.start(tokens, lengths, longest, prefix)
    written: list[list[int]] = [[] for _ in encoded]
    running = torch.ones(len(encoded), dtype=torch.bool)
    for _ in range(longest):
        drawn = _draw(logits, temperature, generator)
        for row in running.nonzero()[:, 0].tolist():
            written[row].append(int(drawn[row]))
        running &= drawn != tokenizer.eos
        if not running.any():
            break
        logits = model.decode_step(drawn, cache)
    return Written(written, [tokenizer.decode(t for t in own if t != tokenizer.eos) for own in written])


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=1)
    chances = (logits / temperature).softmax(dim=1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]


class TorchPlanner:
    """The model in torch as a planner, always taking the likeliest token: for looking at a model that is learning.

    Args:
        model: writes the plans.
        tokenizer: its vocabulary.
        planner: words the prompts and reads the answers.
        fallback: plans where an answer cannot be used.

    Attributes:
        unusable: answers that were no plan so far.
    """

    name = "language model in torch"

    def __init__(self, model: Llama, tokenizer: Tokenizer, planner: LLMPlanner, fallback: Planner) -> None:
        self.model, self.tokenizer, self.planner, self.fallback = model, tokenizer, planner, fallback
        self.unusable = 0

    def plan(self, views: SessionViews) -> BoolArray:
        """Categories the model chose, shape (B, C); the fallback's where it chose none."""
        start, rests = split_prompts(self.planner.prompts(views))
        with torch.no_grad():
            prefix = self.model.read(torch.tensor([self.tokenizer.bos, *self.tokenizer.encode(start)]))
        generator = torch.Generator()  # nothing is drawn
        written = write(self.model, self.tokenizer, prefix, rests, temperature=0, generator=generator)
        plans, usable = plans_of(written.texts, self.planner, self.fallback, views)
        self.unusable += int((~usable).sum())
        return plans[0]


def plans_of(
    texts: Sequence[str], planner: LLMPlanner, fallback: Planner, views: SessionViews
) -> tuple[list[BoolArray], BoolArray]:
    """Plans in G x B answers, B after B, as G arrays of shape (B, C), and which were usable, shape (G, B)."""
    n = len(views)
    stand_in = fallback.plan(views)
    plans = [stand_in.copy() for _ in range(len(texts) // n)]
    usable = np.zeros((len(plans), n), bool)
    for place, text in enumerate(texts):
        try:
            chosen = planner.parse(decode_json(text))
        except ValueError:
            continue  # counted: it is not usable
        group, row = divmod(place, n)
        plans[group][row] = False
        plans[group][row, chosen] = True
        usable[group, row] = True
    return plans, usable
