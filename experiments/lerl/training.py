"""Training that can be interrupted anywhere and ends the same.

A training is cut into segments. Each begins with fresh sessions and luck drawn from (seed, segment) alone, and ends
with a checkpoint that replaces the last one atomically. A run that was stopped goes on from its last checkpoint and
makes the very weights that an undisturbed run makes. The checkpoint holds the pool of reflections and what the language
model has cost as well, so that a stopped run neither learns twice from a session nor gets a second budget.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.reflection import Reflection, ReflectionPool
from rapport.agents.policies.warm_start import WarmStart
from rapport.experiments.lerl.config import LEARNING_PLANNERS, PlannerChoice, Setup, planned

LOGGER = logging.getLogger("rapport")
Progress = Callable[[float], None]
"""Told the share that is done, in [0, 1]."""

ROLLOUTS_PER_SEGMENT = 10
LOOK_BACK_EVERY = 10
"""Sessions of which the critic looks back on one: thousands end in a training, and its pool keeps 200."""


@dataclass(frozen=True)
class Training:
    """One agent to train."""

    setup: Setup
    """Data and environment."""
    method: str
    """Short name, e.g. ``lerl``."""
    seed: int
    """Source of all its luck."""
    transitions: int
    """How many to learn from; 0 for the first policy alone. Rounded up to whole rollouts."""
    folder: str
    """The run's folder."""
    planner: PlannerChoice = field(default_factory=PlannerChoice)
    """Who plans."""
    low_level: PPOConfig = field(default_factory=PPOConfig)
    """Sizes and PPO's settings."""
    first_folder: str | None = None
    """Folder of the first policies, where several runs on the same data share them; by default the run's."""

    @property
    def checkpoint(self) -> Path:
        """Where the agent is kept."""
        return Path(self.folder) / "checkpoints" / f"{self.method}-seed{self.seed}.safetensors"

    @property
    def first_checkpoint(self) -> Path:
        """Where the first policy of this seed is kept; all methods of a seed start from it."""
        return Path(self.first_folder or self.folder) / "checkpoints" / f"first-seed{self.seed}.safetensors"

    def note(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be gone on from."""
        who = {"method": self.method, "seed": self.seed, "planner": asdict(self.planner)}
        return {**who, "low_level": asdict(self.low_level), **self.setup.identity()}


@dataclass(frozen=True)
class Trained:
    """A trained agent.

    Attributes:
        agent: ready to act.
        curve: for each rollout transitions so far and the mean T_int and R_cum of its finished sessions.
        meter: what the language model cost.
        seconds: wall time, over all interruptions.
        capped: which limit the language model reached, in words; None where it reached none.
    """

    agent: PPO
    curve: list[tuple[int, float, float]]
    meter: dict[str, float]
    seconds: float
    capped: str | None = None


def first_agent(task: Training, progress: Progress) -> PPO:
    """The agent before any reward: made once per seed, then read from its checkpoint, whatever PPO's settings are."""
    agent = _untrained(task)
    settings = {"encoder": asdict(task.low_level.encoder), "warm_start": _plain(task.low_level.warm_start)}
    identity = task.note()
    first = {**{name: identity[name] for name in ("seed", "fingerprint", "slate_size")}, "first": settings}
    saved = _saved(task.first_checkpoint, first)
    data = task.setup.session_data()
    if saved is not None:
        pretrain_policy(agent, data, _without_warm_start(task.low_level), task.seed)
        restore_agent(task.first_checkpoint, agent, *saved)
        with torch.no_grad():  # the width of its exploration belongs to PPO's settings
            slate_policy(agent).log_std.fill_(task.low_level.log_std_init)
        progress(1.0)
        return agent
    pretrain_policy(agent, data, task.low_level, task.seed, lambda done, total, _: progress(done / total))
    save_agent(task.first_checkpoint, agent, {**identity, **first})
    return agent


def _plain(settings: WarmStart | None) -> dict[str, Any] | None:
    return None if settings is None else asdict(settings)


def train(task: Training, progress: Progress) -> Trained:
    """Train, or go on training, one agent to its end."""
    begun = time.monotonic()
    agent = first_agent(task, lambda _: None)
    note: dict[str, Any] = {**task.note(), "curve": [], "seconds": 0.0, "meter": Meter().to_dict()}
    saved = _saved(task.checkpoint, task.note())
    if saved is not None:
        restore_agent(task.checkpoint, agent, *saved)
        note = saved[1]
    logs = Path(task.folder) / "tensorboard" / f"{task.method}-seed{task.seed}"
    agent.set_logger(configure(str(logs), ["tensorboard"]))
    llm = task.planner.open(task.seed)
    if llm is not None:
        llm.meter.add(Meter.from_dict(note["meter"]))
    _restore_reflections(task.planner, note.get("reflections", []))
    segment_size = ROLLOUTS_PER_SEGMENT * task.low_level.rollout
    while agent.num_timesteps < task.transitions:
        progress(agent.num_timesteps / task.transitions)
        size = min(segment_size, task.transitions - agent.num_timesteps)
        recorder = Recorder(lambda done: progress(done / task.transitions))
        with conversation(llm, f"{task.method}, seed {task.seed}, training from {agent.num_timesteps}"):
            _segment(task, agent, llm, size, recorder)
        spent = time.monotonic() - begun
        note["curve"] = [*note["curve"], *recorder.curve]
        seconds = {"seconds": note["seconds"] + spent}
        save_agent(task.checkpoint, agent, {**note, **seconds, **_language_model(task.planner, llm)})
    final = read_checkpoint(task.checkpoint)[1] if task.checkpoint.exists() else note
    progress(1.0)
    curve = [tuple(point) for point in final["curve"]]
    return Trained(agent, curve, final["meter"], final["seconds"], final.get("capped"))


class Recorder(BaseCallback):
    """Writes down, once per rollout, how the sessions that ended in it went."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.curve: list[tuple[int, float, float]] = []
        self._progress = progress
        self._ended: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self._ended += [infos[row]["episode"] for row in np.flatnonzero(self.locals["dones"])]
        return True

    def _on_rollout_end(self) -> None:
        if self._ended:
            t_int = float(np.mean([episode["l"] for episode in self._ended]))
            r_cum = float(np.mean([episode["r"] for episode in self._ended]))
            self.curve.append((self.num_timesteps, t_int, r_cum))
            self.logger.record("session/T_int", t_int)
            self.logger.record("session/R_cum", r_cum)
        self._ended = []
        self._progress(self.num_timesteps)


def segment_seed(seed: int, number: int) -> int:
    """The seed of one segment's luck, below 2**31."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def _language_model(choice: PlannerChoice, llm: LLM | None) -> dict[str, Any]:
    """What a checkpoint says of the language model."""
    if llm is None:
        return {}
    reflections: list[dict[str, Any]] = []
    if _reflects(choice):
        with closing(ReflectionPool(choice.pool)) as pool:
            reflections = [asdict(entry) for entry in pool.entries()]
    return {"meter": llm.meter.to_dict(), "capped": llm.meter.exhausted, "reflections": reflections}


def _restore_reflections(choice: PlannerChoice, reflections: list[dict[str, Any]]) -> None:
    """Make the pool what it was at the checkpoint: empty where there is none."""
    if _reflects(choice):
        with closing(ReflectionPool(choice.pool)) as pool:
            pool.restore([Reflection(**entry) for entry in reflections])


def _reflects(choice: PlannerChoice) -> bool:
    return choice.name in LEARNING_PLANNERS and choice.llm is not None and choice.pool is not None


def _segment(task: Training, agent: PPO, llm: LLM | None, size: int, recorder: Recorder) -> None:
    seed = segment_seed(task.seed, agent.num_timesteps)
    data = task.setup.session_data()
    sessions = task.setup.sessions(task.low_level.n_envs, "train")
    rng = np.random.default_rng(seed)
    env = planned(sessions, data, task.planner, llm, rng, learning=True, look_back_every=LOOK_BACK_EVERY)
    learn(agent, env, size, seed, recorder)
    agent.logger.record("planner/plans", env.plans_made)
    agent.logger.record("planner/widened", env.plans_widened)
    agent.logger.dump(agent.num_timesteps)


def _untrained(task: Training) -> PPO:
    sessions = task.setup.sessions(task.low_level.n_envs, "train")
    data = task.setup.session_data()
    env = planned(sessions, data, PlannerChoice("none"), None, np.random.default_rng(task.seed))
    return new_agent(env, task.low_level, task.seed)


def _without_warm_start(settings: PPOConfig) -> PPOConfig:
    return replace(settings, warm_start=None)


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
