"""An experiment: rows and seeds, each a job with a file of its own, so that a stopped experiment goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rapport.envs.common.threads import more_threads
from rapport.experiments.core.env_config import identity
from rapport.experiments.core.row import Progress, Protocol, Row, Task
from rapport.experiments.jobs.local import Job
from rapport.experiments.results.store import Result, ResultStore, config_hash


@dataclass(frozen=True)
class Experiment:
    """Rows, measured in one way with the same seeds.

    Attributes:
        rows: of the table, in the order shown.
        seeds: trainings, and draws of who is served; seeds 0 to ``seeds`` - 1.
        protocol: how every row is measured.
        folder: keeps results, checkpoints and whatever learners keep; it may be moved.
        name: shown before the names of its jobs, where several experiments run together.
    """

    rows: tuple[Row, ...]
    seeds: int
    protocol: Protocol
    folder: Path
    name: str = ""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rows: two are called {twice[0]!r}; give each its own name")
        for row in self.rows:
            if row.trained_as is not None and row.trained_as not in names:
                raise ValueError(
                    f"row {row.name!r}: trained_as={row.trained_as!r} is no row here; add it, or leave {row.name!r} out"
                )

    @cached_property
    def by_name(self) -> dict[str, Row]:
        """Rows by their names."""
        return {row.name: row for row in self.rows}

    @cached_property
    def store(self) -> ResultStore:
        """Where results are kept."""
        return ResultStore(self.folder / "results")

    def task(self, row: Row, seed: int) -> Task:
        """A row with one seed."""
        return Task(row, self.by_name[row.trained_as or row.name], seed, self.folder)

    def key(self, row: Row) -> str:
        """Changes with all that a row's results depend on, and with nothing else.

        Neither the folder nor the other rows nor the row's label enters, so whichever command makes a row makes it for
        all, and a moved folder is as good as new.
        """
        trained = self.by_name[row.trained_as or row.name]
        known: dict[str, Any] = {"row": _identity(row), "protocol": identity(self.protocol), **more_threads()}
        if trained is not row:
            known["trained"] = _identity(trained)
        return config_hash(known)

    def jobs(self) -> list[Job]:
        """What is to be done: prerequisites, then what is trained from them, then what plays what was trained."""
        return jobs_of([self])

    def results(self) -> dict[str, list[Result]]:
        """Every result that is there: row's name -> one per seed, by seed; a row without any is absent."""
        found: dict[str, list[Result]] = {}
        for row in self.rows:
            key = self.key(row)
            for seed in range(self.seeds):
                result = self.store.load(row.name, seed, key)
                if result is not None:
                    found.setdefault(row.name, []).append(result)
        return found


@dataclass(frozen=True)
class RunRow:
    """The job of one row with one seed."""

    experiment: Experiment
    row: Row
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Train where there is something to train, measure, keep the result; nothing where that is done."""
        experiment, row = self.experiment, self.row
        key = experiment.key(row)
        if experiment.store.load(row.name, self.seed, key) is None:
            experiment.store.save(measure(experiment, row, self.seed, progress), key)


def measure(experiment: Experiment, row: Row, seed: int, progress: Progress = lambda _: None) -> Result:
    """Train a row's policy where there is something to train, and measure it; nothing is looked up or kept."""
    task = experiment.task(row, seed)
    policy = row.learner(task, lambda share: progress(0.9 * share))
    begun = time.monotonic()
    episodes = experiment.protocol(task, policy)
    own = task.trained is row  # a training is charged to the row that made it
    return Result(
        row=row.name,
        label=row.label,
        seed=seed,
        arrays=episodes.arrays,
        units=episodes.units,
        ids=episodes.ids,
        meter=_added(policy.meter if own else {}, episodes.meter),
        steps=policy.steps if own else 0,
        train_seconds=policy.seconds if own else 0.0,
        eval_seconds=time.monotonic() - begun,
        notes=(*(policy.notes if own else ()), *episodes.notes),
        curve=policy.curve if own else (),
    )


def jobs_of(experiments: Iterable[Experiment]) -> list[Job]:
    """The jobs of several experiments; prerequisites that they share are made once."""
    free: list[Job] = []
    waiting: dict[str, tuple[Job, list[Job]]] = {}
    for experiment in experiments:
        for seed in range(experiment.seeds):
            for row in experiment.rows:
                if row.trained_as is not None:
                    continue
                job = _with_followers(experiment, row, seed)
                make = getattr(row.learner, "prerequisite", None)
                needed = None if make is None else make(experiment.task(row, seed))
                if needed is None:
                    free.append(job)
                else:
                    waiting.setdefault(needed.key, (Job(needed.name, needed.make), []))[1].append(job)
    return [Job(first.name, first.task, tuple(later)) for first, later in waiting.values()] + free


def _with_followers(experiment: Experiment, row: Row, seed: int) -> Job:
    """A row's job, followed by those of the rows that play what it trained."""
    prefix = f"{experiment.name}: " if experiment.name else ""
    later = [
        Job(f"{prefix}{other.name}, seed {seed}", RunRow(experiment, other, seed))
        for other in experiment.rows
        if other.trained_as == row.name
    ]
    return Job(f"{prefix}{row.name}, seed {seed}", RunRow(experiment, row, seed), tuple(later))


def _identity(row: Row) -> dict[str, Any]:
    return {"env": row.env.identity(), "learner": identity(row.learner), "planner": identity(row.planner)}


def _added(first: Any, second: Any) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in {**first, **second}}
