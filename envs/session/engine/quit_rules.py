"""Quit rules: when users leave, by how much of a session's budget one slate costs.

A session starts with a budget (LERL and KuaiSim call it temper; 20 in both). Each slate costs some of it, and the user
leaves once less than 1 is left. A rule may keep a memory of a session. It is one row of an array that the engine holds,
so that any number of sessions are stepped, copied and reset by array operations.
"""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int8Array, Int32Array, IntArray

Costs = NDArray[np.float64]
EarlyWindow = Literal["exact", "easyrl4rec"]


class Slate(NamedTuple):
    """What a rule sees of one slate shown to B users.

    Attributes:
        users: shape (B,).
        items: shape (B, K).
        categories: shape (B, K), int32.
        feedback: shape (B, K, F), int8 in {0, 1}.
        reward: shape (B,), float64.
        budget: shape (B,), float64, before the cost of this slate.
        tick: slates the engine has shown before this one, the same for all B.
    """

    users: IntArray
    items: Int32Array
    categories: Int32Array
    feedback: Int8Array
    reward: NDArray[np.float64]
    budget: NDArray[np.float64]
    tick: int


class QuitRule(Protocol):
    """What a slate costs. ``docs/kuairand.md`` has one of one's own as an example.

    Attributes:
        name: shown in tables and rendered sessions.
    """

    name: str

    def initial_memory(self, users: IntArray) -> NDArray[Any]:
        """Memory of new sessions of these users, (B,): a new array of numbers, shape (B, ...), which is written to."""
        ...

    def cost(self, memory: NDArray[Any], slate: Slate) -> Costs:
        """Budget the slate costs each user, shape (B,), at least 0; an infinite cost makes the user leave at once.

        Args:
            memory: of these sessions; updated in place.
            slate: what was shown and how users responded.
        """
        ...


def initial_memory_of(rule: QuitRule) -> Callable[[IntArray], NDArray[Any]]:
    """The rule's method ``initial_memory``, or ``blank``, its name before version 0.2."""
    if not hasattr(rule, "initial_memory") and hasattr(rule, "blank"):
        warnings.warn(
            f"{type(rule).__name__}.blank is called initial_memory now; the old name goes with version 0.2",
            DeprecationWarning,
            stacklevel=2,
        )
        old: Callable[[IntArray], NDArray[Any]] = rule.blank
        return old
    return rule.initial_memory


class Positional:
    """LERL's released rule: 1 per slate, and 1 more if any *position* repeats its category.

    However many positions match, it is 1 more at most, so with a budget of 20 a session lasts 11 to 20 slates.
    Reordering a slate avoids the cost (LERL's released code; the paper states only that same-category content costs
    budget).

    Args:
        slate_size: K.
        labels: shape (N, L), categories of each item, -1 where it has fewer than L, if items have several: positions
            then match where their items share any. None: an item's category is the slate's.
    """

    name = "positional"

    def __init__(self, slate_size: int, labels: Int32Array | None = None) -> None:
        self.slate_size, self.labels = slate_size, labels

    def initial_memory(self, users: IntArray) -> Int32Array:
        """Categories of the previous slate, shape (B, K), or (B, K * L) of several: -1, which matches no category."""
        n_labels = 1 if self.labels is None else self.labels.shape[1]
        return np.full((len(users), self.slate_size * n_labels), -1, np.int32)

    def cost(self, memory: Int32Array, slate: Slate) -> Costs:
        """1 or 2 for each user, shape (B,)."""
        if self.labels is not None:
            new = self.labels[slate.items]
            return _one_more(self._pairs(memory.reshape(new.shape), new), memory, new)
        if len(memory) == 1:  # lists of a few numbers are faster than arrays
            before, new = memory[0].tolist(), slate.categories[0].tolist()
            memory[0] = new
            return np.array([2.0 if any(map(operator.eq, before, new)) else 1.0])
        repeats = _count(slate.categories == memory) > 0
        memory[...] = slate.categories
        return np.add(repeats, 1.0, dtype=np.float64)

    def _pairs(self, before: Int32Array, new: Int32Array) -> NDArray[np.bool_]:
        """Which pairs of labels (B, K, L) that the rule compares are of one category, shape (B, ...)."""
        return np.asarray((before[..., :, None] == new[..., None, :]) & (new >= 0)[..., None, :])


