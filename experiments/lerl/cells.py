"""One cell of the grid: train where there is something to train, play held-out users, keep what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import LookAhead, OracleSlates
from rapport.agents.baselines.task import Act
from rapport.agents.lerl import serving_policy
from rapport.envs.session.engine.core import SessionCore
from rapport.experiments.lerl.baseline_training import Served, learn_baseline
from rapport.experiments.lerl.config import planned
from rapport.experiments.lerl.evaluation import evaluation_users, play
from rapport.experiments.lerl.grid import Grid, World
from rapport.experiments.lerl.play import Cost, Evaluation, play_planned, result_of
from rapport.experiments.lerl.rows import METHODS, NO_RL
from rapport.experiments.lerl.training import first_agent, train
from rapport.experiments.report.session_record import RecordedSession, record
from rapport.experiments.results.store import MethodResult, write_atomically

Progress = Callable[[float], None]
CASES = 6
"""Held-out users whose sessions can be looked at."""
VIEWED = ("lerl", "lerl-click", "heuristic", "ppo", "ppo-pl", "dqn", "rotation", "popularity", "look-ahead")
"""Rows whose sessions can be looked at."""


@dataclass(frozen=True)
class Cell:
    """One row of one world with one seed."""

    grid: Grid
    world: World
    method: str
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Do what is not done yet."""
        grid, store = self.grid, self.grid.store(self.world, self.method)
        if store.load(self.method, self.seed) is not None:
            return
        task = Evaluation(self.world.setup, self.seed, grid.sessions)
        label = METHODS[self.method].label
        act: Act | None = None
        if METHODS[self.method].family in ("control", "bound"):
            result = play_direct(task, self.method)
        else:
            served = serve(self, lambda share: progress(0.9 * share))
            act, choice = served.act, grid.choice(self.world, self.method, self.seed)
            result = replace(play_planned(task, self.method, act, choice, served.cost), curve=served.curve)
        if self.world.main and self.seed == 0 and self.method in VIEWED:
            keep_sessions(self, act)
        store.save(replace(result, label=label))


def play_direct(task: Evaluation, method: str) -> MethodResult:
    """Play a control or a bound, who need neither plan nor training."""
    begun = time.monotonic()
    env = task.setup.sessions(task.sessions, "held_out")
    users = evaluation_users(task.setup.session_data(), task.sessions, task.seed, env.core.users)
    played = play(env, direct(method, env.core, task.seed), users, task.seed)
    return result_of(task, method, played, users, time.monotonic() - begun)


def direct(method: str, core: SessionCore, seed: int) -> Act:
    """Who serves slates without a plan.

    Raises:
        ValueError: nobody of that name does.
    """
    if method == "random":
        return RandomSlates(core.data.catalog.n_items, core.slate_size, np.random.default_rng([seed, 2]))
    if method == "popularity":
        return PopularSlates(core.data, core.slate_size)
    if method == "oracle":
        return OracleSlates(core)
    if method == "look-ahead":
        return LookAhead(core, repeats=core.seen is None)
    raise ValueError(f"method={method!r}: only random, popularity, oracle and look-ahead serve without a plan")


def serve(cell: Cell, progress: Progress = lambda _: None) -> Served:
    """Train a row's low level, or read it from its checkpoint, and make it ready to serve."""
    row = METHODS[cell.method]
    training = cell.grid.training(cell.world, row.trained_as or cell.method, cell.seed)
    if row.baseline is not None:
        return learn_baseline(training, row.baseline, cell.grid.settings(cell.method), progress)
    if row.trained_as == NO_RL:  # it explores as widely as those it is compared with
        training = replace(training, low_level=cell.grid.low_level(cell.method))
        return Served(_slates(first_agent(training, progress), cell))
    trained = train(training, progress)
    act = _slates(trained.agent, cell)
    if row.trained_as is not None:
        return Served(act)
    cost = Cost(trained.agent.num_timesteps, trained.seconds, trained.meter, trained.capped)
    return Served(act, cost, tuple(trained.curve))


def _slates(agent: PPO, cell: Cell) -> Act:
    setup = cell.world.setup
    category = setup.session_data().catalog.category
    return serving_policy(agent, category, setup.slate_size, cell.seed, METHODS[cell.method].best)


def sessions_file(grid: Grid, world: World, method: str) -> Path:
    """Where a row's sessions that can be looked at are kept."""
    return grid.place(world) / "sessions" / f"{method}.json"


def keep_sessions(cell: Cell, act: Act | None) -> None:
    """Play a few held-out users and write down all of it; ``act`` serves, or a control or bound where it is None."""
    setup, method = cell.world.setup, cell.method
    data, label = setup.session_data(), METHODS[method].label
    sessions = setup.sessions(CASES, "held_out")
    users = evaluation_users(data, CASES, cell.seed, sessions.core.users)
    if act is None:
        found = record(sessions, direct(method, sessions.core, cell.seed), users, cell.seed, method, label)
    else:
        choice = cell.grid.choice(cell.world, method, cell.seed)
        rng = np.random.default_rng([cell.seed, 6])
        env = planned(sessions, data, choice, choice.open(cell.seed), rng, once=True)
        found = record(env, act, users, cell.seed, method, label)
    path = sessions_file(cell.grid, cell.world, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([session.to_dict() for session in found]))


def kept_sessions(grid: Grid, world: World) -> list[RecordedSession]:
    """The sessions that can be looked at, by row."""
    found: list[RecordedSession] = []
    for method in world.methods:
        path = sessions_file(grid, world, method)
        if path.exists():
            found += [RecordedSession.from_dict(plain) for plain in json.loads(path.read_text("utf-8"))]
    return found


@dataclass(frozen=True)
class FirstPolicy:
    """Makes the first policy that all agents of a seed begin with."""

    grid: Grid
    world: World
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Do it if it is not done."""
        first_agent(self.grid.training(self.world, NO_RL, self.seed), progress)
