"""A step of the lookup engine, compiled: all that happens between one slate and the next in one call.

Tables, slots and beginnings are given as plain tuples, which numba reads twice as quickly as named ones; each function
begins by naming them. The loops are those of :mod:`rapport.envs.session.compiled.kernels`.

B sessions, slates of K items, F behaviours, histories of H items.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int8Array, Int32Array, IntArray
from rapport.envs.session.compiled import kernels
from rapport.envs.session.compiled.kernels import Bools, Doubles, Luck, compiled
from rapport.envs.session.engine import counter_rng as noise

Plain = tuple[Any, ...]
_EPISODE = noise.EPISODE
_POSITIONAL, _SET_OVERLAP, _WINDOWED_COUNT = kernels.POSITIONAL, kernels.SET_OVERLAP, kernels.WINDOWED_COUNT


class Tables(NamedTuple):
    """What the loops read and nobody writes.

    Attributes:
        first: where users' rows begin in the answers, as of :func:`~rapport.envs.session.compiled.kernels.entries`.
        answers: shape (S, N, F), laid flat; empty where ``click_at`` tells them.
        category: shape (N,).
        worth_first: the same for ``worth``; empty where it is the same.
        worth: what items are worth to users, (S, N) laid flat; empty where the first behaviour is the reward.
        click_at: worth from which on an item was clicked, where there are no answers: then one entry tells both.
        rule: its number in :mod:`~rapport.envs.session.compiled.kernels`.
        labels: shape (L, N), -1 where an item has fewer.
        counted: the same with -3 in its place, which meets nothing.
        threshold: of ``WINDOWED_COUNT``.
        max_steps: slates after which a session is cut off.
    """

    first: IntArray
    answers: Int8Array
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
    """What a step changes: the engine's numbers of B sessions.

    Attributes:
        user: shape (B,), as the next two.
        budget: see there.
        steps: see there.
        memory: the rule's; of ``WINDOWED_COUNT`` turned, (W * L, B).
        past: shape (B, width).
        marks: shape (B, width * F).
    """

    user: IntArray
    budget: Doubles
    steps: Int32Array
    memory: Int32Array
    past: Int32Array
    marks: Int8Array


class Beginnings(NamedTuple):
    """What only sessions that begin need: their people, and numbers of B sessions that change in place.

    Attributes:
        pool: shape (P,), users to draw from.
        start_budget: at a session's start.
        codes: shape (U, G), features of users.
        items: shape (U, H), their histories.
        feedback: shape (U, H * F).
        key: shape (B,), as the next two.
        episode: see there.
        luck: see there.
        features: shape (B, G).
    """

    pool: IntArray
    start_budget: float
    codes: Int32Array
    items: Int32Array
    feedback: Int8Array
    key: Luck
    episode: IntArray
    luck: Luck
    features: Int32Array


@compiled
def look_up(tables: Tables, users: IntArray, slates: Int32Array, out_feedback: Int8Array, out_reward: Doubles) -> None:
    """What users do with slates and what that is worth."""
    places, n_items, n_behaviours = np.empty(slates.shape, np.int64), len(tables.category), out_feedback.shape[2]
    n_entries = len(tables.answers) // n_behaviours if len(tables.answers) else len(tables.worth)
    kernels.entries(tables.first, users, slates, n_items, n_entries, places)
    if len(tables.answers):
        kernels.take(tables.answers, n_behaviours, places.reshape(-1), out_feedback.reshape(-1))
    if not len(tables.worth):
        kernels.mean_of_first(out_feedback, out_reward)
        return
    if len(tables.worth_first):
        kernels.entries(tables.worth_first, users, slates, n_items, len(tables.worth), places)
    worth = np.empty(slates.shape, tables.worth.dtype)
    kernels.take(tables.worth, 1, places.reshape(-1), worth.reshape(-1))
    kernels.mean(worth, out_reward)
    if not len(tables.answers):
        shown, clicks = worth.reshape(-1), out_feedback.reshape(-1)
        for i in range(len(shown)):
            clicks[i] = shown[i] >= tables.click_at


@compiled
def show(tables: Plain, slots: Plain, slates: Int32Array, at: int, shown: int, result: Plain) -> None:
    """``SessionCore.step`` over looked-up answers.

    Args:
        tables: :class:`Tables`.
        slots: :class:`Slots`, changed in place.
        slates: shape (B, K).
        at: place in the past where slates are written.
        shown: items the engine has shown each user before.
        result: what :class:`~rapport.envs.session.engine.core.StepResult` holds, written.
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
    tables: Plain, slots: Plain, beginnings: Plain, slates: Int32Array, at: int, shown: int, ended: Bools, result: Plain
) -> None:
    """``SessionCore.step_or_begin``: arguments as of :func:`show` and :func:`begin`; ``ended``, shape (B,)."""
    show(tables, slots, slates, at, shown, result)
    rows = np.flatnonzero(ended)
    reward, terminated, truncated, categories, feedback, cost = result
    for row in rows:
        reward[row], cost[row], terminated[row], truncated[row] = 0.0, 0.0, False, False
        categories[row, :] = -1
        feedback[row, :, :] = 0
    begin(tables, slots, beginnings, rows, rows[:0], at + slates.shape[1] - Beginnings(*beginnings).items.shape[1])


@compiled
def begin(tables: Plain, slots: Plain, beginnings: Plain, rows: IntArray, users: IntArray, at: int) -> None:
    """``SessionCore.begin`` where nothing is remembered but what a rule does.

    Args:
        tables: :class:`Tables`.
        slots: :class:`Slots`, changed in place.
        beginnings: :class:`Beginnings`.
        rows: shape (n,), which of them.
        users: shape (n,), or empty: drawn from the pool.
        at: place in the past where the history goes.
    """
    table, slot, new = Tables(*tables), Slots(*slots), Beginnings(*beginnings)
    n_behaviours = new.feedback.shape[1] // new.items.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        new.episode[row] += 1
        new.luck[row] = new.key[row] + _EPISODE * np.uint64(new.episode[row])
        user = users[i] if len(users) else new.pool[np.int64(kernels.lot(new.luck[row]) * len(new.pool))]
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
