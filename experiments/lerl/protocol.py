"""How every row of LERL's tables is measured: complete sessions of held-out users, the same for all rows of a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import LLM, Meter
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import IntArray, SessionData
from rapport.experiments.core import LOCAL, Episodes, ServingPolicy, Task, identity, play
from rapport.experiments.core.rollout import Arrays
from rapport.experiments.lerl.config import PlannerConfig, part_of_run, planned, shortfall_notes, unanswered
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.training import pool_beside
from rapport.experiments.report.session_record import RecordedSession, record
from rapport.experiments.results.store import write_atomically

UNITS = {
    "length": "slates",
    "return": "summed click rate",
    "coverage": "share of categories",
    "intra": "diversity",
    "between": "diversity",
}
RECORDED_USERS = 6
"""Held-out users whose sessions can be looked at."""


@dataclass(frozen=True)
class HeldOutSessions:
    """Complete sessions of held-out users, under the row's planner where it has one."""

    sessions: int
    """For each row and seed."""
    shared_pool: str | None = None
    """Name of a pool of reflections that all rows of a seed read; None: each reads its own, or of whom it plays."""
    pool_file: Path | ReflectionPool | None = field(default=None, metadata=LOCAL)
    """The pool that is read, or its file, where it is another than in the task's folder."""
    recorded: tuple[str, ...] = field(default=(), metadata=LOCAL)
    """Rows of which some sessions of seed 0 are written down slate by slate, to be looked at."""

    def __call__(self, task: Task, policy: ServingPolicy) -> Episodes:
        """Play them."""
        planner: PlannerConfig | None = task.row.planner
        llm = None if planner is None else planner.open(task.seed)
        part = f"{task.row.name}, seed {task.seed}, evaluation"
        with part_of_run(llm, part, None if llm is None else self._depends_on(task)):
            env, users = self._sessions(task, self.sessions, 3, llm)
            variety = Variety(len(users), data_of(task.row.env).catalog.n_categories)
            arrays = play(env, policy.act(env), task.seed, {"user": users}, [variety])
        if task.seed == 0 and task.row.name in self.recorded:
            self._record(task, policy)
        if planner is None or planner.name == "none":
            return Episodes(arrays, UNITS, users)
        assert isinstance(env, PlannedVectorEnv)
        meter = Meter() if llm is None else llm.meter
        plans = {
            "plans": env.plans_made,
            "replans_triggered": env.replans_triggered,
            "cooldowns_waived": env.cooldowns_waived,
        }
        if llm is not None:  # a training's are added later: these stay the evaluation's
            plans |= {"evaluation_decisions": meter.decisions, "evaluation_fallbacks": meter.fallbacks}
        notes = shortfall_notes("in evaluation", meter.exhausted, unanswered(env))
        return Episodes(arrays, UNITS, users, {**meter.to_dict(), **plans}, notes)

    def _sessions(self, task: Task, n: int, stream: int, llm: LLM | None) -> tuple[VectorEnv[Any, Any, Any], IntArray]:
        """Held-out users' sessions, planned for where the row has a planner, and who the users are, shape (n,)."""
        env, data, planner = task.row.env, data_of(task.row.env), task.row.planner
        sessions = sessions_of(env, n, "held_out")
        users = evaluation_users(data, n, task.seed, sessions.core.users)
        if planner is None:
            return sessions, users
        pool = self.pool_file
        if pool is None:
            pool = pool_beside(task.folder / "checkpoints" / f"{self.shared_pool or task.trained.name}-seed{task.seed}")
        rng = np.random.default_rng([task.seed, stream])
        return planned(sessions, data, planner, llm, rng, pool, once=True), users

    def _depends_on(self, task: Task) -> list[Any] | None:
        """What an evaluation of a run depends on; None for one beside it, which reads a pool that lies elsewhere."""
        if self.pool_file is not None:
            return None
        learners = [identity(row.learner) for row in (task.row, task.trained)]
        return [task.row.env.identity(), identity(task.row.planner), learners, identity(self)]

    def _record(self, task: Task, policy: ServingPolicy) -> None:
        """Play a few held-out users and write down all of it."""
        llm = None if task.row.planner is None else task.row.planner.open(task.seed)
        with conversation(llm, f"{task.row.name}, seed {task.seed}, recorded sessions"):
            env, users = self._sessions(task, RECORDED_USERS, 6, llm)
            found = record(env, policy.act(env), users, task.seed, task.row.name, task.row.label)
        path = _recorded_file(task.folder, task.row.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps([session.to_dict() for session in found]))


