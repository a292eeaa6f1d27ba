"""LERL's response model: against torch's own transformer, against plain loops, and as the simulator asks it."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.engine.initial_histories import Histories
from rapport.envs.session.official.fit import (
    OfficialSettings,
    fit_history_model,
    predict_history,
    window_ends,
    windows,
)
from rapport.envs.session.official.response import HistoryResponse
from rapport.envs.session.official.user_model import HistoryModel, HistoryModelSize, new_history_model
from rapport.envs.session.response.fit import balanced_weights

pytestmark = pytest.mark.filterwarnings("error")

LENGTH = 12
SETTINGS = OfficialSettings(epochs=1, length=LENGTH, batch_size=64, targets=5)


def model_of(data: SessionData, scramble: bool = False) -> HistoryModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return new_history_model(data, HistoryModelSize(LENGTH, scramble=scramble)).eval()


@pytest.fixture(scope="module")
def tiny_data() -> SessionData:
    return twin(n_users=60, n_items=40, seed=2)


@pytest.fixture(scope="module")
def model(small_data: SessionData) -> HistoryModel:
    return model_of(small_data)


def response_of(data: SessionData, model: HistoryModel, **options: object) -> HistoryResponse:
    histories = Histories.before(data, data.test_from_ms, LENGTH)
    return HistoryResponse(model, histories, data.log.behaviours, **options)  # type: ignore[arg-type]


def torchs_own(model: HistoryModel) -> torch.nn.TransformerEncoder:
    """Torch's transformer with the model's weights."""
    layer = torch.nn.TransformerEncoderLayer(128, 4, 64, 0.1, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for ours, theirs in zip(model.layers, encoder.layers, strict=True):
        inputs = [getattr(ours, name) for name in ("query", "key", "value")]
        theirs.self_attn.in_proj_weight.data = torch.cat([part.weight.data for part in inputs])
        theirs.self_attn.in_proj_bias.data = torch.cat([part.bias.data for part in inputs])
        pairs = [("out", theirs.self_attn.out_proj), ("inner", theirs.linear1), ("outer", theirs.linear2)]
        for name, part in [*pairs, ("norm_1", theirs.norm1), ("norm_2", theirs.norm2)]:
            part.load_state_dict(getattr(ours, name).state_dict())
    return encoder


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_transformer_is_torchs(model: HistoryModel) -> None:
    tokens = torch.randn(5, LENGTH, 128, generator=torch.Generator().manual_seed(0))
    causal = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH)
    with torch.no_grad():
        expected = torchs_own(model)(tokens, mask=causal, is_causal=True)
        for queries in (1, 4, LENGTH):
            torch.testing.assert_close(model.read(tokens, queries), expected[:, -queries:], rtol=1e-4, atol=1e-5)


def test_items_are_one_hot_sums_and_padding_knows_no_feature(small_data: SessionData, model: HistoryModel) -> None:
    """By hand for one item: id embedding and linear maps of one-hot rows, normalised, widened, summed, normalised."""
    encoder = model.item_encoder
    with torch.no_grad():
        encoded = model.items()
        assert encoded.shape == (1 + small_data.catalog.n_items, 64)
        for item in (-1, 0, 77):
            parts = [encoder.identity.weight[item + 1]]
            for column, linear in enumerate(encoder.features):
                one_hot = torch.zeros(linear.in_features)
                if item >= 0:
                    one_hot[encoder.codes[item, column]] = 1
                parts.append(linear(one_hot))
            total = sum(encoder.widen(encoder.feature_norm(part)) for part in parts)
            torch.testing.assert_close(encoded[item + 1], encoder.norm(total), rtol=1e-4, atol=1e-5)
    encodings = response_of(small_data, model).encodings()
    np.testing.assert_array_equal(encodings, encoded[1:].numpy())


def test_behaviours_are_scrambled_as_a_reshape_does(small_data: SessionData) -> None:
    """F rows of L, one after another, read as L rows of F."""
    rng = np.random.default_rng(0)
    feedback = rng.integers(2, size=(3, LENGTH, 7))
    encoded = torch.zeros(3, LENGTH, 64)
    with torch.no_grad():
        plain, scrambled = model_of(small_data), model_of(small_data, scramble=True)
        by_hand = np.array([np.concatenate([f[:, b] for b in range(7)]).reshape(LENGTH, 7) for f in feedback])
        expected = plain.tokens(encoded, torch.from_numpy(by_hand))
        torch.testing.assert_close(scrambled.tokens(encoded, torch.from_numpy(feedback)), expected)
        single = torch.from_numpy(feedback[..., :1])
        assert torch.equal(single.transpose(1, 2).reshape(single.shape), single)  # harmless for one behaviour


def test_logits_do_not_hang_on_later_targets(small_data: SessionData, model: HistoryModel) -> None:
    """The q-th of Q targets sees the tokens up to its own place, in one reading as in another with other later rows."""
    log = small_data.log
    ends = window_ends(log, np.ones(len(log), bool), 5)[:20]
    batch = windows(log, ends, np.ones(len(log), bool), LENGTH, 5)
    later = batch.feedback.clone()
    later[:, LENGTH - 2 :] = 1 - later[:, LENGTH - 2 :].clamp(min=0)
    with torch.no_grad():
        plain = model(*batch[:4])
        changed = model(batch.users, batch.items, later, batch.targets)
    torch.testing.assert_close(changed[:, :3], plain[:, :3])
    assert (changed[:, 3:] - plain[:, 3:]).abs().max() > 1e-6


# --- windows and the fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [1, 3, 5])
def test_windows_predict_each_wanted_row_once(small_data: SessionData, targets: int) -> None:
    log = small_data.log
    wanted = np.random.default_rng(0).random(len(log)) < 0.3
    ends = window_ends(log, wanted, targets)
    seen: list[int] = []
    batch = windows(log, ends, wanted, LENGTH, targets)
    for b, end in enumerate(ends.tolist()):
        own = np.flatnonzero(log.user == log.user[end])
        for q in range(targets):
            row = end - targets + 1 + q
            if row in own and wanted[row]:
                seen.append(row)
                assert batch.targets[b, q] == log.item[row]
                assert batch.truth[b, q].tolist() == log.feedback[row].tolist()
            else:
                assert (batch.truth[b, q] == -1).all()
        before = [row for row in range(end - LENGTH, end) if row in own]
        items = [0] * (LENGTH - len(before)) + (log.item[before] + 1).tolist()
        assert batch.items[b].tolist() == items and int(batch.users[b]) == log.user[end]
        if before:
            assert batch.feedback[b, -len(before) :].tolist() == log.feedback[before].tolist()
    assert sorted(seen) == np.flatnonzero(wanted).tolist()


def test_the_fit_is_reproducible_learns_and_leaves_torchs_generator_alone(tiny_data: SessionData) -> None:
    losses: list[float] = []
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    settings = dataclasses.replace(SETTINGS, epochs=2, learning_rate=1e-3)
    first = fit_history_model(tiny_data, settings, lambda done, total, loss: losses.append(loss))
    assert torch.equal(torch.rand(3), expected)
    again = fit_history_model(tiny_data, settings)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert not first.training and all(torch.equal(a, b) for a, b in pairs)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_all_days_or_the_training_days(tiny_data: SessionData) -> None:
    """With ``all_days`` the test days are learned from, as the released code does; without, they change nothing."""
    feedback = tiny_data.log.feedback.copy()
    late = tiny_data.log.time_ms >= tiny_data.valid_from_ms
    feedback[late] = 1 - feedback[late]
    poisoned = dataclasses.replace(tiny_data, log=dataclasses.replace(tiny_data.log, feedback=feedback))
    for all_days in (True, False):
        settings = dataclasses.replace(SETTINGS, all_days=all_days, targets=1)
        weights = [fit_history_model(data, settings).scorer[0].weight for data in (tiny_data, poisoned)]
        assert torch.equal(*weights) != all_days


def test_weights_balance_the_behaviours() -> None:
    feedback = np.array([[1, 0], [1, 0], [0, 0], [-1, 0], [1, 1]], np.int8)
    assert balanced_weights(feedback).tolist() == [[1, 1], [3, 0.25]]


def test_scrambling_reads_every_row_on_its_own(tiny_data: SessionData) -> None:
    settings = dataclasses.replace(SETTINGS, scramble=True, batch_size=256, targets=1)
    batches: list[int] = []
    fit_history_model(tiny_data, settings, lambda done, total, loss: batches.append(total))
    rows = int((tiny_data.log.feedback[:, 0] >= 0).sum())
    assert len(batches) == -(-rows // 256)


def test_scrambling_begins_where_the_plain_fit_ends(tiny_data: SessionData) -> None:
    """After the batches of the plain fit, one row in ``targets`` by itself."""
    totals = []
    for scramble in (False, True):
        settings = dataclasses.replace(SETTINGS, scramble=scramble, batch_size=60, targets=5)
        batches: list[int] = []
        model = fit_history_model(tiny_data, settings, lambda done, total, loss: batches.append(total))  # noqa: B023
        assert model.size.scramble == scramble
        totals.append(len(batches))
    rows = int((tiny_data.log.feedback[:, 0] >= 0).sum())
    assert totals[1] - totals[0] == math.ceil(math.ceil(rows / 5) / 12)


@pytest.mark.parametrize("name", ["epochs", "length", "batch_size", "targets"])
def test_bad_settings_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=0; it must be at least 1$"):
        OfficialSettings(**{name: 0})  # type: ignore[arg-type]


# --- as the simulator asks it -----------------------------------------------------------------------------------------


def test_responses_in_a_session_are_those_of_the_log(small_data: SessionData, model: HistoryModel) -> None:
    """A session that repeats what the log holds is answered as the log's rows are predicted."""
    log, response = small_data.log, response_of(small_data, model)
    first_rows = np.flatnonzero(log.time_ms >= small_data.test_from_ms)
    users, place = np.unique(log.user[first_rows], return_index=True)
    rows = first_rows[place]
    kept = np.array([(log.user[row : row + 3] == log.user[row]).sum() == 3 for row in rows])
    rows, users = rows[kept], users[kept].astype(np.int64)
    assert len(rows) > 5
    state = response.initial_state(users)
    for step in range(3):
        slates = log.item[rows + step][:, None]
        chance = response.probabilities(state, users, slates)
        expected = 1 / (1 + np.exp(-predict_history(model, small_data, rows + step)))
        np.testing.assert_allclose(chance[:, 0], expected, rtol=0, atol=1e-5)
        state = response.advance(state, users, slates, log.feedback[rows + step][:, None])


