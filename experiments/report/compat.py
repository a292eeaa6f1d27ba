"""The former calls of ``experiments/lerl`` on top of the page, the table and the figures; goes when it calls these.

Nothing else imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.registry.licence import licence_note
from rapport.experiments.report import figures, page
from rapport.experiments.report.blocks import Block, Figure
from rapport.experiments.report.html import to_html
from rapport.experiments.report.session_record import RecordedSession
from rapport.experiments.report.session_viewer import session_viewer
from rapport.experiments.report.table import Table
from rapport.experiments.results import summary as tables
from rapport.experiments.results.llm_cost import COST_COLUMNS
from rapport.experiments.results.store import MethodResult, write_atomically

LICENCE = licence_note("kuairand-pure")
Card = Table
TableBlock = Table
_METRICS = {"t_int": "T_int [slates]", "r_cum": "R_cum [summed click rate]", "r_sin": "R_sin [click rate]"}
_TERMS = (
    "T_int: mean number of slates a user stays for, from the first to the one after which the user leaves.",
    "R_cum: mean over sessions of the summed reward; the reward of a slate is the share of its items that were "
    "clicked. What a service gains from a visit: long and good.",
    "R_sin: total reward divided by total slates: how good a single slate is, whatever the length of the session. "
    "Always serving the favourite category can win here and lose the user.",
    "Intervals: interquartile mean over seeds, with a 95 % percentile interval from a bootstrap that resamples seeds, "
    "and sessions within each seed. Differences between methods are paired by seed and count as found only if their "
    "interval leaves out zero.",
)


class FigureBlock(Figure):
    """A figure that is drawn already."""

    def __init__(self, figure: Any, caption: str = "") -> None:
        super().__init__(lambda: figure, caption)


class Section(page.Section):
    """Paragraphs, then tables, figures and sessions."""

    def __init__(
        self,
        title: str,
        paragraphs: Sequence[str] = (),
        tables: Sequence[Table] = (),
        figures: Sequence[Figure] = (),
        sessions: Sequence[RecordedSession] = (),
        anchor: str = "",
    ) -> None:
        viewer = (session_viewer(sessions),) if sessions else ()
        super().__init__(title, (*paragraphs, *tables, *figures, *viewer), anchor)


class Page(page.Page):
    """The finding as ``headline``."""

    def __init__(
        self,
        title: str,
        subtitle: str,
        headline: str,
        findings: Sequence[str],
        sections: Sequence[page.Section],
        settings: Mapping[str, str],
        licence: str = LICENCE,
    ) -> None:
        super().__init__(title, headline, findings, subtitle, sections, settings, licence)

    @property
    def headline(self) -> str:
        """The finding."""
        return self.finding


def write_page(page_: page.Page, folder: Path) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "report.md", folder / "report.html"
    for path, text in zip(paths, (page.to_markdown(page_), to_html(page_)), strict=True):
        write_atomically(path, text)
    return paths


class Curve(NamedTuple):
    """Points (transitions, T_int, R_cum) of one seed of one method, shape (P, 3)."""

    method: str
    seed: int
    points: NDArray[np.float64]


def curves(results: Sequence[MethodResult]) -> list[Curve]:
    """The learning curves that results have."""
    return [Curve(r.method, r.seed, np.array(r.curve, dtype=np.float64)) for r in results if r.curve]


def forest(table: tables.ResultsTable, name: str, title: str, longest: int = 0) -> Any:
    """Every row of a table that was run."""
    return figures.forest([(row.label, getattr(row, name)) for row in table.rows if row.seeds], title)


def learning(table: tables.ResultsTable, found: Sequence[Curve], name: Literal["t_int", "r_cum"]) -> Any:
    """How methods learned."""
    column = {"t_int": 1, "r_cum": 2}[name]
    labels = {row.method: row.label for row in table.rows}
    generic = [
        figures.Curve(labels.get(c.method, c.method), c.seed, c.points[:, 0], c.points[:, column]) for c in found
    ]
    return figures.learning_curves(generic, _METRICS[name], "training transitions")


@dataclass(frozen=True, eq=False)
class RunReport:
    """What the page of ``rapport run`` shows."""

    title: str
    table: tables.ResultsTable
    settings: Mapping[str, str]
    curves: Sequence[Curve] = ()
    card: Table | None = None
    notes: Sequence[str] = ()
    licence: str = LICENCE


def write_report(report: RunReport, path: Path) -> Path:
    """Render ``report`` and write it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(report))
    return path


def render(report: RunReport) -> str:
    """The page of ``rapport run`` as one HTML text."""
    table, facts = report.table, report.table.facts
    rows = tuple(tables.cells(row) for row in table.rows)
    bold = next((i for i, row in enumerate(table.rows) if row.method == facts.main), None)
    results: list[Block] = [Table(tables.COLUMNS, rows, bold=bold), *tables.footer(table)]
    if any(row.seeds for row in table.rows):
        results += [Figure(partial(forest, table, name, title), small=True) for name, title in _METRICS.items()]
    learned: list[Block] = [tables.NOT_RUN]
    if report.curves:
        learned = [
            "Sessions of training users that ended lately, while exploring: not comparable with the table. Thick line: "
            "mean over seeds; band: one standard error; thin lines: single seeds.",
            Figure(lambda: learning(table, report.curves, "r_cum")),
            Figure(lambda: learning(table, report.curves, "t_int")),
        ]
    costs = tuple(tables.costs(table))
    sections = (
        page.Section("Results on held-out users", results),
        page.Section("Learning curves", learned),
        page.Section(
            "What the language model cost",
            [Table(COST_COLUMNS, costs) if costs else "none: no language model planned."],
        ),
        page.Section("How far to trust the simulator", [report.card or tables.NOT_RUN]),
        page.Section("How to read it", [*_TERMS, *report.notes]),
    )
    finding, *further = tables.verdict(table)
    subtitle = f"{facts.dataset} · profile {facts.profile} · planner: {facts.planner}"
    return to_html(page.Page(report.title, finding, further, subtitle, sections, report.settings, report.licence))


def planner_page(
    title: str, said: Sequence[str], figure: Any, found: Sequence[tuple[Any, Any]], notes: Sequence[str]
) -> str:
    """The page of ``rapport planner cost | reflections`` as one HTML text."""
    sections = (
        page.Section("Return, with its intervals", [Figure(lambda: figure)]),
        page.Section("In figures", [*(Table(columns, rows) for columns, rows in found), *notes[1:]]),
    )
    return to_html(page.Page(title, said[0], said[1:], notes[0], sections, licence=LICENCE))
