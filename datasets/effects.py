"""Variance components of clicks: item, user, and user by category.

Model: the log-odds of a click are ``base + q_item + g_user + t_(user, category)`` with independent zero-mean normal
effects. Two exposures that share an effect agree more often than chance; by how much gives its variance.

With residuals ``e = click - base rate``, the mean product over pairs of exposures that share

* the item but not the user estimates the covariance due to ``q``,
* the user but not the category: due to ``g``,
* user and category but not the item: due to ``g + t``.

A covariance of two binary outcomes is converted to the correlation of their latent normals (tetrachoric, with
``d Phi_2 / d rho = phi_2``, integrated numerically), and that to log-odds by the usual factor 1.7.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOGIT_PER_PROBIT = 1.7
_FloatArray = NDArray[np.float64]
_Index = NDArray[np.integer]


class Variances(NamedTuple):
    """Variances of the latent effects, in squared log-odds."""

    item: float
    user: float
    user_category: float


def variances(residual: _FloatArray, rate: float, user: _Index, item: _Index, category: _Index) -> Variances:
    """Estimate the three variances from clicks.

    Args:
        residual: shape (R,), click minus its base rate.
        rate: overall click rate, in (0, 1).
        user: shape (R,), user index.
        item: shape (R,), item index.
        category: shape (R,), the item's category.
    """
    pair = _groups(user, item)
    taste = _groups(user, category)
    shared = (
        _covariance(residual, item, pair),
        _covariance(residual, user, taste),
        _covariance(residual, taste, pair),
    )
    rho_item, rho_user, rho_both = (latent_correlation(c, rate) for c in shared)
    rho_taste = max(rho_both - rho_user, 0.0)
    scale = LOGIT_PER_PROBIT**2 / max(1.0 - rho_item - rho_user - rho_taste, 0.1)
    return Variances(rho_item * scale, rho_user * scale, rho_taste * scale)


def latent_correlation(covariance: float, rate: float) -> float:
    """Return the correlation, in [0, 0.9], of two standard normals whose exceedances have this covariance and rate."""
    threshold = NormalDist().inv_cdf(1.0 - rate)
    rho = np.linspace(0.0, 0.9, 901)
    density = np.exp(-(threshold**2) / (1.0 + rho)) / (2.0 * np.pi * np.sqrt(1.0 - rho**2))
    reached = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0) * (rho[1] - rho[0])])
    return float(np.interp(covariance, reached, rho))


def additive_offsets(
    target: tuple[_FloatArray, _FloatArray], index: tuple[_Index, _Index], effect: _FloatArray, rounds: int = 30
) -> tuple[_FloatArray, _FloatArray]:
    """Solve for offsets ``a``, ``b`` such that the means of ``sigmoid(a[i] + b[j] + effect)`` equal both sets of rates.

    Alternating Newton steps; if the two sets of rates imply different totals, the first one is met.

    Args:
        target: mean rates by first and by second index, shapes (A,) and (B,), each in (0, 1).
        index: first and second index of every row, shapes (R,).
        effect: shape (R,), further log-odds of each row.
        rounds: Newton steps per side.
    """
    first, second = (_logit(rates) for rates in target)
    second = second - np.average(second, weights=np.bincount(index[1], minlength=len(second)) + 1e-9)
    for _ in range(rounds):
        second += _newton_step(first[index[0]] + second[index[1]] + effect, index[1], target[1])
        first += _newton_step(first[index[0]] + second[index[1]] + effect, index[0], target[0])
    return first, second


def sigmoid(x: _FloatArray) -> _FloatArray:
    """Return the logistic function, same shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float64)


def _newton_step(logits: _FloatArray, index: _Index, target: _FloatArray) -> _FloatArray:
    p = sigmoid(logits)
    size = len(target)
    count = np.bincount(index, minlength=size)
    gap = target * count - np.bincount(index, weights=p, minlength=size)
    slope = np.bincount(index, weights=p * (1.0 - p), minlength=size)
    return np.asarray(np.clip(gap / np.maximum(slope, 1e-9), -1.0, 1.0) * (count > 0), dtype=np.float64)


def _covariance(residual: _FloatArray, shared: _Index, within: _Index) -> float:
    """Mean product of two residuals that share ``shared`` but not ``within`` (a finer grouping); 0 if no pair does."""
    pairs = _pairs(np.ones_like(residual), shared) - _pairs(np.ones_like(residual), within)
    total = _pairs(residual, shared) - _pairs(residual, within)
    return total / pairs if pairs > 0 else 0.0


def _pairs(values: _FloatArray, group: _Index) -> float:
    """Sum of products over ordered pairs (an element with itself included) within groups."""
    return float((np.bincount(group, weights=values) ** 2).sum())


def _groups(first: _Index, second: _Index) -> _Index:
    """Number the distinct pairs, shape (R,)."""
    combined = first.astype(np.int64) * (int(second.max()) + 1) + second
    number: NDArray[np.int64] = np.unique(combined, return_inverse=True)[1]
    return number


def _logit(p: _FloatArray) -> _FloatArray:
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)
