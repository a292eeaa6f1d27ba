"""Planners of categories over session environments, and the no-repeat mask."""

from rapport.agents.planning.build import CONSTANT, RANDOM_HELD, TOP_K_PREFERENCE, control_planner
from rapport.agents.planning.controls import (
    ConstantPlanner,
    GreedyPreferencePlanner,
    GreedyRotationPlanner,
    NoPlanner,
    RandomPlanner,
    RotationPlanner,
)
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.no_repeat import NoRepeatMask
from rapport.agents.planning.planner import Critic, FinishedSession, Planner, SessionViews, session_views
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wrapper import PlannedVectorEnv

__all__ = [
    "CONSTANT",
    "RANDOM_HELD",
    "TOP_K_PREFERENCE",
    "ConstantPlanner",
    "Critic",
    "FinishedSession",
    "GreedyPreferencePlanner",
    "GreedyRotationPlanner",
    "LLMCritic",
    "LLMPlanner",
    "NoPlanner",
    "NoRepeatMask",
    "PlannedVectorEnv",
    "Planner",
    "RandomPlanner",
    "ReflectionPool",
    "RotationPlanner",
    "SessionViews",
    "control_planner",
    "session_views",
]
