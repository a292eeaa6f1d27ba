"""The user model: what it reads, how it is fitted, and its O(slate) form in the simulator."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.engine.initial_histories import Histories
from rapport.envs.session.response.batches import sequence_batches
from rapport.envs.session.response.fit import (
    ALL_TIME,
    FitSettings,
    Fitted,
    count_items,
    fit_user_model,
    one_cycle,
    predict,
    states_after,
)
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.response.user_model import UserModel, UserModelSize, new_user_model

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def learnable() -> SessionData:
    """A twin with few items, so that one epoch tells them apart."""
    return twin(n_users=600, n_items=60, seed=1)


SETTINGS = FitSettings(epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def fitted(learnable: SessionData) -> Fitted:
    return fit_user_model(learnable, SETTINGS)


def calibrated(fitted: Fitted, logits: np.ndarray) -> torch.Tensor:
    return fitted.calibration[0] * torch.from_numpy(logits) + fitted.calibration[1]


# --- sequences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_batches_hold_the_newest_rows_of_each_user_once(small_data: SessionData, length: int) -> None:
    log = small_data.log
    users = np.arange(0, 200, 3)
    until = small_data.valid_from_ms
    seen: dict[int, list[int]] = {}
    for batch in sequence_batches(log, users, until, length, 16, np.random.default_rng(0)):
        assert len(batch.users) <= 16
        for b, user in enumerate(batch.users.tolist()):
            assert user not in seen
            rows = batch.rows[b]
            seen[user] = rows[rows >= 0].tolist()
            n = len(seen[user])
            assert (rows[n:] == -1).all()
            assert batch.items[b].tolist() == [*log.item[seen[user]], *[0] * (len(rows) - n)]
            assert batch.feedback[b, :n].tolist() == log.feedback[seen[user]].tolist()
            assert (batch.feedback[b, n:] == -1).all()
    for user in users.tolist():
        expected = [r for r in np.flatnonzero(log.user == user).tolist() if log.time_ms[r] < until][-length:]
        assert seen.get(user, []) == expected


def test_batch_order_follows_the_generator(small_data: SessionData) -> None:
    def order(seed: int | None) -> list[int]:
        rng = None if seed is None else np.random.default_rng(seed)
        batches = sequence_batches(small_data.log, np.arange(200), ALL_TIME, 50, 8, rng)
        return [int(batch.users[0]) for batch in batches]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(None))


# --- the model --------------------------------------------------------------------------------------------------------


def some_batch(data: SessionData, model: UserModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = next(sequence_batches(data.log, np.arange(40), ALL_TIME, 20, 40))
    return batch.users, batch.items, batch.feedback


def test_padding_does_not_matter(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    model = sequence_response.model
    users, items, feedback = some_batch(small_data, model)
    more = torch.zeros(len(users), 13, dtype=torch.long)
    with torch.no_grad():
        plain = model(users, items, feedback)
        padded = model(
            users, torch.cat([items, more], 1), torch.cat([feedback, more[..., None].expand(-1, -1, 7) - 1], 1)
        )
    torch.testing.assert_close(padded[:, : items.shape[1]], plain, rtol=0, atol=1e-5)


def test_an_exposure_is_predicted_from_earlier_ones_alone(
    small_data: SessionData, sequence_response: SequenceResponse
) -> None:
    """Its own feedback and everything later may change without changing its logits; its past may not."""
    model = sequence_response.model
    users, items, feedback = some_batch(small_data, model)
    place = 9
    later = feedback.clone()
    later[:, place:] = 1 - later[:, place:].clamp(min=0)
    moved = items.clone()
    moved[:, place + 1 :] = (moved[:, place + 1 :] + 5) % 150
    earlier = feedback.clone()
    earlier[:, place - 1] = 1 - earlier[:, place - 1].clamp(min=0)
    with torch.no_grad():
        plain = model(users, items, feedback)
        torch.testing.assert_close(model(users, moved, later)[:, : place + 1], plain[:, : place + 1])
        assert (model(users, items, earlier)[:, place] - plain[:, place]).abs().max() > 1e-4


def test_what_was_not_recorded_is_not_a_no(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    model = sequence_response.model
    with torch.no_grad():
        encoded = model.items()[:1]
        no, unknown = (model.tokens(encoded, torch.full((1, 7), value)) for value in (0, -1))
    assert (no - unknown).abs().max() > 1e-4


# --- the O(slate) form ------------------------------------------------------------------------------------------------


def test_advancing_equals_reading_the_whole_history_again(
    small_data: SessionData, sequence_response: SequenceResponse
) -> None:
    """Twelve slates served one by one, against the model reading log and session from the start each time."""
    response, model = sequence_response, sequence_response.model
    users = np.arange(0, 200, 9)
    rng = np.random.default_rng(0)
    state = response.initial_state(users)
    log = small_data.log
    past: list[list[tuple[int, list[int]]]] = []
    for user in users:
        rows = np.flatnonzero((log.user == user) & (log.time_ms < small_data.test_from_ms))[-96:]
        past.append([(int(log.item[r]), log.feedback[r].tolist()) for r in rows])
    for _ in range(12):
        slates = rng.integers(150, size=(len(users), 6)).astype(np.int32)
        chance = response.probabilities(state, users, slates)
        assert chance.shape == (len(users), 6, 7) and chance.dtype == np.float32
        for i, user in enumerate(users):
            for k, item in enumerate(slates[i].tolist()):
                seen = [*past[i], (item, [-1] * 7)]
                items = torch.tensor([[it for it, _ in seen]])
                feedback = torch.tensor([[marks for _, marks in seen]])
                if k in (0, 5):  # all items of a slate are judged from the state before it
                    with torch.no_grad():
                        logits = model(torch.tensor([user]), items, feedback)[0, -1]
                    expected = torch.sigmoid(3.0 * logits + 0.2)
                    np.testing.assert_allclose(chance[i, k], expected.numpy(), rtol=0, atol=1e-5)
        feedback = (rng.random(chance.shape) < chance).astype(np.int8)
        state = response.advance(state, users, slates, feedback)
        for i in range(len(users)):
            past[i] += zip(slates[i].tolist(), feedback[i].tolist(), strict=True)


def test_click_scores_are_the_logits_of_the_probabilities(sequence_response: SequenceResponse) -> None:
    users = np.arange(30)
    state = sequence_response.initial_state(users)
    scores = sequence_response.click_scores(state, users)
    assert scores.shape == (30, 150)
    slates = np.random.default_rng(0).integers(150, size=(30, 8)).astype(np.int32)
    chance = sequence_response.probabilities(state, users, slates)[..., 0].astype(np.float64)
    logits = np.log(chance) - np.log1p(-chance)
    np.testing.assert_allclose(scores[np.arange(30)[:, None], slates], logits, rtol=0, atol=1e-4)


def test_states_start_after_the_log_and_belong_to_the_caller(
    small_data: SessionData, sequence_response: SequenceResponse
) -> None:
    start = states_after(sequence_response.model, small_data, small_data.test_from_ms, 96)
    np.testing.assert_allclose(sequence_response.initial_state(np.arange(200)), start, atol=1e-6)
    state = sequence_response.initial_state(np.array([3]))
    state[:] = 9
    np.testing.assert_allclose(sequence_response.initial_state(np.array([3])), start[[3]], atol=1e-6)
    nobody = states_after(sequence_response.model, small_data, 0, 96)
    assert not nobody.any()


def test_states_after_any_history_are_those_of_the_log(
    small_data: SessionData, sequence_response: SequenceResponse
) -> None:
    """Right-aligned histories with and without padding, against the states read from the log."""
    users = np.arange(200)
    histories = Histories.before(small_data, small_data.test_from_ms, 96)
    state = sequence_response.state_after(users, histories.items, histories.feedback)
    np.testing.assert_allclose(state, sequence_response.initial_state(users), rtol=0, atol=1e-5)
    nothing = sequence_response.state_after(users, np.zeros((200, 0), np.int32), np.zeros((200, 0, 7), np.int8))
    blank = sequence_response.state_after(users, np.zeros((200, 4), np.int32), np.full((200, 4, 7), -1, np.int8))
    assert not nothing.any() and not blank.any()


def test_a_state_counts_by_category(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    """The last part of a state, by hand: done and recorded in each category, of the log and of a session."""
    model, log, category = sequence_response.model, small_data.log, small_data.catalog.category
    n, h = small_data.catalog.n_categories, model.size.by_category
    users = np.arange(50)
    slates = np.random.default_rng(0).integers(150, size=(50, 6)).astype(np.int32)
    feedback = np.random.default_rng(1).integers(2, size=(50, 6, 7)).astype(np.int8)
    state = sequence_response.advance(sequence_response.initial_state(users), users, slates, feedback)
    counts = state[:, model.size.read_width :].reshape(50, n, 2, h)
    for user in users:
        expected = np.zeros((n, 2, h))
        rows = np.flatnonzero((log.user == user) & (log.time_ms < small_data.test_from_ms))[-96:]
        seen = [(log.item[row], log.feedback[row]) for row in rows]
        for item, marks in [*seen, *zip(slates[user], feedback[user], strict=True)]:
            expected[category[item], 0] += marks[:h] > 0
            expected[category[item], 1] += marks[:h] >= 0
        np.testing.assert_array_equal(counts[user], expected)


def test_an_item_that_nobody_met_speaks_by_its_features(
    small_data: SessionData, sequence_response: SequenceResponse
) -> None:
    """No counts, no id: nothing but its features; and every answer for such items and users is a probability."""
    model = copy.deepcopy(sequence_response.model)
    with torch.no_grad():
        model.item_id.weight.zero_()
        model.item_counts.zero_()
        codes, encoded = model.item_codes, model.shown(model.items(), model.item_counts)[0]
        torch.testing.assert_close(encoded, model.items())
        same = (codes[:, None] == codes[None]).all(dim=-1)
        pairs = same.tril(-1).nonzero()
        assert len(pairs)
        torch.testing.assert_close(encoded[pairs[:, 0]], encoded[pairs[:, 1]])
    fitted = Fitted(model, torch.stack([torch.ones(7), torch.zeros(7)]))
    response = SequenceResponse(fitted, np.zeros_like(sequence_response.start), small_data.log.behaviours)
    users = np.arange(200)
    slates = np.arange(1200).reshape(200, 6).astype(np.int32) % 150
    state = response.initial_state(users)
    for _ in range(3):
        chance = response.probabilities(state, users, slates)
        assert np.isfinite(chance).all() and (chance > 0).all() and (chance < 1).all()
        state = response.advance(state, users, slates, np.ones((200, 6, 7), np.int8))
        assert np.isfinite(state).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_responses(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    calibration = torch.stack([sequence_response._scale, sequence_response._shift])
    there = SequenceResponse(
        Fitted(sequence_response.model, calibration), sequence_response.start, sequence_response.behaviours, "cuda"
    )
    users = np.arange(60)
    rng = np.random.default_rng(0)
    state = other = sequence_response.initial_state(users)
    for _ in range(3):
        slates = rng.integers(150, size=(60, 6)).astype(np.int32)
        chance = sequence_response.probabilities(state, users, slates)
        np.testing.assert_allclose(there.probabilities(other, users, slates), chance, rtol=0, atol=1e-4)
        np.testing.assert_allclose(
            there.click_scores(other, users), sequence_response.click_scores(state, users), rtol=0, atol=1e-3
        )
        feedback = (rng.random(chance.shape) < chance).astype(np.int8)
        state, other = (r.advance(s, users, slates, feedback) for r, s in ((sequence_response, state), (there, other)))
        np.testing.assert_allclose(other, state, rtol=0, atol=1e-4)
    assert next(sequence_response.model.parameters()).device.type == "cpu"


def test_a_transformer_reads_the_past_alone_too(small_data: SessionData) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_user_model(small_data, UserModelSize.of(small_data, "transformer")).eval()
    users, items, feedback = some_batch(small_data, model)
    later = feedback.clone()
    later[:, 9:] = 1 - later[:, 9:].clamp(min=0)
    earlier = feedback.clone()
    earlier[:, 2] = 1 - earlier[:, 2].clamp(min=0)
    with torch.no_grad():
        plain = model(users, items, feedback)
        torch.testing.assert_close(model(users, items, later)[:, :10], plain[:, :10], rtol=1e-4, atol=1e-5)
        assert (model(users, items, earlier)[:, 9] - plain[:, 9]).abs().max() > 1e-5


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_model_and_leaves_torchs_generator_alone(small_data: SessionData) -> None:
    settings = FitSettings(epochs=1, batch_size=64)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first = fit_user_model(small_data, settings)
    assert torch.equal(torch.rand(3), expected)
    again = fit_user_model(small_data, settings)
    other = fit_user_model(small_data, dataclasses.replace(settings, seed=1))
    assert not first.model.training
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    assert torch.equal(first.calibration, again.calibration)
    assert not torch.equal(first.model.head.weight, other.model.head.weight)


def test_the_fit_beats_the_global_rate_on_later_days(learnable: SessionData, fitted: Fitted) -> None:
    rows, logits = predict(fitted.model, learnable, learnable.test_from_ms, ALL_TIME, SETTINGS.length)
    truth = learnable.log.feedback[rows]
    later = (learnable.log.time_ms >= learnable.test_from_ms).sum()
    assert later * 0.9 < len(truth) <= later
    click = torch.from_numpy(truth[:, 0]).float()
    rate = learnable.log.feedback[learnable.log.time_ms < learnable.test_from_ms, 0].mean()
    constant = cross_entropy(torch.full_like(click, math.log(rate / (1 - rate))), click)
    assert cross_entropy(calibrated(fitted, logits)[:, 0], click) < constant - 0.01


def test_the_fit_is_calibrated_on_the_validation_days(learnable: SessionData, fitted: Fitted) -> None:
    """Platt's shift makes mean prediction and rate equal where it was fitted."""
    model = copy.deepcopy(fitted.model)
    count_items(model, learnable, learnable.valid_from_ms)  # as it was calibrated
    rows, logits = predict(model, learnable, learnable.valid_from_ms, learnable.test_from_ms, SETTINGS.length)
    truth = learnable.log.feedback[rows]
    predicted = torch.sigmoid(calibrated(fitted, logits)).mean(0)
    enough = truth.sum(axis=0) >= 20
    assert enough[0]
    np.testing.assert_allclose(predicted.numpy()[enough], truth.mean(axis=0)[enough], atol=2e-3)


