"""Trained agents read from their checkpoints, to be played where they were trained."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.checkpoint import CheckpointError, check_note, read_checkpoint, restore_agent
from rapport.agents.lerl import PPOConfig, new_agent, pretrain_policy
from rapport.agents.planning.reflection import Reflection, ReflectionPool
from rapport.agents.policies.encoder import EncoderSettings
from rapport.experiments.core import EnvConfig
from rapport.experiments.lerl.config import CACHE, PlannerConfig, planned, planner_of_note
from rapport.experiments.lerl.environments import checkpoint_note, data_of, sessions_of
from rapport.experiments.lerl.training import pool_beside


def load_agent(checkpoint: Path, env: EnvConfig) -> tuple[PPO, dict[str, Any]]:
    """A trained agent, and what its checkpoint says of it.

    Raises:
        CheckpointError: the file holds no agent, or one of another environment.
    """
    arrays, note = read_checkpoint(checkpoint)
    check_note(checkpoint, note, checkpoint_note(env))
    low_level, data = stored_low_level(note), data_of(env)
    sessions = sessions_of(env, low_level.n_envs, "held_out")
    agent = new_agent(planned(sessions, data, PlannerConfig("none"), None, np.random.default_rng(0)), low_level, seed=0)
    pretrain_policy(agent, data, low_level, seed=0)
    restore_agent(checkpoint, agent, arrays, note)
    return agent, note


def stored_low_level(note: dict[str, Any]) -> PPOConfig:
    """The low level's settings as they stand in a checkpoint, without the warm start that its weights already carry."""
    settings = {**note["low_level"], "warm_start": None}
    return PPOConfig(**{**settings, "encoder": EncoderSettings(**settings["encoder"])})


def planner_of_agent(checkpoint: Path, note: dict[str, Any]) -> PlannerConfig:
    """Who planned while an agent was trained; a language model's answers are those that its run has kept."""
    answers = checkpoint.resolve().parent.parent / CACHE
    planner = planner_of_note(note["planner"])
    return replace(planner, cache=str(answers)) if planner.llm is not None and answers.exists() else planner


def pool_of_agent(checkpoint: Path, note: dict[str, Any]) -> Path:
    """The reflections that a trained agent's planner reads, beside its checkpoint.

    Where there are none, as where an earlier version kept them under another name, they are those in the checkpoint.
    """
    path = pool_beside(checkpoint.resolve())
    if note.get("reflections") and not path.exists():
        with closing(ReflectionPool(path)) as pool:
            pool.restore([Reflection(**entry) for entry in note["reflections"]])
    return path


def file_digest(path: Path) -> str:
    """What tells an agent's file from others.

    Raises:
        CheckpointError: there is no such file.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: {error.strerror or error}; train it with `rapport run`") from error
