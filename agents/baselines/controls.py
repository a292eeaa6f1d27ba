"""Controls: random, popular and planned slates, each a function from observations to slates of shape (B, K)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.agents.planning.planner import Planner, session_views
from rapport.agents.planning.preference import mark_categories
from rapport.datasets.schema import FloatArray, SessionData
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.satiation.model import SatiatedResponse

PRIOR = 20.0
"""Exposures that the overall click rate is worth against an item's own."""


class RandomSlates:
    """Any items, uniformly at random.

    Args:
        n_items: N.
        slate_size: K.
        rng: source of all randomness.
    """

    def __init__(self, n_items: int, slate_size: int, rng: np.random.Generator) -> None:
        self.n_items, self.slate_size, self.rng = n_items, slate_size, rng

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        return self.rng.integers(self.n_items, size=(len(observations["step"]), self.slate_size))


class PopularSlates:
    """The items with the highest click rates, the next K at every step, so that no item is shown twice in a session.

    Click rates are of training users' training days, smoothed by :data:`PRIOR` exposures at the overall rate.
    """

    def __init__(self, data: SessionData, slate_size: int) -> None:
        shown, clicked = exposures(data)
        self.order = np.argsort(-smoothed(shown, clicked), kind="stable")
        self.slate_size = slate_size

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        place = observations["step"].astype(np.int64) * self.slate_size + np.arange(self.slate_size)
        slates: NDArray[np.int64] = self.order[place % len(self.order)]
        return slates


def exposures(data: SessionData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each item was shown to training users on training days, and clicked by them, shapes (N,)."""
    log = data.log
    click = log.feedback[:, 0]
    rows = (click >= 0) & (log.time_ms < data.valid_from_ms) & ~data.held_out[log.user]
    shown = np.bincount(log.item[rows], minlength=data.catalog.n_items).astype(np.float64)
    clicked = np.bincount(log.item[rows], click[rows], minlength=data.catalog.n_items).astype(np.float64)
    return shown, clicked


def smoothed(shown: NDArray[np.float64], clicked: NDArray[np.float64], prior: float = PRIOR) -> NDArray[np.float64]:
    """Click rates, shape (N,), to which the overall rate counts for ``prior`` exposures."""
    rates: NDArray[np.float64] = (clicked + prior * clicked.sum() / max(shown.sum(), 1)) / (shown + prior)
    return rates


class UnshownItems:
    """Which items each running session has shown, so that none is shown twice.

    Args:
        core: the engine that is played on; what it says of its sessions' steps is read.
    """

    def __init__(self, core: SessionCore) -> None:
        self.core = core
        self._shown = np.zeros((core.n_envs, core.data.catalog.n_items), bool)

    def shown(self) -> NDArray[np.bool_]:
        """Items that each session has shown, shape (B, N); none where it has just begun."""
        self._shown[self.core.steps == 0] = False
        return self._shown

    def serve(self, scores: FloatArray) -> NDArray[np.int64]:
        """The best items by scores (B, N), -inf where they must not be shown; marked as shown. Shape (B, K)."""
        size = self.core.slate_size
        return self.mark(np.argpartition(-scores, size - 1, axis=1)[:, :size].astype(np.int64))

    def mark(self, slates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Mark slates of shape (B, K) as shown; returns them."""
        np.put_along_axis(self._shown, slates, True, axis=1)
        return slates


class PlannedSlates:
    """The most popular items, not shown yet, of the categories that a planner chooses.

    Where these are too few for a slate, the most popular items of all categories are served.

    Args:
        core: the engine that is played on; only its catalogue and what an agent sees are read.
        planner: chooses categories.
    """

    def __init__(self, core: SessionCore, planner: Planner) -> None:
        self.core, self.planner, self.unshown = core, planner, UnshownItems(core)
        self._order = PopularSlates(core.data, core.slate_size).order

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        core, size = self.core, self.core.slate_size
        plan = self.planner.plan(session_views(observations, core.user, core.data, size))
        unseen = ~self.unshown.shown()[:, self._order]
        allowed = core.data.catalog.allowed(plan)[:, self._order] & unseen
        short = allowed.sum(axis=1) < size
        allowed[short] = unseen[short]
        best = allowed & (np.cumsum(allowed, axis=1, dtype=np.int32) <= size)
        slates = self._order[np.nonzero(best)[1]].reshape(-1, size)
        return self.unshown.mark(slates)


def rested_scores(core: SessionCore) -> tuple[FloatArray, FloatArray]:
    """Click log-odds of every item if the users were rested, (B, N), and the parts of their recent past, (B, C).

    Where people do not tire the parts are 1 for the last slate's categories and 0 for the others. What the official
    profile takes off for likeness and for its prior is left out: neither changes much about who likes what best.

    Raises:
        TypeError: the response model, or one inside it, has no ``click_scores``.
    """
    response = core.response
    try:
        scores = np.array(response.click_scores(core.state, core.user), np.float32)
    except AttributeError as error:
        if error.name != "click_scores":
            raise
        raise TypeError(
            f"core.response: {type(error.obj).__name__} has no click_scores(state, users), which an oracle reads; add "
            "the method: log-odds of the first behaviour for every item, shape (B, N)"
        ) from error
    return scores, response.split(core.state)[1] if isinstance(response, SatiatedResponse) else _marks(core)


def _marks(core: SessionCore) -> FloatArray:
    """1 for the categories of the last slate, shape (B, C)."""
    return mark_categories(core.previous, core.data.catalog.n_categories).astype(np.float32)
