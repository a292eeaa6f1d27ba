"""Slates with their exact likelihood: against enumeration, plain loops and frequencies, and inside PPO."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from stable_baselines3 import PPO

from rapport.agents.planning.controls import RandomPlanner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.plackett_luce import EXCLUDED, PlackettLucePolicy, log_likelihood, sample
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response import MatrixResponse


def plain_log_likelihood(logits: torch.Tensor, slate: tuple[int, ...]) -> torch.Tensor:
    """The slow reference: place by place, a softmax over the items that are left."""
    left, total = list(range(len(logits))), torch.zeros((), dtype=logits.dtype)
    for item in slate:
        total = total + logits[item] - logits[left].logsumexp(0)
        left.remove(item)
    return total


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 6), k=st.integers(1, 3), spread=st.floats(0.1, 8.0))
def test_the_probabilities_of_all_ordered_slates_add_up_to_one(seed: int, n: int, k: int, spread: float) -> None:
    logits = spread * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    slates = list(itertools.permutations(range(n), k))
    found = log_likelihood(logits.expand(len(slates), n), torch.tensor(slates))
    assert found.exp().sum() == pytest.approx(1.0)
    torch.testing.assert_close(found, torch.stack([plain_log_likelihood(logits, slate) for slate in slates]))


def test_excluded_items_have_no_probability_and_gradients_are_numbers() -> None:
    logits = torch.tensor([[1.0, EXCLUDED, 0.5, EXCLUDED, -1.0]], requires_grad=True)
    slates = list(itertools.permutations((0, 2, 4), 3))
    found = torch.cat([log_likelihood(logits, torch.tensor([slate])) for slate in slates])
    assert found.exp().sum().item() == pytest.approx(1.0)
    found.sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert sample(logits.detach().expand(500, 5), 3).unique().tolist() == [0, 2, 4]


def test_the_gradient_is_that_of_the_plain_loop() -> None:
    start = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fast, slow = start.clone().requires_grad_(), start.clone().requires_grad_()
    log_likelihood(fast[None], torch.tensor([[4, 0, 6]])).sum().backward()
    plain_log_likelihood(slow, (4, 0, 6)).backward()
    torch.testing.assert_close(fast.grad, slow.grad)


def test_draws_are_as_frequent_as_they_are_likely() -> None:
    logits = torch.tensor([0.3, -0.8, 1.1, 0.0])
    slates = list(itertools.permutations(range(4), 2))
    chance = log_likelihood(logits.expand(len(slates), 4), torch.tensor(slates)).exp().double().numpy()
    drawn = sample(logits.expand(20_000, 4), 2, torch.Generator().manual_seed(1))
    counts = [int((drawn == torch.tensor(slate)).all(dim=1).sum()) for slate in slates]
    assert chisquare(counts, chance / chance.sum() * 20_000).pvalue > 0.01


@pytest.fixture
def agent(small_data: SessionData, matrix_response: MatrixResponse) -> PPO:
    core = kuairand_core(4, data=small_data, response=matrix_response, history=18)
    planner = RandomPlanner(small_data.catalog.category_sizes, np.random.default_rng(0))
    planned = PlannedVectorEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP), small_data, planner)
    torch.manual_seed(0)
    encoder = StateEncoder(small_data, EncoderSettings(item_width=8, width=16, feed_forward=16, window=12, dropout=0.0))
    arguments: dict[str, Any] = {"encoder": encoder, "category": small_data.catalog.category, "temperature": 0.5}
    return PPO(
        PlackettLucePolicy,
        GymnasiumVecEnv(planned),
        n_steps=8,
        batch_size=16,
        policy_kwargs=arguments,
        seed=0,
        device="cpu",
    )


def test_ppo_weighs_what_was_shown(agent: PPO, small_data: SessionData) -> None:
    """Before any update the ratio of new to old likelihood is one, and no slate leaves its plan."""
    agent.learn(0)
    agent._setup_learn(32)
    assert agent.env is not None
    agent.collect_rollouts(agent.env, agent._init_callback(None), agent.rollout_buffer, n_rollout_steps=8)
    buffer: Any = agent.rollout_buffer
    for batch in buffer.get(16):
        _, log_prob, _ = agent.policy.evaluate_actions(batch.observations, batch.actions)
        torch.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-4, rtol=1e-4)
        shown = small_data.catalog.category[batch.actions.long().numpy()]
        assert np.take_along_axis(batch.observations["plan"].numpy(), shown.astype(np.int64), axis=1).all()
        assert all(len(set(slate)) == 6 for slate in batch.actions.long().tolist())


def test_training_moves_actor_temperature_and_critic(agent: PPO) -> None:
    before = {name: weight.clone() for name, weight in agent.policy.state_dict().items()}
    agent.learn(64)
    after = agent.policy.state_dict()
    for name in ("log_temperature", "action_net.weight", "value_net.weight", "features_extractor.encoder.norm.weight"):
        assert not torch.equal(before[name], after[name]), name
