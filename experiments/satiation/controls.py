"""Who is compared where people tire: from chance to a planner that may read the simulator.

All but ``random`` show no item twice in a session. The first five know what any agent may know: the log of training
users and what the user does. The last two read the simulator, and are named so: ``oracle, greedy`` knows what a rested
user would click and nothing of boredom; ``oracle, look-ahead`` knows boredom too and tries policies out in its head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.agents.baselines.controls import PopularSlates, RandomSlates, rested_scores
from rapport.agents.baselines.task import Act
from rapport.agents.planning.build import control_planner
from rapport.agents.planning.planner import Planner, SessionViews
from rapport.datasets.schema import FloatArray, SessionData
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationQuit

PLANNED = {"greedy": "greedy preference", "rotation": "rotation", "greedy rotation": "greedy rotation"}
"""Row -> planner; the most popular items of the planned categories are served."""
METHODS = ("random", "popularity", *PLANNED, "oracle, greedy", "oracle, look-ahead")
PRICES = (0.0, 0.25, 0.5, 1.0, 2.0)
"""What the look-ahead policies pay, in clicks, for one unit of budget."""
HORIZON = 3
"""Slates they are tried out for."""


def control(name: str, core: SessionCore, rng: np.random.Generator) -> Act:
    """One of :data:`METHODS` for the sessions of an engine.

    Raises:
        ValueError: there is no such method.
    """
    data, size = core.data, core.slate_size
    if name == "random":
        return RandomSlates(data.catalog.n_items, size, rng)
    if name == "popularity":
        return PopularSlates(data, size)
    if name in PLANNED:
        return PlannedSlates(core, control_planner(PLANNED[name], data, rng))
    if name == "oracle, greedy":
        return OracleGreedy(core)
    if name == "oracle, look-ahead":
        return LookAhead(core)
    raise ValueError(f"method={name!r} is unknown; choose one of {', '.join(METHODS)}")


class Fresh:
    """Which items each running session has not shown yet.

    Args:
        core: the engine.
    """

    def __init__(self, core: SessionCore) -> None:
        self.core = core
        self._shown = np.zeros((core.n_envs, core.data.catalog.n_items), bool)

    def shown(self) -> NDArray[np.bool_]:
        """Shape (B, N); a session that has just begun has shown nothing."""
        self._shown[self.core.steps == 0] = False
        return self._shown

    def serve(self, scores: FloatArray) -> NDArray[np.int64]:
        """The best items by scores (B, N), -inf where they must not be shown; remembered. Shape (B, K)."""
        size = self.core.slate_size
        return self.note(np.argpartition(-scores, size - 1, axis=1)[:, :size].astype(np.int64))

    def note(self, slates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Remember slates of shape (B, K) as shown; the same slates."""
        np.put_along_axis(self._shown, slates, True, axis=1)
        return slates


class PlannedSlates:
    """The most popular items, not shown yet, of the categories that a planner chooses.

    Args:
        core: the engine; only its catalogue, and what an agent sees, are read.
        planner: chooses categories.
    """

    def __init__(self, core: SessionCore, planner: Planner) -> None:
        self.core, self.planner, self.fresh = core, planner, Fresh(core)
        self._order = PopularSlates(core.data, core.slate_size).order

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        core, size = self.core, self.core.slate_size
        plan = self.planner.plan(views(core.data, observations, core))
        unseen = ~self.fresh.shown()[:, self._order]
        allowed = plan[:, core.data.catalog.category[self._order]] & unseen
        short = allowed.sum(axis=1) < size
        allowed[short] = unseen[short]
        best = allowed & (np.cumsum(allowed, axis=1, dtype=np.int32) <= size)
        slates = self._order[np.nonzero(best)[1]].reshape(-1, size)
        return self.fresh.note(slates)


class OracleGreedy:
    """The items that a rested user would click most, read off the simulator.

    Args:
        core: the engine that is played on.
    """

    def __init__(self, core: SessionCore) -> None:
        self.core, self.fresh = core, Fresh(core)

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        scores, _ = rested_scores(self.core)
        return self.fresh.serve(np.where(self.fresh.shown(), -np.inf, scores))


