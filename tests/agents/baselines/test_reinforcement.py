"""Reinforcement learning without a planner: what actions stand for, what is rewarded, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO

from rapport.agents.baselines import reinforcement
from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.hac import DEFAULTS as HAC
from rapport.agents.baselines.hac import hac
from rapport.agents.baselines.novelty import NoveltyReward, popularity_bonus, quality_bonus
from rapport.agents.baselines.plackett_luce_ppo import plackett_luce_ppo
from rapport.agents.baselines.state_env import (
    StateEnv,
    category_chooser,
    category_masks,
    category_space,
    hyper_action_chooser,
    hyper_action_space,
)
from rapport.agents.baselines.task import Baseline, TrainingTask, settings_of
from rapport.agents.lerl import PPOConfig, new_agent, pretrain_policy, slate_policy
from rapport.agents.planning.controls import NoPlanner, RotationPlanner
from rapport.agents.planning.planner import Planner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

LEARNERS: dict[str, Baseline] = {
    "reinforce": reinforcement.reinforce,
    "a2c": reinforcement.a2c,
    "ddpg": reinforcement.ddpg,
    "td3": reinforcement.td3,
    "sac": reinforcement.sac,
    "sac4ir": reinforcement.sac4ir,
    "dqn": reinforcement.dqn,
    "dnair": reinforcement.dnair,
    "masked-ppo": reinforcement.masked_ppo,
    "hac": hac,
    "plackett-luce": plackett_luce_ppo,
}
Sessions = Callable[..., PlannedVectorEnv]


@pytest.fixture(scope="module")
def loved(small_data: SessionData) -> int:
    """A category that holds a slate, but that the log does not click most."""
    sizes = small_data.catalog.category_sizes
    return int(np.flatnonzero(sizes >= 6)[-1])


@pytest.fixture
def sessions(small_data: SessionData, loved: int) -> Sessions:
    """Sessions in which everybody clicks whatever is of the loved category, and hardly anything else."""
    behaviours = small_data.log.behaviours
    chance = np.full((small_data.population.n_users, small_data.catalog.n_items, len(behaviours)), 0.05)
    chance[:, small_data.catalog.category == loved] = 0.95

    def make(n_envs: int = 16, planner: Planner | None = None) -> PlannedVectorEnv:
        response = MatrixResponse(chance, behaviours)
        core = kuairand_core(n_envs, data=small_data, response=response, history=18, quit_rule="never", max_steps=10)
        none = planner or NoPlanner(small_data.catalog.category_sizes)
        return PlannedVectorEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP), small_data, none)

    return make


@pytest.fixture
def ctr_model(small_data: SessionData, sessions: Sessions) -> CTRModel:
    encoder = EncoderSettings(item_width=8, width=16, feed_forward=16, heads=2, window=12)
    settings = PPOConfig(encoder=encoder, warm_start=None, n_envs=16, n_steps=5, batch_size=20)
    agent = new_agent(sessions(), settings, seed=0)
    pretrain_policy(agent, small_data, settings, seed=0)
    return CTRModel(slate_policy(agent), small_data, 6)


def test_the_ctr_model_scores_as_its_policy_does(ctr_model: CTRModel, sessions: Sessions) -> None:
    observations, _ = sessions().reset(seed=0)
    policy = ctr_model.policy
    tensors: Any = policy.obs_to_tensor({**observations, "plan": np.zeros_like(observations["plan"])})[0]
    with torch.no_grad():
        states = policy.encoder.encode(
            tensors["user_features"].long(),
            tensors["history_items"].long()[:, -12:],
            tensors["history_feedback"].reshape(16, 18, -1)[:, -12:],
        )
        weights = policy.mean_action(torch.cat([states, torch.zeros(16, policy.features_dim - states.shape[1])], 1))
    scores = (weights[:, :-1] @ ctr_model.items.T) / math.sqrt(8) + weights[:, -1:]
    torch.testing.assert_close(ctr_model.click_scores(observations), scores)


def test_action_zero_is_the_logs_own_slate(ctr_model: CTRModel, sessions: Sessions) -> None:
    env = StateEnv(sessions(), ctr_model, hyper_action_space(ctr_model), hyper_action_chooser(ctr_model, 2.0))
    env.reset(seed=0)
    scores = ctr_model.click_scores(env._seen).numpy()
    np.testing.assert_array_equal(env.slates(np.zeros((16, 9), np.float32)), np.argsort(-scores, axis=1)[:, :6])


def test_last_states_are_those_of_the_sessions_that_ended(ctr_model: CTRModel, sessions: Sessions) -> None:
    planned = sessions()
    env = StateEnv(planned, ctr_model, hyper_action_space(ctr_model), hyper_action_chooser(ctr_model, 1.0))
    env.reset(seed=0)
    seen: dict[str, Any] = {}
    inner = planned.step
    planned.step = lambda actions: seen.update(result=inner(actions)) or seen["result"]  # type: ignore[func-returns-value, method-assign, assignment]
    for _ in range(10):
        states, _, terminated, truncated, info = env.step(np.zeros((16, 9), np.float32))
    assert (terminated | truncated).all()
    for row in range(16):
        own = {name: value[None] for name, value in seen["result"][4]["final_obs"][row].items()}
        np.testing.assert_allclose(info["final_obs"][row], ctr_model.states(own)[0].numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(np.stack(info["final_obs"]), states)


def test_a_category_fills_its_slate_and_plans_are_obeyed(
    small_data: SessionData, ctr_model: CTRModel, sessions: Sessions
) -> None:
    category = small_data.catalog.category
    env = StateEnv(sessions(), ctr_model, category_space(ctr_model), category_chooser(ctr_model))
    env.reset(seed=0)
    scores = ctr_model.click_scores(env._seen).numpy()
    for chosen in range(small_data.catalog.n_categories):
        slates = env.slates(np.full(16, chosen))
        members = np.flatnonzero(category == chosen)
        best = members[np.argsort(-scores[:, members], axis=1)][:, :6]
        np.testing.assert_array_equal(slates[:, : best.shape[1]], best)
        assert all(len(set(slate)) == 6 for slate in slates.tolist())
    planner = RotationPlanner(small_data.catalog.category_sizes, np.random.default_rng(0))
    planned = StateEnv(sessions(planner=planner), ctr_model, category_space(ctr_model), category_chooser(ctr_model))
    planned.reset(seed=0)
    allowed = planned._seen["plan"].astype(bool)[:, category]
    assert np.take_along_axis(allowed, planned.slates(np.zeros(16, int)), axis=1).all()


def test_masks_leave_out_what_was_just_shown_and_what_is_too_small(
    small_data: SessionData, ctr_model: CTRModel, sessions: Sessions, loved: int
) -> None:
    env = StateEnv(sessions(), ctr_model, category_space(ctr_model), category_chooser(ctr_model))
    env.reset(seed=0)
    large = small_data.catalog.category_sizes >= 6
    np.testing.assert_array_equal(env.action_masks(), np.tile(large, (16, 1)))
    env.step(np.full(16, loved))
    expected = large.copy()
    expected[loved] = False
    np.testing.assert_array_equal(env.action_masks(), np.tile(expected, (16, 1)))
    only = {**env._seen, "plan": np.eye(len(large), dtype=np.int8)[np.full(16, loved)]}
    assert (category_masks(ctr_model, only) == np.eye(len(large), dtype=bool)[loved]).all()


def test_masked_ppo_never_chooses_outside_its_masks(ctr_model: CTRModel, sessions: Sessions) -> None:
    """Sb3-contrib reads the masks through the bridge: each row's own, at the time of its choice."""
    env = StateEnv(sessions(), ctr_model, category_space(ctr_model), category_chooser(ctr_model))
    inner, choices, differ = env.step, [], False

    def step(actions: Any) -> Any:
        nonlocal differ
        masks = env.action_masks()
        differ |= bool((masks != masks[0]).any())
        choices.append(masks[np.arange(16), actions])
        return inner(actions)

    env.step = step  # type: ignore[method-assign]
    MaskablePPO("MlpPolicy", GymnasiumVecEnv(env), n_steps=20, batch_size=80, seed=0, device="cpu").learn(320)
    assert len(choices) == 20 and differ and np.stack(choices).all()


