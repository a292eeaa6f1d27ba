"""Sensitivity: trained agents played in other circumstances than they were trained in, one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from rapport.experiments.core import Row


@dataclass(frozen=True)
class Study:
    """One thing that is changed.

    Attributes:
        title: what.
        unit: of its values.
        values: in the order shown.
        usual: the value that agents were trained with.
        rows: names of the rows it is played for.
        apply: a row's circumstances under a value.
        needs_a_model: whether it is of the language model, and not run where there is none.
    """

    title: str
    unit: str
    values: tuple[int, ...]
    usual: int
    rows: tuple[str, ...]
    apply: Callable[[Row, int], Row]
    needs_a_model: bool = True


def _budget(row: Row, value: int) -> Row:
    return replace(row, env=row.env.changed(budget=float(value)))


def _size(row: Row, value: int) -> Row:
    return replace(row, planner=replace(row.planner, most=value))


def _reflections(row: Row, value: int) -> Row:
    return replace(row, planner=replace(row.planner, reflections=value))


def _period(row: Row, value: int) -> Row:
    return replace(row, planner=replace(row.planner, period=value))


STUDIES = {
    "budget": Study(
        "Quit budget", "at a session's start", (10, 20, 40), 20, ("lerl", "rotation", "mask", "ppo"), _budget, False
    ),
    "size": Study("Number of categories", "most in a plan", (2, 4, 8, 12), 8, ("lerl",), _size),
    "reflections": Study("Reflections sampled", "shown to the model", (0, 1, 3, 6), 3, ("lerl",), _reflections),
    "period": Study("Plan period", "slates a plan holds", (5, 10, 20), 20, ("lerl",), _period),
}


def row_name(study: str, value: int, name: str) -> str:
    """Name of a row under a changed circumstance."""
    return f"{name}.{study}-{value}"


def sensitivity_rows(rows: Iterable[Row], with_model: bool) -> tuple[Row, ...]:
    """The rows of all studies, each played with the policy that the row of its name has trained."""
    by_name = {row.name: row for row in rows}
    found = []
    for study_name, study in STUDIES.items():
        if study.needs_a_model and not with_model:
            continue
        for row in (by_name[name] for name in study.rows if name in by_name):
            for value in study.values:
                changed = replace(row, name=row_name(study_name, value, row.name), trained_as=row.name)
                found.append(study.apply(changed, value))
    return tuple(found)
