"""The compiled engine for looked-up responses and built-in quit rules; equal to the NumPy engine to the last bit."""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rapport.datasets.schema import Int8Array, Int32Array, IntArray
from rapport.envs.session.compiled import kernels
from rapport.envs.session.compiled import step as compiled_step
from rapport.envs.session.compiled.step import Plain, Tables
from rapport.envs.session.engine.core import Observation, SessionCore, Shown, StepResult
from rapport.envs.session.engine.quit_rules import Positional, SetOverlap, WindowedCount
from rapport.envs.session.engine.reward import Reward, TableReward
from rapport.envs.session.response.base import MatrixResponse

_NOBODY = np.empty(0, np.int64)
_RULES = {Positional: kernels.POSITIONAL, SetOverlap: kernels.SET_OVERLAP, WindowedCount: kernels.WINDOWED_COUNT}


class LookupCore(SessionCore):
    """As :class:`SessionCore`, for the parts that :func:`~rapport.envs.session.compiled.select.engine_for` accepts."""

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        self._read_parts()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_tables", "_population")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_parts()  # views of the parts, which a pickle would store twice

    def _read_parts(self) -> None:
        self._compiled_reward = self.reward is None or _is_compiled(self.reward, self.slate_size)
        self._tables, self._population = tuple(tables_of(self)), population_of(self)
        self._transposed = isinstance(self.quit_rule, WindowedCount)

    def narrowed(self, items: NDArray[np.integer]) -> tuple[Int32Array, int, int]:
        """As in :class:`SessionCore`."""
        slates = np.empty((self.n_envs, self.slate_size), np.int32)
        return slates, *kernels.narrow(items.ravel(), slates.reshape(-1))

    def begin(self, rows: IntArray, users: IntArray | None = None) -> None:
        """As in :class:`SessionCore`."""
        chosen = _NOBODY if users is None else np.array(users)
        start = self._cursor - self.length
        compiled_step.begin(self._tables, self._slots(), self._initial(), rows, chosen, start)

    def step(self, slates: Int32Array) -> StepResult:
        """As in :class:`SessionCore`."""
        at, shown, result = self._advance()
        compiled_step.show(self._tables, self._slots(), slates, at, shown, result)
        told = StepResult(*result)
        if self._compiled_reward or self.reward is None:
            return told
        return told._replace(reward=self.reward(self.user, slates, told.feedback))  # no compiled rule reads it

    def step_or_begin(self, slates: Int32Array, ended: NDArray[np.bool_]) -> StepResult:
        """As in :class:`SessionCore`."""
        if not self._compiled_reward:
            return super().step_or_begin(slates, ended)
        at, shown, result = self._advance()
        parts = self._tables, self._slots(), self._initial()
        compiled_step.show_or_begin(*parts, slates, at, shown, ended, result)
        return StepResult(*result)

    def step_and_begin(self, slates: Int32Array, last: Observation) -> tuple[StepResult, Shown]:
        """As in :class:`SessionCore`."""
        if not self._compiled_reward:
            return super().step_and_begin(slates, last)
        at, place, result = self._advance()
        before = np.empty(self.n_envs, np.bool_), np.empty(self.n_envs, np.int64), np.empty(self.n_envs)
        parts = self._tables, self._slots(), self._initial()
        written = last["history_feedback"], last["history_items"], last["step"], last["user_features"]
        compiled_step.show_and_begin(*parts, slates, at, place, result, before, written)
        return StepResult(*result), Shown(*before)

    def _advance(self) -> tuple[int, int, Plain]:
        """Position of the slate in the history buffers, items shown before it, and arrays for its outcome."""
        n, places = self.n_envs, self.slate_size
        if self._cursor + places > self._width:
            self._make_room()
        at, shown = self._cursor, self.tick * places
        self._cursor += places
        self.tick += 1
        room = (
            np.empty(n),
            np.empty(n, np.bool_),
            np.empty(n, np.bool_),
            np.empty((n, places), np.int32),
            np.empty((n, places, self._n_behaviours), np.int8),
            np.empty(n),
        )
        return at, shown, room

    def observation(self, rows: IntArray | slice | int = slice(None)) -> Observation:
        """As in :class:`SessionCore`."""
        if not isinstance(rows, slice) or rows != slice(None):
            return super().observation(rows)
        items = np.empty((self.n_envs, self.length), np.int32)
        feedback = np.empty((self.n_envs, self.length * self._n_behaviours), np.int8)
        kernels.observe(self._items, self._feedback, self._cursor - self.length, items, feedback)
        features, steps = self._features.copy(), self.steps[:, None].copy()
        return {"history_feedback": feedback, "history_items": items, "step": steps, "user_features": features}

    def _slots(self) -> Plain:
        """In the order of :class:`~rapport.envs.session.compiled.step.Slots`."""
        memory = self.memory.T if self._transposed else self.memory
        return self.user, self.budget, self.steps, memory, self._items, self._feedback

    def _initial(self) -> Plain:
        """In the order of :class:`~rapport.envs.session.compiled.step.InitialStates`."""
        return *self._population, self.key, self.episode, self.stream, self._features


