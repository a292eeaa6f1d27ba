"""The bridge to Stable-Baselines3: its conventions for endings, seeds and statistics."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from sb3_contrib import TRPO, MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

import rapport
from rapport.agents.sb3 import GymnasiumVecEnv, algorithm_class, algorithm_of
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def make(small_data: SessionData, matrix_response: MatrixResponse) -> Callable[..., GymnasiumVecEnv]:
    def made(n: int, **arguments: object) -> GymnasiumVecEnv:
        core = kuairand_core(n, data=small_data, response=matrix_response, **arguments)  # type: ignore[arg-type]
        return GymnasiumVecEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP))

    return made


@pytest.mark.parametrize("arguments", [{}, {"quit_rule": "never", "max_steps": 4}], ids=str)
def test_it_agrees_with_stable_baselines3s_own_loop(
    make: Callable[..., GymnasiumVecEnv],
    small_data: SessionData,
    matrix_response: MatrixResponse,
    arguments: dict[str, object],
) -> None:
    """DummyVecEnv over single environments, each behind a Monitor, is the reference, word for word."""

    def single() -> Monitor:  # type: ignore[type-arg]
        return Monitor(SessionEnv(kuairand_core(1, data=small_data, response=matrix_response, **arguments)))  # type: ignore[arg-type]

    ours, theirs = make(3, **arguments), DummyVecEnv([single] * 3)
    n_ended = 0
    for env in (ours, theirs):
        env.seed(9)
    first, reference = ours.reset(), theirs.reset()
    slates = np.random.default_rng(0).integers(150, size=(60, 3, 6))
    for step in range(60):
        for name, value in reference.items():
            assert first[name].dtype == value.dtype
            np.testing.assert_array_equal(first[name], value)
        first, rewards, dones, infos = ours.step(slates[step])
        reference, their_rewards, their_dones, their_infos = theirs.step(slates[step])
        np.testing.assert_array_equal(rewards, their_rewards)
        np.testing.assert_array_equal(dones, their_dones)
        assert rewards.dtype == their_rewards.dtype == np.float32
        for i in np.flatnonzero(dones):
            n_ended += 1
            assert infos[i]["TimeLimit.truncated"] == their_infos[i]["TimeLimit.truncated"]
            assert infos[i]["episode"]["l"] == their_infos[i]["episode"]["l"]
            assert infos[i]["episode"]["r"] == pytest.approx(their_infos[i]["episode"]["r"], abs=1e-5)
            for name, value in their_infos[i]["terminal_observation"].items():
                np.testing.assert_array_equal(infos[i]["terminal_observation"][name], value)
        assert all("terminal_observation" not in infos[i] for i in np.flatnonzero(~dones))
    assert n_ended > 8


def test_a_seed_is_used_once(make: Callable[..., GymnasiumVecEnv]) -> None:
    env = make(2)
    env.seed(1)
    first = env.reset()["user_features"]
    second = env.reset()["user_features"]
    env.seed(1)
    np.testing.assert_array_equal(env.reset()["user_features"], first)
    assert (second != first).any()


def test_it_plays_the_part_of_a_monitor(make: Callable[..., GymnasiumVecEnv]) -> None:
    env = make(2)
    assert env.env_is_wrapped(Monitor) == [True, True]
    assert env.env_is_wrapped(VecMonitor) == [False, False]
    assert env.env_is_wrapped(Monitor, indices=0) == [True]


def test_attributes_and_methods_reach_the_environment(make: Callable[..., GymnasiumVecEnv]) -> None:
    env = make(2)
    assert env.get_attr("num_envs") == [2, 2] and env.get_attr("num_envs", indices=[0]) == [2]
    env.set_attr("label", "x")
    assert env.get_attr("label") == ["x", "x"]
    assert env.env_method("reset", seed=0)[0][1]["user"].shape == (2,)
    env.close()


def test_a_stock_algorithm_learns_on_slates(make: Callable[..., GymnasiumVecEnv]) -> None:
    agent = A2C("MultiInputPolicy", make(2), n_steps=4, seed=0, device="cpu")
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.learn(16)
    assert agent.num_timesteps == 16
    assert any(not value.equal(before[name]) for name, value in agent.policy.state_dict().items())


def test_another_way_of_resetting_is_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    env = SessionVectorEnv(kuairand_core(1, data=small_data, response=matrix_response))
    with pytest.raises(ValueError, match=r"^env: make it with autoreset_mode=AutoresetMode.SAME_STEP, as Stable-Base"):
        GymnasiumVecEnv(env)


def test_an_environment_is_made_by_its_id_or_taken_as_it_was_made() -> None:
    by_id = rapport.sb3_env("rapport/KuaiRec-v0", 3, data="synthetic", max_steps=4)
    made = gym.make_vec(
        "rapport/KuaiRec-v0",
        3,
        "vector_entry_point",
        autoreset_mode=AutoresetMode.SAME_STEP,
        data="synthetic",
        max_steps=4,
    )
    taken = rapport.sb3_env(made)
    slates = np.random.default_rng(0).integers(500, size=(12, 3, 6))
    for env in (by_id, taken):
        env.seed(4)
        env.reset()
    for actions in slates:
        for first, second in zip(by_id.step(actions), taken.step(actions), strict=True):
            if isinstance(first, np.ndarray):
                np.testing.assert_array_equal(first, second)
    assert PPO("MultiInputPolicy", by_id, n_steps=4, batch_size=12, device="cpu").learn(12).num_timesteps == 12


def test_what_is_no_environment_for_stable_baselines3_is_one_sentence() -> None:
    next_step = gym.make_vec("rapport/KuaiRec-v0", 2, "vector_entry_point", data="synthetic")
    with pytest.raises(ValueError, match=r"^env: make it with .* or by rapport.sb3_env\('rapport/KuaiRec-v0', 2\)$"):
        rapport.sb3_env(next_step)
    with pytest.raises(TypeError, match=r"^env: SessionEnv; give an id, e.g. 'rapport/KuaiRand-v0', or what gym"):
        rapport.sb3_env(gym.make("rapport/KuaiRec-v0", data="synthetic").unwrapped)
    with pytest.raises(TypeError, match=r"^budget: give arguments with an id; this environment is made already"):
        rapport.sb3_env(next_step, budget=3)


@pytest.mark.parametrize("kind", [PPO, A2C, DQN, SAC, TD3, TRPO, MaskablePPO], ids=lambda kind: kind.__name__)
def test_the_algorithm_of_a_zip_is_told_from_its_settings(kind: type[BaseAlgorithm], tmp_path: Path) -> None:
    policy = MaskableActorCriticPolicy if kind is MaskablePPO else "MlpPolicy"
    continuous = kind in (SAC, TD3)
    kind(policy, "Pendulum-v1" if continuous else "CartPole-v1", device="cpu").save(tmp_path / "x.zip")  # type: ignore[call-arg,arg-type]
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert algorithm_of(json.loads(archive.read("data"))) == kind.__name__
    assert algorithm_class(kind.__name__) is kind
    assert algorithm_of({}) is None and algorithm_of({"policy_class": "text"}) is None
