"""The torch model as a planner, for evaluation during training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rapport.agents.llm.structured import decode_json
from rapport.agents.lm.example import split_prompts
from rapport.agents.lm.generate import generate
from rapport.agents.lm.model import Llama
from rapport.agents.lm.tokenizer import Tokenizer
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.planner import BoolArray, Planner, SessionViews


class TorchPlanner:
    """Plans with a model in torch, by greedy decoding without a grammar.

    Args:
        model: the model.
        tokenizer: its vocabulary.
        planner: writes the prompts and parses the plans.
        fallback: plans where a completion is no plan.

    Attributes:
        unusable: number of completions so far that were no plan.
    """

    name = "language model in torch"

    def __init__(self, model: Llama, tokenizer: Tokenizer, planner: LLMPlanner, fallback: Planner) -> None:
        self.model, self.tokenizer, self.planner, self.fallback = model, tokenizer, planner, fallback
        self.unusable = 0

    def plan(self, views: SessionViews) -> BoolArray:
        """Categories that the model chose, shape (B, C); the fallback's where it chose none."""
        prefix_text, suffixes = split_prompts(self.planner.prompts(views))
        with torch.no_grad():
            prefix = self.model.read_prefix(torch.tensor([self.tokenizer.bos, *self.tokenizer.encode(prefix_text)]))
        generator = torch.Generator()  # greedy decoding draws nothing from it
        generation = generate(self.model, self.tokenizer, prefix, suffixes, temperature=0, generator=generator)
        plans, usable = parse_plans(generation.texts, self.planner, self.fallback, views)
        self.unusable += int((~usable).sum())
        return plans[0]


def parse_plans(
    texts: Sequence[str], planner: LLMPlanner, fallback: Planner, views: SessionViews
) -> tuple[list[BoolArray], BoolArray]:
    """Plans in G completions for each of B sessions.

    Args:
        texts: G x B completions, B after B.
        planner: parses the plans.
        fallback: plans where a completion is no plan.
        views: the B sessions.

    Returns:
        G arrays of shape (B, C), and which completions were plans, shape (G, B).
    """
    n = len(views)
    fallback_plans = fallback.plan(views)
    plans = [fallback_plans.copy() for _ in range(len(texts) // n)]
    usable = np.zeros((len(plans), n), bool)
    for place, text in enumerate(texts):
        try:
            chosen = planner.parse(decode_json(text))
        except ValueError:
            continue  # the fallback plans, and `usable` says so
        group, row = divmod(place, n)
        plans[group][row] = False
        plans[group][row, chosen] = True
        usable[group, row] = True
    return plans, usable
