"""Performance profiles: which share of the sessions scores above each level, with a pointwise bootstrap band.

Agarwal et al. (NeurIPS 2021, "Deep reinforcement learning at the edge of the statistical precipice", section 4.2):
where a mean hides whether few sessions are very good or all are a little better, the whole distribution shows it; a
curve that lies above another everywhere dominates it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rapport.experiments.results.stats import RESAMPLES, FloatArray, drawn_seeds, percentile_interval

Profile = tuple[FloatArray, FloatArray, FloatArray]
"""Share above each level, and its band's lower and upper end, each of shape (T,)."""


def performance_profile(
    scores_by_seed: Sequence[ArrayLike],
    taus: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Profile:
    """Share of sessions that score above each level, mean over seeds, with a pointwise percentile band.

    The bootstrap has two levels, as that of :mod:`rapport.experiments.results.stats`: seeds with replacement, then
    sessions inside every seed drawn. Only how many of the drawn sessions fall between two levels matters, and those
    counts are multinomial, so they are drawn instead of the sessions: the same distribution at a fraction of the work.

    Args:
        scores_by_seed: for each of n seeds an array of shape (S_seed,), a score per session, e.g. its return.
        taus: shape (T,), levels, not decreasing, in the unit of the scores.
        rng: source of all randomness; it is advanced.
        resamples: bootstrap resamples.
        level: coverage aimed at, in (0, 1), for each point alone.

    Returns:
        point, low and high, each of shape (T,), not increasing.

    Raises:
        ValueError: there is no seed or no session, scores are not finite, levels decrease, or
            ``level`` or ``resamples`` is out of range.
    """
    levels = np.asarray(taus, dtype=np.float64)
    seeds = [np.asarray(scores, dtype=np.float64) for scores in scores_by_seed]
    _check(seeds, levels)
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level, resamples: {level} and {resamples}; give a level in (0, 1) and at least 1 resample")
    counts = [_counts(scores, levels) for scores in seeds]
    point = np.mean([_above(count) for count in counts], axis=0)
    low, high = percentile_interval(_drawn(counts, rng, resamples), level)
    return point, low, high


def _check(seeds: Sequence[FloatArray], levels: FloatArray) -> None:
    if not seeds:
        raise ValueError("scores_by_seed: no seed; give one array of scores per seed")
    for seed, scores in enumerate(seeds):
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            raise ValueError(
                f"scores_by_seed: seed number {seed} has shape {scores.shape}, or a value that is not finite; "
                "give one finite number per session, and at least one session"
            )
    if levels.ndim != 1 or not len(levels) or not np.isfinite(levels).all() or (np.diff(levels) < 0).any():
        raise ValueError(f"taus: {levels}; give at least one level, finite, and none below the one before it")


def _counts(scores: FloatArray, levels: FloatArray) -> FloatArray:
    """Sessions up to the first level, then up to each next one, then above the last: shape (T + 1,)."""
    return np.bincount(np.searchsorted(levels, scores, side="left"), minlength=len(levels) + 1).astype(np.float64)


def _above(counts: FloatArray) -> FloatArray:
    """Share above each level, shape (..., T), from counts of shape (..., T + 1)."""
    above = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return np.asarray(above[..., 1:] / above[..., :1])


def _drawn(counts: Sequence[FloatArray], rng: np.random.Generator, resamples: int) -> FloatArray:
    """Profiles of the resamples, shape (R, T)."""
    n = len(counts)
    total = np.zeros((resamples, len(counts[0]) - 1))
    for seed, slots in drawn_seeds(n, rng, resamples):
        rows, _ = np.nonzero(slots)
        count = counts[seed]
        size = int(count.sum())
        np.add.at(total, rows, _above(rng.multinomial(size, count / size, size=len(rows)).astype(np.float64)))
    return total / n
