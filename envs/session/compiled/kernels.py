"""The loops of the lookup engine, compiled by numba where it is installed (the extra ``fast``).

Each function names the NumPy code of the engine that it replaces, and gives the same result to the last bit. Without
numba the functions are plain Python: slow, but right. Outputs are named ``out_...`` or said to be changed in place.

A loop is compiled at the first call with arrays of a kind and kept on disk, beside this file or, where that folder
cannot be written, in the user's cache folder. numba compares the date of the calling file alone: after an edit of this
file, touch :mod:`~rapport.envs.session.compiled.step`, too. Long rows are sliced first and looped over from 0, because
the compiler then knows that no index is negative and vectorises the loop.

B sessions, slates of K items, F behaviours, histories of H items.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray
from rapport.envs.session.engine import counter_rng

P = ParamSpec("P")
R = TypeVar("R")
Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Streams = NDArray[np.uint64]

POSITIONAL, SET_OVERLAP, WINDOWED_COUNT = range(3)
"""Quit rules by number."""

_EPISODE = counter_rng.EPISODE
_FACTOR_1, _FACTOR_2 = counter_rng.FACTORS
_SHIFT_1, _SHIFT_2, _SHIFT_3 = counter_rng.SHIFTS
_LOW, _UNIT = np.uint64(0xFFFFFFFF), 2.0**-32


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled at its first call and run without the GIL; unchanged without numba."""
    if importlib.util.find_spec("numba") is None:
        return function
    import numba

    try:
        made = numba.njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:  # numba finds no writable folder: compile in every process
        made = numba.njit(function, nogil=True, error_model="numpy")
    return cast(Callable[P, R], made)


# --- a slate ----------------------------------------------------------------------------------------------------------


@compiled
def narrow(actions: NDArray[np.integer], out_items: Int32Array) -> tuple[int, int]:
    """``actions.astype(np.int32)``, ``actions.min()`` and ``actions.max()`` of item indices, shape (n,)."""
    lowest = highest = actions[0]
    for i in range(len(actions)):
        lowest, highest = min(lowest, actions[i]), max(highest, actions[i])
        out_items[i] = actions[i]
    return lowest, highest


@compiled
def entries(
    first: IntArray, users: IntArray, slates: Int32Array, n_items: int, n_entries: int, out_entries: IntArray
) -> None:
    """``first.take(users)[:, None] + slates``: index of users and items in a flattened table (S, N); shape (B, K).

    Raises:
        IndexError: the table has no such entry.
    """
    n, n_places = slates.shape
    starts, last = np.empty(n, np.int64), 0
    for i in range(n):
        starts[i] = first[users[i]] if 0 <= users[i] < len(first) else n_entries
        last = max(last, starts[i])
    items, lowest, highest = slates.reshape(-1), np.int32(0), np.int32(0)
    for i in range(len(items)):
        lowest, highest = min(lowest, items[i]), max(highest, items[i])
    if lowest < 0 or highest >= n_items or last > n_entries - n_items:
        raise IndexError("there is no entry for a user and an item; serve users of the table, and its items")
    for i in range(n):
        for k in range(n_places):
            out_entries[i, k] = starts[i] + slates[i, k]


@compiled
def take(table: NDArray[np.generic], n: int, places: NDArray[np.integer], out: NDArray[np.generic]) -> None:
    """``table.reshape(-1, n).take(places, axis=0)`` of flattened arrays; no place may be negative."""
    if n == 1:
        for i in range(len(places)):
            out[i] = table[np.uint64(places[i])]
        return
    for i in range(len(places)):
        read, written = table[places[i] * n :], out[i * n :]
        for j in range(n):
            written[j] = read[j]


@compiled
def mean_of_first(feedback: Int8Array, out_reward: Doubles) -> None:
    """``SessionCore._mean_of_first``: integers are summed, so their order does not matter."""
    n_places = feedback.shape[1]
    for i in range(len(out_reward)):
        hits = 0
        for k in range(n_places):
            hits += feedback[i, k, 0]
        out_reward[i] = hits / n_places


@compiled
def mean(worth: FloatArray, out_reward: Doubles) -> None:
    """The rest of ``TableReward``, (B, K), where its sums are exact, so that their order does not matter."""
    n_places = worth.shape[1]
    for i in range(len(out_reward)):
        total = 0.0
        for k in range(n_places):
            total += worth[i, k]
        out_reward[i] = total / n_places


# --- what it costs ----------------------------------------------------------------------------------------------------


@compiled
def positional(before: Int32Array, categories: Int32Array, out_cost: Doubles) -> None:
    """``Positional.cost``; ``before``, shape (B, K), is changed in place."""
    for i in range(len(out_cost)):
        old, new, repeats = before[i], categories[i], False
        for k in range(len(new)):
            repeats |= old[k] == new[k]
            old[k] = new[k]
        out_cost[i] = 2.0 if repeats else 1.0


