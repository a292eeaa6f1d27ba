"""The simulator card: how far a fitted user model can be trusted, on days it never saw.

Three questions. How well does it predict what people did with what they were shown, beside predictors that only count?
How well for users and items with few exposures? And how does it treat items that nobody would have been shown
(:mod:`rapport.experiments.simulator.selection_bias`)?

The model is trained on rows before ``data.valid_from_ms`` and stopped and calibrated on the validation days; the
counting baselines use the same rows, all before ``data.test_from_ms``. Everything is measured on the test days. The
model predicts each exposure from its user's earlier ones, those of the test days included, as it does in simulation;
the baselines know the counts up to the test days.

Needs the ``stats`` extra (scikit-learn).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.registry.licence import licence_note
from rapport.datasets.schema import IntArray, SessionData
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.response.fit import ALL_TIME, FitSettings, Fitted, predict
from rapport.experiments.simulator.counting_baselines import JOINT, LEAST_POSITIVES, USER_ITEM, CountingBaselines
from rapport.experiments.simulator.metrics import (
    Floats,
    Interval,
    Ranking,
    Reliability,
    calibration_error,
    compare,
    log_losses,
    reliability,
)
from rapport.experiments.simulator.selection_bias import Selection, selection

MODEL = "user model"
COMPARED = ("click", "long_view", "like")
"""Behaviours whose differences from the baselines are given with intervals."""
FEW = 5
"""Exposures before the test days below which a user or an item is hardly known."""
COLD = ("new users", f"users with under {FEW} exposures", f"items with under {FEW} exposures")
"""Groups of rows on the test days: by exposures of their user, or of their item, before these days."""


@dataclass(frozen=True)
class Score:
    """How well one predictor predicts one behaviour on the test days.

    Attributes:
        exposures: ``"standard"`` (chosen by the platform), ``"random"``, or a name in :data:`COLD`.
        behaviour: e.g. ``"click"``.
        predictor: :data:`MODEL` or a name in :mod:`rapport.experiments.simulator.counting_baselines`.
        rows: exposures where the behaviour was recorded.
        positives: how many of them had it.
        predicted: mean predicted chance, to set beside ``rate``.
        auc: area under the ROC curve; None with fewer than 20 positives.
        log_loss: mean, in nats.
        calibration_error: expected calibration error, in [0, 1].
        calibration_floor: what a perfectly calibrated predictor would show on so few rows.
    """

    exposures: str
    behaviour: str
    predictor: str
    rows: int
    positives: int
    predicted: float
    auc: float | None
    log_loss: float
    calibration_error: float
    calibration_floor: float

    @property
    def rate(self) -> float:
        """Share of positives."""
        return self.positives / self.rows


@dataclass(frozen=True)
class Difference:
    """The user model minus a baseline, with 95 % bootstrap intervals over users.

    Attributes:
        exposures: as in :class:`Score`.
        behaviour: as in :class:`Score`.
        baseline: which.
        auc: above 0 where the model ranks better.
        log_loss: in nats, below 0 where the model predicts better.
    """

    exposures: str
    behaviour: str
    baseline: str
    auc: Interval
    log_loss: Interval


@dataclass(frozen=True)
class SimulatorCard:
    """The whole card.

    Attributes:
        data: name of the data set.
        fingerprint: of the data set.
        profile: how the model was fitted.
        test_from_ms: begin of the test days, milliseconds since 1970 UTC.
        valid_from_ms: begin of the validation days.
        users: with a row on the test days.
        scores: predictors by behaviour and kind of exposure.
        differences: between the model and the baselines that weigh users and items.
        cold: predictors on rows of hardly known users and items.
        cold_differences: between the model and the baselines there.
        reliability: of the model, for each behaviour with enough positives.
        selection: logged against random items.
        learned_from_random: whether the training rows hold random exposures.
        bins: of the calibration error.
        resamples: of the bootstrap.
        pairs: random (user, item) pairs in ``selection``.
        licence: note on the data's licence.
    """

    data: str
    fingerprint: str
    profile: str
    test_from_ms: int
    valid_from_ms: int
    users: int
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    cold: tuple[Score, ...]
    cold_differences: tuple[Difference, ...]
    reliability: tuple[Reliability, ...]
    selection: tuple[Selection, ...]
    learned_from_random: bool
    bins: int
    resamples: int
    pairs: int
    licence: str = ""

    def score(self, behaviour: str, predictor: str = MODEL, exposures: str = "standard") -> Score:
        """Look a score up.

        Raises:
            KeyError: there is none.
        """
        for score in (*self.scores, *self.cold):
            if (score.behaviour, score.predictor, score.exposures) == (behaviour, predictor, exposures):
                return score
        raise KeyError(f"the card has no {predictor!r} of {behaviour!r} on {exposures} exposures")


def simulator_card(
    data: SessionData,
    fitted: Fitted,
    response: ResponseModel,
    rng: np.random.Generator,
    *,
    settings: FitSettings | None = None,
    bins: int = 15,
    resamples: int = 400,
    pairs: int = 200_000,
) -> SimulatorCard:
    """Measure a simulator on the later days of its data.

    Args:
        data: the log; only its test days are measured on.
        fitted: the user model and its calibration.
        response: the same model as the environment asks it.
        rng: of the bootstrap and the random pairs.
        settings: how ``fitted`` was fitted; the default settings if None.
        bins: of the calibration error, of equal mass.
        resamples: of the bootstrap.
        pairs: random (user, item) pairs.

    Raises:
        ModuleNotFoundError: the ``stats`` extra is not installed.
    """
    settings = settings or FitSettings()
    baselines = CountingBaselines(data)
    rows, chance = _model_chances(data, fitted, settings.length)
    random = data.log.randomised[rows]
    scores: list[Score] = []
    differences: list[Difference] = []
    for exposures, wanted in (("standard", ~random), ("random", random)):
        for column in range(len(data.log.behaviours)):
            found = _compared(data, baselines, exposures, rows[wanted], chance[wanted], column, bins, resamples, rng)
            scores += found[0]
            differences += found[1]
    cold: list[Score] = []
    cold_differences: list[Difference] = []
    for group, wanted in _cold(data, rows):
        for column in (data.log.behaviours.index(name) for name in COMPARED if name in data.log.behaviours):
            found = _compared(data, baselines, group, rows[wanted], chance[wanted], column, bins, resamples, rng)
            cold += found[0]
            cold_differences += found[1]
    return SimulatorCard(
        data=data.name,
        fingerprint=data.fingerprint,
        profile=settings.profile,
        test_from_ms=data.test_from_ms,
        valid_from_ms=data.valid_from_ms,
        users=len(np.unique(data.log.user[rows])),
        scores=tuple(scores),
        differences=tuple(differences),
        cold=tuple(cold),
        cold_differences=tuple(cold_differences),
        reliability=tuple(_reliability(data, rows[~random], chance[~random], bins, resamples, rng)),
        selection=selection(data, response, pairs, rng),
        learned_from_random=bool(data.log.randomised[data.log.time_ms < data.valid_from_ms].any()),
        bins=bins,
        resamples=resamples,
        pairs=pairs,
        licence=licence_note(data),
    )


def _compared(
    data: SessionData,
    baselines: CountingBaselines,
    exposures: str,
    rows: IntArray,
    chance: Floats,
    column: int,
    bins: int,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[list[Score], list[Difference]]:
    """Scores of every predictor of one behaviour on rows (R,), and the model's differences from the baselines."""
    feedback = data.log.feedback[rows, column]
    kept, behaviour = feedback >= 0, data.log.behaviours[column]
    if not kept.any():
        return [], []
    truth, user = feedback[kept], data.log.user[rows[kept]]
    found = {MODEL: chance[kept, column], **baselines.predict(column, rows[kept])}
    scores = [_score(exposures, behaviour, name, truth, p, bins) for name, p in found.items()]
    differences = []
    if behaviour in COMPARED and _enough(truth):
        for name in (USER_ITEM, JOINT):
            if name in found:
                both = compare(truth, found[MODEL], found[name], user, resamples, rng)
                differences.append(Difference(exposures, behaviour, name, *both))
    return scores, differences


