"""The rows of LERL's table, and how each is played."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import OracleSlates
from rapport.agents.lerl import serving_policy
from rapport.agents.llm.base.interface import Meter
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.build import STORED_TOP_K
from rapport.datasets.schema import IntArray
from rapport.experiments.lerl.config import PlannerChoice, Setup, planned
from rapport.experiments.lerl.evaluation import Act, Played, evaluation_users, play
from rapport.experiments.lerl.training import Trained
from rapport.experiments.results.store import MethodResult

LABELS = {
    "lerl": "LERL",
    "lerl-click": "LERL, click model learned online",
    "mask-click": "mask alone, click model learned online",
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
    "heuristic": STORED_TOP_K,
    "rotation": "rotation",
    "random-plan": "random",
    "greedy-plan": "greedy preference",
}


def labels(llm_given: bool) -> dict[str, str]:
    """Shown names of all rows; where no language model planned, those that LERL's planner is part of say so."""
    if llm_given:
        return LABELS
    return LABELS | {name: f"{LABELS[name]} (no LLM given)" for name in ("lerl", "lerl-click", "lerl-no-rl")}


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
    users = evaluation_users(data, task.sessions, task.seed, env.core.users)
    played = play(env, act, users, task.seed)
    return result_of(task, method, played, users, time.monotonic() - begun)


def play_agent(
    task: Evaluation, method: str, agent: PPO, choice: PlannerChoice, trained: Trained | None = None
) -> MethodResult:
    """Play a learned low level under a planner; ``trained`` tells what its training took, where it had one."""
    setup = task.setup
    act = serving_policy(agent, setup.session_data().catalog.category, setup.slate_size, task.seed)
    cost = None if trained is None else Cost(agent.num_timesteps, trained.seconds, trained.meter, trained.capped)
    result = play_planned(task, method, act, choice, cost)
    return result if trained is None else replace(result, curve=tuple(trained.curve))


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Attributes:
        transitions: learned from.
        seconds: wall time.
        meter: what the language model cost; empty without one.
        capped: which of its limits it reached, in words.
    """

    transitions: int
    seconds: float
    meter: Mapping[str, float] = field(default_factory=dict)
    capped: str | None = None


def play_planned(
    task: Evaluation, method: str, act: Act, choice: PlannerChoice, cost: Cost | None = None
) -> MethodResult:
    """Play what serves slates under a planner; ``cost`` is its training's, where it had one."""
    begun = time.monotonic()
    data = task.setup.session_data()
    llm = choice.open(task.seed)
    sessions = task.setup.sessions(task.sessions, "held_out")
    env = planned(sessions, data, choice, llm, np.random.default_rng([task.seed, 3]), once=True)
    users = evaluation_users(data, task.sessions, task.seed, sessions.core.users)
    with conversation(llm, f"{method}, seed {task.seed}, evaluation"):
        played = play(env, act, users, task.seed)
    result = result_of(task, method, played, users, time.monotonic() - begun)
    meter = Meter() if llm is None else llm.meter
    result = replace(result, notes=_limits_reached(None if cost is None else cost.capped, meter))
    if cost is not None:
        meter = meter + Meter.from_dict(dict(cost.meter)) if cost.meter else meter
        result = replace(result, train_transitions=cost.transitions, train_seconds=cost.seconds)
    if choice.name == "none":
        return result
    plans = {"plans": env.plans_made, "surprises": env.replans_triggered, "rests_waived": env.cooldowns_waived}
    return replace(result, meter={**meter.to_dict(), **plans})


def _limits_reached(training: str | None, meter: Meter) -> tuple[str, ...]:
    """Where the language model's budget was spent, as notes on a row."""
    parts = {"training": training, "evaluation": meter.exhausted}
    return tuple(f"in {part} {reason}, then {STORED_TOP_K} planned" for part, reason in parts.items() if reason)


def result_of(task: Evaluation, method: str, played: Played, users: IntArray, seconds: float) -> MethodResult:
    """What a method's evaluation found."""
    label = LABELS.get(method, method)
    return MethodResult(
        method, label, task.seed, played.lengths, played.returns, users, played.variety, eval_seconds=seconds
    )
