"""Predictors that only count: what a user model has to beat."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import IntArray, SessionData
from rapport.experiments.simulator.metrics import Floats

GLOBAL, ITEM, USER_ITEM, JOINT = "global rate", "item rate", "user x item", "user x item, joint"
"""Names of the baselines; the joint one also counts the behaviours in :data:`JOINT_BEHAVIOURS`."""
JOINT_BEHAVIOURS = ("click", "long_view", "like")
PRIOR = 10.0
"""Exposures that the overall rate is worth against a user's or an item's own."""
LEAST_POSITIVES = 20
"""With fewer positives nothing is fitted and no AUC is given."""


class Counted(NamedTuple):
    """One behaviour counted over the rows before the test days.

    Attributes:
        rate: share of positives.
        shown: exposures with the behaviour recorded, of each user (U,) and of each item (N,).
        done: positives among them.
        known: shape (R,), bool, which rows of the log were counted.
        truth: shape (R,), the behaviour, 0 where not recorded.
    """

    rate: float
    shown: tuple[IntArray, IntArray]
    done: tuple[Floats, Floats]
    known: NDArray[np.bool_]
    truth: Floats


class CountingBaselines:
    """Global rate, item rate, and logistic regressions on user and item rates.

    Every rate is counted on all rows before ``data.test_from_ms``, training and validation days together, and smoothed
    by :data:`PRIOR` exposures at the overall rate. The regressions' inputs are log-odds of these rates, each leaving
    out the row it is for. Their few weights are fitted on the validation days, where the user model is calibrated too,
    or on all earlier rows if these days hold fewer than :data:`LEAST_POSITIVES` positives.

    Args:
        data: rows from ``data.test_from_ms`` on are never read.

    Raises:
        ModuleNotFoundError: the ``stats`` extra is not installed.
    """

    def __init__(self, data: SessionData) -> None:
        self._regression = _logistic_regression()
        self._data = data
        self._before = data.log.time_ms < data.test_from_ms
        self._counted: dict[int, Counted] = {}

    def predict(self, behaviour: int, rows: IntArray) -> dict[str, Floats]:
        """Chances of a behaviour in rows of the test days, shape (len(rows),), by name of the baseline.

        A regression that cannot be fitted, for want of positives, is left out.
        """
        counted = self._count(behaviour)
        result = {GLOBAL: np.full(len(rows), counted.rate), ITEM: self._rate(counted, 1, rows, leave_out=False)}
        fit_rows = self._fit_rows(counted)
        truth = counted.truth[fit_rows]
        if min(truth.sum(), (1 - truth).sum()) < LEAST_POSITIVES:
            return result
        names = self._data.log.behaviours
        joint = sorted({behaviour, *(names.index(b) for b in JOINT_BEHAVIOURS if b in names)})
        for name, columns in ((USER_ITEM, [behaviour]), (JOINT, joint)):
            model = self._regression(max_iter=500)
            model.fit(self._inputs(columns, fit_rows, leave_out=True), truth)
            result[name] = model.predict_proba(self._inputs(columns, rows, leave_out=False))[:, 1]
        return result

    def _count(self, behaviour: int) -> Counted:
        if behaviour not in self._counted:
            log, data = self._data.log, self._data
            feedback = log.feedback[:, behaviour]
            known = self._before & (feedback >= 0)
            truth = np.where(known, feedback, 0).astype(np.float64)
            user, item, did = log.user[known], log.item[known], truth[known]
            sizes = data.population.n_users, data.catalog.n_items
            shown = np.bincount(user, minlength=sizes[0]), np.bincount(item, minlength=sizes[1])
            done: tuple[Floats, Floats] = (
                np.bincount(user, did, sizes[0]).astype(np.float64),
                np.bincount(item, did, sizes[1]).astype(np.float64),
            )
            rate = (did.sum() + 0.5) / (len(did) + 1.0)
            self._counted[behaviour] = Counted(float(rate), shown, done, known, truth)
        return self._counted[behaviour]

    def _fit_rows(self, counted: Counted) -> IntArray:
        recent = np.flatnonzero(counted.known & (self._data.log.time_ms >= self._data.valid_from_ms))
        positives = counted.truth[recent].sum()
        enough = min(positives, len(recent) - positives) >= LEAST_POSITIVES
        return recent if enough else np.flatnonzero(counted.known)

    def _rate(self, counted: Counted, side: int, rows: IntArray, leave_out: bool) -> Floats:
        log = self._data.log
        index = (log.user, log.item)[side][rows]
        own = counted.known[rows] * float(leave_out)
        done = counted.done[side][index] - own * counted.truth[rows]
        return np.asarray((done + PRIOR * counted.rate) / (counted.shown[side][index] - own + PRIOR))

    def _inputs(self, behaviours: list[int], rows: IntArray, leave_out: bool) -> Floats:
        """Log-odds of user and item rates of each behaviour, shape (len(rows), 2 * len(behaviours))."""
        counted = [self._count(b) for b in behaviours]
        rates = np.stack([self._rate(c, side, rows, leave_out) for c in counted for side in (0, 1)], axis=1)
        return np.asarray(np.log(rates) - np.log1p(-rates))


def _logistic_regression() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the simulator card needs scikit-learn, which is not installed; install it: "
            'pip install "rapport-gym[stats]"',
            name=error.name,
        ) from error
    return LogisticRegression
