"""The trust gate: whether a fitted simulator predicts later days better than counting does.

Where it does not, a table that ranks methods by its responses ranks them on people who are not those of the log, and
says so before anything else.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rapport.datasets.schema import SessionData
from rapport.envs.session.response.fit import ALL_TIME, FitSettings, Fitted, predict
from rapport.envs.session.simulator_cache import load_simulator, simulator_path
from rapport.experiments.results.store import write_atomically
from rapport.experiments.simulator.counting_baselines import LEAST_POSITIVES, CountingBaselines
from rapport.experiments.simulator.metrics import Ranking, compare

RESAMPLES = 200
"""Bootstrap samples of users behind the interval."""
VERSION = 1
"""Raise it when the measurement changes, so that kept ones are made anew."""
LOGGER = logging.getLogger("rapport")


@dataclass(frozen=True)
class Trust:
    """The user model beside the best predictor that only counts, for the first behaviour on the test days.

    Attributes:
        behaviour: the first behaviour, which is rewarded by default.
        rows: exposures on the test days that the platform chose and of which it is known.
        auc_model: area under the model's ROC curve; None where it could not be measured.
        auc_counting: that of the best counting predictor.
        counting: the name of that predictor.
        low: lower end of the 95 % bootstrap interval, over users, of the model's AUC less the other's.
        high: its upper end.
        why: why it could not be measured; empty where it was.
    """

    behaviour: str
    rows: int = 0
    auc_model: float | None = None
    auc_counting: float | None = None
    counting: str = ""
    low: float = 0.0
    high: float = 0.0
    why: str = ""

    @property
    def beats(self) -> bool:
        """Whether the model ranks later exposures better than counting, beyond the interval."""
        return self.auc_model is not None and self.low > 0

    def banner(self) -> str:
        """What a reader has to know before any result; empty where the model beats counting."""
        if self.beats:
            return ""
        if self.auc_model is None or self.auc_counting is None:
            return (
                f"The simulator was not compared with counting: {self.why}. Whether its users respond as the log's do "
                "is not known; do not take the ranking of methods below as a finding."
            )
        return (
            f"The simulator is not shown to predict {self.behaviour} better than counting: on {self.rows:,} exposures "
            f"of later days its AUC is {self.auc_model:.3f}, that of {self.counting} {self.auc_counting:.3f} "
            f"(difference {self.auc_model - self.auc_counting:+.3f} [{self.low:+.3f}, {self.high:+.3f}]). "
            "Its users do not respond as the log's do; do not take the ranking of methods below as a finding. "
            "More: rapport simulator card."
        )


def simulator_trust(data: SessionData, settings: FitSettings | None = None) -> Trust:
    """How far the simulator of a data set can be trusted; measured once per fitted simulator and kept beside it.

    Args:
        data: the log. Its simulator is fitted where it is not in the cache.
        settings: of the fit; by default those of the environments.
    """
    settings = settings or FitSettings()
    response, fitted = load_simulator(data, settings)
    del response
    path = simulator_path(data, settings)
    kept, key = path.with_suffix(".trust.json"), _key(path)
    if key is not None and (known := _read(kept, key)) is not None:
        return known
    measured = measure(data, fitted, settings)
    if key is not None and not measured.why:
        try:
            write_atomically(kept, json.dumps({"key": key, **asdict(measured)}))
        except OSError as error:
            LOGGER.warning("%s could not be kept and will be measured again: %s", kept, error)
    return measured


def measure(data: SessionData, fitted: Fitted, settings: FitSettings) -> Trust:
    """Measure a fitted user model on the test days."""
    trust, log = Trust(data.log.behaviours[0]), data.log
    rows, logits = predict(fitted.model, data, data.test_from_ms, ALL_TIME, settings.length)
    wanted = (log.feedback[rows, 0] >= 0) & ~log.randomised[rows]
    rows, truth = rows[wanted], log.feedback[rows[wanted], 0]
    if min(int(truth.sum()), int((1 - truth).sum())) < LEAST_POSITIVES:
        few = f"the {len(rows)} exposures of its later days hold fewer than {LEAST_POSITIVES} of each outcome"
        return Trust(trust.behaviour, len(rows), why=few)
    try:
        counted = CountingBaselines(data).predict(0, rows)
    except ModuleNotFoundError as error:
        return Trust(trust.behaviour, len(rows), why=str(error))
    scale, shift = (part.numpy().astype(np.float64)[0] for part in fitted.calibration)
    chance = np.asarray(1.0 / (1.0 + np.exp(-(scale * logits[wanted, 0] + shift))))
    aucs = {name: Ranking(truth, predicted).auc() for name, predicted in counted.items()}
    best = max(aucs, key=lambda name: aucs[name])
    difference, _ = compare(truth, chance, counted[best], log.user[rows], RESAMPLES, np.random.default_rng(0))
    auc = float(Ranking(truth, chance).auc())
    return Trust(trust.behaviour, len(rows), auc, float(aucs[best]), best, difference.low, difference.high)


def _key(path: Path) -> str | None:
    """What tells a simulator's file from one that was fitted anew; None where there is none."""
    try:
        return f"{VERSION}-{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError:
        return None


def _read(path: Path, key: str) -> Trust | None:
    """The measurement that is kept; None where it is of another simulator, or damaged."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        if kept.pop("key") != key:
            return None
        trust = Trust(**kept)
        trust.banner()
        return trust
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
