"""The low level: top items under a mask, a state that padding cannot change, encodings that follow the optimiser."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy

from rapport.agents.planning.controls import RandomPlanner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.hyper_action import HyperActionEnv, best_items
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

SETTINGS = EncoderSettings(item_width=8, width=16, feed_forward=16, layers=2, window=12)


@pytest.fixture
def encoder(small_data: SessionData) -> StateEncoder:
    """Weights drawn apart, distances too, so that every part of the encoder shows in its states."""
    torch.manual_seed(0)
    encoder = StateEncoder(small_data, SETTINGS)
    with torch.no_grad():
        for layer in encoder.layers:
            layer.distance.normal_()  # type: ignore[operator]
    return encoder.eval()


@pytest.fixture
def act_on(small_data: SessionData, matrix_response: MatrixResponse, encoder: StateEncoder) -> HyperActionEnv:
    core = kuairand_core(4, data=small_data, response=matrix_response, history=18)
    planner = RandomPlanner(small_data.catalog.category_sizes, np.random.default_rng(0))
    planned = PlannedVectorEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP), small_data, planner)
    return HyperActionEnv(planned, encoder, small_data.catalog.category)


# --- from hyper-action to slate ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), n_items=st.integers(3, 30), k=st.integers(1, 3), share=st.floats(0, 1))
def test_best_items_match_a_slow_reference(seed: int, n_items: int, k: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    weights, items = rng.normal(size=(4, 6)), rng.normal(size=(n_items, 5))
    allowed = rng.random((4, n_items)) < share
    allowed[:, rng.choice(n_items, 3, replace=False)] = True
    got = best_items(torch.tensor(weights), torch.tensor(items), torch.tensor(allowed), k)
    for b in range(4):
        scores = {i: weights[b, :5] @ items[i] / math.sqrt(5) + weights[b, 5] for i in range(n_items) if allowed[b, i]}
        assert got[b].tolist() == sorted(scores, key=lambda i: -scores[i])[:k]


def test_item_encodings_follow_the_optimiser(act_on: HyperActionEnv, encoder: StateEncoder) -> None:
    """They are kept between steps, and read afresh once any weight of the encoder has changed."""
    act_on.reset(seed=0)
    first = act_on._item_encodings()
    assert act_on._item_encodings() is first
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.1)
    encoder.items().sum().backward()
    assert act_on._item_encodings() is first
    (encoder.items() ** 3).sum().backward()
    optimiser.step()
    second = act_on._item_encodings()
    assert (second - first).abs().max() > 1e-3
    torch.testing.assert_close(second, encoder.items().detach())
    encoder.load_state_dict({k: v + 0.5 * torch.randn_like(v) for k, v in encoder.state_dict().items()})
    torch.testing.assert_close(act_on._item_encodings(), encoder.items().detach())
    for parameter in encoder.parameters():
        parameter.data = parameter.data * 0.9  # as Stable-Baselines3's load_from_vector sets weights
    torch.testing.assert_close(act_on._item_encodings(), encoder.items().detach())
    assert not act_on._item_encodings().requires_grad


def test_the_hyper_action_space_is_a_symmetric_box(act_on: HyperActionEnv) -> None:
    space = act_on.single_action_space
    assert space.shape == (9,) and (space.low == -space.high).all() and act_on.action_space.shape == (4, 9)
    observation, _ = act_on.reset(seed=0)
    act_on.action_space.seed(0)
    for _ in range(30):
        assert observation in act_on.observation_space
        observation, *_ = act_on.step(act_on.action_space.sample())


# --- the encoder ------------------------------------------------------------------------------------------------------


def some_histories(data: SessionData, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    users = rng.integers(200, size=5)
    items = rng.integers(1, 151, size=(5, length))
    feedback = rng.integers(-1, 2, size=(5, length, 7))
    features = torch.tensor(data.population.features.codes[users]).long()
    return features, torch.tensor(items), torch.tensor(feedback)


def padded(items: torch.Tensor, feedback: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.cat([torch.zeros(len(items), n, dtype=items.dtype), items], 1),
        torch.cat([-torch.ones(len(items), n, 7, dtype=feedback.dtype), feedback], 1),
    )


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 1, 5, 12])
def test_left_padding_does_not_change_the_state(small_data: SessionData, encoder: StateEncoder, length: int) -> None:
    features, items, feedback = some_histories(small_data, length)
    plain = encoder.encode(features, items, feedback)
    assert plain.shape == (5, encoder.features_dim)
    for n in (1, 7, 20):
        torch.testing.assert_close(encoder.encode(features, *padded(items, feedback, n)), plain, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 4])
def test_the_last_state_is_the_last_of_all_states(small_data: SessionData, encoder: StateEncoder, padding: int) -> None:
    features, items, feedback = some_histories(small_data, 9)
    items, feedback = padded(items, feedback, padding)
    every = encoder.encode(features, items, feedback, last_only=False)
    assert every.shape == (5, 9 + padding + 1, encoder.features_dim) and every.isfinite().all()
    torch.testing.assert_close(encoder.encode(features, items, feedback), every[:, -1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_state_is_that_of_its_own_past(small_data: SessionData, encoder: StateEncoder) -> None:
    """State t of the whole sequence equals the state of the first t items alone: training sees what acting sees."""
    features, items, feedback = some_histories(small_data, 10)
    every = encoder.encode(features, items, feedback, last_only=False)
    for t in range(11):
        torch.testing.assert_close(
            every[:, t], encoder.encode(features, items[:, :t], feedback[:, :t]), rtol=0, atol=1e-5
        )


@torch.no_grad()
def test_states_are_causal_and_see_items_feedback_user_and_order(
    small_data: SessionData, encoder: StateEncoder
) -> None:
    features, items, feedback = some_histories(small_data, 10)
    every = encoder.encode(features, items, feedback, last_only=False)
    changed_items, changed_feedback = items.clone(), feedback.clone()
    changed_items[:, 6] = changed_items[:, 6] % 150 + 1
    changed_feedback[:, 6] = (changed_feedback[:, 6] + 2) % 3 - 1
    swapped = torch.cat([items[:, :6], items[:, 6:8].flip(1), items[:, 8:]], 1)
    for other in (
        encoder.encode(features, changed_items, feedback, last_only=False),
        encoder.encode(features, items, changed_feedback, last_only=False),
        encoder.encode(features, swapped, feedback, last_only=False),
    ):
        torch.testing.assert_close(other[:, :7], every[:, :7])
        assert (other[:, 7:] - every[:, 7:]).abs().amax((1, 2)).min() > 1e-5
    other_users = features.roll(1, 0)
    assert (encoder.encode(other_users, items, feedback) - every[:, -1]).abs().max() > 1e-3


def test_every_weight_gets_a_gradient(small_data: SessionData, encoder: StateEncoder) -> None:
    """The released code trained its encoder through a bootstrap target only; here nothing is frozen."""
    features, items, feedback = some_histories(small_data, 12)
    encoder.encode(features, items, feedback).pow(3).sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_dropout_can_be_switched_off_for_good(small_data: SessionData, encoder: StateEncoder) -> None:
    features, items, feedback = some_histories(small_data, 6)
    encoder.train()
    assert not torch.equal(encoder.encode(features, items, feedback), encoder.encode(features, items, feedback))
    encoder.disable_dropout()
    assert torch.equal(encoder.encode(features, items, feedback), encoder.encode(features, items, feedback))


# --- under Stable-Baselines3 ------------------------------------------------------------------------------------------


def ppo(act_on: HyperActionEnv, encoder: StateEncoder, **policy: Any) -> PPO:
    return PPO(
        SlatePolicy,
        GymnasiumVecEnv(act_on),
        n_steps=8,
        batch_size=16,
        n_epochs=2,
        policy_kwargs={"encoder": encoder, **policy},
        seed=0,
        device="cpu",
    )


def test_slate_policy_learns_under_ppo(act_on: HyperActionEnv, encoder: StateEncoder) -> None:
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    model = ppo(act_on, encoder)
    assert model.policy.encoder is encoder  # type: ignore[union-attr]
    assert model.policy.log_std.detach().tolist() == pytest.approx([math.log(0.8)] * 9, abs=1e-3)  # type: ignore[union-attr]
    model.learn(96)  # 24 slates of each of 4 users: longer than any session
    assert all(not torch.equal(p, before[name]) for name, p in encoder.named_parameters() if "item_id" not in name)
    torch.testing.assert_close(act_on._item_encodings(), encoder.items().detach())
    assert model.ep_info_buffer and all(11 <= episode["l"] <= 20 for episode in model.ep_info_buffer)


def test_ppo_is_repeatable(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        encoder = StateEncoder(small_data, SETTINGS)
        core = kuairand_core(4, data=small_data, response=matrix_response)
        planner = RandomPlanner(small_data.catalog.category_sizes, np.random.default_rng(0))
        planned = PlannedVectorEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP), small_data, planner)
        model = ppo(HyperActionEnv(planned, encoder, small_data.catalog.category), encoder)
        model.learn(64)
        weights.append(torch.cat([p.detach().ravel() for p in model.policy.parameters()]))
    assert torch.equal(*weights)


def test_the_critics_error_does_not_reach_the_encoder(act_on: HyperActionEnv, encoder: StateEncoder) -> None:
    policy = ppo(act_on, encoder).policy
    observation, _ = act_on.reset(seed=0)
    values = policy.predict_values({k: torch.tensor(v) for k, v in observation.items()})
    (values**2).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in encoder.parameters())
    assert policy.value_net.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_the_policy_reads_the_plan_and_the_step(act_on: HyperActionEnv, encoder: StateEncoder) -> None:
    policy = ppo(act_on, encoder).policy
    with torch.no_grad():
        policy.features_extractor.plan.weight.normal_()  # type: ignore[union-attr]
        observation = {k: torch.tensor(v) for k, v in act_on.reset(seed=0)[0].items()}
        state = policy.extract_features(observation)
        other_plan = policy.extract_features({**observation, "plan": 1 - observation["plan"]})
        other_step = policy.extract_features({**observation, "step": observation["step"] + 9})
        older = observation["history_items"].clone()
        older[:, :6] = 1  # beyond the encoder's window of 12 in a history of 18
        out_of_sight = policy.extract_features({**observation, "history_items": older})
    assert (state != other_plan).any() and (state != other_step).any()
    torch.testing.assert_close(state, out_of_sight)


def test_a_stock_algorithm_learns_on_hyper_actions(act_on: HyperActionEnv) -> None:
    model = A2C("MultiInputPolicy", GymnasiumVecEnv(act_on), n_steps=5, seed=0, device="cpu")
    model.learn(60)
    returns, lengths = evaluate_policy(model, GymnasiumVecEnv(act_on), n_eval_episodes=4, return_episode_rewards=True)
    assert len(returns) >= 4 and all(11 <= n <= 20 for n in lengths)
