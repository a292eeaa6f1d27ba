"""Training that can be interrupted anywhere and ends the same.

A training is cut into segments. Each begins with fresh sessions and chance drawn from (seed, segment) alone, and ends
with a checkpoint that replaces the last one atomically. A run that was stopped goes on from its last checkpoint and
makes the very weights that an undisturbed run makes. The checkpoint holds the pool of reflections and what the language
model has cost as well, so that a stopped run neither learns twice from a session nor gets a second budget.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from rapport.agents.checkpoint import CheckpointError, check_note, read_checkpoint, restore_agent, save_agent
from rapport.agents.lerl import PPOConfig, learn, new_agent, pretrain_policy, slate_policy
from rapport.agents.llm.base.interface import LLM, Meter
from rapport.agents.planning.listener import NOT_SENT
from rapport.agents.planning.reflection import Reflection, ReflectionPool
from rapport.agents.policies.warm_start import WarmStart
from rapport.datasets.schema import SessionData
from rapport.envs.common.threads import more_threads
from rapport.experiments.core import EnvConfig, EpisodeStatistics, identity
from rapport.experiments.core.rollout import CurvePoint
from rapport.experiments.core.row import Progress
from rapport.experiments.lerl.config import PlannerConfig, part_of_run, planned, unanswered
from rapport.experiments.lerl.environments import checkpoint_note, data_of, sessions_of

LOGGER = logging.getLogger("rapport")

ROLLOUTS_PER_SEGMENT = 10
NOBODY = identity(PlannerConfig("none"))
"""Who plans where only the log has taught."""
LOOK_BACK_EVERY = 10
"""Sessions of which the critic looks back on one: thousands end in a training, and its pool keeps 200."""


@dataclass(frozen=True)
class Training:
    """One agent to train."""

    env: EnvConfig
    """Data and environment."""
    method: str
    """Short name, e.g. ``lerl``."""
    seed: int
    """Source of all its chance."""
    transitions: int
    """How many to learn from; 0 for the pretrained policy alone. Rounded up to whole rollouts."""
    folder: Path
    """The run's folder."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """Who plans."""
    low_level: PPOConfig = field(default_factory=PPOConfig)
    """Sizes and PPO's settings."""
    pretrained_folder: Path | None = None
    """Folder of pretrained policies, where several runs on the same data share them; by default the run's."""

    @property
    def data(self) -> SessionData:
        """The data set."""
        return data_of(self.env)

    @property
    def checkpoint(self) -> Path:
        """Where the agent is kept."""
        return self.folder / "checkpoints" / f"{self.method}-seed{self.seed}.safetensors"

    @property
    def pretrained_checkpoint(self) -> Path:
        """Where the pretrained policy of this seed is kept; all methods of a seed on this data begin with it."""
        folder = self.pretrained_folder or self.folder
        return folder / "checkpoints" / f"pretrained-{self.data.name.replace(' ', '-')}-seed{self.seed}.safetensors"

    @property
    def pool(self) -> Path:
        """Where its reflections are kept."""
        return pool_beside(self.checkpoint)

    def note(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be gone on from."""
        who = {"method": self.method, "seed": self.seed, "planner": identity(self.planner)}
        computed = {"threads": more_threads().get("threads")}
        return {**who, "low_level": asdict(self.low_level), **checkpoint_note(self.env), **computed}


def pool_beside(checkpoint: Path) -> Path:
    """Where the reflections that a checkpoint's agent was trained with are kept."""
    return checkpoint.parent.parent / f"reflections-{checkpoint.stem}.sqlite"


@dataclass(frozen=True)
class TrainingResult:
    """A trained agent.

    Attributes:
        agent: ready to act.
        curve: its learning curve.
        meter: what the language model cost.
        seconds: wall time, over all interruptions.
        capped: which limit the language model reached, in words; None where it reached none.
        unanswered: why the model gave no plan, in its own words; None where it always gave one.
    """

    agent: PPO
    curve: tuple[CurvePoint, ...]
    meter: dict[str, float]
    seconds: float
    capped: str | None = None
    unanswered: str | None = None


def pretrained_agent(task: Training, progress: Progress = lambda _: None) -> PPO:
    """The agent before any reward: made once per seed, then read from its checkpoint, whatever PPO's settings are."""
    agent = _untrained(task)
    settings = {"encoder": asdict(task.low_level.encoder), "warm_start": _plain(task.low_level.warm_start)}
    note = task.note()
    pretrained = {**{name: note[name] for name in ("seed", "fingerprint", "slate_size", "threads")}, "first": settings}
    saved = _saved(task.pretrained_checkpoint, pretrained)
    if saved is not None:
        pretrain_policy(agent, task.data, replace(task.low_level, warm_start=None), task.seed)
        restore_agent(task.pretrained_checkpoint, agent, *saved)
        with torch.no_grad():  # the width of its exploration belongs to PPO's settings
            slate_policy(agent).log_std.fill_(task.low_level.log_std_init)
        progress(1.0)
        return agent
    pretrain_policy(agent, task.data, task.low_level, task.seed, lambda done, total, _: progress(done / total))
    save_agent(task.pretrained_checkpoint, agent, {**note, "method": "no-rl", "planner": NOBODY, **pretrained})
    return agent


def _plain(settings: WarmStart | None) -> dict[str, Any] | None:
    return None if settings is None else asdict(settings)


def train(task: Training, progress: Progress = lambda _: None) -> TrainingResult:
    """Train, or go on training, one agent to its end."""
    begun = time.monotonic()
    agent = pretrained_agent(task)
    note: dict[str, Any] = {**task.note(), "curve": [], "seconds": 0.0, "meter": Meter().to_dict()}
    saved = _saved(task.checkpoint, task.note())
    if saved is not None:
        restore_agent(task.checkpoint, agent, *saved)
        note = saved[1]
    logs = task.folder / "tensorboard" / f"{task.method}-seed{task.seed}"
    agent.set_logger(configure(str(logs), ["tensorboard"]))
    llm = task.planner.open(task.seed)
    if llm is not None:
        llm.meter.add(Meter.from_dict(note["meter"]))
    _restore_reflections(task, note.get("reflections", []))
    segment_size = ROLLOUTS_PER_SEGMENT * task.low_level.rollout
    while agent.num_timesteps < task.transitions:
        progress(agent.num_timesteps / task.transitions)
        size = min(segment_size, task.transitions - agent.num_timesteps)
        part = f"{task.method}, seed {task.seed}, training from {agent.num_timesteps}"
        with part_of_run(llm, part, task.note()):
            curve, reason = _segment(task, agent, llm, size, progress)
        if reason is not None and not (reason.startswith(NOT_SENT) and note.get("unanswered")):
            note["unanswered"] = reason
        spent = time.monotonic() - begun
        note["curve"] = [*note["curve"], *curve]
        seconds = {"seconds": note["seconds"] + spent}
        save_agent(task.checkpoint, agent, {**note, **seconds, **_language_model(task, llm)})
    final = read_checkpoint(task.checkpoint)[1] if task.checkpoint.exists() else note
    progress(1.0)
    points = tuple((int(at), float(length), float(total)) for at, length, total in final["curve"])
    return TrainingResult(agent, points, final["meter"], final["seconds"], final.get("capped"), final.get("unanswered"))


class _LogCurve(BaseCallback):
    """Writes the newest point of the learning curve to TensorBoard, once per rollout."""

    def __init__(self, sessions: EpisodeStatistics) -> None:
        super().__init__()
        self._sessions, self._written = sessions, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if len(self._sessions.curve) > self._written:
            self._written = len(self._sessions.curve)
            _, length, total = self._sessions.curve[-1]
            self.logger.record("session/T_int", length)
            self.logger.record("session/R_cum", total)


def segment_seed(seed: int, number: int) -> int:
    """The seed of one segment's chance, below 2**31."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def _language_model(task: Training, llm: LLM | None) -> dict[str, Any]:
    """What a checkpoint says of the language model."""
    if llm is None:
        return {}
    reflections: list[dict[str, Any]] = []
    if task.planner.learns:
        with closing(ReflectionPool(task.pool)) as pool:
            reflections = [asdict(entry) for entry in pool.entries()]
    return {"meter": llm.meter.to_dict(), "capped": llm.meter.exhausted, "reflections": reflections}


def _restore_reflections(task: Training, reflections: list[dict[str, Any]]) -> None:
    """Make the pool what it was at the checkpoint: empty where there is none."""
    if task.planner.learns:
        with closing(ReflectionPool(task.pool)) as pool:
            pool.restore([Reflection(**entry) for entry in reflections])


def _segment(
    task: Training, agent: PPO, llm: LLM | None, size: int, progress: Progress
) -> tuple[list[CurvePoint], str | None]:
    """Learn from one segment's sessions; its part of the learning curve, and why the model gave no plan."""
    before, seed = agent.num_timesteps, segment_seed(task.seed, agent.num_timesteps)
    sessions = EpisodeStatistics(
        sessions_of(task.env, task.low_level.n_envs, "train"),
        task.low_level.rollout,
        lambda done: progress((before + done) / task.transitions),
    )
    pool = task.pool if task.planner.learns else None
    rng = np.random.default_rng(seed)
    env = planned(sessions, task.data, task.planner, llm, rng, pool, learning=True, look_back_every=LOOK_BACK_EVERY)
    learn(agent, env, size, seed, _LogCurve(sessions))
    agent.logger.record("planner/plans", env.plans_made)
    agent.logger.record("planner/widened", env.plans_widened)
    agent.logger.dump(agent.num_timesteps)
    return [(before + at, length, total) for at, length, total in sessions.curve], unanswered(env)


def _untrained(task: Training) -> PPO:
    sessions = sessions_of(task.env, task.low_level.n_envs, "train")
    env = planned(sessions, task.data, PlannerConfig("none"), None, np.random.default_rng(task.seed))
    return new_agent(env, task.low_level, task.seed)


def _saved(path: Path, expected: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A checkpoint to go on from, or None; one that cannot be used is left aside, with a word in the log."""
    if not path.exists():
        return None
    try:
        arrays, note = read_checkpoint(path)
        check_note(path, note, expected)
    except CheckpointError as error:
        aside = path.with_suffix(".set-aside")
        path.replace(aside)
        LOGGER.warning("training starts anew: %s (kept as %s)", error, aside.name)
        return None
    return arrays, note
