"""Agents: LERL and its parts, baselines, bandits and language models.

Public names are imported when they are first asked for, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapport.agents.checkpoint import read_checkpoint as read_checkpoint
    from rapport.agents.checkpoint import restore_agent as restore_agent
    from rapport.agents.checkpoint import save_agent as save_agent
    from rapport.agents.lerl import PPOConfig as PPOConfig
    from rapport.agents.lerl import learn as learn
    from rapport.agents.lerl import new_agent as new_agent
    from rapport.agents.lerl import pretrain_policy as pretrain_policy
    from rapport.agents.lerl import serving_policy as serving_policy
    from rapport.agents.planning.no_repeat import NoRepeatMask as NoRepeatMask
    from rapport.agents.planning.wrapper import PlannedVectorEnv as PlannedVectorEnv
    from rapport.agents.policies.hyper_action import HyperActionEnv as HyperActionEnv
    from rapport.agents.sb3 import GymnasiumVecEnv as GymnasiumVecEnv
    from rapport.agents.sb3 import sb3_env as sb3_env

_NAMES = {
    "GymnasiumVecEnv": "sb3",
    "HyperActionEnv": "policies.hyper_action",
    "NoRepeatMask": "planning.no_repeat",
    "PPOConfig": "lerl",
    "PlannedVectorEnv": "planning.wrapper",
    "learn": "lerl",
    "new_agent": "lerl",
    "pretrain_policy": "lerl",
    "read_checkpoint": "checkpoint",
    "restore_agent": "checkpoint",
    "save_agent": "checkpoint",
    "sb3_env": "sb3",
    "serving_policy": "lerl",
}
"""Public name -> the module that defines it."""
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"rapport.agents.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'rapport.agents' has no attribute {name!r}")
