"""Planners by name, made from a data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rapport._deprecation import renamed
from rapport.agents.llm.base.interface import LLM
from rapport.agents.planning.controls import (
    ConstantPlanner,
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

TOP_K_PREFERENCE = "top-k preference"
"""The planner that stands in where no language model is given or where its answer cannot be used.

It plans the user's ten categories of highest smoothed click rate, where the click rate of all users counts as much as
30 of the user's own exposures: enough categories for a whole session under the one-slate cooldown. Both numbers were
chosen by hand on training users' sessions, after a look at one seed of held-out users.
"""
STORED_TOP_K = "lasting preference"
"""Its former name, which checkpoints, keys of results and reports hold; both names are accepted."""
RANDOM_HELD, CONSTANT = "random-held", "constant"
"""Controls of every table of planners: eight random categories, drawn when a plan is due, and the eight categories that
are clicked most often when shown, by their smoothed click rate in the training log, the same for everybody: what the
top-k preference planner plans for a user of whom nothing is known. Their plans hold, so they are under the cooldown."""
HELD = (TOP_K_PREFERENCE, RANDOM_HELD, CONSTANT)
"""Planners without a language model whose plans are meant to hold for several slates."""
CONTROLS = (
    "none",
    "random",
    RANDOM_HELD,
    CONSTANT,
    "rotation",
    "greedy preference",
    "greedy rotation",
    TOP_K_PREFERENCE,
)
"""Planners without a language model, as :func:`control_planner` makes them."""
HELD_CATEGORIES = 8
"""Categories in a control's plan: as many as a language model may name at most."""
PRIOR = 10.0
"""Exposures that the overall click rate is worth against a category's own."""


def planner_name(name: str) -> str:
    """The present name of a planner that is given by its present or its former one."""
    return TOP_K_PREFERENCE if name == STORED_TOP_K else name


def category_click_rates(data: SessionData) -> FloatArray:
    """Smoothed click rate of each category, shape (C,), over training users' training days."""
    log = data.log
    click = log.feedback[:, 0]
    rows = (click >= 0) & (log.time_ms < data.valid_from_ms) & ~data.held_out[log.user]
    category = data.catalog.labels[log.item[rows]]
    there, clicks = category >= 0, np.broadcast_to(click[rows][:, None], category.shape)
    shown = np.bincount(category[there], minlength=data.catalog.n_categories)
    clicked = np.bincount(category[there], clicks[there], minlength=data.catalog.n_categories)
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
        RANDOM_HELD: lambda: RandomPlanner(sizes, rng, n=HELD_CATEGORIES),
        CONSTANT: lambda: ConstantPlanner(sizes, category_click_rates(data), n=HELD_CATEGORIES),
        "rotation": lambda: RotationPlanner(sizes, rng),
        "greedy preference": lambda: GreedyPreferencePlanner(sizes, category_click_rates(data)),
        "greedy rotation": lambda: GreedyRotationPlanner(sizes, category_click_rates(data)),
        TOP_K_PREFERENCE: lambda: GreedyPreferencePlanner(sizes, category_click_rates(data), n=10, strength=30.0),
    }
    if planner_name(name) not in makers:
        raise ValueError(f"planner={name!r} is unknown; choose one of {', '.join(CONTROLS)}")
    return makers[planner_name(name)]()


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
    """The language-model planner, with the top-k preference planner as its fallback.

    Args:
        llm: the model.
        data: its log before validation days gives the click rates.
        rng: draws the reflections.
        pool: reflections; None for none.
        alpha: LERL's Eq. 4; below 0 those on the worst sessions are drawn most.
        most: most categories in a plan.
        reflections: reflections in a prompt.
        by_likeness: recall those on sessions of similar users in place of draws.
    """
    rates = category_click_rates(data)
    fallback = control_planner(TOP_K_PREFERENCE, data, rng)
    names = data.catalog.category_names
    memory = SimilarSessions(pool, data, reflections) if by_likeness and pool is not None else None
    return LLMPlanner(
        llm, names, rates, fallback, pool, rng, most=most, reflections=reflections, alpha=alpha, memory=memory
    )


__getattr__ = renamed(__name__, {"HEURISTIC": "STORED_TOP_K"})
