"""Random, popularity and oracle: each a function from observations to slates of shape (B, K)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import FloatArray, SessionData
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.satiation.model import SatiatedResponse

PRIOR = 20.0
"""Exposures that the overall click rate is worth against an item's own."""


class RandomSlates:
    """Any items, uniformly.

    Args:
        n_items: N.
        slate_size: K.
        rng: source of luck.
    """

    def __init__(self, n_items: int, slate_size: int, rng: np.random.Generator) -> None:
        self.n_items, self.slate_size, self.rng = n_items, slate_size, rng

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        return self.rng.integers(self.n_items, size=(len(observations["step"]), self.slate_size))


class PopularSlates:
    """The items most often clicked where shown, next ones at every step: nothing twice in a session.

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


class OracleSlates:
    """The items this user is most likely to click, read off the simulator, in categories the last slate did not show.

    Greedy for the next slate and never bored: near the best that can be had, not proven to be it.

    Args:
        core: the engine that is played on; its response model and hidden state are read.
    """

    def __init__(self, core: SessionCore) -> None:
        self.core = core

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        core, catalog = self.core, self.core.data.catalog
        scores, _ = rested_scores(core)
        seen = np.zeros((core.n_envs, catalog.n_categories + 1), bool)
        np.put_along_axis(seen, core.previous.astype(np.int64), True, axis=1)
        stale = seen[:, catalog.category]
        stale[(~stale).sum(axis=1) < core.slate_size] = False
        scores[stale] = -np.inf
        best = np.argpartition(-scores, core.slate_size - 1, axis=1)[:, : core.slate_size]
        return best.astype(np.int64)


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
    marks = np.zeros((core.n_envs, core.data.catalog.n_categories + 1), np.float32)
    np.put_along_axis(marks, core.previous.astype(np.int64), 1.0, axis=1)
    return marks[:, :-1]
