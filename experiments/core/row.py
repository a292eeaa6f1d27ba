"""One row of a table: who serves, where, and how it has learned; and what rows are made of."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gymnasium.vector import VectorEnv

from rapport.experiments.core.env_config import EnvConfig
from rapport.experiments.core.rollout import Act, CurvePoint, Episodes

Progress = Callable[[float], None]
"""Told the share that is done, in [0, 1]."""


@dataclass(frozen=True)
class ServingPolicy:
    """Somebody ready to serve, and what its training took.

    Attributes:
        act: from an environment of E episodes to what serves them; its chance begins anew at every call.
        steps: transitions it learned from; 0 where it does not learn.
        seconds: wall time of its training, over all interruptions.
        meter: what its training spent, by name; empty where nothing is counted.
        notes: what a reader has to know of its training.
        curve: its learning curve.
    """

    act: Callable[[VectorEnv[Any, Any, Any]], Act]
    steps: int = 0
    seconds: float = 0.0
    meter: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True)
class Task:
    """A row with one seed.

    Attributes:
        row: the row.
        trained: the row whose policy it plays; the row itself, unless it names another in ``trained_as``.
        seed: source of all its chance.
        folder: keeps the experiment's files.
    """

    row: Row
    trained: Row
    seed: int
    folder: Path


@dataclass(frozen=True)
class Prerequisite:
    """What several rows of a seed begin with, such as a pretrained policy; made once, by a job of its own.

    Attributes:
        name: shown beside its bar.
        key: equal for rows that share it, e.g. the path of the file it makes.
        make: makes it if it is not there; told how to report its progress.
    """

    name: str
    key: str
    make: Callable[[Progress], Any]


class Learner(typing.Protocol):
    """How a row comes to its policy; a frozen dataclass whose fields are what its results depend on.

    A learner that begins with what other rows begin with, too, has a method ``prerequisite(task) -> Prerequisite``.
    """

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Train the policy of ``task.trained``, or read it from a finished training, and make it ready to serve."""
        ...


class Protocol(typing.Protocol):
    """How every row of an experiment is measured; a frozen dataclass."""

    def __call__(self, task: Task, policy: ServingPolicy) -> Episodes:
        """Play complete episodes."""
        ...


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: short, lower case, unique in its experiment and used in file names, e.g. ``"lerl"``.
        label: shown name.
        env: where it learns and is measured.
        learner: how it comes to its policy.
        family: what kind of row it is; rows of a family stand together.
        planner: who plans for it, as a dataclass that learner and protocol know; None where nobody can.
        trained_as: name of the row whose trained policy it plays, where it trains none of its own.
    """

    name: str
    label: str
    env: EnvConfig
    learner: Learner
    family: str = ""
    planner: Any = None
    trained_as: str | None = None
