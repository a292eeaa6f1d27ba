"""A compiled step of the lookup engine: one call from one slate to the next.

Tables, slots and initial states are passed as plain tuples, which numba reads twice as fast as named ones; each
function first names their fields. The loops are those of :mod:`rapport.envs.session.compiled.kernels`.

B sessions, slates of K items, F behaviours, histories of H items.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int8Array, Int32Array, IntArray
from rapport.envs.session.compiled import kernels
from rapport.envs.session.compiled.kernels import Bools, Doubles, Streams, compiled
from rapport.envs.session.engine import counter_rng

Plain = tuple[Any, ...]
_EPISODE = counter_rng.EPISODE
_POSITIONAL, _SET_OVERLAP, _WINDOWED_COUNT = kernels.POSITIONAL, kernels.SET_OVERLAP, kernels.WINDOWED_COUNT


class Tables(NamedTuple):
    """Constants of the loops.

    Attributes:
        first: index of users' rows in the responses, as of :func:`~rapport.envs.session.compiled.kernels.entries`.
        responses: shape (S, N, F), flattened; empty where ``click_at`` decides them.
        category: shape (N,).
        worth_first: index of users' rows in ``worth``; empty where it equals ``first``.
        worth: reward of each item for each user, (S, N) flattened; empty where the first behaviour is the reward.
        click_at: least worth of a clicked item, used where ``responses`` is empty: one table entry then gives both.
        rule: its number in :mod:`~rapport.envs.session.compiled.kernels`.
        labels: shape (L, N), -1 where an item has fewer.
        counted: the same with -3 instead of -1, which equals no label.
        threshold: of ``WINDOWED_COUNT``.
        max_steps: slates after which a session is truncated.
    """

    first: IntArray
    responses: Int8Array
    category: Int32Array
    worth_first: IntArray
    worth: NDArray[np.floating]
    click_at: float
    rule: int
    labels: Int32Array
    counted: Int32Array
    threshold: int
    max_steps: int


class Slots(NamedTuple):
    """State of B sessions that a step changes.

    Attributes:
        user: shape (B,), as the next two.
        budget: see there.
        steps: see there.
        memory: the rule's; transposed for ``WINDOWED_COUNT``, (W * L, B).
        past: shape (B, width).
        marks: shape (B, width * F).
    """

    user: IntArray
    budget: Doubles
    steps: Int32Array
    memory: Int32Array
    past: Int32Array
    marks: Int8Array


class InitialStates(NamedTuple):
    """What the beginning of a session needs: the population, and state of B sessions that changes in place.

    Attributes:
        users: shape (P,), users that sessions are drawn from.
        start_budget: at a session's start.
        codes: shape (U, G), features of users.
        items: shape (U, H), their histories.
        feedback: shape (U, H * F).
        key: shape (B,), as the next two.
        episode: see there.
        stream: see there.
        features: shape (B, G).
    """

    users: IntArray
    start_budget: float
    codes: Int32Array
    items: Int32Array
    feedback: Int8Array
    key: Streams
    episode: IntArray
    stream: Streams
    features: Int32Array


@compiled
def look_up(tables: Tables, users: IntArray, slates: Int32Array, out_feedback: Int8Array, out_reward: Doubles) -> None:
    """Feedback on slates, and rewards."""
    places, n_items, n_behaviours = np.empty(slates.shape, np.int64), len(tables.category), out_feedback.shape[2]
    n_entries = len(tables.responses) // n_behaviours if len(tables.responses) else len(tables.worth)
    kernels.entries(tables.first, users, slates, n_items, n_entries, places)
    if len(tables.responses):
        kernels.take(tables.responses, n_behaviours, places.reshape(-1), out_feedback.reshape(-1))
    if not len(tables.worth):
        kernels.mean_of_first(out_feedback, out_reward)
        return
    if len(tables.worth_first):
        kernels.entries(tables.worth_first, users, slates, n_items, len(tables.worth), places)
    worth = np.empty(slates.shape, tables.worth.dtype)
    kernels.take(tables.worth, 1, places.reshape(-1), worth.reshape(-1))
    kernels.mean(worth, out_reward)
    if not len(tables.responses):
        shown, clicks = worth.reshape(-1), out_feedback.reshape(-1)
        for i in range(len(shown)):
            clicks[i] = shown[i] >= tables.click_at


@compiled
def show(tables: Plain, slots: Plain, slates: Int32Array, at: int, shown: int, result: Plain) -> None:
    """``SessionCore.step`` over looked-up responses.

    Args:
        tables: :class:`Tables`.
        slots: :class:`Slots`, changed in place.
        slates: shape (B, K).
        at: position in the history buffers at which slates are written.
        shown: items that the engine has shown each user before.
        result: fields of :class:`~rapport.envs.session.engine.core.StepResult`, written.
    """
    table, slot = Tables(*tables), Slots(*slots)
    reward, terminated, truncated, categories, feedback, cost = result
    look_up(table, slot.user, slates, feedback, reward)
    kernels.take(table.category, 1, slates.reshape(-1), categories.reshape(-1))
    if table.rule == _POSITIONAL:
        kernels.positional(slot.memory, categories, cost)
    elif table.rule == _SET_OVERLAP:
        kernels.set_overlap(slot.memory, categories, cost)
    else:
        kernels.windowed_count(slot.memory, table.labels, table.counted, slates, shown, table.threshold, cost)
    kernels.remember(slot.past, slot.marks, at, slates, feedback)
    kernels.settle(slot.budget, slot.steps, cost, table.max_steps, terminated, truncated)


@compiled
def show_or_begin(
    tables: Plain, slots: Plain, initial: Plain, slates: Int32Array, at: int, shown: int, ended: Bools, result: Plain
) -> None:
    """``SessionCore.step_or_begin``: arguments as of :func:`show` and :func:`begin`; ``ended``, shape (B,)."""
    show(tables, slots, slates, at, shown, result)
    rows = np.flatnonzero(ended)
    reward, terminated, truncated, categories, feedback, cost = result
    for row in rows:
        reward[row], cost[row], terminated[row], truncated[row] = 0.0, 0.0, False, False
        categories[row, :] = -1
        feedback[row, :, :] = 0
    begin(tables, slots, initial, rows, rows[:0], at + slates.shape[1] - InitialStates(*initial).items.shape[1])


@compiled
def show_and_begin(
    tables: Plain, slots: Plain, initial: Plain, slates: Int32Array, at: int, shown: int, result: Plain, before: Plain,
    last: Plain,
) -> None:  # fmt: skip
    """``SessionCore.step_and_begin``: arguments as of :func:`show` and :func:`begin`, and two that are written.

    ``before`` are the fields of :class:`~rapport.envs.session.engine.core.Shown`, ``last`` observations of all slots:
    feedback (B, H * F), items (B, H), steps (B, 1) and features (B, G).
    """
    show(tables, slots, slates, at, shown, result)
    slot, new = Slots(*slots), InitialStates(*initial)
    ended, user, budget = before
    feedback, items, steps, features = last
    terminated, truncated = result[1], result[2]
    for i in range(len(ended)):
        ended[i], user[i], budget[i] = terminated[i] | truncated[i], slot.user[i], slot.budget[i]
    rows = np.flatnonzero(ended)
    start = at + slates.shape[1] - items.shape[1]
    n_behaviours = feedback.shape[1] // items.shape[1]
    for row in rows:
        kernels.copy_row(slot.past[row][start : start + items.shape[1]], items[row])
        kernels.copy_row(slot.marks[row][start * n_behaviours :][: feedback.shape[1]], feedback[row])
        kernels.copy_row(new.features[row], features[row])
        steps[row, 0] = slot.steps[row]
    begin(tables, slots, initial, rows, rows[:0], start)


@compiled
def begin(tables: Plain, slots: Plain, initial: Plain, rows: IntArray, users: IntArray, at: int) -> None:
    """``SessionCore.begin`` for response models without state.

    Args:
        tables: :class:`Tables`.
        slots: :class:`Slots`, changed in place.
        initial: :class:`InitialStates`.
        rows: shape (n,), slots in which sessions begin.
        users: shape (n,), or empty: drawn at random.
        at: position in the history buffers at which histories are written.
    """
    table, slot, new = Tables(*tables), Slots(*slots), InitialStates(*initial)
    n_behaviours = new.feedback.shape[1] // new.items.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        new.episode[row] += 1
        new.stream[row] = new.key[row] + _EPISODE * np.uint64(new.episode[row])
        user = users[i] if len(users) else new.users[np.int64(kernels.first_uniform(new.stream[row]) * len(new.users))]
        slot.user[row], slot.steps[row], slot.budget[row] = user, 0, new.start_budget
        kernels.copy_row(new.codes[user], new.features[row])
        kernels.copy_row(new.items[user], slot.past[row][at:])
        kernels.copy_row(new.feedback[user], slot.marks[row][at * n_behaviours :])
    if table.rule == _WINDOWED_COUNT:
        for column in range(len(slot.memory)):
            for row in rows:
                slot.memory[column, row] = -2
    else:
        for row in rows:
            slot.memory[row, :] = -1
