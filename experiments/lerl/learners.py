"""How LERL's rows come to their policies: by PPO, as a baseline, from the log alone, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3 import PPO

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import LookAhead, OracleSlates
from rapport.agents.baselines.task import Baseline, TrainingTask
from rapport.agents.lerl import PPOConfig, serving_policy, slate_policy
from rapport.agents.planning.reflection import ReflectionPool
from rapport.envs.session.engine.core import SessionCore
from rapport.experiments.core import LOCAL, Act, EpisodeStatistics, Prerequisite, ServingPolicy, Task, identity
from rapport.experiments.core.row import Progress
from rapport.experiments.lerl.config import part_of_run, planned, shortfall_notes, unanswered
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.training import LOOK_BACK_EVERY, Training, pretrained_agent, train

CURVE_EVERY = 1_280
"""Transitions between two points of a baseline's learning curve: one rollout of LERL's PPO."""


@dataclass(frozen=True)
class PPOLearner:
    """PPO with LERL's transformer policy under the row's planner, from the seed's pretrained policy.

    A row that names another in ``trained_as`` plays that row's checkpoint.
    """

    low_level: PPOConfig = field(default_factory=PPOConfig)
    """Sizes and PPO's settings."""
    transitions: int = 51_200
    """To learn from."""
    best: bool = False
    """Serve the best slate in place of a draw."""
    pretrained_folder: Path | None = field(default=None, metadata=LOCAL)
    """Where pretrained policies are shared; by default in the experiment's folder."""

    def training(self, task: Task) -> Training:
        """The training whose policy is played."""
        return Training(
            task.trained.env,
            task.trained.name,
            task.seed,
            self.transitions,
            task.folder,
            task.trained.planner,
            self.low_level,
            self.pretrained_folder,
        )

    def prerequisite(self, task: Task) -> Prerequisite:
        """The pretrained policy of the task's seed."""
        return pretrained(self.training(task))

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Train the policy, or read it from its checkpoint."""
        trained = train(self.training(task), progress)
        return ServingPolicy(
            slates_of(trained.agent, task, self.best),
            trained.agent.num_timesteps,
            trained.seconds,
            trained.meter if task.trained.planner.llm is not None else {},
            shortfall_notes("in training", trained.capped, trained.unanswered),
            trained.curve,
        )


@dataclass(frozen=True)
class PretrainedLearner:
    """The policy that the log alone teaches: no reinforcement learning.

    It explores as widely as the row it is compared with, so that the two differ in learning alone.
    """

    low_level: PPOConfig = field(default_factory=PPOConfig)
    """Sizes, and ``log_std_init``, how widely it explores."""
    pretrained_folder: Path | None = field(default=None, metadata=LOCAL)
    """Where pretrained policies are shared; by default in the experiment's folder."""

    def training(self, task: Task) -> Training:
        """A training of no transitions."""
        return PPOLearner(self.low_level, 0, pretrained_folder=self.pretrained_folder).training(task)

    def prerequisite(self, task: Task) -> Prerequisite:
        """The pretrained policy of the task's seed."""
        return pretrained(self.training(task))

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Read the policy, or make it."""
        return ServingPolicy(slates_of(pretrained_agent(self.training(task), progress), task))


@dataclass(frozen=True)
class BaselineLearner:
    """A baseline under the row's planner, with as many transitions as anybody. A stopped training begins again."""

    baseline: Baseline
    """Learns from a training task; returns how it then serves."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters; those left out have their defaults."""
    low_level: PPOConfig = field(default_factory=PPOConfig)
    """Of the pretrained policy that it begins with; ``n_envs`` users are served at once."""
    transitions: int = 51_200
    """To learn from."""
    pretrained_folder: Path | None = field(default=None, metadata=LOCAL)
    """Where pretrained policies are shared; by default in the experiment's folder."""

    def training(self, task: Task) -> Training:
        """The training, whose pretrained policy is begun with."""
        learner = PPOLearner(self.low_level, self.transitions, pretrained_folder=self.pretrained_folder)
        return learner.training(task)

    def prerequisite(self, task: Task) -> Prerequisite:
        """The pretrained policy of the task's seed."""
        return pretrained(self.training(task))

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Let it learn."""
        training, begun = self.training(task), time.monotonic()
        log_model = CTRModel(slate_policy(pretrained_agent(training)), training.data, slate_size_of(task))
        sessions = EpisodeStatistics(
            sessions_of(training.env, self.low_level.n_envs, "train"),
            CURVE_EVERY,
            lambda done: progress(min(done / self.transitions, 1.0)),
        )
        llm, pool = training.planner.open(task.seed), training.pool if training.planner.learns else None
        if pool is not None:  # a training that was stopped may have left some
            with closing(ReflectionPool(pool)) as reflections:
                reflections.restore([])
        rng = np.random.default_rng([task.seed, 5])
        env = planned(
            sessions, training.data, training.planner, llm, rng, pool, learning=True, look_back_every=LOOK_BACK_EVERY
        )
        with part_of_run(llm, f"{training.method}, seed {task.seed}, training", [training.note(), identity(self)]):
            act = self.baseline(TrainingTask(env, log_model, self.transitions, task.seed, self.settings))
        if not sessions.steps:
            return ServingPolicy(lambda _: act)
        capped = None if llm is None else llm.meter.exhausted
        return ServingPolicy(
            lambda _: act,
            sessions.steps,
            time.monotonic() - begun,
            {} if llm is None else llm.meter.to_dict(),
            shortfall_notes("in training", capped, unanswered(env)),
            tuple(sessions.curve),
        )


@dataclass(frozen=True)
class Control:
    """Who serves slates without plan and training: a control, or a bound that reads the simulator."""

    name: str
    """``random``, ``popularity``, ``oracle`` or ``look-ahead``."""

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Ready at once."""
        return ServingPolicy(lambda env: control(self.name, env.unwrapped.core, task.seed))  # type: ignore[attr-defined]


def control(name: str, core: SessionCore, seed: int) -> Act:
    """Who serves slates without a plan.

    Raises:
        ValueError: nobody of that name does.
    """
    if name == "random":
        return RandomSlates(core.data.catalog.n_items, core.slate_size, np.random.default_rng([seed, 2]))
    if name == "popularity":
        return PopularSlates(core.data, core.slate_size)
    if name == "oracle":
        return OracleSlates(core)
    if name == "look-ahead":
        return LookAhead(core, repeats=core.seen is None)
    raise ValueError(f"name={name!r}: only random, popularity, oracle and look-ahead serve without a plan")


def pretrained(training: Training) -> Prerequisite:
    """The pretrained policy that all agents of a seed on this data begin with."""
    path = training.pretrained_checkpoint
    return Prerequisite(f"pretrained policy, seed {training.seed}", str(path), _Pretrain(training))


@dataclass(frozen=True)
class _Pretrain:
    training: Training

    def __call__(self, progress: Progress) -> None:
        pretrained_agent(self.training, progress)


def slates_of(agent: PPO, task: Task, best: bool = False) -> Callable[[VectorEnv[Any, Any, Any]], Act]:
    """An agent as somebody who serves slates to sessions that are planned for."""
    category = data_of(task.row.env).catalog.labels
    return lambda _: serving_policy(agent, category, slate_size_of(task), task.seed, best)


def slate_size_of(task: Task) -> int:
    """Items in a slate, K."""
    return int(task.row.env.kwargs["slate_size"])
