"""A metric: what is computed of the arrays that a run leaves, and how it is shown.

A run of one seed leaves named arrays with one number per session (or per user, per test), e.g. ``{"return": ...,
"length": ...}``. A metric is the mean of one of them, or the sum of one over the sum of another::

    length = Metric("length", "slates", numerator="length")
    rate = Metric("reward", "per slate", digits=3, numerator="return", denominator="length")
    rate.shown(rate.estimate(runs, np.random.default_rng(0)))  # "0.455 [0.441, 0.468]"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.experiments.results.stats import RESAMPLES, Estimate, Scores, estimate, paired_difference

Run = Mapping[str, NDArray[Any]]
"""The arrays of one seed, each of shape (S,), by name."""
NOT_RUN = "not run"
"""Shown in place of a figure that was not measured."""


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over sessions, estimated over seeds.

    Attributes:
        name: shown, e.g. ``"return"``.
        unit: shown, e.g. ``"clicks"``.
        digits: decimals shown.
        higher_is_better: which of two values is the better one.
        numerator: name of the array that is summed.
        denominator: name of the array whose sum divides; None for the number of sessions, which makes it a mean.
    """

    name: str
    unit: str
    digits: int = 2
    higher_is_better: bool = True
    numerator: str = ""
    denominator: str | None = None

    def scores(self, results: Sequence[Run]) -> Scores:
        """The metric of some seeds.

        Args:
            results: the arrays of each seed.

        Raises:
            ValueError: a seed lacks an array; the message names seed, array and what there is.
        """
        tops = self._arrays(results, self.numerator)
        if self.denominator is None:
            return Scores.mean(tops)
        return Scores.ratio(tops, self._arrays(results, self.denominator))

    def estimate(
        self, results: Sequence[Run], rng: np.random.Generator, *, resamples: int = RESAMPLES, level: float = 0.95
    ) -> Estimate:
        """Interquartile mean over seeds and its interval; arguments as of :func:`stats.estimate`."""
        return estimate(self.scores(results), rng, resamples=resamples, level=level)

    def difference(
        self,
        first: Sequence[Run],
        second: Sequence[Run],
        rng: np.random.Generator,
        *,
        same_sessions: bool = True,
        resamples: int = RESAMPLES,
        level: float = 0.95,
    ) -> Estimate:
        """``first - second``, the same seeds in the same order; arguments as of :func:`stats.paired_difference`."""
        pair = self.scores(first), self.scores(second)
        return paired_difference(*pair, rng, same_sessions=same_sessions, resamples=resamples, level=level)

    def better(self, difference: Estimate) -> bool | None:
        """Whether the first of two is the better one; None where the interval of their difference holds zero."""
        if difference.low <= 0 <= difference.high:
            return None
        return (difference.low > 0) == self.higher_is_better

    def shown(self, value: Estimate | None, *, signed: bool = False) -> str:
        """An estimate as text, e.g. ``"9.10 [8.77, 9.45]"``; ``signed`` for a difference; "not run" for None."""
        return NOT_RUN if value is None else value.shown(self.digits, signed=signed)

    @property
    def column(self) -> tuple[str, str]:
        """Name and unit, as a table's column wants them."""
        return self.name, self.unit

    def _arrays(self, results: Sequence[Run], name: str) -> list[NDArray[Any]]:
        for seed, result in enumerate(results):
            if name not in result:
                raise ValueError(
                    f"metric {self.name!r}: seed number {seed} has no array {name!r}; it has {', '.join(result)}"
                )
        return [result[name] for result in results]
