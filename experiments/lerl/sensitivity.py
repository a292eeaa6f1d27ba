"""Sensitivity: trained agents played in other circumstances than they were trained in, one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rapport.experiments.lerl.cells import Cell, serve
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.play import Evaluation, play_planned
from rapport.experiments.lerl.rows import METHODS
from rapport.experiments.results.store import MethodResult, ResultStore, config_hash

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Study:
    """One thing that is changed.

    Attributes:
        title: what.
        unit: of its values.
        values: in the order shown.
        usual: the value that agents were trained with.
        methods: rows it is played for.
        apply: the circumstances under a value.
    """

    title: str
    unit: str
    values: tuple[int, ...]
    usual: int
    methods: tuple[str, ...]
    apply: Callable[[Setup, PlannerChoice, int], tuple[Setup, PlannerChoice]]


def _budget(setup: Setup, choice: PlannerChoice, value: int) -> tuple[Setup, PlannerChoice]:
    return replace(setup, budget=float(value)), choice


def _size(setup: Setup, choice: PlannerChoice, value: int) -> tuple[Setup, PlannerChoice]:
    return setup, replace(choice, most=value)


def _reflections(setup: Setup, choice: PlannerChoice, value: int) -> tuple[Setup, PlannerChoice]:
    return setup, replace(choice, reflections=value)


def _period(setup: Setup, choice: PlannerChoice, value: int) -> tuple[Setup, PlannerChoice]:
    return setup, replace(choice, period=value)


STUDIES = {
    "budget": Study(
        "Quit budget", "at a session's start", (10, 20, 40), 20, ("lerl", "rotation", "mask", "ppo"), _budget
    ),
    "size": Study("Number of categories", "most in a plan", (2, 4, 8, 12), 8, ("lerl",), _size),
    "reflections": Study("Reflections sampled", "shown to the model", (0, 1, 3, 6), 3, ("lerl",), _reflections),
    "period": Study("Plan period", "slates a plan holds", (5, 10, 20), 20, ("lerl",), _period),
}
NEED_A_MODEL = ("size", "reflections", "period")
"""Studies of the language model: not run where there is none."""


def row_name(study: str, value: int, method: str) -> str:
    """Name of a result."""
    return f"{method}.{study}-{value}"


@dataclass(frozen=True)
class Variation:
    """One trained agent under one changed circumstance."""

    cell: Cell
    study: str
    value: int

    def __call__(self, progress: Progress) -> None:
        """Play it, if that is not done."""
        cell, study = self.cell, STUDIES[self.study]
        store, name = variation_store(cell), row_name(self.study, self.value, cell.method)
        if store.load(name, cell.seed) is not None:
            return
        choice = cell.grid.choice(cell.world, cell.method, cell.seed)
        setup, choice = study.apply(cell.world.setup, choice, self.value)
        result = play_planned(Evaluation(setup, cell.seed, cell.grid.sessions), name, serve(cell).act, choice)
        store.save(replace(result, label=METHODS[cell.method].label))


def variation_store(cell: Cell) -> ResultStore:
    """Where a row's variations are kept: beside the row's results, under the same configuration."""
    own = cell.grid.store(cell.world, cell.method)
    return ResultStore(cell.grid.place(cell.world) / "sensitivity", config_hash({"of": own.config}))


def variations(cell: Cell) -> list[Variation]:
    """All that a row is played for."""
    model = cell.grid.planner.llm is not None
    return [
        Variation(cell, name, value)
        for name, study in STUDIES.items()
        if cell.method in study.methods and (model or name not in NEED_A_MODEL)
        for value in study.values
    ]


def found(cell: Cell, study: str, value: int) -> MethodResult | None:
    """What a variation found; None where it was not run."""
    return variation_store(cell).load(row_name(study, value, cell.method), cell.seed)
