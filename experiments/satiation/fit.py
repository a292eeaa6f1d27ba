"""From a log to the parameters of the satiation component: time constant, losses, differences between users.

**The log shows a fraction of what people saw.** KuaiRand-Pure holds the exposures of 7,583 videos, 0.45 % of the same
people's exposures of the same days (KuaiRand-27K has them all). Counts of recent exposures are therefore noisy measures
of what was seen, and least squares on them is biased towards zero (attenuation). Remedy: the log is split in two halves
at random, and the counts in one are instruments for those in the other: their errors are independent if what is logged
is a random part of what was seen. The effect *per logged exposure* found in this way stands for the ``1 / share``
exposures behind it. Watching for one time constant without a pause holds ``share * tau / seconds`` logged exposures on
average; the effect times this number is what is lost when the recent past is *full*, of anything or of one category.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rapport.experiments.satiation.exposures import Exposures, Floats
from rapport.experiments.satiation.fixed_effects import Coefficients
from rapport.experiments.satiation.measure import OUTCOMES, TAUS, loads
from rapport.experiments.satiation.panel import BY_TAB, Effect, Panel

LOGGED_SHARE = 1_436_609 / 322_278_385
"""Standard exposures in KuaiRand-Pure over those in KuaiRand-27K, as published: the same 27,285 users and 31 days."""
KINDS = ("same category", "all")


class Fade(NamedTuple):
    """The time constant that explains most, minutes, with its 95 % bootstrap interval over users."""

    minutes: float
    low: float
    high: float


class Spread(NamedTuple):
    """How much users differ in fatigue: standard deviation over mean, with its 95 % interval.

    Attributes:
        ratio: 0 where no difference shows (the estimated variance is not above 0).
        low: lower end.
        high: upper end.
        variance: estimated variance of the slopes, squared rate per logged exposure; may be below 0.
        variance_low: its lower end.
        variance_high: its upper end.
    """

    ratio: float
    low: float
    high: float
    variance: float
    variance_low: float
    variance_high: float


def fade(e: Exposures, rng: np.random.Generator, resamples: int = 500) -> Fade:
    """The time constant among :data:`~rapport.experiments.satiation.measure.TAUS` under which clicks are fitted best.

    Same-category and overall counts share the constant: the log cannot tell two constants apart.

    Args:
        e: the exposures.
        rng: of the bootstrap over users; effects are not taken out anew in each resample.
        resamples: of the bootstrap.
    """
    panel = Panel(e, BY_TAB)
    y = panel.prepare(e.outcome(OUTCOMES[0]))[:, 0]
    code = np.unique(panel.user, return_inverse=True)[1]
    weights = rng.multinomial(code.max() + 1, np.full(code.max() + 1, 1.0 / (code.max() + 1)), size=resamples)
    gains, drawn = [], []
    for tau in TAUS:
        x = panel.prepare(loads(e, tau))
        pairs = [x[:, 0] * x[:, 0], x[:, 0] * x[:, 1], x[:, 1] * x[:, 1], x[:, 0] * y, x[:, 1] * y]
        sums = np.stack([np.bincount(code, pair) for pair in pairs], axis=1)
        gains.append(_gain(sums.sum(axis=0, keepdims=True))[0])
        drawn.append(_gain(weights.astype(np.float64) @ sums))
    best = np.array(TAUS)[np.argmax(np.array(drawn), axis=0)]
    low, high = np.quantile(best, (0.025, 0.975), method="nearest")
    return Fade(float(TAUS[int(np.argmax(gains))]), float(low), float(high))


def _gain(sums: Floats) -> Floats:
    """What two regressors take off the sum of squares, shape (n,), from sums of products, shape (n, 5)."""
    aa, ab, bb, ay, by = sums.T
    return np.asarray((ay * ay * bb - 2 * ay * by * ab + by * by * aa) / (aa * bb - ab * ab))


def undiluted(e: Exposures, tau: float, rng: np.random.Generator, splits: int = 10, how: str = BY_TAB) -> list[Effect]:
    """Effects per logged exposure, its unlogged company included: split halves as each other's instruments.

    Args:
        e: the exposures.
        tau: time constant, minutes.
        rng: draws the halves.
        splits: random halvings; of estimates and variances the medians are taken, spread over halvings included
            (Chernozhukov et al., Econometrics Journal 2018, definition 3.3).
        how: the specification.
    """
    panel = Panel(e, how)
    outcomes = {behaviour: panel.prepare(e.outcome(behaviour)) for behaviour in OUTCOMES}
    found: dict[str, list[Coefficients]] = {behaviour: [] for behaviour in OUTCOMES}
    for _ in range(splits):
        half = rng.random(len(e)) < 0.5
        one, other = (panel.prepare(2.0 * loads(e, tau, counted)) for counted in (half, ~half))
        for behaviour, y in outcomes.items():
            found[behaviour] += [panel.regress(y, one, other), panel.regress(y, other, one)]
    result = []
    for behaviour, estimates in found.items():
        values = np.array([c.value for c in estimates])
        value = np.median(values, axis=0)
        error = np.sqrt(np.median([c.error**2 for c in estimates] + (values - value) ** 2, axis=0))
        for i, kind in enumerate(KINDS):
            figures = int(panel.rows.sum()), float(value[i]), float(error[i])
            result.append(Effect("undiluted", kind, behaviour, f"{how}, split halves", *figures))
    return result


def when_full(effects: list[Effect], tau: float, seconds: float, share: float) -> list[Effect]:
    """The same per *full* recent past instead of per logged exposure.

    Args:
        effects: of :func:`undiluted`.
        tau: time constant, minutes.
        seconds: that an exposure is watched, on average.
        share: of the exposures that are logged.
    """
    logged = share * tau * 60.0 / seconds
    return [x._replace(study="full", value=x.value * logged, error=x.error * logged) for x in effects]


def spread(e: Exposures, tau: float, rng: np.random.Generator, resamples: int = 1_000) -> Spread:
    """How much the effect of recent exposures of any category differs between people.

    With residuals ``r`` of clicks and ``x`` of the count, a user's sums of ``x_t r_t`` on *different* days are
    correlated where slopes differ: their mean product estimates the slopes' variance (a U-statistic), less what taking
    out the user's mean adds. Pairs within a day would count moods as slopes.

    Args:
        e: the exposures.
        tau: time constant, minutes.
        rng: of the bootstrap over users.
        resamples: of the bootstrap.
    """
    panel = Panel(e, BY_TAB)
    y, x = panel.prepare(e.outcome(OUTCOMES[0])), panel.prepare(loads(e, tau))
    found = panel.regress(y, x)
    load, left = x[:, 1], found.residual
    days, code = np.unique(np.stack([panel.user, e.day[panel.rows]], axis=1), axis=0, return_inverse=True)
    owner = np.unique(days[:, 0], return_inverse=True)[1]
    code = code.reshape(-1)
    daily = [np.bincount(code, column) for column in (load * left, load**2, load, left**2, np.ones_like(load))]
    product, square, total, noise, rows = daily
    count = np.bincount(owner, rows)
    pairs = np.bincount(owner, product) ** 2 - np.bincount(owner, product**2)
    power = np.bincount(owner, square) ** 2 - np.bincount(owner, square**2)
    # Residuals of n rows about their mean have covariances of -variance / n: on demeaned loads that adds up.
    own = np.bincount(owner, noise) / np.maximum(count - 1, 1)
    moment = pairs - own * np.bincount(owner, total**2) / count
    keep = count > 1
    weights = rng.multinomial(keep.sum(), np.full(keep.sum(), 1.0 / keep.sum()), size=resamples)
    variance = float(moment[keep].sum() / power[keep].sum())
    drawn = np.asarray(weights @ moment[keep]) / np.asarray(weights @ power[keep])
    low, high = (float(q) for q in np.quantile(drawn, (0.025, 0.975)))
    mean = abs(float(found.value[1]))
    ratios = [float(np.sqrt(max(v, 0.0)) / mean) for v in (variance, low, high)]
    return Spread(ratios[0], ratios[1], ratios[2], variance, low, high)
