"""Performance profiles: which share of the sessions scores above each level, with a pointwise bootstrap band.

Agarwal et al. (NeurIPS 2021, "Deep reinforcement learning at the edge of the statistical precipice", section 4.2):
where a mean hides whether few sessions are very good or all are a little better, the whole distribution shows it; a
curve that lies above another everywhere dominates it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rapport.experiments.report.figures import COLOURS, lay_out
from rapport.experiments.results.stats import RESAMPLES, FloatArray

Profile = tuple[FloatArray, FloatArray, FloatArray]
"""Share above each level, and its band's lower and upper end, each of shape (T,)."""
_DASHES = ("solid", "dash", "dot", "dashdot")


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
        scores_by_seed: for each of n seeds an array of shape (S_seed,), a score per session, e.g. R_cum.
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
    low, high = np.quantile(_drawn(counts, rng, resamples), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return point, low, high


def profile_figure(profiles: Mapping[str, Profile], taus: ArrayLike, title: str, unit: str) -> Any:
    """A plotly figure of performance profiles, a curve with its band for each.

    Args:
        profiles: shown name to what :func:`performance_profile` gave, in the order of the legend.
        taus: shape (T,), their levels.
        title: heading of the figure.
        unit: what the scores are, e.g. ``"R_cum [summed click rate]"``.
    """
    import plotly.graph_objects as go

    levels = np.asarray(taus, dtype=np.float64)
    figure = go.Figure()
    for place, (name, (point, low, high)) in enumerate(profiles.items()):
        colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)]
        figure.add_scatter(
            x=np.concatenate([levels, levels[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=colour,
            opacity=0.15,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=str(place),
        )
        figure.add_scatter(
            x=levels,
            y=point,
            mode="lines",
            name=html.escape(name, quote=False),
            legendgroup=str(place),
            line={"color": colour, "width": 2.2, "dash": dash},
            hovertemplate="%{y:.1%}",
        )
    lay_out(figure, title, 380 + 22 * (len(profiles) // 4))
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"}, hovermode="x unified"
    )
    figure.update_xaxes(title=unit)
    figure.update_yaxes(title="share of sessions above", range=[0, 1.01], tickformat=".0%")
    return figure


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
    chosen = rng.integers(0, n, size=(resamples, n))
    total = np.zeros((resamples, len(counts[0]) - 1))
    for seed, count in enumerate(counts):
        rows, _ = np.nonzero(chosen == seed)
        size = int(count.sum())
        np.add.at(total, rows, _above(rng.multinomial(size, count / size, size=len(rows)).astype(np.float64)))
    return total / n