def test_random_categories_are_drawn_alike_from_the_masks(
    ctr_model: CTRModel, sessions: Sessions, small_data: SessionData
) -> None:
    large = np.flatnonzero(small_data.catalog.category_sizes >= 6)
    act, env = reinforcement.random_category(TrainingTask(sessions(), ctr_model, 0, 0)), sessions(400)
    observations, _ = env.reset(seed=0)
    last = np.full(400, -1)
    for _ in range(3):
        observations, _, _, _, info = env.step(act(observations))
        chosen = info["categories"][:, 0]
        assert (info["categories"] == chosen[:, None]).all() and (chosen != last).all()
        assert set(chosen) == set(large)
        last = chosen


def test_novelty_bonuses_are_those_of_the_released_code(small_data: SessionData) -> None:
    log, held_out = small_data.log, small_data.held_out
    shown, clicked = np.zeros(small_data.catalog.n_items), np.zeros(small_data.catalog.n_items)
    for user, item, time, click in zip(log.user, log.item, log.time_ms, log.feedback[:, 0], strict=True):
        if not held_out[user] and time < small_data.valid_from_ms and click >= 0:
            shown[item] += 1
            clicked[item] += click
    quality = (clicked + 20 * clicked.sum() / shown.sum()) / (shown + 20)
    expected = [0.1 / (math.log(n + 1.1) + 1) for n in shown]
    np.testing.assert_allclose(popularity_bonus(small_data), expected)
    expected = [0.1 * q / math.log10(max(n, 1) + 1.1) for n, q in zip(shown, quality, strict=True)]
    np.testing.assert_allclose(quality_bonus(small_data), expected)