def _cold(data: SessionData, rows: IntArray) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Names in :data:`COLD` and which of the rows belong there, shape (R,); empty groups are left out."""
    log = data.log
    early = log.time_ms < data.test_from_ms
    by_user = np.bincount(log.user[early], minlength=data.population.n_users)[log.user[rows]]
    by_item = np.bincount(log.item[early], minlength=data.catalog.n_items)[log.item[rows]]
    for group, members in zip(COLD, (by_user == 0, by_user < FEW, by_item < FEW), strict=True):
        if members.any():
            yield group, members & ~log.randomised[rows]


def _reliability(
    data: SessionData, rows: IntArray, chance: Floats, bins: int, resamples: int, rng: np.random.Generator
) -> Iterator[Reliability]:
    for column, behaviour in enumerate(data.log.behaviours):
        feedback = data.log.feedback[rows, column]
        kept = feedback >= 0
        truth, predicted, user = feedback[kept], chance[kept, column], data.log.user[rows[kept]]
        if _enough(truth):
            yield reliability(behaviour, truth, predicted, user, bins, resamples, rng)


def _enough(truth: NDArray[np.integer]) -> bool:
    return bool(min(truth.sum(), (1 - truth).sum()) >= LEAST_POSITIVES)


def _model_chances(data: SessionData, fitted: Fitted, length: int) -> tuple[IntArray, Floats]:
    """Rows of the log on the test days, shape (R,), and the model's calibrated chances of them, (R, F)."""
    rows, logits = predict(fitted.model, data, data.test_from_ms, ALL_TIME, length)
    scale, shift = (part.numpy().astype(np.float64) for part in fitted.calibration)
    return rows, np.asarray(1.0 / (1.0 + np.exp(-(scale * logits + shift))))


def _score(
    exposures: str, behaviour: str, predictor: str, truth: NDArray[np.integer], chance: Floats, bins: int
) -> Score:
    positives = int(truth.sum())
    return Score(
        exposures,
        behaviour,
        predictor,
        len(truth),
        positives,
        float(chance.mean()),
        Ranking(truth, chance).auc() if _enough(truth) else None,
        float(log_losses(truth, chance).mean()),
        *calibration_error(truth, chance, bins),
    )
