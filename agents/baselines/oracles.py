"""Oracles: policies that read the simulator. They are upper marks, not opponents, and none is proven optimal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.agents.baselines.controls import UnshownItems, rested_scores
from rapport.agents.planning.preference import mark_categories
from rapport.datasets.schema import FloatArray
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationQuit

PRICES = (0.0, 0.25, 0.5, 1.0, 2.0)
"""What the policies that :class:`LookAhead` tries pay, in clicks, for one unit of budget."""
HORIZON = 3
"""Slates that each of them is rolled forward."""


class OracleSlates:
    """Serves the items that each user is most likely to click, in categories that the last slate did not show.

    It is greedy for the next slate and repeats no category: near the best that can be had under LERL's quit rule.

    Args:
        core: the engine that is played on; its response model and hidden state are read.
    """

    def __init__(self, core: SessionCore) -> None:
        self.core = core

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        core, catalog = self.core, self.core.data.catalog
        scores, _ = rested_scores(core)
        repeated = catalog.allowed(mark_categories(core.previous, catalog.n_categories))
        repeated[(~repeated).sum(axis=1) < core.slate_size] = False
        scores[repeated] = -np.inf
        best = np.argpartition(-scores, core.slate_size - 1, axis=1)[:, : core.slate_size]
        return best.astype(np.int64)


class OracleGreedy:
    """Serves the items, not shown yet, that a user without satiation would click most.

    Args:
        core: the engine that is played on.
    """

    def __init__(self, core: SessionCore) -> None:
        self.core, self.unshown = core, UnshownItems(core)

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        scores, _ = rested_scores(self.core)
        return self.unshown.serve(np.where(self.unshown.shown(), -np.inf, scores))


class LookAhead:
    """Tries policies out on a copy of the user's satiation and follows the best one for a slate.

    A policy shows the items with the highest ``probability of a click - price * budget that their repetition costs``.
    Each is rolled forward :data:`HORIZON` slates with the user's preferences as they are now; the one with the most
    clicks per unit of budget wins. It reads preferences, satiation and tolerance off the simulator. Under a quit rule
    that knows no satiation, the categories of the last slate cost 1 more.

    Args:
        core: the engine that is played on.
        repeats: whether an item may be shown again in a session.
    """

    def __init__(self, core: SessionCore, repeats: bool = False) -> None:
        self.core, self.unshown, self.repeats = core, UnshownItems(core), repeats
        category = core.data.catalog.category
        self._members = [np.flatnonzero(category == c) for c in range(core.data.catalog.n_categories)]

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        scores, load = rested_scores(self.core)
        if not self.repeats:
            scores[self.unshown.shown()] = -np.inf
        items, categories, chosen = self._candidates(scores)
        rate = np.stack([self._try(chosen, categories, load, price) for price in PRICES])
        price = np.array(PRICES, np.float32)[np.argmax(rate, axis=0)]
        value = self._value(chosen, categories, load, price[:, None])[0]
        final = np.full_like(scores, -np.inf)
        np.put_along_axis(final, items, value, axis=1)
        return self.unshown.serve(final)

    def _candidates(self, scores: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """The best items of each category: items, categories and scores, each of shape (B, M)."""
        most = self.core.slate_size * 2
        items, categories = [], []
        for c, members in enumerate(self._members):
            n = min(most, len(members))
            best = np.argpartition(-scores[:, members], n - 1, axis=1)[:, :n]
            items.append(members[best])
            categories.append(np.full(best.shape, c))
        found = np.concatenate(items, axis=1)
        return found, np.concatenate(categories, axis=1), np.take_along_axis(scores, found, axis=1)

    def _try(
        self, scores: FloatArray, categories: NDArray[np.int64], load: FloatArray, price: float
    ) -> NDArray[np.float64]:
        """Clicks per unit of budget over the horizon, shape (B,)."""
        scores, clicks, spent = scores.copy(), np.zeros(len(scores)), np.zeros(len(scores))
        size = self.core.slate_size
        for _ in range(HORIZON):
            value, chance, cost = self._value(scores, categories, load, np.float32(price))
            best = np.argpartition(-value, size - 1, axis=1)[:, :size]
            clicks += np.take_along_axis(chance, best, axis=1).mean(axis=1)
            spent += 1.0 + np.take_along_axis(cost, best, axis=1).mean(axis=1)
            if not self.repeats:
                np.put_along_axis(scores, best, -np.inf, axis=1)
            load = self._after(load, np.take_along_axis(categories, best, axis=1))
        return clicks / spent

    def _value(
        self, scores: FloatArray, categories: NDArray[np.int64], load: FloatArray, price: FloatArray | np.float32
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, probability of a click and extra cost of each candidate, shapes (B, M)."""
        core = self.core
        met = np.take_along_axis(load, categories, axis=1)
        loss, extra = np.float32(0.0), met
        if isinstance(core.response, SatiatedResponse):
            satiation = core.response.satiation
            trait = satiation.trait[core.user][:, None]
            category_loss, overall_loss = satiation.parameters.category[0], satiation.parameters.overall[0]
            loss = trait * (category_loss * met + overall_loss * load.sum(axis=1)[:, None])
            if isinstance(core.quit_rule, SatiationQuit):
                extra = trait * met / np.float32(core.quit_rule.tolerance)
        chance = 1.0 / (1.0 + np.exp(-(scores - loss)))
        value = np.where(np.isfinite(scores), chance - price * extra, -np.inf).astype(np.float32)
        return value, chance, extra

    def _after(self, load: FloatArray, categories: NDArray[np.int64]) -> FloatArray:
        """The load (B, C) after slates of these categories (B, K)."""
        if isinstance(self.core.response, SatiatedResponse):
            return self.core.response.satiation.after(load, categories.astype(np.int32))
        return mark_categories(categories, load.shape[1]).astype(np.float32)