def tables_of(core: SessionCore) -> Tables:
    """The tables of an engine with fitting parts."""
    response, rule = cast(MatrixResponse, core.response), core.quit_rule
    first, responses = response.response_table()
    worth = core.reward if _is_compiled(core.reward, core.slate_size) else None
    alike = worth is not None and _alike(worth.first, first)
    click_at = _least_worth_of_clicks(worth.table, responses) if worth is not None and alike else None
    labels = rule.labels.T if isinstance(rule, WindowedCount) else np.empty((0, 0))
    return Tables(
        first=_fixed(first, np.int64),
        responses=_fixed(responses if click_at is None else responses[:0], np.int8),
        category=_fixed(core.data.catalog.category, np.int32),
        worth_first=_fixed(_NOBODY if worth is None or alike else worth.first, np.int64),
        worth=_fixed(np.empty(0, np.float32) if worth is None else worth.table),
        click_at=np.inf if click_at is None else click_at,
        rule=_RULES[type(rule)],
        labels=_fixed(labels, np.int32),
        counted=_fixed(np.where(labels >= 0, labels, -3), np.int32),
        threshold=rule.threshold if isinstance(rule, WindowedCount) else 0,
        max_steps=core.max_steps,
    )


def population_of(core: SessionCore) -> Plain:
    """The first five of :class:`~rapport.envs.session.compiled.step.InitialStates`."""
    histories = core.histories
    return (
        _fixed(core.users, np.int64),
        core.start_budget,
        _fixed(core.data.population.features.codes, np.int32),
        _fixed(histories.items, np.int32),
        _fixed(histories.feedback.reshape(len(histories.feedback), -1), np.int8),
    )


def _is_compiled(reward: Reward | None, slate_size: int) -> TypeGuard[TableReward]:
    """Whether the loops look this reward up. They call any other, which sees what the NumPy engine shows it."""
    return isinstance(reward, TableReward) and reward.sums_exactly(slate_size)


def _least_worth_of_clicks(worth: NDArray[np.floating], responses: Int8Array) -> float | None:
    """The least worth of a clicked item, if every item that is not clicked is worth less; otherwise None."""
    if len(worth) != len(responses):
        return None
    clicks = responses > 0
    least = float(worth.min(where=clicks, initial=np.inf))
    return least if worth.max(where=~clicks, initial=-np.inf) < least else None


def _alike(some: IntArray, first: IntArray) -> bool:
    """Whether two tables have the rows of the second one's users at the same index."""
    has = np.flatnonzero(first < first.size * np.int64(2**31))
    return bool(np.array_equal(some[has], first[has]))


def _fixed(array: NDArray[Any], kind: DTypeLike | None = None) -> NDArray[Any]:
    """A read-only contiguous view, so that the loops are compiled for one kind of array."""
    fixed = np.ascontiguousarray(array, kind).view()
    fixed.flags.writeable = False
    return fixed
