"""``rapport reflections show``: reflections on finished sessions with their scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapport.agents.planning.reflection import Reflection, read_reflections
from rapport.datasets.files.reading import visible
from rapport.experiments.commands.options import at_least_one

WIDTH = 80
"""Columns of the printed table."""


@dataclass
class Reflections:
    """List a pool of reflections: each text with the clicks of the session it is about."""

    action: Annotated[Literal["show"], tyro.conf.Positional]
    """What to do; more may follow."""
    file: Annotated[Path, tyro.conf.Positional]
    """A pool that `rapport run` or `rapport planner` kept, e.g. runs/lerl/reflections-lerl-seed0.sqlite."""
    last: int | None = None
    """Only the newest ones."""
    best: int | None = None
    """Only those with the highest scores, best first."""

    def run(self) -> int:
        """Print them; 0."""
        at_least_one(**{n: number for n in ("last", "best") if (number := getattr(self, n)) is not None})
        every = read_reflections(self.file)
        chosen = every if self.last is None else every[-self.last :]
        if self.best is not None:
            chosen = sorted(chosen, key=lambda entry: -entry.score)[: self.best]
        console = Console(width=WIDTH, highlight=False)
        if chosen:
            console.print(_table(chosen))
        console.print(_summary(chosen, len(every)), soft_wrap=True)
        return 0


def _table(entries: list[Reflection]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("user", justify="right", no_wrap=True)
    table.add_column("reflection", overflow="fold")
    for entry in entries:
        table.add_row(f"{entry.score:g}", "" if entry.user is None else str(entry.user), Text(visible(entry.text)))
    return table


def _summary(entries: list[Reflection], kept: int) -> str:
    if not entries:
        return "No reflections: no session has been looked back on yet."
    scores = np.array([entry.score for entry in entries])
    users = len({entry.user for entry in entries})
    shown = f"{kept:,}" if len(entries) == kept else f"{len(entries):,} of {kept:,}"
    return (
        f"{shown} reflections on sessions of {users:,} users; "
        f"scores {scores.min():g} to {scores.max():g}, mean {scores.mean():.1f}"
    )
