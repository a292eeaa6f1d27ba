"""Who made a row's plans: the share that its language model made, over seeds, and what the row is called after it.

A row's figures are a language model's only where the model planned. A meter counts the plans that a model was asked for
(``decisions``) and those that its fallback made in its place (``fallbacks``), over training and evaluation together;
``evaluation_decisions`` and ``evaluation_fallbacks`` are the evaluation's part of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapport.experiments.results.store import Result

NAMED_FROM = 0.9
"""Share of the plans that a model has to make, in every seed, for a row to be named after it."""
NOTICEABLE = 0.005
"""Share of the plans from which on a label says that the fallback made them."""


@dataclass(frozen=True)
class PlanShare:
    """The share of a row's plans that the language model made.

    Attributes:
        wanted: plans that it was asked for, in all seeds together.
        low: the lowest share in the training or the evaluation of a seed, in [0, 1].
        high: the highest.
    """

    wanted: int
    low: float
    high: float

    @property
    def by_model(self) -> bool:
        """Whether the row counts as the model's."""
        return self.low >= NAMED_FROM

    @property
    def answered(self) -> str:
        """In words, e.g. ``"answered 72 % of 158"``; with a range where seeds, or training and evaluation, differ."""
        low, high = _percent(self.low), _percent(self.high)
        return f"answered {low if low == high else f'{low} to {high}'} % of {self.wanted:,}"

    @property
    def fallback(self) -> str:
        """What the fallback planned, e.g. ``"the fallback planned 4 %"``; empty where that is not noticeable."""
        if 1 - self.low < NOTICEABLE:
            return ""
        most, least = 100 - _percent(self.low), 100 - _percent(self.high)
        return f"the fallback planned {most if most == least else f'{least} to {most}'} %"


def plan_share(results: Sequence[Result], trained: Sequence[Result] | None = None) -> PlanShare | None:
    """The share of a row's plans that its language model made; None where none was wanted of any.

    Args:
        results: of the row, one per seed.
        trained: results of the row whose trained policy it plays, where it trains none of its own: the plans of that
            training count as its own.
    """
    parts = [part for result in results for part in _parts(result.meter, trained is None)]
    parts += [part for result in trained or () for part in _parts(result.meter, True)[:1]]
    return _share(parts)


def training_share(results: Sequence[Result]) -> PlanShare | None:
    """The share in training alone; None where none was wanted of any plan there."""
    return _share([part for result in results for part in _parts(result.meter, True)[:1]])


def _percent(share: float) -> int:
    """Whole per cent, rounded down: what is not reached is not said to be."""
    return math.floor(round(100 * share, 6))


def _share(parts: Sequence[tuple[float, float]]) -> PlanShare | None:
    shares = [1 - fallbacks / wanted for wanted, fallbacks in parts if wanted > 0]
    return PlanShare(round(sum(wanted for wanted, _ in parts)), min(shares), max(shares)) if shares else None


def _parts(meter: Mapping[str, float], training: bool) -> list[tuple[float, float]]:
    """Plans wanted and plans of the fallback: in training, where that is wanted, then in evaluation."""
    whole = meter.get("decisions", 0.0), meter.get("fallbacks", 0.0)
    if "evaluation_decisions" not in meter:  # of an earlier version, which did not keep them apart
        return [whole]
    evaluation = meter["evaluation_decisions"], meter["evaluation_fallbacks"]
    return [(whole[0] - evaluation[0], whole[1] - evaluation[1]), evaluation] if training else [evaluation]