class SetOverlap(Positional):
    """1 per slate, and 1 more if the slate shares any category with the previous one, at whatever position."""

    name = "set_overlap"

    def cost(self, memory: Int32Array, slate: Slate) -> Costs:
        """1 or 2 for each user, shape (B,)."""
        if self.labels is not None:
            new = self.labels[slate.items].reshape(len(memory), -1)
            return _one_more(self._pairs(memory, new), memory, new)
        pairs = slate.categories[:, :, None] == memory[:, None, :]
        repeats = _count(pairs.reshape(len(memory), -1)) > 0
        memory[...] = slate.categories
        return np.add(repeats, 1.0, dtype=np.float64)


class WindowedCount:
    """EasyRL4Rec's and DORL's rule: leave at once when a label of the new item is too frequent among the last items.

    The user leaves if any label of the item shown occurs more than ``threshold`` times among the labels of the last
    ``window`` items of the session (EasyRL4Rec ``KuaiEnv``, ``KuaiRandEnv``; DORL, SIGIR 2023, section 5). Otherwise an
    item costs nothing. The items of a slate are taken one after another, each compared with those shown before it.

    Args:
        labels: shape (N, L), labels of each item, -1 where it has fewer than L.
        window: items looked back on (``num_leave_compute`` in EasyRL4Rec).
        threshold: occurrences that are tolerated (``leave_threshold`` in EasyRL4Rec).
        early: what the window holds before ``window`` items were shown: ``"exact"``, all of them; ``"easyrl4rec"``, the
            last ``min(t, window - t)`` of t, as the released code's slice with a negative start has it.

    Raises:
        ValueError: an argument is out of range.
    """

    name = "windowed_count"

    def __init__(self, labels: Int32Array, window: int, threshold: int, early: EarlyWindow = "exact") -> None:
        for name, value, least in (("window", window, 1), ("threshold", threshold, 0)):
            if value < least:
                raise ValueError(f"{name}={value}; it must be at least {least}")
        if early not in get_args(EarlyWindow):
            raise ValueError(f"early={early!r} is unknown; choose one of {', '.join(get_args(EarlyWindow))}")
        self.labels, self.window, self.threshold, self.early = labels, window, threshold, early
        self._kept = [np.ascontiguousarray(column) for column in labels.T]
        # -3 equals neither a missing label (-1) nor an empty place of the ring (-2).
        self._columns = [np.where(column >= 0, column, -3).astype(np.int32) for column in labels.T]

    def initial_memory(self, users: IntArray) -> Int32Array:
        """Labels of the last items, shape (B, window * L), a ring buffer that turns with the engine: -2, empty."""
        # In column-major order: columns are written and summed over.
        return np.full((len(users), self.window * self.labels.shape[1]), -2, np.int32, order="F")

    def cost(self, memory: Int32Array, slate: Slate) -> Costs:
        """0, or infinite for those who leave, shape (B,)."""
        n_places, n_labels = slate.items.shape[1], self.labels.shape[1]
        if len(memory) == 1 and self.early == "exact":
            return self._cost_of_one(memory[0], slate.items[0].tolist(), slate.tick * n_places)
        leaves = np.zeros(len(memory), bool)
        for place in range(n_places):
            newest = (slate.tick * n_places + place) % self.window
            outside = self._outside(memory, newest)
            for new in self._columns:
                label = new.take(slate.items[:, place])
                met = memory == label[:, None]
                if outside is not None:
                    met[outside] = False
                leaves |= _more_than(self.threshold, met)
            for i, kept in enumerate(self._kept):
                memory[:, newest * n_labels + i] = kept.take(slate.items[:, place])
        return _AT_ONCE.take(leaves)

    def _cost_of_one(self, memory: Int32Array, items: list[int], shown: int) -> Costs:
        """The same for one session, where Python's lists are many times faster than arrays."""
        n_labels, leaves = self.labels.shape[1], False
        for place, item in enumerate(items):
            met, new = memory.tolist(), self.labels[item].tolist()
            leaves |= any(met.count(label) > self.threshold for label in new if label >= 0)
            column = (shown + place) % self.window * n_labels
            memory[column : column + n_labels] = new
        return np.array([np.inf if leaves else 0.0])

    def _outside(self, memory: Int32Array, newest: int) -> NDArray[np.bool_] | None:
        """Places of the ring outside the window, shape (B, window * L); None where there are none."""
        if self.early == "exact":
            return None
        n_labels = self.labels.shape[1]
        shown = (memory[:, ::n_labels] != -2).sum(axis=1)
        kept = np.where(shown < self.window, np.minimum(shown, self.window - shown), self.window)
        age = (newest - 1 - np.arange(self.window)) % self.window
        return np.repeat(age, n_labels) >= kept[:, None]


