"""The trust gate: measured once, kept beside the simulator, and a banner where counting is as good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rapport.datasets.schema import SessionData
from rapport.envs.session.response.fit import ALL_TIME, FitSettings, Fitted, predict
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.simulator_cache import load_simulator, simulator_path
from rapport.experiments.lerl.environments import banner, session_env, trust
from rapport.experiments.simulator import trust as module
from rapport.experiments.simulator.counting_baselines import CountingBaselines
from rapport.experiments.simulator.trust import Trust, measure, simulator_trust

SETTINGS = FitSettings(epochs=1, length=8, batch_size=64)


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path))


def test_aucs_are_those_of_scikit_learn(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    fitted = Fitted(sequence_response.model, torch.ones(2, len(small_data.log.behaviours)))
    found = measure(small_data, fitted, SETTINGS)
    rows, logits = predict(fitted.model, small_data, small_data.test_from_ms, ALL_TIME, SETTINGS.length)
    kept = (small_data.log.feedback[rows, 0] >= 0) & ~small_data.log.randomised[rows]
    truth = small_data.log.feedback[rows[kept], 0]
    assert found.rows == kept.sum() and found.behaviour == "click"
    assert found.auc_model == pytest.approx(roc_auc_score(truth, logits[kept, 0]))
    counted = CountingBaselines(small_data).predict(0, rows[kept])
    aucs = {name: roc_auc_score(truth, chance) for name, chance in counted.items()}
    assert found.auc_counting == pytest.approx(max(aucs.values())) and aucs[found.counting] == max(aucs.values())
    assert found.low <= found.auc_model - found.auc_counting <= found.high
    assert not found.beats  # weights drawn at random


def test_a_simulator_is_measured_once(
    small_data: SessionData, own_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, measured = simulator_trust(small_data, SETTINGS), []
    monkeypatch.setattr(module, "measure", lambda *_: measured.append(1) or Trust("click", why="again"))
    assert simulator_trust(small_data, SETTINGS) == first and not measured
    path = simulator_path(small_data, SETTINGS)
    kept = path.with_suffix(".trust.json")
    for damage in (b"", b"{}", b"[1]", b"\xff", kept.read_bytes().replace(b'"rows"', b'"rose"')):
        kept.write_bytes(damage)
        assert simulator_trust(small_data, SETTINGS).why == "again"
    load_simulator(small_data, SETTINGS)
    monkeypatch.undo()


def test_a_banner_says_why() -> None:
    better = Trust("click", 900, 0.7, 0.65, "item rate", 0.01, 0.09)
    assert better.beats and better.banner() == ""
    for low, auc in ((-0.01, 0.7), (0.0, 0.7), (-0.3, 0.5)):
        said = replace(better, low=low, auc_model=auc).banner()
        assert f"its AUC is {auc:.3f}, that of item rate 0.650" in said and "900 exposures" in said
    assert "not compared with counting: no scikit-learn" in Trust("click", why="no scikit-learn").banner()


def test_too_few_clicks_cannot_be_judged(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    feedback = np.where(small_data.log.time_ms[:, None] >= small_data.test_from_ms, 0, small_data.log.feedback)
    rare = replace(small_data, log=replace(small_data.log, feedback=feedback.astype(np.int8)))
    fitted = Fitted(sequence_response.model, torch.ones(2, len(small_data.log.behaviours)))
    found = measure(rare, fitted, SETTINGS)
    assert not found.beats and "hold fewer than 20 of each outcome" in found.banner()


def test_nothing_is_asked_where_no_simulator_answers() -> None:
    assert trust(session_env("kuairec", "synthetic")) is None
    assert trust(session_env("kuairand", "twin", profile="official")) is None
    assert banner(session_env("kuairec", "synthetic")) == "" == banner()
