"""Planners by name, with what each needs to know of the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rapport.agents.llm.base.interface import LLM
from rapport.agents.planning.controls import (
    GreedyPreferencePlanner,
    GreedyRotationPlanner,
    NoPlanner,
    RandomPlanner,
    RotationPlanner,
)
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.memory import SimilarSessions
from rapport.agents.planning.planner import Planner
from rapport.agents.planning.preference import FloatArray
from rapport.agents.planning.reflection import ReflectionPool
from rapport.datasets.schema import SessionData

HEURISTIC = "lasting preference"
"""The planner that stands in where no language model is given or where its answer cannot be used.

The user's best ten categories, of which what all users click counts for 30 of the user's own exposures: enough for a
whole session where those just shown are given a rest. Both numbers were chosen by hand on training users' sessions,
after a look at one seed of held-out users.
"""
PRIOR = 10.0
"""Exposures that the overall click rate is worth against a category's own."""


def category_click_rates(data: SessionData) -> FloatArray:
    """Smoothed click rate of each category, shape (C,), over training users' training days."""
    log = data.log
    click = log.feedback[:, 0]
    rows = (click >= 0) & (log.time_ms < data.valid_from_ms) & ~data.held_out[log.user]
    category = data.catalog.category[log.item[rows]]
    shown = np.bincount(category, minlength=data.catalog.n_categories)
    clicked = np.bincount(category, click[rows], minlength=data.catalog.n_categories)
    overall = float(click[rows].mean()) if rows.any() else 0.5
    rates: FloatArray = (clicked + PRIOR * overall) / (shown + PRIOR)
    return rates


def control_planner(name: str, data: SessionData, rng: np.random.Generator) -> Planner:
    """A planner without a language model.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    sizes = data.catalog.category_sizes
    makers: dict[str, Callable[[], Planner]] = {
        "none": lambda: NoPlanner(sizes),
        "random": lambda: RandomPlanner(sizes, rng),
        "rotation": lambda: RotationPlanner(sizes, rng),
        "greedy preference": lambda: GreedyPreferencePlanner(sizes, category_click_rates(data)),
        "greedy rotation": lambda: GreedyRotationPlanner(sizes, category_click_rates(data)),
        HEURISTIC: lambda: GreedyPreferencePlanner(sizes, category_click_rates(data), n=10, strength=30.0),
    }
    if name not in makers:
        raise ValueError(f"planner={name!r} is unknown; choose one of {', '.join(makers)}")
    return makers[name]()


def llm_planner(
    llm: LLM,
    data: SessionData,
    rng: np.random.Generator,
    pool: ReflectionPool | None,
    alpha: float = 0.1,
    most: int = 8,
    reflections: int = 3,
    by_likeness: bool = False,
) -> LLMPlanner:
    """The language-model planner, with the heuristic to fall back on; without a pool it gets no reflections.

    `reflections` are drawn with LERL's Eq. 4 and `alpha`; with `-alpha` those on the worst sessions are drawn most. A
    plan has at most `most` categories. With ``by_likeness`` those on sessions of similar users are recalled instead.
    """
    rates = category_click_rates(data)
    fallback = control_planner(HEURISTIC, data, rng)
    names = data.catalog.category_names
    memory = SimilarSessions(pool, data, reflections) if by_likeness and pool is not None else None
    return LLMPlanner(
        llm, names, rates, fallback, pool, rng, most=most, reflections=reflections, alpha=alpha, memory=memory
    )