class LookAhead:
    """Tries policies out on a copy of the user's boredom and follows the best one for a slate.

    A policy shows the items with the highest ``chance of a click - price * budget that their repetition costs``. Each
    is rolled forward :data:`HORIZON` slates with the user's tastes as they are now; the one with the most clicks per
    unit of budget wins. It reads tastes, boredom and tolerance off the simulator: more than any agent may know, though
    no proven optimum. Under a rule that counts no boredom it is told that the last slate's categories cost 1 more.

    Args:
        core: the engine that is played on.
        repeats: whether an item may be shown again in a session.
    """

    def __init__(self, core: SessionCore, repeats: bool = False) -> None:
        self.core, self.fresh, self.repeats = core, Fresh(core), repeats
        category = core.data.catalog.category
        self._members = [np.flatnonzero(category == c) for c in range(core.data.catalog.n_categories)]

    def __call__(self, observations: dict[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K)."""
        scores, parts = rested_scores(self.core)
        if not self.repeats:
            scores[self.fresh.shown()] = -np.inf
        items, categories, chosen = self._candidates(scores)
        rate = np.stack([self._try(chosen, categories, parts, price) for price in PRICES])
        price = np.array(PRICES, np.float32)[np.argmax(rate, axis=0)]
        value = self._value(chosen, categories, parts, price[:, None])[0]
        final = np.full_like(scores, -np.inf)
        np.put_along_axis(final, items, value, axis=1)
        return self.fresh.serve(final)

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
        self, scores: FloatArray, categories: NDArray[np.int64], parts: FloatArray, price: float
    ) -> NDArray[np.float64]:
        """Clicks per unit of budget over the horizon, shape (B,)."""
        scores, clicks, spent = scores.copy(), np.zeros(len(scores)), np.zeros(len(scores))
        size = self.core.slate_size
        for _ in range(HORIZON):
            value, chance, cost = self._value(scores, categories, parts, np.float32(price))
            best = np.argpartition(-value, size - 1, axis=1)[:, :size]
            clicks += np.take_along_axis(chance, best, axis=1).mean(axis=1)
            spent += 1.0 + np.take_along_axis(cost, best, axis=1).mean(axis=1)
            if not self.repeats:
                np.put_along_axis(scores, best, -np.inf, axis=1)
            parts = self._after(parts, np.take_along_axis(categories, best, axis=1))
        return clicks / spent

    def _value(
        self, scores: FloatArray, categories: NDArray[np.int64], parts: FloatArray, price: FloatArray | np.float32
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, chance of a click and extra cost of each candidate, shapes (B, M)."""
        core = self.core
        met = np.take_along_axis(parts, categories, axis=1)
        loss, extra = np.float32(0.0), met
        if isinstance(core.response, SatiatedResponse):
            boredom = core.response.satiation
            trait = boredom.trait[core.user][:, None]
            category_loss, overall_loss = boredom.parameters.category[0], boredom.parameters.overall[0]
            loss = trait * (category_loss * met + overall_loss * parts.sum(axis=1)[:, None])
            if isinstance(core.quit_rule, SatiationQuit):
                extra = trait * met / np.float32(core.quit_rule.tolerance)
        chance = 1.0 / (1.0 + np.exp(-(scores - loss)))
        value = np.where(np.isfinite(scores), chance - price * extra, -np.inf).astype(np.float32)
        return value, chance, extra

    def _after(self, parts: FloatArray, categories: NDArray[np.int64]) -> FloatArray:
        if isinstance(self.core.response, SatiatedResponse):
            return self.core.response.satiation.after(parts, categories.astype(np.int32))
        return _marks(categories, parts.shape[1])


def views(data: SessionData, observations: dict[str, Any], core: SessionCore) -> SessionViews:
    """What a planner may see of the sessions."""
    items = observations["history_items"].astype(np.int64) - 1
    feedback = observations["history_feedback"].reshape(*items.shape, -1)
    # Some early exposures are known by their long views alone: the stricter sign then stands in for the click.
    stand_in = data.log.behaviours.index("long_view") if "long_view" in data.log.behaviours else 0
    return SessionViews(
        user=core.user,
        step=observations["step"][:, 0].astype(np.int64),
        categories=np.where(items >= 0, data.catalog.category[items], -1).astype(np.int64),
        clicks=np.where(feedback[:, :, 0] >= 0, feedback[:, :, 0], feedback[:, :, stand_in]),
        slate_size=core.slate_size,
    )


def _marks(categories: NDArray[np.int64], n_categories: int) -> FloatArray:
    """1 for the categories named in each row, shape (B, C); -1 names none."""
    marks = np.zeros((len(categories), n_categories + 1), np.float32)
    np.put_along_axis(marks, categories, 1.0, axis=1)
    return marks[:, :-1]