def test_the_official_weighting_expects_every_other_click(learnable: SessionData) -> None:
    """Positives 1 and negatives #positives / #negatives: probabilities refer to a balanced prior, not to the log."""
    settings = dataclasses.replace(SETTINGS, profile="official")
    fitted = fit_user_model(learnable, settings)
    assert torch.equal(fitted.calibration, torch.stack([torch.ones(7), torch.zeros(7)]))
    rows, logits = predict(fitted.model, learnable, 0, learnable.valid_from_ms, SETTINGS.length)
    truth = learnable.log.feedback[rows]
    predicted, rate = 1 / (1 + np.exp(-logits)), truth.mean(axis=0)
    assert rate[0] < 0.45 and abs(predicted[:, 0].mean() - 0.5) < 0.04
    assert rate[2] < 0.1 and predicted[:, 2].mean() > 0.3  # likes are rare, and expected as if they were not


def test_the_fit_reads_nothing_from_the_test_days_on(small_data: SessionData) -> None:
    settings = FitSettings(epochs=1, batch_size=64)
    feedback, item = small_data.log.feedback.copy(), small_data.log.item.copy()
    late = small_data.log.time_ms >= small_data.test_from_ms
    feedback[late] = 1 - feedback[late]
    item[late] = 0
    poisoned = dataclasses.replace(small_data, log=dataclasses.replace(small_data.log, feedback=feedback, item=item))
    clean, other = fit_user_model(small_data, settings), fit_user_model(poisoned, settings)
    for name, weight in clean.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name
    assert torch.equal(clean.calibration, other.calibration)


