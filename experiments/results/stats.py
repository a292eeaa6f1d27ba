"""Interval estimates: interquartile means over seeds, cluster bootstraps, t-intervals.

An experiment is a few seeds (one training each) and, for each seed, many sessions of held-out users. Both levels vary,
so both are resampled: seeds with replacement, then, inside every seed drawn, its sessions with replacement. The seeds'
values are aggregated by the interquartile mean, as Agarwal et al. (2021, "Deep reinforcement learning at the edge of
the statistical precipice") recommend; the interval is the percentile interval. Where rows of one log depend on each
other because they share a user or a story, :func:`cluster_bootstrap` resamples users or stories with all their rows
(Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8).

``scipy.stats.bootstrap`` resamples one level of independent rows. It can pair samples and takes a generator. It cannot
draw sessions inside drawn seeds, nor whole clusters of unequal size, nor the same seeds for two methods whose sessions
are drawn apart.

Two bootstraps draw in other ways, with streams of random numbers of their own that published figures rest on: the
performance profiles draw seeds by :func:`drawn_seeds` and then multinomial counts in place of sessions
(:mod:`rapport.experiments.report.performance_profile`); the satiation study draws all its resamples of users in one
multinomial call (:mod:`rapport.experiments.satiation.fit`).

Every random number comes from the generator passed in: one seed, one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

RESAMPLES = 2_000
"""Bootstrap resamples of a published interval."""
_CHUNK = 500_000
"""Session indices drawn at once: bounds the memory, not the result's distribution."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate and its interval, in the unit of the scores.

    Attributes:
        point: e.g. the interquartile mean over seeds.
        low: lower end of the interval.
        high: upper end of the interval.
        n_seeds: seeds (or clusters) it rests on. With one seed the interval only shows how much sessions vary.
    """

    point: float
    low: float
    high: float
    n_seeds: int

    def shown(self, digits: int, *, signed: bool = False) -> str:
        """The estimate as text, e.g. ``"9.10 [8.77, 9.45]"``; with signs for a difference."""
        return interval_text(self.point, self.low, self.high, digits, signed=signed)


def interval_text(point: float, low: float, high: float, digits: int, *, signed: bool = False) -> str:
    """A point and its interval as text, e.g. ``"+0.20 [+0.10, +0.30]"``."""
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{point:{form}} [{low:{form}}, {high:{form}}]"


@dataclass(frozen=True)
class Scores:
    """One metric of one method: for each seed a ratio of sums over its sessions.

    A mean over sessions has a denominator of one per session; a rate per step has the session's steps.

    Attributes:
        numerator: for each of n seeds an array of shape (S_seed,).
        denominator: arrays of the same shapes, positive.
    """

    numerator: tuple[FloatArray, ...]
    denominator: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        if not self.numerator or len(self.numerator) != len(self.denominator):
            raise ValueError(
                f"scores: {len(self.numerator)} numerators and {len(self.denominator)} denominators; "
                "give one array of each per seed, and at least one seed"
            )
        for seed, (top, bottom) in enumerate(zip(self.numerator, self.denominator, strict=True)):
            if top.ndim != 1 or not len(top) or top.shape != bottom.shape:
                raise ValueError(
                    f"scores: seed number {seed} has shapes {top.shape} and {bottom.shape}; "
                    "give one number per session, and at least one session"
                )
            if not (np.isfinite(top).all() and np.isfinite(bottom).all() and (bottom > 0).all()):
                raise ValueError(f"scores: seed number {seed} holds a value that is not finite, or a denominator <= 0")

    @classmethod
    def mean(cls, sessions: Sequence[ArrayLike] | FloatArray) -> Scores:
        """Mean over sessions; ``sessions`` has shape (n, S), or is n arrays of any lengths."""
        top = tuple(np.asarray(row, dtype=np.float64) for row in sessions)
        return cls(top, tuple(np.ones_like(row) for row in top))

    @classmethod
    def ratio(
        cls, numerator: Sequence[ArrayLike] | FloatArray, denominator: Sequence[ArrayLike] | FloatArray
    ) -> Scores:
        """Sum over sum, e.g. total reward over total steps; both have shape (n, S), or are n arrays of any lengths."""
        return cls(
            tuple(np.asarray(row, dtype=np.float64) for row in numerator),
            tuple(np.asarray(row, dtype=np.float64) for row in denominator),
        )

    @property
    def n_seeds(self) -> int:
        """Number of seeds, n."""
        return len(self.numerator)

    def per_seed(self) -> FloatArray:
        """Value of each seed, shape (n,)."""
        pairs = zip(self.numerator, self.denominator, strict=True)
        return np.array([top.sum() / bottom.sum() for top, bottom in pairs])


def iqm(values: ArrayLike) -> FloatArray:
    """Interquartile mean over the last axis: a quarter, rounded down, is cut from either end, the rest is averaged.

    The same as ``scipy.stats.trim_mean(values, 0.25)``: of 5 seeds the middle 3 count, of 4 the middle 2; below 4
    nothing is cut and it is the mean.

    Args:
        values: shape (..., n).

    Returns:
        shape (...).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    n = ordered.shape[-1]
    cut = n // 4
    return np.asarray(ordered[..., cut : n - cut].mean(axis=-1))