@compiled
def set_overlap(before: Int32Array, categories: Int32Array, out_cost: Doubles) -> None:
    """``SetOverlap.cost``; ``before``, shape (B, K), is changed in place."""
    for i in range(len(out_cost)):
        old, new, repeats = before[i], categories[i], False
        for j in range(len(old)):
            for k in range(len(new)):
                repeats |= old[j] == new[k]
        for k in range(len(new)):
            old[k] = new[k]
        out_cost[i] = 2.0 if repeats else 1.0


@compiled
def windowed_count(
    ring: Int32Array, labels: Int32Array, counted: Int32Array, slates: Int32Array, shown: int, threshold: int,
    out_cost: Doubles,
) -> None:  # fmt: skip
    """``WindowedCount.cost`` with an exact early window.

    Args:
        ring: shape (W * L, B), the rule's memory transposed; changed in place.
        labels: shape (L, N), -1 where an item has fewer.
        counted: the same with -3 instead of -1, which equals no label.
        slates: shape (B, K).
        shown: items that the engine has shown each user before.
        threshold: of the rule.
        out_cost: shape (B,).
    """
    n_labels, n = len(labels), len(out_cost)
    window = len(ring) // n_labels
    met, new = np.empty(n, np.int32), np.empty(n, np.int32)
    out_cost[:] = 0.0
    for place in range(slates.shape[1]):
        for label in range(n_labels):
            met[:] = 0
            for i in range(n):
                new[i] = counted[label, slates[i, place]]
            for column in range(len(ring)):
                old = ring[column]
                for i in range(n):
                    met[i] += old[i] == new[i]
            for i in range(n):
                out_cost[i] = np.inf if met[i] > threshold else out_cost[i]
        newest = (shown + place) % window * n_labels
        for label in range(n_labels):
            written = ring[newest + label]
            for i in range(n):
                written[i] = labels[label, slates[i, place]]


@compiled
def settle(
    budget: Doubles, steps: Int32Array, cost: Doubles, max_steps: int, out_terminated: Bools, out_truncated: Bools
) -> None:
    """The end of ``SessionCore.step``; ``budget`` and ``steps``, shape (B,), are changed in place."""
    for i in range(len(budget)):
        left = budget[i] - cost[i]
        budget[i] = left if left > 0.0 else 0.0
        steps[i] += 1
        out_terminated[i] = budget[i] < 1
        out_truncated[i] = (steps[i] >= max_steps) & (budget[i] >= 1)


@compiled
def remember(past: Int32Array, marks: Int8Array, at: int, slates: Int32Array, feedback: Int8Array) -> None:
    """``SessionCore._remember``: writes the buffers of items, (B, width), and marks, (B, width * F), from ``at`` on."""
    n_behaviours = feedback.shape[2]
    copy_columns(slates, 0, past, at, slates.shape[1], 1)
    copy_columns(feedback.reshape(len(marks), -1), 0, marks, at * n_behaviours, slates.shape[1] * n_behaviours, 0)


# --- initial states and history --------------------------------------------------------------------------------------


@compiled
def first_uniform(stream: np.uint64) -> float:
    """``counter_rng.uniform(stream, 1)`` of one session."""
    state = (stream ^ (stream >> _SHIFT_1)) * _FACTOR_1
    state = (state ^ (state >> _SHIFT_2)) * _FACTOR_2
    return np.float64((state ^ (state >> _SHIFT_3)) & _LOW) * _UNIT


@compiled
def observe(past: Int32Array, marks: Int8Array, at: int, out_items: Int32Array, out_feedback: Int8Array) -> None:
    """``SessionCore.observation``: a copy of the history window that begins at item ``at``; (B, H) and (B, H * F)."""
    length = out_items.shape[1]
    n_behaviours = out_feedback.shape[1] // length
    copy_columns(past, at, out_items, 0, length, 0)
    copy_columns(marks, at * n_behaviours, out_feedback, 0, length * n_behaviours, 0)


@compiled
def copy_columns(
    read: NDArray[np.integer], start: int, out: NDArray[np.integer], out_start: int, n: int, more: int
) -> None:
    """``out[:, out_start : out_start + n] = read[:, start : start + n] + more`` of contiguous arrays."""
    flat, flat_out, width, out_width = read.reshape(-1), out.reshape(-1), read.shape[1], out.shape[1]
    for i in range(len(out)):
        for j in range(n):
            flat_out[np.uint64(i * out_width + out_start + j)] = flat[np.uint64(i * width + start + j)] + more


@compiled
def copy_row(read: NDArray[np.generic], written: NDArray[np.generic]) -> None:
    """``written[: len(read)] = read`` of rows."""
    for j in range(len(read)):
        written[j] = read[j]