def test_novelty_is_added_above_the_true_reward(sessions: Sessions, small_data: SessionData) -> None:
    plain, bonus = sessions(), np.arange(small_data.catalog.n_items) / 100
    shaped = NoveltyReward(sessions(), bonus)
    slates = np.random.default_rng(0).integers(0, small_data.catalog.n_items, (16, 6))
    plain.reset(seed=0)
    shaped.reset(seed=0)
    np.testing.assert_allclose(shaped.step(slates)[1], plain.step(slates)[1] + bonus[slates].mean(axis=1))


def share_loved(act: Any, env: PlannedVectorEnv, loved: int) -> float:
    """Share of a session's items that are of the loved category."""
    observations, _ = env.reset(seed=7)
    shares = []
    for _ in range(9):
        observations, _, _, _, info = env.step(act(observations))
        shares.append((info["categories"] == loved).mean())
    return float(np.mean(shares))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_what_is_clicked_and_repeats_itself_for_a_seed(
    name: str, sessions: Sessions, ctr_model: CTRModel, loved: int
) -> None:
    quick: dict[str, dict[str, Any]] = {
        "ddpg": {"radius": 3.0, "gradient_steps": 3, "learning_rate": 1e-3},
        "td3": {"radius": 3.0, "gradient_steps": 3, "learning_rate": 1e-3},
        "sac": {"radius": 3.0, "gradient_steps": 3, "learning_rate": 1e-3},
        "sac4ir": {"radius": 3.0, "gradient_steps": 3, "learning_rate": 1e-3},
        "hac": {"radius": 3.0, "align": 0.0, "learning_rate": 1e-3},
        "plackett-luce": {"batch_size": 80, "temperature": 0.5},
        "masked-ppo": {"batch_size": 80},
    }
    before = share_loved(lambda o: ctr_model.click_scores(o).topk(6, dim=1).indices.numpy(), sessions(32), loved)
    shares, slates = [], []
    for _ in range(2):
        act = LEARNERS[name](TrainingTask(sessions(), ctr_model, 4_000, 3, quick.get(name, {})))
        env = sessions(32)
        slates.append(act(env.reset(seed=7)[0]))
        shares.append(share_loved(act, env, loved))
    np.testing.assert_array_equal(*slates)
    assert shares[0] == shares[1]
    assert shares[0] > before + 0.04


def test_a_setting_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="hac: there is no setting 'learning_speed'; choose of: learning_rate"):
        settings_of("hac", HAC, {"learning_speed": 1.0})