def test_unrecorded_feedback_teaches_nothing(small_data: SessionData) -> None:
    """Where a behaviour was never recorded, its own output gets no gradient: only decay moves it."""
    feedback = small_data.log.feedback.copy()
    feedback[:, 3] = -1
    data = dataclasses.replace(small_data, log=dataclasses.replace(small_data.log, feedback=feedback))
    fitted = fit_user_model(data, FitSettings(epochs=1, batch_size=64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = new_user_model(data)
    moved = fitted.model.item_bias.weight[3] / fresh.item_bias.weight[3]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=1e-3, atol=1e-3)
    assert fitted.calibration[:, 3].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9, 10, 11, 20, 200])
def test_one_cycle_rises_and_falls_over_any_number_of_steps(steps: int) -> None:
    """Torch's own schedule divides by zero where a tenth of the steps is one step."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = one_cycle(optimiser, 2.0, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert all(0 < rate <= 2.0 for rate in rates)
    if steps >= 5:
        peak = rates.index(max(rates))
        assert max(rates) > 1.9 and 1 <= peak <= max(1, steps // 10)
        assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)


def test_items_unknown_to_the_training_days_have_no_id(small_data: SessionData) -> None:
    log = small_data.log
    item, late = log.item.copy(), log.time_ms >= small_data.valid_from_ms
    item[~late & (item < 9)] += 20  # items 0 to 8 come on later days only
    data = dataclasses.replace(small_data, log=dataclasses.replace(log, item=item))
    model = fit_user_model(data, FitSettings(epochs=1, batch_size=64)).model
    met = np.bincount(item[~late], minlength=150) > 0
    assert (model.item_id.weight.detach().abs().sum(dim=1) > 0).tolist() == met.tolist() and not met[:9].any()


def test_without_counting_the_counts_change_nothing(small_data: SessionData) -> None:
    fitted = fit_user_model(small_data, FitSettings(epochs=1, batch_size=64, counting=False))
    users, items, feedback = some_batch(small_data, fitted.model)
    assert not any(weight.any() for weight in fitted.model.counted.parameters())
    with torch.no_grad():
        plain = fitted.model(users, items, feedback)
        counts = torch.ones(*items.shape, 14).cumsum(dim=-1)
        torch.testing.assert_close(fitted.model(users, items, feedback, counts), plain)
    counting = fit_user_model(small_data, FitSettings(epochs=1, batch_size=64))
    assert all(weight.any() for weight in counting.model.counted.parameters())
    items_met = np.bincount(small_data.log.item[small_data.log.time_ms < small_data.test_from_ms], minlength=150)
    assert counting.model.item_counts[:, 7].tolist() == items_met.tolist()  # the twin records every click


def test_progress_is_reported(small_data: SessionData) -> None:
    heard: list[tuple[int, int, float]] = []
    fit_user_model(small_data, FitSettings(epochs=2, batch_size=64), report=lambda *told: heard.append(told))
    assert [done for done, _, _ in heard] == list(range(1, heard[0][1] + 1))
    assert all(math.isfinite(loss) for _, _, loss in heard)


def test_a_time_without_rows_is_refused(small_data: SessionData, sequence_response: SequenceResponse) -> None:
    model = copy.deepcopy(sequence_response.model)
    with pytest.raises(ValueError, match=r"^no row of the log lies between 0 and 1 ms$"):
        predict(model, small_data, 0, 1, 10)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"profile": "oficial"}, r"^profile='oficial' is unknown; choose one of corrected, official$"),
        ({"epochs": 0}, r"^epochs=0; it must be at least 1$"),
        ({"length": 0}, r"^length=0; it must be at least 1$"),
        ({"batch_size": 0}, r"^batch_size=0; it must be at least 1$"),
    ],
)
def test_bad_settings_are_named(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitSettings(**setting)  # type: ignore[arg-type]
