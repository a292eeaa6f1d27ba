"""Sessions as the documents describe them, computed a second time beside the environment.

Users' responses are taken from the environment; everything that follows from them is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.random import Generator
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Info = dict[str, Any]
VALUES = ("user", "budget")
SHOWN = ("cost", "categories", "feedback")
"""Keys of an info: always, and after a slate."""


class Wrong(AssertionError):
    """The environment did something else than is documented."""


def same(one: Any, other: Any, where: str) -> None:
    """Compare two results, down to types.

    Raises:
        Wrong: they differ.
    """
    if isinstance(one, dict):
        equal = isinstance(other, dict) and list(one) == list(other)
        for key in one if equal else ():
            same(one[key], other[key], f"{where}, {key}")
    elif isinstance(one, tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
        equal = len(one) == len(other)
        for a, b in zip(one, other, strict=False):
            same(a, b, where)
    elif isinstance(one, np.ndarray):
        equal = one.dtype == other.dtype and np.array_equal(one, other)
    else:
        equal = type(one) is type(other) and one == other
    if not equal:
        raise Wrong(f"same seed, {where}: {one!r:.80} and {other!r:.80}")


class Mirror:
    """What B sessions must look like.

    Args:
        env: the environment, for its data and its rule's parameters alone.
        batch: B.
    """

    def __init__(self, env: Any, batch: int) -> None:
        core, self.lost = env.core, getattr(env, "lost_endings", False)
        self.data, self.rule, self.batch = core.data, core.quit_rule, batch
        self.n_items, self.n_users = core.data.catalog.n_items, core.data.population.n_users
        self.places, self.max_steps, self.start_budget = core.slate_size, core.max_steps, core.start_budget
        self.repeats = core.seen is None
        self.single_item = isinstance(getattr(env, "single_action_space", env.action_space), spaces.Discrete)
        self.reward = core.reward
        self.budget, self.steps, self.user = np.zeros(batch), np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.shown: list[list[int]] = [[] for _ in range(batch)]
        self.items: Any = None
        self.feedback: Any = None

    def actions(self, rng: Generator) -> NDArray[Any]:
        """Slates (B, K) or items (B,), now and then with many repetitions, of any integer type."""
        few = rng.choice(self.n_items, min(self.n_items, int(rng.integers(1, 9))), replace=False)
        drawn = (
            rng.choice(few, (self.batch, self.places))
            if rng.random() < 0.3
            else rng.integers(self.n_items, size=(self.batch, self.places))
        )
        drawn = drawn.astype(rng.choice([np.int64, np.int32, np.uint16]))
        return drawn[:, 0] if self.single_item else drawn

    def begin(self, rows: IntArray, observation: Info, info: Info) -> None:
        """New sessions in ``rows``, as the environment says they begin."""
        if self.items is None:
            self.items, self.feedback = observation["history_items"].copy(), observation["history_feedback"].copy()
        if set(VALUES) - set(info):
            raise Wrong(f"info: no {', '.join(set(VALUES) - set(info))}")
        self.user[rows], self.steps[rows], self.budget[rows] = info["user"][rows], 0, self.start_budget
        self.items[rows], self.feedback[rows] = (
            observation["history_items"][rows],
            observation["history_feedback"][rows],
        )
        for row in rows:
            self.shown[row] = []
        self._expect("budget at the start", info["budget"][rows], self.budget[rows])
        self._expect_observation(rows, {key: value[rows] for key, value in observation.items()})

    def check_next_step(
        self,
        actions: NDArray[Any],
        ended: NDArray[np.bool_],
        observation: Info,
        reward: Any,
        left: Any,
        cut: Any,
        info: Info,
    ) -> None:
        """A step after which an ended session begins anew; ``ended`` are those that do so now."""
        old, new = np.flatnonzero(~ended), np.flatnonzero(ended)
        if len(new):
            self._expect("reward while beginning", reward[new], np.zeros(len(new)))
            self._expect("end while beginning", (left | cut)[new], np.zeros(len(new), bool))
            self._expect("_feedback while beginning", info["_feedback"][new], np.zeros(len(new), bool))
            self.begin(new, observation, info)
        self._show(old, actions, reward, left, cut, info)
        self._expect("budget", info["budget"][old], self.budget[old])
        self._expect("user", info["user"][old], self.user[old])
        self._expect_observation(old, {key: value[old] for key, value in observation.items()})

    def check_same_step(
        self, actions: NDArray[Any], observation: Info, reward: Any, left: Any, cut: Any, info: Info
    ) -> None:
        """A step within which an ended session begins anew."""
        everybody = np.arange(self.batch)
        self._show(everybody, actions, reward, left, cut, info)
        ended = left | cut
        old, new = np.flatnonzero(~ended), np.flatnonzero(ended)
        self._expect("budget", info["budget"][old], self.budget[old])
        self._expect_observation(old, {key: value[old] for key, value in observation.items()})
        if not len(new):
            if "final_obs" in info:
                raise Wrong("info: final_obs, and no session has ended")
            return
        self._expect("_final_obs", info["_final_obs"], ended)
        self._expect("budget at the end", info["final_info"]["budget"][new], self.budget[new])
        if any((info["final_obs"][row] is None) == ended[row] for row in everybody):
            raise Wrong("final_obs: not where a session has ended")
        last = {key: np.stack([info["final_obs"][row][key] for row in new]) for key in observation}
        if not self.lost:
            self._expect_observation(new, last)
        self.begin(new, observation, info)
        if self.lost:
            self._expect_observation(new, last)

    def _show(self, rows: IntArray, actions: NDArray[Any], reward: Any, left: Any, cut: Any, info: Info) -> None:
        """The slate of these rows: responses, reward, cost, what is left of the budget, and who leaves."""
        if not len(rows):
            return
        if missing := {*VALUES, *SHOWN} - set(info):
            raise Wrong(f"info: no {', '.join(missing)}")
        slates = actions.reshape(self.batch, self.places).astype(np.int64)[rows]
        categories, feedback, cost = (info[key][rows] for key in ("categories", "feedback", "cost"))
        self._expect("categories", categories, self.data.catalog.category[slates])
        if feedback.shape[1:] != (self.places, len(self.data.log.behaviours)) or not np.isin(feedback, (0, 1)).all():
            raise Wrong("feedback: not 0 and 1 for each behaviour")
        if not np.isfinite(reward).all():
            raise Wrong("reward: not finite")
        expected = self._reward(rows, slates, feedback)
        if not np.allclose(reward[rows], expected, rtol=1e-12, atol=1e-12):
            raise Wrong(f"reward: {reward[rows]} in place of {expected}")
        if not self.repeats:
            self._expect("responses to repeated items", feedback[self._repeated(rows, slates)].sum(), 0)
        self._check_cost(rows, slates, categories, feedback, cost)
        self.budget[rows] = np.maximum(self.budget[rows] - cost, 0.0)
        self.steps[rows] += 1
        leaves = self.budget[rows] < 1
        self._expect("terminated", left[rows], leaves)
        self._expect("truncated", cut[rows], (self.steps[rows] >= self.max_steps) & ~leaves)
        for row, slate in zip(rows, slates.tolist(), strict=True):
            self.shown[row] += slate
        width, n = self.items.shape[1], feedback.shape[2]
        self.items[rows] = np.concatenate([self.items[rows], slates + 1], axis=1)[:, -width:]
        told = feedback.reshape(len(rows), -1)
        self.feedback[rows] = np.concatenate([self.feedback[rows], told], axis=1)[:, -width * n :]

    def _reward(self, rows: IntArray, slates: IntArray, feedback: NDArray[np.int8]) -> NDArray[np.float64]:
        if self.reward is None:
            return feedback[:, :, 0].mean(axis=1, dtype=np.float64)
        return np.asarray(self.reward(self.user[rows], slates.astype(np.int32), feedback))

    def _repeated(self, rows: IntArray, slates: IntArray) -> NDArray[np.bool_]:
        marks = np.zeros(slates.shape, bool)
        for place, (row, slate) in enumerate(zip(rows, slates.tolist(), strict=True)):
            before = set(self.shown[row])
            for k, item in enumerate(slate):
                marks[place, k] = item in before or item in slate[:k]
        return marks

    def _check_cost(self, rows: IntArray, slates: IntArray, categories: Any, feedback: Any, cost: Any) -> None:
        """The cost of the slates by the rule's definition, session by session."""
        rule = self.rule.name
        if rule == "satiation":
            if not (np.isfinite(cost).all() and (cost >= 1).all()):
                raise Wrong(f"cost: {cost} of the rule satiation")
            return
        if rule == "never":
            expected: Any = np.zeros(len(rows))
        elif rule == "satisfaction":
            means = (feedback.astype(np.float64) * self.rule.weights).sum(axis=2).mean(axis=1)
            expected = np.clip(2.0 - means, 0.0, 2.0)
        elif rule == "windowed_count":
            leaves = [self._too_often(self.shown[row], slate) for row, slate in zip(rows, slates.tolist(), strict=True)]
            expected = np.where(leaves, np.inf, 0.0)
        else:
            expected = np.array(
                [1.0 + self._overlaps(row, new) for row, new in zip(rows, categories.tolist(), strict=True)]
            )
        if not np.allclose(cost, expected, rtol=1e-12, atol=1e-12):
            raise Wrong(f"cost: {cost} in place of {expected}, rule {rule}")

    def _overlaps(self, row: int, new: list[int]) -> bool:
        """Whether the slate before has one of the categories: at the same place, or anywhere."""
        before = self.data.catalog.category[self.shown[row][-self.places :]].tolist() if self.shown[row] else []
        if self.rule.name == "positional":
            return any(a == b for a, b in zip(before, new, strict=False))
        return bool(set(before) & set(new))

    def _too_often(self, shown: list[int], slate: list[int]) -> bool:
        """Whether a label of an item was met more than ``threshold`` times among the last ``window`` items."""
        shown, leaves, window = list(shown), False, self.rule.window
        for item in slate:
            kept = len(shown)
            if kept >= window:
                kept = window
            elif self.rule.early == "easyrl4rec":
                kept = min(kept, window - kept)
            met = self.rule.labels[shown[len(shown) - kept :]].ravel().tolist()
            leaves |= any(
                met.count(label) > self.rule.threshold for label in self.rule.labels[item].tolist() if label >= 0
            )
            shown.append(item)
        return leaves

    def _expect_observation(self, rows: IntArray, observation: Info) -> None:
        features = self.data.population.features.codes[self.user[rows]]
        expected = {
            "history_feedback": self.feedback[rows],
            "history_items": self.items[rows],
            "step": self.steps[rows, None],
            "user_features": features,
        }
        for key, value in expected.items():
            self._expect(key, observation[key], value)

    @staticmethod
    def _expect(what: str, found: Any, expected: Any) -> None:
        if not np.array_equal(found, expected):
            raise Wrong(f"{what}: {found!r:.120} in place of {expected!r:.120}")