def evaluation_users(data: SessionData, sessions: int, seed: int, among: IntArray | None = None) -> IntArray:
    """The held-out users of one seed, shape (sessions,): each at most once where there are enough.

    The same for every row, so that rows are compared on the same people. ``among`` are those who can be served, where
    not all can.
    """
    held_out = np.flatnonzero(data.held_out) if among is None else among[data.held_out[among]]
    rng = np.random.default_rng([seed, 1])
    return rng.choice(held_out, sessions, replace=sessions > len(held_out))


class Variety:
    """Counts how varied sessions are, slate by slate.

    ``coverage`` is the share of all categories that a session showed; ``intra``, diversity within slates, the share of
    a slate's pairs of items that are of two categories, mean over the session's slates, 1 for slates of one item;
    ``between``, diversity between slates, 1 - |A & B| / |A | B| of the categories of a slate and of the one before,
    mean over the session's slates after the first, 1 for a session of one slate.

    Args:
        sessions: S.
        n_categories: C.
    """

    def __init__(self, sessions: int, n_categories: int) -> None:
        self._ever = np.zeros((sessions, n_categories), bool)
        self._last = np.zeros((sessions, n_categories), bool)
        self._intra, self._between = np.zeros(sessions), np.zeros(sessions)
        self._begun, self._size = False, 1

    def count(self, rewards: NDArray[np.float64], info: Mapping[str, Any], running: NDArray[np.bool_]) -> None:
        """Take in the slates' categories, ``info["categories"]`` of shape (S, K), of the sessions that run."""
        categories: NDArray[np.integer] = info["categories"]
        size = categories.shape[1]
        now = np.zeros_like(self._ever)
        np.put_along_axis(now, categories.astype(np.int64), True, axis=1)
        if size > 1:
            alike = (categories[:, :, None] == categories[:, None, :]).sum(axis=(1, 2)) - size
            self._intra += np.where(running, 1.0 - alike / (size * (size - 1)), 0.0)
        if self._begun:
            both = (now & self._last).sum(axis=1) / (now | self._last).sum(axis=1)
            self._between += np.where(running, 1.0 - both, 0.0)
        self._ever |= now & running[:, None]
        self._last, self._begun, self._size = now, True, size

    def measured(self, lengths: NDArray[np.int64]) -> Arrays:
        """Coverage, diversity within and diversity between slates, each of shape (S,)."""
        intra = self._intra / lengths if self._size > 1 else np.ones(len(lengths))
        between = np.where(lengths > 1, self._between / np.maximum(lengths - 1, 1), 1.0)
        return {"coverage": self._ever.mean(axis=1), "intra": intra, "between": between}


def _recorded_file(folder: Path, row: str) -> Path:
    return folder / "sessions" / f"{row}.json"


def recorded_sessions(
    folder: Path, rows: tuple[str, ...], labels: Mapping[str, str] | None = None
) -> list[RecordedSession]:
    """The sessions that can be looked at, row by row; under these labels, by row, where they are given."""
    labels = {} if labels is None else labels
    found: list[RecordedSession] = []
    for row in rows:
        path = _recorded_file(folder, row)
        if path.exists():
            own = [RecordedSession.from_dict(plain) for plain in json.loads(path.read_text("utf-8"))]
            found += [replace(session, label=labels.get(row, session.label)) for session in own]
    return found