def estimate(scores: Scores, rng: np.random.Generator, *, resamples: int = RESAMPLES, level: float = 0.95) -> Estimate:
    """Interquartile mean over seeds with its two-level percentile interval.

    How often a 95 % interval holds the truth, simulated: with 5 seeds 97 to 99 % when a seed's sessions vary as much as
    seeds do (the session level then counts twice: the error is on the safe side), 87 % when nearly all variation is
    between seeds (94 % with 10 seeds). Read two intervals that barely part with care.

    Args:
        scores: the metric, n seeds.
        rng: source of all randomness; it is advanced.
        resamples: bootstrap resamples.
        level: coverage aimed at, in (0, 1).
    """
    drawn = _resample([scores], rng, resamples, same_sessions=True)
    return _summary(scores.per_seed(), drawn[0], level)


def paired_difference(
    first: Scores,
    second: Scores,
    rng: np.random.Generator,
    *,
    same_sessions: bool = True,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Estimate:
    """Interquartile mean over seeds of ``first - second``, with its interval.

    Seeds are paired: a resample that draws a seed draws it for both. Sessions are paired too when session i of one is
    of the same user as session i of the other.

    Args:
        first: n seeds.
        second: the same n seeds in the same order.
        rng: source of all randomness; it is advanced.
        same_sessions: draw the same session indices for both; needs equally many sessions.
        resamples: bootstrap resamples.
        level: coverage aimed at, in (0, 1).
    """
    if first.n_seeds != second.n_seeds:
        raise ValueError(f"paired_difference: {first.n_seeds} and {second.n_seeds} seeds; give the seeds both have")
    sizes = [(len(a), len(b)) for a, b in zip(first.numerator, second.numerator, strict=True)]
    if same_sessions and any(a != b for a, b in sizes):
        raise ValueError(f"paired_difference: sessions per seed {sizes} differ; pass same_sessions=False")
    drawn = _resample([first, second], rng, resamples, same_sessions=same_sessions)
    return _summary(first.per_seed() - second.per_seed(), drawn[0] - drawn[1], level)


def cluster_bootstrap(
    statistic: Callable[[FloatArray], ArrayLike],
    clusters: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> FloatArray:
    """Values of a statistic of rows when clusters are drawn with replacement, each with all of its rows.

    Args:
        statistic: maps weights of shape (R,), how often each row was drawn, to a number or an array.
        clusters: shape (R,), whose row it is, e.g. a user or a story; any integers.
        rng: source of all randomness; it is advanced.
        resamples: bootstrap resamples, B.

    Returns:
        shape (B,), or (B, ...) for a statistic with a shape.
    """
    _check_resamples(resamples)
    _, code = np.unique(clusters, return_inverse=True)
    n = int(code.max()) + 1
    drawn = (np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64) for _ in range(resamples))
    return np.array([statistic(times[code]) for times in drawn], dtype=np.float64)


def cluster_estimate(
    numerator: ArrayLike,
    clusters: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    denominator: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Estimate:
    """Sum over sum of rows, by default their mean, with a percentile interval over clusters.

    Args:
        numerator: shape (R,), e.g. clicks.
        clusters: shape (R,), whose row it is; any integers.
        rng: source of all randomness; it is advanced.
        denominator: shape (R,), not negative, e.g. impressions; by default 1 for every row.
        resamples: bootstrap resamples.
        level: coverage aimed at, in (0, 1).

    Raises:
        ValueError: the arrays have different shapes, or a cluster's denominators are all 0.
    """
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.ones_like(top) if denominator is None else np.asarray(denominator, dtype=np.float64)
    if not top.shape == bottom.shape == clusters.shape or top.ndim != 1 or not len(top):
        raise ValueError(
            f"cluster_estimate: numerator {top.shape}, denominator {bottom.shape} and clusters {clusters.shape}; "
            "give one number of each per row, and at least one row"
        )
    _, code = np.unique(clusters, return_inverse=True)
    tops, bottoms = np.bincount(code, top), np.bincount(code, bottom)
    if not (bottoms > 0).all():
        raise ValueError("cluster_estimate: a cluster's denominators sum to 0; leave its rows out")
    drawn = cluster_bootstrap(lambda w: w @ tops / (w @ bottoms), np.arange(len(tops)), rng, resamples=resamples)
    low, high = percentile_interval(drawn, level)
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), len(tops))


