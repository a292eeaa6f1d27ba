"""Linear regressions with many fixed effects: what is left of an association once constant tastes are taken out.

Three estimators of ``y = x b + effects + error`` on a log of users' exposures:

* :meth:`FixedEffects.residual` and :func:`least_squares`: the *within* estimator (Frisch, Waugh and Lovell). It leans
  on strict exogeneity: what is shown must not answer to what the user did before. Where a platform shows more of what
  was clicked, the estimate is off by the order of one over the rows a group has (Nickell, Econometrica 1981).
* :func:`forward_deviations` with :func:`instrumented`: each row minus the mean of its group's *later* rows,
  instrumented by the row itself (Arellano and Bover, Journal of Econometrics 1995). What is shown may answer to the
  past.
* :func:`instrumented` with two noisy measures of one quantity, each the other's instrument: right where the measures'
  errors are independent, where least squares is drawn towards zero.

Standard errors are clustered by user (Liang and Zeger, Biometrika 1986). Needs the ``stats`` extra (scipy).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.integer]
_TOLERANCE = 1e-9
_MAX_ROUNDS = 2_000


class Coefficients(NamedTuple):
    """Estimates of P coefficients.

    Attributes:
        value: shape (P,).
        error: shape (P,), standard errors, clustered.
        covariance: shape (P, P).
        residual: shape (R,).
    """

    value: Floats
    error: Floats
    covariance: Floats
    residual: Floats


class FixedEffects:
    """Takes group means out of columns, for several groupings at once.

    Args:
        *groups: codes of shape (R,), one array per grouping; any integers.

    Raises:
        ModuleNotFoundError: the ``stats`` extra is not installed.
    """

    def __init__(self, *groups: Codes) -> None:
        sparse, self._solve = _scipy()
        columns, weights, first = [], [], 0
        self.sizes: list[int] = []
        for group in groups:
            code = np.unique(group, return_inverse=True)[1]
            count = np.bincount(code)
            columns.append(code + first)
            weights.append(1.0 / np.sqrt(count[code]))  # columns of norm 1: many times fewer rounds
            self.sizes.append(len(count))
            first += len(count)
        rows = np.tile(np.arange(len(groups[0])), len(groups))
        entries = (np.concatenate(weights), (rows, np.concatenate(columns)))
        self._design = sparse.csr_matrix(entries, shape=(len(groups[0]), first))

    def residual(self, columns: Floats) -> Floats:
        """What is left of each column, shape (R,) or (R, P): its residual on the effects of all groupings."""
        table = columns.reshape(len(columns), -1)
        left = np.stack([column - self._design @ self._effects(column) for column in table.T], axis=1)
        return left.reshape(columns.shape)

    def without(self, columns: Floats, grouping: int) -> Floats:
        """The columns, (R, P), less the estimated effects of one grouping; those of the others are left in."""
        begin = sum(self.sizes[:grouping])
        kept = np.zeros(self._design.shape[1])
        kept[begin : begin + self.sizes[grouping]] = 1.0
        return np.stack([c - self._design @ (kept * self._effects(c)) for c in columns.T], axis=1)

    def _effects(self, column: Floats) -> Floats:
        found = self._solve(self._design, column, atol=_TOLERANCE, btol=_TOLERANCE, maxiter=_MAX_ROUNDS)
        return np.asarray(found[0])


def least_squares(y: Floats, x: Floats, cluster: Codes, absorbed: int = 0) -> Coefficients:
    """Regress ``y`` (R,) on ``x`` (R, P), both already residuals.

    Args:
        y: shape (R,).
        x: shape (R, P).
        cluster: shape (R,), whose errors may be correlated.
        absorbed: effects taken out that are not nested in the clusters; they count as parameters.
    """
    return instrumented(y, x, x, cluster, absorbed)


def instrumented(y: Floats, x: Floats, z: Floats, cluster: Codes, absorbed: int = 0) -> Coefficients:
    """Solve ``z' (y - x b) = 0``: as many instruments ``z`` (R, P) as regressors ``x`` (R, P)."""
    bread = np.linalg.pinv(z.T @ x)
    value = bread @ (z.T @ y)
    residual = y - x @ value
    code = np.unique(cluster, return_inverse=True)[1]
    scores = np.stack([np.bincount(code, column * residual) for column in z.T], axis=1)
    n, groups = len(y), len(scores)
    scale = groups / max(groups - 1, 1) * (n - 1) / max(n - x.shape[1] - absorbed, 1)
    covariance = scale * bread @ (scores.T @ scores) @ bread.T
    return Coefficients(value, np.sqrt(np.diag(covariance)), covariance, residual)


def forward_deviations(columns: Floats, group: Codes) -> tuple[Floats, NDArray[np.bool_]]:
    """Each row minus the mean of its group's later rows, times sqrt(k / (k + 1)) for k later rows.

    Args:
        columns: shape (R, P); the rows of a group stand in the order of time.
        group: shape (R,).

    Returns:
        Shape (R, P), and which rows have a later one, shape (R,).
    """
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    start = np.flatnonzero(np.append(True, sorted_group[1:] != sorted_group[:-1]))
    count = np.diff(np.append(start, len(group)))
    number = np.repeat(np.arange(len(start)), count)
    later = count[number] - 1 - (np.arange(len(group)) - start[number])
    total = np.cumsum(columns[order], axis=0)
    after = total[(start + count - 1)[number]] - total
    deviation = columns[order] - after / np.maximum(later, 1)[:, None]
    result, kept = np.empty_like(columns), np.empty(len(group), np.bool_)
    result[order] = np.sqrt(later / (later + 1.0))[:, None] * deviation
    kept[order] = later > 0
    return result, kept


def stack(columns: Sequence[NDArray[Any]]) -> Floats:
    """Columns of any type side by side, shape (R, P)."""
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import sparse
        from scipy.sparse.linalg import lsmr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'fixed effects need scipy, which is not installed; install it: pip install "rapport-gym[stats]"',
            name=error.name,
        ) from error
    return sparse, lsmr