def test_a_state_is_the_newest_history(small_data: SessionData, model: HistoryModel) -> None:
    response, rng = response_of(small_data, model), np.random.default_rng(0)
    items = rng.integers(150, size=(4, 30)).astype(np.int32)
    feedback = rng.integers(2, size=(4, 30, 7)).astype(np.int8)
    users = np.arange(4)
    whole = response.state_after(users, items + 1, feedback)
    state = response.state_after(users, items[:, :6] + 1, feedback[:, :6])
    for k in range(6, 30, 6):
        state = response.advance(state, users, items[:, k : k + 6], feedback[:, k : k + 6])
        assert state.dtype == np.float32
    np.testing.assert_array_equal(state, whole)
    nothing = response.state_after(users, np.zeros((4, 0), np.int32), np.zeros((4, 0, 7), np.int8))
    assert not nothing.any() and np.isfinite(response.probabilities(nothing, users, items[:, :6])).all()


def test_dropout_belongs_to_a_users_history(small_data: SessionData, model: HistoryModel) -> None:
    """Whoever else is asked, and however often: the same masks; for another seed or history others."""
    response = response_of(small_data, model, dropout=True)
    users = np.arange(40)
    slates = np.random.default_rng(0).integers(150, size=(40, 6)).astype(np.int32)
    state = response.initial_state(users)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    together = response.probabilities(state, users, slates)
    assert torch.equal(torch.rand(2), expected)
    alone = [response.probabilities(state[[u]], users[[u]], slates[[u]])[0] for u in users]
    np.testing.assert_allclose(together, np.stack(alone), rtol=0, atol=1e-6)
    for copied in (copy.deepcopy(response), pickle.loads(pickle.dumps(response))):
        np.testing.assert_array_equal(copied.probabilities(state, users, slates), together)
    other = response_of(small_data, model, dropout=True, seed=1)
    plain = response_of(small_data, model)
    assert np.abs(other.probabilities(state, users, slates) - together).max() > 1e-3
    assert np.abs(plain.probabilities(state, users, slates) - together).max() > 1e-3


def test_dropout_keeps_nine_in_ten(small_data: SessionData, model: HistoryModel) -> None:
    response = response_of(small_data, model, dropout=True)
    users = np.arange(100)
    masks = response._masks(response.initial_state(users), users)
    assert [tuple(m.shape[1:]) for m in masks[0]] == [(4, LENGTH, LENGTH), (LENGTH, 128), (LENGTH, 64), (LENGTH, 128)]
    assert [tuple(m.shape[1:]) for m in masks[1]] == [(4, 1, LENGTH), (1, 128), (1, 64), (1, 128)]
    for layer in masks:
        for mask in layer:
            kept = mask.numpy().astype(float)
            assert abs(kept.mean() - 0.9) < 6 * 0.3 / np.sqrt(kept.size)
    ones = [type(layer)(*(torch.ones_like(mask) for mask in layer)) for layer in masks]
    tokens = torch.randn(100, LENGTH, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (model.read(tokens, masks=ones) - model.read(tokens)).abs().max() > 1e-3  # what is kept is scaled up