def t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of independent values with Student's t-interval.

    Args:
        values: shape (n,), n >= 2.
        level: coverage, in (0, 1); exact for normal values.

    Raises:
        ValueError: there are fewer than two values.
        ModuleNotFoundError: the ``stats`` extra (scipy) is not installed.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"t_interval: values of shape {found.shape}; give at least two numbers in one row")
    _check_level(level)
    try:
        from scipy.stats import t
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            't-intervals need scipy, which is not installed; install it: pip install "rapport-gym[stats]"',
            name=error.name,
        ) from error
    mean = float(found.mean())
    half = float(t.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return Estimate(mean, mean - half, mean + half, len(found))


def percentile_interval(drawn: FloatArray, level: float = 0.95) -> FloatArray:
    """Lower and upper end, shape (2, ...), of resampled values of shape (B, ...)."""
    _check_level(level)
    return np.asarray(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0))


def drawn_seeds(n: int, rng: np.random.Generator, resamples: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The first level of the bootstrap: each of n seeds, and which of the slots of all resamples drew it, (B, n)."""
    _check_resamples(resamples)
    chosen = rng.integers(0, n, size=(resamples, n))
    for seed in range(n):
        yield seed, chosen == seed


def _summary(per_seed: FloatArray, drawn: FloatArray, level: float) -> Estimate:
    """Point from ``per_seed`` of shape (n,), interval from ``drawn`` of shape (B, n)."""
    low, high = percentile_interval(iqm(drawn), level)
    return Estimate(float(iqm(per_seed)), float(low), float(high), len(per_seed))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not in (0, 1)")


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples: {resamples}; at least 1 is needed")


def _resample(
    systems: Sequence[Scores], rng: np.random.Generator, resamples: int, *, same_sessions: bool
) -> FloatArray:
    """Values of the seeds drawn, shape (M systems, B resamples, n seeds); the same seeds for every system."""
    n = systems[0].n_seeds
    values = np.empty((len(systems), resamples, n))
    for seed, slots in drawn_seeds(n, rng, resamples):
        count = int(slots.sum())
        if same_sessions:
            values[:, slots] = _session_level(systems, seed, count, rng)
        else:
            values[:, slots] = np.concatenate([_session_level([s], seed, count, rng) for s in systems])
    return values


def _session_level(systems: Sequence[Scores], seed: int, count: int, rng: np.random.Generator) -> FloatArray:
    """Resample the sessions of one seed ``count`` times, the same indices for every system; shape (M, count)."""
    size = len(systems[0].numerator[seed])
    values = np.empty((len(systems), count))
    rows = max(1, _CHUNK // size)
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        index = rng.integers(0, size, size=(part.stop - part.start, size))
        for row, scores in enumerate(systems):
            top = scores.numerator[seed].take(index).sum(axis=1)
            bottom = scores.denominator[seed]
            constant = bool((bottom == bottom[0]).all())
            values[row, part] = top / (size * bottom[0] if constant else bottom.take(index).sum(axis=1))
    return values