class Satisfaction:
    """KuaiSim's rule: 2 per slate, less the user's satisfaction with it, at least 0 and at most 2.

    Satisfaction is the mean over the slate's items of the behaviours' weighted sum (``get_leave_signal`` of KuaiSim's
    whole-session environment). With the click alone weighted, a session with budget 20 lasts 10 to 20 slates.

    Args:
        weights: shape (F,), of the behaviours.
    """

    name = "satisfaction"

    def __init__(self, weights: NDArray[np.floating]) -> None:
        self.weights = np.asarray(weights, np.float64)

    def initial_memory(self, users: IntArray) -> NDArray[np.float64]:
        """No memory: shape (B, 0)."""
        return np.zeros((len(users), 0))

    def cost(self, memory: NDArray[np.float64], slate: Slate) -> Costs:
        """Between 0 and 2 for each user, shape (B,)."""
        satisfaction = (slate.feedback @ self.weights).mean(axis=1)
        costs: Costs = np.clip(2.0 - satisfaction, 0.0, 2.0)
        return costs


class Never:
    """Slates cost nothing: sessions end at the time limit alone."""

    name = "never"

    def initial_memory(self, users: IntArray) -> NDArray[np.float64]:
        """No memory: shape (B, 0)."""
        return np.zeros((len(users), 0))

    def cost(self, memory: NDArray[np.float64], slate: Slate) -> Costs:
        """Zeros, shape (B,)."""
        return np.zeros(len(memory))


_AT_ONCE = np.array([0.0, np.inf])

QUIT_RULES = ("positional", "set_overlap", "windowed_count", "satisfaction", "never")
"""Names of the rules that an environment can make from its data alone."""


def _one_more(pairs: NDArray[np.bool_], memory: Int32Array, new: Int32Array) -> Costs:
    """1, and 1 more where any pair (B, ...) is true; the memory is then of the new slate."""
    repeats = pairs.reshape(len(memory), -1).any(axis=1)
    memory[...] = new.reshape(memory.shape)
    return np.add(repeats, 1.0, dtype=np.float64)


def _more_than(threshold: int, marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows have more than ``threshold`` true entries, shape (B,), of marks in column-major order."""
    if threshold == 0:
        return np.asarray(np.logical_or.reduce(marks, axis=1))
    narrow = np.int8 if marks.shape[1] < 128 else np.int64
    return np.asarray(np.add.reduce(marks.view(np.int8), axis=1, dtype=narrow) > threshold)


def _count(marks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """True entries of each row, shape (B,); a matrix product is many times faster here than a sum of rows."""
    counts: NDArray[np.float32] = marks.astype(np.float32) @ _ones(marks.shape[1])
    return counts


@functools.lru_cache(maxsize=64)
def _ones(n: int) -> NDArray[np.float32]:
    return np.ones(n, np.float32)
