"""The simulator card: figures against scikit-learn and by hand, baselines without foresight, the whole on a twin."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.response.fit import ALL_TIME, FitSettings, Fitted, predict, states_after
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.response.user_model import new_user_model
from rapport.experiments.simulator.card import COLD, COMPARED, FEW, MODEL, SimulatorCard, _model_chances, simulator_card
from rapport.experiments.simulator.counting_baselines import GLOBAL, ITEM, JOINT, PRIOR, USER_ITEM, CountingBaselines
from rapport.experiments.simulator.metrics import (
    Ranking,
    calibration_error,
    calibration_interval,
    compare,
    compare_runs,
    log_losses,
    reliability_bins,
    wilson,
)
from rapport.experiments.simulator.selection_bias import DURATIONS, PARTS, PUBLISHED_RATES, selection

metrics = pytest.importorskip("sklearn.metrics")
KINDS = ("users", "duration", "popularity")


def simulator(data: SessionData) -> tuple[Fitted, SequenceResponse]:
    """A user model of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = new_user_model(data).eval()
    n = len(data.log.behaviours)
    fitted = Fitted(model, torch.stack([torch.full((n,), 2.0), torch.full((n,), -0.5)]))
    return fitted, SequenceResponse(fitted, states_after(model, data, data.test_from_ms, 96), data.log.behaviours)


def card_of(data: SessionData, seed: int = 0) -> SimulatorCard:
    fitted, response = simulator(data)
    return simulator_card(data, fitted, response, np.random.default_rng(seed), resamples=20, pairs=3_000)


@pytest.fixture(scope="module")
def data() -> SessionData:
    return twin(n_users=300, n_items=120, seed=3)


@pytest.fixture(scope="module")
def card(data: SessionData) -> SimulatorCard:
    return card_of(data)


# Figures


@pytest.mark.parametrize("digits", [1, 8], ids=["with ties", "without ties"])
def test_auc_is_sklearns(digits: int) -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.integers(2, size=500), rng.random(500).round(digits)
    weight = rng.integers(4, size=500).astype(float)
    ranking = Ranking(truth, score)
    assert ranking.auc() == pytest.approx(metrics.roc_auc_score(truth, score))
    assert ranking.auc(weight) == pytest.approx(metrics.roc_auc_score(truth, score, sample_weight=weight))
    assert np.isnan(Ranking(np.zeros(5, int), np.arange(5.0)).auc())


def test_log_loss_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    truth, chance = rng.integers(2, size=200), rng.random(200)
    assert log_losses(truth, chance).mean() == pytest.approx(metrics.log_loss(truth, chance))
    assert np.isfinite(log_losses(np.array([1, 0]), np.array([0.0, 1.0]))).all()


