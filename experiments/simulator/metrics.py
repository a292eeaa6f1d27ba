"""How good a probability is: ranking, log-loss, calibration, and intervals over users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport.experiments.results.stats import cluster_bootstrap, interval_text

Floats = NDArray[np.float64]
_TINY = 1e-9


class Interval(NamedTuple):
    """A figure with its 95 % bootstrap interval."""

    point: float
    low: float
    high: float

    def shown(self, digits: int, *, signed: bool = False) -> str:
        """As text, e.g. ``"+0.0200 [+0.0100, +0.0300]"``."""
        return interval_text(*self, digits, signed=signed)


def log_losses(truth: NDArray[np.integer], chance: Floats) -> Floats:
    """Minus the log-likelihood of each outcome, in nats, shape (R,)."""
    sure = np.clip(np.where(truth > 0, chance, 1.0 - chance), _TINY, 1.0)
    return np.asarray(-np.log(sure))


class Ranking:
    """Area under the ROC curve, for one order of the rows and any weights on them.

    The chance that a positive row scores above a negative one, ties counting a half (the Mann-Whitney statistic).

    Args:
        truth: shape (R,), 0 or 1.
        score: shape (R,), higher means more likely.
    """

    def __init__(self, truth: NDArray[np.integer], score: Floats) -> None:
        self._order = np.argsort(score, kind="stable")
        ranked = score[self._order]
        self._positive = truth[self._order].astype(np.float64)
        self._starts = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1])
        self._tied = len(self._starts) < len(ranked)

    def auc(self, weight: Floats | None = None) -> float:
        """The area under weights of shape (R,), by default 1; nan where a class has no weight."""
        w = np.ones(len(self._order)) if weight is None else weight[self._order]
        positive = w * self._positive
        negative = w - positive
        if self._tied:
            positive, negative = (np.add.reduceat(a, self._starts) for a in (positive, negative))
        below = np.cumsum(negative)
        pairs = positive.sum() * below[-1]
        return float(positive @ (below - negative / 2) / pairs) if pairs > 0 else float("nan")


def calibration_bins(chance: Floats, bins: int) -> NDArray[np.int64]:
    """Bin of each row, shape (R,): bins of equal mass by predicted chance; equal predictions are never parted."""
    edges = np.unique(np.quantile(chance, np.arange(1, bins) / bins))
    return np.asarray(np.searchsorted(edges, chance, side="left"), dtype=np.int64)


def calibration_error(truth: NDArray[np.integer], chance: Floats, bins: int = 15) -> tuple[float, float]:
    """Expected calibration error, and what a perfectly calibrated predictor would show: the noise floor.

    The mean over rows of |mean prediction - share of positives| in the row's bin (Naeini, Cooper and Hauskrecht, AAAI
    2015, with bins of equal mass). Few rows make it positive even for the true chances: the second figure is its
    expectation then, by the normal approximation sqrt(2 / pi) x standard deviation.

    Args:
        truth: shape (R,), 0 or 1.
        chance: shape (R,), in [0, 1].
        bins: at most so many bins.
    """
    place = calibration_bins(chance, bins)
    gap = np.bincount(place, weights=chance - truth)
    floor = np.sqrt(2 / np.pi * np.bincount(place, weights=chance * (1 - chance)))
    return float(np.abs(gap).sum() / len(truth)), float(floor.sum() / len(truth))


class Bin(NamedTuple):
    """Rows whose predicted chances lie together.

    Attributes:
        predicted: their mean predicted chance.
        observed: share of positives, with its 95 % Wilson interval.
        rows: how many.
    """

    predicted: float
    observed: Interval
    rows: int


@dataclass(frozen=True)
class Reliability:
    """Whether chances of one behaviour come true.

    Attributes:
        behaviour: e.g. ``"click"``.
        bins: of equal mass by predicted chance.
        error: :func:`calibration_error` over these bins, with its interval over users.
        floor: what a perfectly calibrated predictor would show on so few rows.
    """

    behaviour: str
    bins: tuple[Bin, ...]
    error: Interval
    floor: float


def reliability(
    behaviour: str,
    truth: NDArray[np.integer],
    chance: Floats,
    user: NDArray[np.integer],
    bins: int,
    resamples: int,
    rng: np.random.Generator,
) -> Reliability:
    """Predicted against observed of one behaviour; arguments as of :func:`calibration_interval`."""
    error = calibration_interval(truth, chance, user, bins, resamples, rng)
    return Reliability(
        behaviour, reliability_bins(truth, chance, bins), error, calibration_error(truth, chance, bins)[1]
    )


def reliability_bins(truth: NDArray[np.integer], chance: Floats, bins: int) -> tuple[Bin, ...]:
    """Predicted against observed, in bins of equal mass as :func:`calibration_error` has them; empty ones left out."""
    place = calibration_bins(chance, bins)
    rows = np.bincount(place)
    sums = [np.bincount(place, weights=w)[rows > 0] for w in (chance, truth.astype(np.float64))]
    return tuple(Bin(p / n, wilson(y, n), int(n)) for p, y, n in zip(*sums, rows[rows > 0], strict=True))


def wilson(positives: float, rows: float, z: float = 1.959964) -> Interval:
    """A share with its score interval (Wilson, JASA 1927), which holds for few rows and for shares near 0 and 1."""
    share = positives / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * float(np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)))
    return Interval(float(share), float(max(middle - half, 0.0)), float(min(middle + half, 1.0)))


def calibration_interval(
    truth: NDArray[np.integer],
    chance: Floats,
    user: NDArray[np.integer],
    bins: int,
    resamples: int,
    rng: np.random.Generator,
) -> Interval:
    """:func:`calibration_error` with a 95 % bootstrap interval over users; the bins stay as they are.

    A mean of absolute gaps only grows by resampling, so the percentiles are reflected about the point (the *basic*
    bootstrap) and cut off at 0.
    """
    place, gap = calibration_bins(chance, bins), chance - truth
    drawn = cluster_bootstrap(
        lambda weight: np.abs(np.bincount(place, weights=weight * gap)).sum() / weight.sum(),
        user,
        rng,
        resamples=resamples,
    )
    point = calibration_error(truth, chance, bins)[0]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(point, max(2 * point - float(high), 0.0), max(2 * point - float(low), 0.0))


def compare(
    truth: NDArray[np.integer],
    ours: Floats,
    theirs: Floats,
    user: NDArray[np.integer],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[Interval, Interval]:
    """As :func:`compare_runs`, of one run each."""
    return compare_runs(truth, [ours], [theirs], user, resamples, rng)


def compare_runs(
    truth: NDArray[np.integer],
    ours: list[Floats],
    theirs: list[Floats],
    user: NDArray[np.integer],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[Interval, Interval]:
    """Differences ours - theirs in AUC and in mean log-loss, each the mean over its runs, bootstrapped over users.

    A user's rows are drawn together, since one person's outcomes depend on each other.

    Args:
        truth: shape (R,), 0 or 1.
        ours: chances of each run, shape (R,).
        theirs: chances of each run, shape (R,).
        user: shape (R,), whose row it is.
        resamples: bootstrap samples.
        rng: draws them.
    """

    def auc(weight: Floats | None = None) -> float:
        ranked = [np.mean([ranking.auc(weight) for ranking in side]) for side in rankings]
        return float(ranked[0] - ranked[1])

    rankings = [[Ranking(truth, run) for run in side] for side in (ours, theirs)]
    mean_losses = [np.mean([log_losses(truth, run) for run in side], axis=0) for side in (ours, theirs)]
    losses = mean_losses[0] - mean_losses[1]
    drawn = cluster_bootstrap(
        lambda weight: (auc(weight), weight @ losses / weight.sum()), user, rng, resamples=resamples
    )
    low, high = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    ranks, loss = (Interval(p, float(low[i]), float(high[i])) for i, p in enumerate((auc(), float(losses.mean()))))
    return ranks, loss
