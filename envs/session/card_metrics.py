"""How good a probability is: ranking, log-loss, calibration, and intervals over users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_TINY = 1e-9


class Interval(NamedTuple):
    """A figure with its 95 % bootstrap interval."""

    point: float
    low: float
    high: float


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
    """Expected calibration error, and what a perfectly calibrated predictor would show by luck.

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
    luck = np.sqrt(2 / np.pi * np.bincount(place, weights=chance * (1 - chance)))
    return float(np.abs(gap).sum() / len(truth)), float(luck.sum() / len(truth))


def compare(
    truth: NDArray[np.integer],
    ours: Floats,
    theirs: Floats,
    user: NDArray[np.integer],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[Interval, Interval]:
    """Differences ours - theirs in AUC and in mean log-loss, bootstrapped over users.

    A user's rows are drawn together, since one person's outcomes depend on each other.

    Args:
        truth: shape (R,), 0 or 1.
        ours: shape (R,), chances.
        theirs: shape (R,), chances.
        user: shape (R,), whose row it is.
        resamples: bootstrap samples.
        rng: draws them.
    """
    _, who = np.unique(user, return_inverse=True)
    n_users = int(who.max()) + 1
    rankings = Ranking(truth, ours), Ranking(truth, theirs)
    losses = log_losses(truth, ours) - log_losses(truth, theirs)
    drawn = np.empty((resamples, 2))
    for sample in range(resamples):
        times = np.bincount(rng.integers(n_users, size=n_users), minlength=n_users).astype(np.float64)
        weight = times[who]
        drawn[sample] = rankings[0].auc(weight) - rankings[1].auc(weight), weight @ losses / weight.sum()
    low, high = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    points = rankings[0].auc() - rankings[1].auc(), float(losses.mean())
    auc, loss = (Interval(points[i], float(low[i]), float(high[i])) for i in range(2))
    return auc, loss