def test_calibration_error_by_hand() -> None:
    truth, chance = np.array([0, 1, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    # Two bins of two: |0.3 - 1| and |1.5 - 2|, over four rows.
    error, floor = calibration_error(truth, chance, bins=2)
    assert error == pytest.approx((0.7 + 0.5) / 4)
    assert floor == pytest.approx(np.sqrt(2 / np.pi) * (np.sqrt(0.09 + 0.16) + np.sqrt(0.24 + 0.09)) / 4)


def test_equal_predictions_share_a_bin() -> None:
    truth = np.tile([0, 1], 50)
    assert calibration_error(truth, np.full(100, 0.5))[0] == pytest.approx(0)
    assert calibration_error(truth, np.full(100, 0.7))[0] == pytest.approx(0.2)


def test_the_noise_floor_is_what_true_probabilities_show() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(2, 3, 3_000)
    found = [calibration_error((rng.random(3_000) < chance).astype(int), chance)[0] for _ in range(100)]
    assert np.mean(found) == pytest.approx(calibration_error(np.zeros(3_000, int), chance)[1], rel=0.05)


def test_comparison_knows_better_from_same() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(2_000)
    truth, user = (rng.random(2_000) < chance).astype(int), rng.integers(300, size=2_000)
    auc, loss = compare(truth, chance, np.full(2_000, 0.5), user, 50, np.random.default_rng(1))
    assert 0 < auc.low <= auc.point <= auc.high and loss.low <= loss.point <= loss.high < 0
    again = compare(truth, chance, np.full(2_000, 0.5), user, 50, np.random.default_rng(1))
    assert again == (auc, loss)
    assert compare(truth, chance, chance, user, 10, rng) == ((0, 0, 0), (0, 0, 0))


def test_intervals_are_over_users() -> None:
    """Saying the same thing ten times makes nobody surer."""
    rng = np.random.default_rng(0)
    ours, theirs, truth, user = rng.random(200), rng.random(200), rng.integers(2, size=200), np.arange(200)
    once = compare(truth, ours, theirs, user, 50, np.random.default_rng(1))
    tenfold = [np.repeat(a, 10) for a in (ours, theirs)]
    often = compare(np.repeat(truth, 10), tenfold[0], tenfold[1], np.repeat(user, 10), 50, np.random.default_rng(1))
    assert np.allclose(once, often)


def test_runs_of_several_seeds_are_averaged() -> None:
    rng = np.random.default_rng(0)
    truth, user = rng.integers(2, size=300), rng.integers(60, size=300)
    first, second, other = rng.random((3, 300))
    auc, loss = compare_runs(truth, [first, second], [other], user, 30, np.random.default_rng(1))
    singles = [compare(truth, run, other, user, 30, np.random.default_rng(1)) for run in (first, second)]
    assert auc.point == pytest.approx(np.mean([single[0].point for single in singles]))
    assert loss.point == pytest.approx(np.mean([single[1].point for single in singles]))
    assert auc.low <= auc.point <= auc.high


def test_wilson_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for positives, rows in ((0, 7), (3, 10), (40, 41), (500, 1_000)):
        expected = stats.binomtest(positives, rows).proportion_ci(method="wilson")
        assert wilson(positives, rows) == pytest.approx((positives / rows, expected.low, expected.high), abs=1e-6)


def test_reliability_bins_are_those_of_the_error() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(1, 3, 2_000).round(2)
    truth = (rng.random(2_000) < chance).astype(int)
    bins = reliability_bins(truth, chance, 12)
    assert sum(one.rows for one in bins) == 2_000
    assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
    error = sum(one.rows * abs(one.predicted - one.observed.point) for one in bins) / 2_000
    assert error == pytest.approx(calibration_error(truth, chance, 12)[0])
    inside = [one.observed.low <= one.predicted <= one.observed.high for one in bins]
    assert np.mean(inside) > 0.7  # the chances are the true ones


def test_the_errors_interval_finds_a_real_error() -> None:
    rng = np.random.default_rng(0)
    chance, user = rng.random(4_000), rng.integers(800, size=4_000)
    off = np.clip(chance + 0.1, 0, 1)
    truth = (rng.random(4_000) < chance).astype(int)
    point, low, high = calibration_interval(truth, off, user, 10, 200, np.random.default_rng(1))
    assert point == calibration_error(truth, off, 10)[0]
    assert low <= point <= high and low > 0.05 and low < np.mean(off - chance) < high
    assert calibration_interval(truth, chance, user, 10, 100, rng).low < 0.01


# Baselines


def test_simple_baselines_by_hand(data: SessionData) -> None:
    log = data.log
    rows = np.flatnonzero(log.time_ms >= data.test_from_ms)[:50]
    found = CountingBaselines(data).predict(0, rows)
    known = (log.time_ms < data.test_from_ms) & (log.feedback[:, 0] >= 0)
    rate = (log.feedback[known, 0].sum() + 0.5) / (known.sum() + 1)
    assert found[GLOBAL] == pytest.approx(rate)
    of_item = known & (log.item == log.item[rows[0]])
    expected = (log.feedback[of_item, 0].sum() + PRIOR * rate) / (of_item.sum() + PRIOR)
    assert found[ITEM][0] == pytest.approx(expected)
    assert set(found) == {GLOBAL, ITEM, USER_ITEM, JOINT}


def test_baselines_do_not_look_ahead(data: SessionData) -> None:
    log, rng = data.log, np.random.default_rng(0)
    later = log.time_ms >= data.test_from_ms
    feedback = log.feedback.copy()
    feedback[later] = rng.integers(2, size=feedback[later].shape)
    item = log.item.copy()
    rows = np.flatnonzero(later)
    item[rows[50:]] = rng.integers(data.catalog.n_items, size=len(rows) - 50)
    other = replace(data, log=replace(log, feedback=feedback, item=item))
    for behaviour in range(3):
        before = CountingBaselines(data).predict(behaviour, rows[:50])
        after = CountingBaselines(other).predict(behaviour, rows[:50])
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_rate_leaves_out_the_row_it_is_for(data: SessionData) -> None:
    baselines = CountingBaselines(data)
    counted = baselines._count(0)
    row = int(np.flatnonzero(counted.known)[0])
    feedback = data.log.feedback.copy()
    feedback[row] = -1
    without = CountingBaselines(replace(data, log=replace(data.log, feedback=feedback)))
    here = baselines._rate(counted._replace(rate=0.5), 0, np.array([row]), leave_out=True)
    there = without._rate(without._count(0)._replace(rate=0.5), 0, np.array([row]), leave_out=False)
    assert here == pytest.approx(there)


def test_the_card_says_what_to_install(data: SessionData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ModuleNotFoundError, match=r"scikit-learn.*rapport-gym\[stats\]"):
        CountingBaselines(data)


# The card


def test_chances_stand_beside_their_rows(data: SessionData) -> None:
    fitted, _ = simulator(data)
    rows, chance = _model_chances(data, fitted, 96)
    again, logits = predict(fitted.model, data, data.test_from_ms, ALL_TIME, FitSettings().length)
    assert np.array_equal(rows, again)
    assert np.array_equal(np.sort(rows), np.flatnonzero(data.log.time_ms >= data.test_from_ms))
    assert np.allclose(chance, 1 / (1 + np.exp(-(2 * logits - 0.5))))


def test_card_of_a_twin(data: SessionData, card: SimulatorCard) -> None:
    test = data.log.time_ms >= data.test_from_ms
    click = card.score("click")
    assert (click.rows, click.positives) == (test.sum(), data.log.feedback[test, 0].sum())
    assert click.auc is not None and 0 < click.auc < 1
    assert card.score("click", GLOBAL).auc == 0.5
    assert [s.predictor for s in card.scores[:5]] == [MODEL, GLOBAL, ITEM, USER_ITEM, JOINT]
    few = [score for score in card.scores if score.positives < 20]
    assert few and all(score.auc is None for score in few)
    assert {d.behaviour for d in card.differences} <= set(COMPARED)
    assert card.differences[0].auc.point == pytest.approx(click.auc - (card.score("click", USER_ITEM).auc or 0))
    assert not card.learned_from_random
    assert all(row.published_random is None for row in card.selection)
    with pytest.raises(KeyError, match="click"):
        card.score("click", "a crystal ball")


def test_hardly_known_users_and_items_have_rows_of_their_own(data: SessionData, card: SimulatorCard) -> None:
    log = data.log
    test = log.time_ms >= data.test_from_ms
    users = np.bincount(log.user[~test], minlength=data.population.n_users)[log.user[test]]
    items = np.bincount(log.item[~test], minlength=data.catalog.n_items)[log.item[test]]
    for group, size in zip(COLD, ((users == 0).sum(), (users < FEW).sum(), (items < FEW).sum()), strict=True):
        found = [score for score in card.cold if score.exposures == group and score.predictor == MODEL]
        assert [score.rows for score in found] == ([size] * len(COMPARED) if size else [])
        assert all(np.isfinite(score.log_loss) for score in found)
    assert {score.exposures for score in card.cold}


def test_reliability_is_of_standard_exposures(data: SessionData, card: SimulatorCard) -> None:
    for found in card.reliability:
        score = card.score(found.behaviour)
        assert sum(one.rows for one in found.bins) == score.rows and score.auc is not None
        assert found.error.point == pytest.approx(score.calibration_error)
        assert found.floor == pytest.approx(score.calibration_floor)


def test_a_card_is_reproducible(data: SessionData, card: SimulatorCard) -> None:
    assert card_of(data) == card
    assert card_of(data, seed=1) != card


def test_random_exposures_are_told_apart(data: SessionData) -> None:
    randomised = np.random.default_rng(0).random(len(data.log)) < 0.5
    mixed = card_of(replace(data, log=replace(data.log, randomised=randomised)))
    test = data.log.time_ms >= data.test_from_ms
    assert mixed.score("click").rows == (test & ~randomised).sum()
    assert mixed.score("click", exposures="random").rows == (test & randomised).sum()
    assert mixed.learned_from_random


def test_selection_reads_logged_and_random_items(data: SessionData) -> None:
    """People who click the items they were shown, and nothing else."""
    log = data.log
    rows = np.flatnonzero(log.time_ms >= data.test_from_ms)
    matrix = np.zeros((data.population.n_users, data.catalog.n_items, len(log.behaviours)))
    matrix[log.user[rows], log.item[rows]] = 0.5
    response = MatrixResponse(matrix, log.behaviours)
    named = replace(data, name="kuairand-pure")
    found = selection(named, response, 20_000, np.random.default_rng(0), least_rows=10)
    everyone = next(row for row in found if (row.behaviour, row.kind) == ("click", "all"))
    assert everyone.simulated_logged == 0.5 and everyone.simulated_random < 0.1
    assert everyone.rows == len(rows)
    assert everyone.observed_logged == pytest.approx(log.feedback[rows, 0].mean())
    assert (everyone.published_logged, everyone.published_random) == PUBLISHED_RATES["click"]["all"]
    assert everyone.published_ratio == pytest.approx(0.39, abs=0.01)
    groups = {kind: [row for row in found if (row.behaviour, row.kind) == ("click", kind)] for kind in KINDS}
    assert {row.group for row in groups["users"]} <= {*data.population.features.values[0]} and groups["users"]
    assert {row.group for row in groups["duration"]} <= {*DURATIONS} and groups["duration"]
    assert [row.group[:2] for row in groups["popularity"]][-1] == "10"
    assert sum(row.rows for row in groups["popularity"]) <= everyone.rows
    shown = np.bincount(log.item[log.time_ms < data.test_from_ms], minlength=data.catalog.n_items)
    assert groups["popularity"][-1].group.endswith(f"to {shown.max():,} times")
    by_hand = np.sort(shown)[-len(shown) // PARTS :].min()
    assert f"shown {by_hand:,} to" in groups["popularity"][-1].group
