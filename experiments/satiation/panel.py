"""The regressions of the satiation study: which effects are taken out, and how.

A :class:`Panel` is a set of exposures under one specification. What each specification holds fixed, and what it leaves:

===================================  ===================================================================================
``user, video``                      constant differences between people and between videos. Not: that someone likes a
                                     category (towards zero or above: liked categories come again), nor the surface
``user x tab, video``                also where in the application it was shown (as ``user, video`` where not known)
``user x day, video``                also good and bad days; only repeats within a day count
``user x category, video``           also constant tastes. Off by feedback, see :class:`Panel`
``user, video, forward``             as ``user, video``, and the platform may react to what was clicked
``user x category, video, forward``  constant tastes and the platform's reactions are both allowed for: the widest
                                     intervals and the fewest doubts. Left: tastes that drift within the twelve days
===================================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import IntArray
from rapport.experiments.satiation.exposures import Exposures
from rapport.experiments.satiation.fixed_effects import (
    Coefficients,
    FixedEffects,
    Floats,
    forward_deviations,
    instrumented,
    least_squares,
    stack,
)

PLAIN, BY_TAB, BY_DAY = "user, video", "user x tab, video", "user x day, video"
BY_TASTE, FORWARD, FORWARD_TASTE = "user x category, video", f"{PLAIN}, forward", "user x category, video, forward"
SPECIFICATIONS = (PLAIN, BY_TAB, BY_DAY, BY_TASTE, FORWARD, FORWARD_TASTE)
TABS = 64
"""More than there are surfaces in the application."""


class Effect(NamedTuple):
    """One estimate.

    Attributes:
        study: which question it answers, e.g. ``"gap"``.
        what: the regressor in words.
        behaviour: e.g. ``"click"``.
        how: the specification.
        rows: exposures it rests on.
        value: change of the behaviour's rate per unit of the regressor; 0.01 is one point.
        error: standard error, clustered by user.
    """

    study: str
    what: str
    behaviour: str
    how: str
    rows: int
    value: float
    error: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - 1.96 * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + 1.96 * self.error


class Panel:
    """Exposures under one specification.

    Where the platform reacts to a click with more of the same, a group's mean holds errors that later regressors react
    to: within a (user, category) cell of a few rows the effect of repetition comes out too low. The forward
    specifications are free of that (:mod:`rapport.experiments.satiation.fixed_effects`).

    Args:
        exposures: the rows; those of unknown gap are left out.
        how: one of :data:`SPECIFICATIONS`.
        rows: shape (R,), further rows to leave out are false.

    Raises:
        ValueError: there is no such specification.
    """

    def __init__(self, exposures: Exposures, how: str = PLAIN, rows: NDArray[np.bool_] | None = None) -> None:
        self.how, self.rows = how, exposures.known_gap if rows is None else exposures.known_gap & rows
        kept = exposures.take(self.rows)
        self.user = kept.user
        self.forward = how.endswith(", forward")
        self._group = _group(kept, how.removesuffix(", forward"))
        self._effects = FixedEffects(kept.user if self.forward else self._group, kept.item)

    def fit(self, y: Floats, columns: Sequence[NDArray[Any]]) -> Coefficients:
        """Regress ``y`` on P columns, each of shape (R,) over all exposures."""
        return self.regress(self.prepare(y), self.prepare(stack(columns)))

    def prepare(self, columns: Floats) -> Floats:
        """The panel's rows of columns (R,) or (R, P), cleared of effects: (rows, P); for :meth:`regress`."""
        table = columns.reshape(len(columns), -1)[self.rows]
        if not self.forward:
            return self._effects.residual(table)
        cleared = self._effects.without(table, 1)
        return np.asarray(cleared - cleared.mean(axis=0))

    def regress(self, y: Floats, x: Floats, z: Floats | None = None) -> Coefficients:
        """Regress prepared columns; ``z``: instruments, shape of ``x``; by default ``x`` itself."""
        z = x if z is None else z
        if not self.forward:
            return instrumented(y[:, 0], x, z, self.user, self._effects.sizes[1])
        moved, kept = forward_deviations(np.concatenate([y, x], axis=1), self._group)
        return instrumented(moved[kept, 0], moved[kept, 1:], z[kept], self.user[kept], self._effects.sizes[1])

    def effects(
        self, study: str, behaviour: str, y: Floats, columns: dict[str, NDArray[Any]], controls: Sequence[NDArray[Any]]
    ) -> list[Effect]:
        """One :class:`Effect` for each named column, next to controls that are not reported."""
        found = self.fit(y, [*columns.values(), *controls])
        n = int(self.rows.sum())
        return [
            Effect(study, name, behaviour, self.how, n, float(found.value[i]), float(found.error[i]))
            for i, name in enumerate(columns)
        ]


def naive(exposures: Exposures, study: str, behaviour: str, columns: dict[str, NDArray[Any]]) -> list[Effect]:
    """The same with nothing held fixed but the columns."""
    y, x = exposures.outcome(behaviour), stack([*columns.values()])
    found = least_squares(y - y.mean(), x - x.mean(axis=0), exposures.user)
    return [
        Effect(study, name, behaviour, "nothing", len(y), float(found.value[i]), float(found.error[i]))
        for i, name in enumerate(columns)
    ]


def _group(exposures: Exposures, how: str) -> IntArray:
    if how == PLAIN:
        return exposures.user
    if how == BY_TAB:
        return np.asarray(exposures.user * TABS + exposures.surface + 1)
    if how == BY_DAY:
        return np.asarray(exposures.user * (exposures.day.max(initial=0) + 1) + exposures.day)
    if how == BY_TASTE:
        return exposures.cell
    raise ValueError(f"how={how!r} is unknown; choose one of {'; '.join(SPECIFICATIONS)}")
