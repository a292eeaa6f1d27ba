"""The rows of LERL's table, and how each is played."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.baselines.slates import OracleSlates, PopularSlates, RandomSlates
from rapport.agents.lerl import act_on, sampled_actions, slate_policy
from rapport.agents.llm.base import Meter
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.build import HEURISTIC
from rapport.experiments.evaluation import Act, Played, evaluation_users, play
from rapport.experiments.results import MethodResult
from rapport.experiments.setup import PlannerChoice, Setup, planned
from rapport.experiments.training import Trained

LABELS = {
    "lerl": "LERL",
    "ppo": "PPO, no planner",
    "no-reflection": "LERL, no reflection",
    "heuristic": "heuristic planner",
    "rotation": "rotation planner",
    "random-plan": "random planner",
    "greedy-plan": "greedy planner",
    "lerl-no-rl": "LERL, no RL",
    "no-rl": "no planner, no RL",
    "popularity": "popularity",
    "random": "random",
    "oracle": "oracle",
}
"""Short name and shown name of every row, in the table's order. A planner's row has LERL's low level under it."""
NO_LLM = "heuristic (no LLM given)"
"""How a planner without a language model is named wherever LERL's figures stand."""
SLATE_METHODS = ("popularity", "random", "oracle")
PLANNER_CONTROLS = {
    "heuristic": HEURISTIC,
    "rotation": "rotation",
    "random-plan": "random",
    "greedy-plan": "greedy preference",
}


def labels(llm_given: bool) -> dict[str, str]:
    """Shown names of all rows; where no language model planned, those that LERL's planner is part of say so."""
    if llm_given:
        return LABELS
    return LABELS | {"lerl": "LERL (no LLM given)", "lerl-no-rl": "no RL (no LLM given)"}


@dataclass(frozen=True)
class Evaluation:
    """Who is asked, and how often."""

    setup: Setup
    """Data and environment."""
    seed: int
    """Draws users and their luck; the same for all methods of a seed."""
    sessions: int
    """Complete sessions, S."""


def play_slates(task: Evaluation, method: str) -> MethodResult:
    """Play a control that serves slates directly."""
    begun = time.monotonic()
    data = task.setup.session_data()
    env = task.setup.sessions(task.sessions, "held_out")
    act: Act
    if method == "oracle":
        act = OracleSlates(env.core)
    elif method == "popularity":
        act = PopularSlates(data, task.setup.slate_size)
    else:
        act = RandomSlates(data.catalog.n_items, task.setup.slate_size, np.random.default_rng([task.seed, 2]))
    users = evaluation_users(data, task.sessions, task.seed)
    played = play(env, act, users, task.seed)
    return _result(task, method, played, time.monotonic() - begun)


def play_agent(
    task: Evaluation, method: str, agent: PPO, choice: PlannerChoice, trained: Trained | None = None
) -> MethodResult:
    """Play a learned low level under a planner; ``trained`` tells what its training took, where it had one."""
    begun = time.monotonic()
    data = task.setup.session_data()
    llm = choice.open(task.seed)
    sessions = task.setup.sessions(task.sessions, "held_out")
    env = planned(sessions, data, choice, llm, np.random.default_rng([task.seed, 3]), once=True)
    users = evaluation_users(data, task.sessions, task.seed)
    act = sampled_actions(agent, task.seed)
    with conversation(llm, f"{method}, seed {task.seed}, evaluation"):
        played = play(act_on(env, slate_policy(agent).encoder), act, users, task.seed)
    result = _result(task, method, played, time.monotonic() - begun)
    meter = Meter() if llm is None else llm.meter
    result = replace(result, notes=_limits_reached(trained, meter))
    if trained is not None:
        meter = meter + Meter.from_dict(trained.meter)
        result = replace(result, train_transitions=agent.num_timesteps, train_seconds=trained.seconds)
    if choice.name == "none":
        return result
    plans = {"plans": env.plans_made, "surprises": env.surprises, "rests_waived": env.rests_waived}
    return replace(result, meter={**meter.to_dict(), **plans})


def _limits_reached(trained: Trained | None, meter: Meter) -> tuple[str, ...]:
    """Where the language model's budget was spent, as notes on a row."""
    parts = {"training": None if trained is None else trained.capped, "evaluation": meter.exhausted}
    return tuple(f"in {part} {reason}, then {HEURISTIC} planned" for part, reason in parts.items() if reason)


def _result(task: Evaluation, method: str, played: Played, seconds: float) -> MethodResult:
    users = evaluation_users(task.setup.session_data(), task.sessions, task.seed)
    return MethodResult(method, LABELS.get(method, method), task.seed, *played, users=users, eval_seconds=seconds)
