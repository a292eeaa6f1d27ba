"""Training transitions per second of LERL's low level, beside Stable-Baselines3's stock policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from rapport.agents.lerl import PPOConfig, act_on, new_agent, pretrain_policy
from rapport.agents.planning.build import STORED_TOP_K, control_planner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import StateEncoder
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import ResponseModel
from rapport.experiments.bench.timing import Speed, torch_threads

SUBJECT = "SlatePolicy"
REFERENCE = "MultiInputPolicy"
PAPER_TRANSITIONS = 360_000
"""LERL's training on KuaiRand: 30,000 iterations of 12 users."""


@dataclass(frozen=True)
class TrainingSpeed:
    """One policy on one number of threads.

    Attributes:
        subject: the policy that PPO trains.
        threads: torch threads.
        transitions: number of timed transitions, after the warm-up.
        speed: transitions per second, updates included, over rollouts.
        collecting: median share of the time that went into collecting rollouts, in [0, 1]; the rest are updates.
        ratio: median speed as a share of the reference's on the same threads.
    """

    subject: str
    threads: int
    transitions: int
    speed: Speed
    collecting: float
    ratio: float

    @property
    def paper_minutes(self) -> float:
        """Minutes that the paper's training would take at this speed."""
        return PAPER_TRANSITIONS / self.speed.median / 60


def measure_training(
    data: SessionData,
    response: ResponseModel,
    settings: PPOConfig,
    transitions: int,
    threads: tuple[int, ...],
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> list[TrainingSpeed]:
    """Train both policies under the top-k preference planner, rollout by rollout in turn, after one rollout of each.

    Environment, hyper-actions, sizes of rollouts and minibatches, and epochs are the same for both. The stock policy
    sees the flattened observation with item ids as numbers, so only its speed can be compared.

    Args:
        data: the log.
        response: the response model of the users.
        settings: hyper-parameters of the low level; its warm start is left out.
        transitions: timed transitions for each policy and number of threads, rounded up to whole rollouts.
        threads: numbers of torch threads.
        seed: seed of environments, planners and policies.
        report: called with the name of what is being timed.
    """
    makers = {SUBJECT: _low_level, REFERENCE: _stock}
    subjects = {
        (name, n): maker(_sessions(data, response, settings, seed), settings, seed)
        for n in threads
        for name, maker in makers.items()
    }
    rounds = -(-transitions // settings.rollout)
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in subjects}
    shares: dict[tuple[str, int], list[float]] = {key: [] for key in subjects}
    for turn in range(rounds + 1):
        for (name, n), agent in subjects.items():
            report(f"rollout {turn} of {rounds}: {name}, torch on {n} thread(s)" if turn else f"warm-up: {name}")
            with torch_threads(n):
                rate, share = _one_rollout(agent, settings.rollout)
            if turn:
                rates[name, n].append(rate)
                shares[name, n].append(share)
    speeds = {key: Speed.of(found) for key, found in rates.items()}
    return [
        TrainingSpeed(
            *(name, n, rounds * settings.rollout, speed, float(np.median(shares[name, n]))),
            ratio=speed.median / speeds[REFERENCE, n].median,
        )
        for (name, n), speed in speeds.items()
    ]


class _Stopwatch(BaseCallback):
    """Seconds that went into collecting rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.collecting = 0.0
        self._begun = 0.0

    def _on_rollout_start(self) -> None:
        self._begun = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.collecting += time.perf_counter() - self._begun

    def _on_step(self) -> bool:
        return True


def _one_rollout(agent: PPO, size: int) -> tuple[float, float]:
    """Transitions per second of one rollout with its updates, and the share of time spent collecting."""
    watch = _Stopwatch()
    begun = time.perf_counter()
    agent.learn(size, callback=watch, reset_num_timesteps=False)
    spent = time.perf_counter() - begun
    return size / spent, watch.collecting / spent


def _sessions(data: SessionData, response: ResponseModel, settings: PPOConfig, seed: int) -> PlannedVectorEnv:
    core = kuairand_core(settings.n_envs, data=data, response=response, users="train")
    planner = control_planner(STORED_TOP_K, data, np.random.default_rng(seed))
    return PlannedVectorEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP), data, planner)


def _low_level(sessions: PlannedVectorEnv, settings: PPOConfig, seed: int) -> PPO:
    agent = new_agent(sessions, settings, seed)
    pretrain_policy(agent, sessions.data, replace(settings, warm_start=None), seed)
    return agent


def _stock(sessions: PlannedVectorEnv, settings: PPOConfig, seed: int) -> PPO:
    torch.manual_seed(seed)
    encoder = StateEncoder(sessions.data, settings.encoder).requires_grad_(False)
    arguments: dict[str, Any] = {
        "n_steps": settings.n_steps,
        "batch_size": settings.batch_size,
        "n_epochs": settings.n_epochs,
        "learning_rate": settings.learning_rate,
        "gamma": settings.gamma,
        "gae_lambda": settings.gae_lambda,
        "clip_range": settings.clip_range,
    }
    env = GymnasiumVecEnv(act_on(sessions, encoder))
    return PPO("MultiInputPolicy", env, seed=seed, device="cpu", **arguments)
