"""Trained agents read from their checkpoints, to be played where they were trained."""

from __future__ import annotations

import hashlib
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.checkpoint import CheckpointError, check_note, read_checkpoint, reading_note, restore_agent
from rapport.agents.lerl import PPOConfig, new_agent, pretrain_policy
from rapport.agents.llm.base.interface import one_line
from rapport.agents.llm.sqlite import is_database
from rapport.agents.planning.lm.embedded import EMBEDDED
from rapport.agents.planning.reflection import Reflection, ReflectionPool
from rapport.agents.policies.encoder import EncoderSettings
from rapport.experiments.core import EnvConfig
from rapport.experiments.lerl.config import CACHE, LLM, LLM_PLANNERS, PlannerConfig, planned, planner_of_note
from rapport.experiments.lerl.environments import checkpoint_note, data_of, sessions_of
from rapport.experiments.lerl.training import pool_beside

_KINDS = {"method": str, "planner": dict, "low_level": dict}
"""Entries of a note that everybody who plays its agent reads."""
_LARGEST = {"n_envs": 1 << 16, "n_steps": 1 << 16, "batch_size": 1 << 24, "n_epochs": 1 << 16, "layers": 64}
_LARGEST_OTHER = 1 << 10
"""Bounds on the sizes that a note may ask for."""


def load_agent(checkpoint: Path, env: EnvConfig) -> tuple[PPO, dict[str, Any]]:
    """A trained agent, and what its checkpoint says of it.

    Raises:
        CheckpointError: the file holds no agent, or one of another environment.
    """
    arrays, note = read_checkpoint(checkpoint)
    check_note(checkpoint, note, checkpoint_note(env))
    with reading_note(checkpoint):
        for name, kind in _KINDS.items():
            if not isinstance(note[name], kind):
                raise TypeError(f"{name}={str(note[name])[:40]!r} has to be a {kind.__name__}")
        low_level, data = stored_low_level(note), data_of(env)
        sessions = sessions_of(env, low_level.n_envs, "held_out")
        env_of_agent = planned(sessions, data, PlannerConfig("none"), None, np.random.default_rng(0))
        agent = new_agent(env_of_agent, low_level, seed=0)
        pretrain_policy(agent, data, low_level, seed=0)
    restore_agent(checkpoint, agent, arrays, note)
    return agent, note


def stored_low_level(note: dict[str, Any]) -> PPOConfig:
    """The low level's settings as they stand in a checkpoint, without the warm start that its weights already carry."""
    settings = {**note["low_level"], "warm_start": None}
    encoder = EncoderSettings(**settings["encoder"])
    config = PPOConfig(**{**settings, "encoder": encoder})
    sizes = {f.name: getattr(encoder, f.name) for f in fields(encoder) if f.type == "int"}
    sizes |= {name: getattr(config, name) for name in ("n_envs", "n_steps", "batch_size", "n_epochs")}
    for name, value in sizes.items():
        largest = _LARGEST.get(name, _LARGEST_OTHER)
        if type(value) is not int or not 1 <= value <= largest:
            raise ValueError(f"{name}={str(value)[:40]} is no size from 1 to {largest:,}")
    for name in ("learning_rate", "gamma", "gae_lambda", "clip_range", "log_std_init"):
        value = getattr(config, name)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{name}={str(value)[:40]!r} is no finite number")
    return config


def planner_of_agent(checkpoint: Path, note: dict[str, Any], llm: str | None = None) -> PlannerConfig:
    """Who planned while an agent was trained, with the language model that a command line names.

    A checkpoint may come from anybody. It says how plans are made; which server is asked and which model file is
    opened it does not choose. Only Rapport's own embedded model needs no naming. Answers that the run has kept beside
    its checkpoints are used for the model that they are of.

    Args:
        checkpoint: the file.
        note: what it says.
        llm: the language model as of ``--llm``; None where none was named.

    Raises:
        CheckpointError: its planner needs a language model, and none was named.
    """
    with reading_note(checkpoint):
        planner = planner_of_note(note["planner"])
        if planner.llm is None and planner.name in LLM_PLANNERS and llm is None:
            raise ValueError(f"its planner {planner.name!r} names no language model")
    if llm is not None and llm != planner.llm:
        return replace(planner, name=LLM, llm=llm)
    if planner.llm is None:
        return planner
    if llm is None and planner.llm != EMBEDDED:
        named = one_line(str(planner.llm))
        raise CheckpointError(
            f"checkpoint {checkpoint}: its plans are those of the language model {named!r}, which is not opened "
            "because a file says so: name the model with --llm, or another planner with --planner"
        )
    answers = checkpoint.resolve().parent.parent / CACHE
    return replace(planner, cache=str(answers)) if is_database(answers) else planner


def pool_of_agent(checkpoint: Path, note: dict[str, Any]) -> ReflectionPool:
    """The reflections that a trained agent's planner reads: those beside its checkpoint, in memory.

    Where there are none, as where an earlier version kept them under another name, they are those in the checkpoint.
    No file is written.

    Raises:
        CheckpointError: the checkpoint's reflections are damaged.
        ValueError: the file beside it is no pool.
    """
    path = pool_beside(checkpoint.resolve())
    pool = ReflectionPool.copy_of(path)
    if not path.exists():
        with reading_note(checkpoint):
            pool.restore([Reflection(**entry) for entry in note.get("reflections", [])])
    return pool


def file_digest(path: Path) -> str:
    """What tells an agent's file from others.

    Raises:
        CheckpointError: there is no such file.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: {error.strerror or error}; train it with `rapport run`") from error
