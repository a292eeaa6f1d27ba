"""Pretraining on the log: it learns, repeatably, and from training users alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.agents.policies.warm_start import WarmStart, warm_start
from rapport.datasets.schema import SessionData

pytestmark = pytest.mark.filterwarnings("error")

SETTINGS = WarmStart(epochs=1, batch_size=16)


def new_policy(data: SessionData) -> SlatePolicy:
    torch.manual_seed(0)
    encoder = StateEncoder(data, EncoderSettings(item_width=8, width=16, feed_forward=16))
    cardinalities = np.array(data.population.features.cardinalities, np.int32)
    n_behaviours = len(data.log.behaviours)
    observation = spaces.Dict(
        {
            "history_feedback": spaces.Box(-1, 1, (50 * n_behaviours,), np.int8),
            "history_items": spaces.Box(0, data.catalog.n_items, (50,), np.int32),
            "plan": spaces.Box(0, 1, (data.catalog.n_categories,), np.int8),
            "step": spaces.Box(0, 50, (1,), np.int32),
            "user_features": spaces.Box(0, cardinalities - 1, dtype=np.int32),
        }
    )
    return SlatePolicy(observation, spaces.Box(-20, 20, (9,), np.float32), lambda _: 1e-3, encoder=encoder)


def weights_after(data: SessionData, seed: int = 0, settings: WarmStart = SETTINGS) -> dict[str, torch.Tensor]:
    policy = new_policy(data)
    warm_start(policy, data, settings, seed)
    return policy.state_dict()


def with_log(data: SessionData, **columns: Any) -> SessionData:
    return dataclasses.replace(data, log=dataclasses.replace(data.log, **columns))


def test_rows_it_must_not_learn_from_change_nothing(small_data: SessionData) -> None:
    """Held-out users' rows and all rows from the validation days on are poisoned; not one weight may notice."""
    log = small_data.log
    forbidden = small_data.held_out[log.user] | (log.time_ms >= small_data.valid_from_ms)
    assert 0.2 < forbidden.mean() < 0.9
    feedback, item = log.feedback.copy(), log.item.copy()
    feedback[forbidden] = 1 - feedback[forbidden].clip(0)
    item[forbidden] = (item[forbidden] + 71) % 150
    clean, poisoned = weights_after(small_data), weights_after(with_log(small_data, feedback=feedback, item=item))
    for name, weight in clean.items():
        assert torch.equal(weight, poisoned[name]), name
    feedback = log.feedback.copy()
    feedback[~forbidden] = 1 - feedback[~forbidden].clip(0)
    changed = weights_after(with_log(small_data, feedback=feedback))
    assert not torch.equal(clean["action_net.weight"], changed["action_net.weight"])


def test_one_seed_gives_one_policy_and_leaves_torchs_generator_alone(small_data: SessionData) -> None:
    first = weights_after(small_data, seed=1)
    drawn = torch.rand(3)
    new_policy(small_data)
    assert torch.equal(torch.rand(3), drawn)
    again, other = weights_after(small_data, seed=1), weights_after(small_data, seed=2)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not torch.equal(first["action_net.weight"], other["action_net.weight"])


def test_it_reduces_the_loss_and_leaves_the_critic_alone(small_data: SessionData) -> None:
    policy = new_policy(small_data)
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    heard: list[tuple[int, int, float]] = []
    warm_start(policy, small_data, WarmStart(epochs=6, batch_size=16), 0, lambda *told: heard.append(told))
    assert [done for done, _, _ in heard] == list(range(1, heard[0][1] + 1))
    losses = [loss for _, _, loss in heard]
    n = len(losses) // 6
    assert np.mean(losses[-n:]) < np.mean(losses[:n]) - 0.02
    assert not policy.training
    assert all(m.p == 0 for m in policy.encoder.modules() if isinstance(m, torch.nn.Dropout))
    for name, weight in policy.state_dict().items():
        if name.startswith(("value_net", "mlp_extractor.value_net", "log_std")) or ".plan." in name:
            assert torch.equal(weight, before[name]), name
        elif name.startswith(("action_net", "mlp_extractor.policy_net")):
            assert not torch.equal(weight, before[name]), name


@pytest.mark.parametrize("behaviours", [("like",), ("like", "long_view"), ("click", "like")], ids="+".join)
def test_it_learns_the_rewarded_behaviour_whatever_its_name(
    small_data: SessionData, behaviours: tuple[str, ...]
) -> None:
    data = with_log(small_data, feedback=small_data.log.feedback[:, : len(behaviours)], behaviours=behaviours)
    assert not torch.equal(weights_after(data)["action_net.weight"], new_policy(data).state_dict()["action_net.weight"])


def test_clicks_that_were_not_recorded_teach_through_long_views(small_data: SessionData) -> None:
    feedback = small_data.log.feedback.copy()
    feedback[:, 0] = -1
    unclicked = with_log(small_data, feedback=feedback)
    weights, start = weights_after(unclicked), new_policy(unclicked).state_dict()
    for name in ("mlp_extractor.policy_net.0.weight", "features_extractor.encoder.item_norm.weight"):
        assert not torch.equal(weights[name], start[name]), name
    np.testing.assert_allclose(weights["action_net.bias"], start["action_net.bias"], atol=1e-2)  # only decay moves it


@pytest.mark.parametrize("batches", [1, 2, 5, 10, 11])
def test_few_batches_are_enough(small_data: SessionData, batches: int) -> None:
    """Torch's one-cycle schedule divides by zero at ten steps."""
    n_users = int((~small_data.held_out).sum())
    policy, heard = new_policy(small_data), []
    settings = WarmStart(epochs=1, batch_size=-(-n_users // batches))
    warm_start(policy, small_data, settings, 0, lambda *told: heard.append(told))
    assert len(heard) == batches and all(np.isfinite(loss) for *_, loss in heard)
