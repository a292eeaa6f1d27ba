"""The results table: every method with intervals, what its planner cost, and an honest verdict.

:func:`summarise` turns results into a :class:`ResultsTable`; :func:`print_table` shows it in a terminal or a file,
:func:`to_markdown` and the HTML report (:mod:`rapport.experiments.report.figures`) write the same cells.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rapport.experiments.results.llm_cost import COST_COLUMNS, cost_rows, duration, had_model, mean_meter, planned_by
from rapport.experiments.results.stats import Estimate, Scores, estimate, paired_difference
from rapport.experiments.results.store import MethodResult

WIDTH = 110
"""Columns of the printed table."""
PROTOCOL_SEEDS, PROTOCOL_SESSIONS = 5, 1_000
"""Below these a table is a quick look, and says so."""
NOT_RUN = "not run"
COLUMNS = (
    ("method", ""),
    ("T_int", "slates"),
    ("R_cum", "summed click rate"),
    ("R_sin", "click rate"),
    ("learned from", "transitions"),
    ("time", "per seed"),
)
"""Name and unit of each column of the main table."""


@dataclass(frozen=True)
class RunFacts:
    """What the table rests on, for its footer.

    Attributes:
        dataset: name of the data set, e.g. ``"kuairand-pure"``.
        users: held-out users the sessions are drawn from.
        profile: ``"corrected"`` or ``"official"``.
        planner: what planned, e.g. ``"heuristic (no LLM given)"``.
        main: name of the method all others are compared with.
    """

    dataset: str
    users: int
    profile: str
    planner: str
    main: str = "lerl"


@dataclass(frozen=True)
class Row:
    """One method over all its seeds; everything is None or empty when it was not run.

    Attributes:
        method: short name.
        label: name shown.
        seeds: seeds it was run with.
        sessions: fewest sessions of a seed.
        t_int: mean session length [slates].
        r_cum: summed reward of a session [mean clicks].
        r_sin: reward of a slate [mean click].
        transitions: mean over seeds.
        seconds: training and evaluation, mean over seeds.
        slates: served in training and evaluation, mean over seeds.
        meter: planner's meter, mean over seeds; empty without a planner.
        notes: distinct notes of its results.
    """

    method: str
    label: str
    seeds: tuple[int, ...] = ()
    sessions: int = 0
    t_int: Estimate | None = None
    r_cum: Estimate | None = None
    r_sin: Estimate | None = None
    transitions: float | None = None
    seconds: float | None = None
    slates: float | None = None
    meter: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """R_cum of the main method minus another's, paired by seed.

    Attributes:
        label: name of the other method.
        difference: main minus other [mean clicks per session].
    """

    label: str
    difference: Estimate


@dataclass(frozen=True)
class ResultsTable:
    """Rows in the order shown, comparisons with the main method, and what they rest on."""

    facts: RunFacts
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]

    def row(self, method: str) -> Row | None:
        """The row of a method, or None."""
        return next((row for row in self.rows if row.method == method), None)


def summarise(
    results: Sequence[MethodResult],
    facts: RunFacts,
    methods: Sequence[tuple[str, str]] = (),
    *,
    seed: int = 0,
) -> ResultsTable:
    """Group results by method and estimate every cell.

    Args:
        results: any number of methods and seeds.
        facts: what the footer says.
        methods: (name, label) of every method the table should have, in order; those without a result are "not run".
            Methods with results that are not named here follow.
        seed: seed of the bootstrap. A method's intervals do not depend on which others are in the table.
    """
    groups: dict[str, list[MethodResult]] = {name: [] for name, _ in methods}
    labels = dict(methods)
    for result in sorted(results, key=lambda r: r.seed):
        groups.setdefault(result.method, []).append(result)
        labels.setdefault(result.method, result.label)
    rows = tuple(_row(name, labels[name], group, seed) for name, group in groups.items())
    main = groups.get(facts.main, [])
    others = [(name, group) for name, group in groups.items() if name != facts.main]
    compared = ((labels[name], compare(main, group, seed=seed)) for name, group in others)
    return ResultsTable(facts, rows, tuple(Comparison(label, d) for label, d in compared if d is not None))


def compare(first: Sequence[MethodResult], second: Sequence[MethodResult], *, seed: int = 0) -> Estimate | None:
    """R_cum of ``first`` minus that of ``second`` over the seeds both have; None when there is none.

    Sessions are paired by index when, for every such seed, both evaluated the same users in the same order.
    """
    left, right = ({r.seed: r for r in group} for group in (first, second))
    pairs = [(left[s], right[s]) for s in sorted(left.keys() & right.keys())]
    if not pairs:
        return None
    same = all(a.users is not None and b.users is not None and np.array_equal(a.users, b.users) for a, b in pairs)
    a, b = (Scores.mean([r.returns for r in side]) for side in zip(*pairs, strict=True))
    return paired_difference(a, b, _rng(seed, pairs[0][0].method, pairs[0][1].method), same_sessions=same)


def verdict(table: ResultsTable) -> list[str]:
    """What the table says about the main method, one line per other method, least flattering first."""
    main = table.row(table.facts.main)
    if main is None or not main.seeds:
        return [f"{table.facts.main}: {NOT_RUN}, so nothing is compared with it."]
    lines = []
    for comparison in sorted(table.comparisons, key=lambda c: c.difference.point):
        d, other = comparison.difference, comparison.label
        if d.high < 0:
            lines.append(f"{other} beats {main.label} by {-d.point:.2f} [{-d.high:.2f}, {-d.low:.2f}] in R_cum.")
        elif d.low > 0:
            lines.append(f"{main.label} is above {other} by {d.point:.2f} [{d.low:.2f}, {d.high:.2f}] in R_cum.")
        else:
            found = f"{d.point:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
            lines.append(f"{main.label} and {other} cannot be told apart: they differ by {found} in R_cum.")
    return [headline(table), *lines] if lines else [f"{main.label}: nothing else was run to compare it with."]


def headline(table: ResultsTable) -> str:
    """The verdict in one sentence."""
    main = table.row(table.facts.main)
    label = main.label if main is not None else table.facts.main
    n = len(table.comparisons)
    beaten = sum(c.difference.low > 0 for c in table.comparisons)
    beating = sum(c.difference.high < 0 for c in table.comparisons)
    if beaten == n:
        return f"{label} is above {'the one other method' if n == 1 else f'all {n} other methods'} in R_cum."
    return f"{label}: in R_cum above {beaten} of {n} other methods, below {beating}, level with {n - beaten - beating}."


def footer(table: ResultsTable) -> list[str]:
    """What the table rests on, and what limits it."""
    facts, run = table.facts, [row for row in table.rows if row.seeds]
    sessions = _span([row.sessions for row in run])
    seeds = _span([len(row.seeds) for row in run])
    lines = [
        f"data: {facts.dataset}, {facts.users:,} held-out users; {sessions} sessions per seed; {seeds} seed(s); "
        f"profile: {facts.profile}",
        f"planner: {facts.planner}",
        "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]; differences paired by seed",
    ]
    few_seeds = min((len(row.seeds) for row in run), default=0) < PROTOCOL_SEEDS
    if few_seeds or min((row.sessions for row in run), default=0) < PROTOCOL_SESSIONS:
        lines.append(f"a quick look: the protocol asks for {PROTOCOL_SEEDS} seeds and {PROTOCOL_SESSIONS:,} sessions")
    if any(len(row.seeds) == 1 for row in run):
        lines.append("with one seed an interval shows how sessions vary, not how trainings do")
    for row in run:
        lines += [*planned_by(row.label, row.meter), *(f"{row.label}: {note}" for note in row.notes)]
    return lines


def cells(row: Row) -> tuple[str, ...]:
    """One row of the main table as text, in the order of :data:`COLUMNS`."""
    if not row.seeds:
        return (row.label, *(NOT_RUN for _ in COLUMNS[1:]))
    learned = "none" if not row.transitions else f"{row.transitions:,.0f}"
    metrics = (_interval(row.t_int, 2), _interval(row.r_cum, 2), _interval(row.r_sin, 3))
    return (row.label, *metrics, learned, duration(row.seconds or 0.0))


def costs(table: ResultsTable) -> list[tuple[str, ...]]:
    """The cost table, in the order of ``llm_cost.COST_COLUMNS``; empty where no model planned."""
    run = [row for row in table.rows if row.seeds]
    if not any(had_model(row.meter) for row in run):
        return []
    return [line for row in run for line in cost_rows(row.label, row.meter, row.slates or 0.0)]


def print_table(table: ResultsTable, file: IO[str] | None = None) -> None:
    """Print the table, its footer and the verdict, at most :data:`WIDTH` columns wide; plain text when piped."""
    console = Console(file=file, highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    console.print()
    console.print(grid(COLUMNS, [cells(row) for row in table.rows], bold=_index(table)))
    console.print()
    if found := costs(table):
        console.print(grid(COST_COLUMNS, found))
        console.print()
    for line in footer(table):
        console.print(line, style="dim", markup=False)
    console.print()
    for line in verdict(table):
        console.print(line, markup=False)


def to_markdown(table: ResultsTable) -> str:
    """The same as a Markdown text."""
    blocks = [markdown(COLUMNS, [cells(row) for row in table.rows])]
    if found := costs(table):
        blocks.append(markdown(COST_COLUMNS, found))
    blocks += ["\n".join(f"- {line}" for line in verdict(table)), "<br>\n".join(footer(table))]
    return "\n\n".join(blocks) + "\n"


def _row(method: str, label: str, group: Sequence[MethodResult], seed: int) -> Row:
    if not group:
        return Row(method, label)
    lengths, returns = [r.lengths for r in group], [r.returns for r in group]
    return Row(
        method=method,
        label=label,
        seeds=tuple(r.seed for r in group),
        sessions=min(r.sessions for r in group),
        t_int=estimate(Scores.mean(lengths), _rng(seed, method, "T_int")),
        r_cum=estimate(Scores.mean(returns), _rng(seed, method, "R_cum")),
        r_sin=estimate(Scores.ratio(returns, lengths), _rng(seed, method, "R_sin")),
        transitions=float(np.mean([r.train_transitions for r in group])),
        seconds=float(np.mean([r.train_seconds + r.eval_seconds for r in group])),
        slates=float(np.mean([r.train_transitions + r.steps_total for r in group])),
        meter=mean_meter([r.meter for r in group if r.meter]),
        notes=tuple(dict.fromkeys(note for r in group for note in r.notes)),
    )


def _rng(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def _index(table: ResultsTable) -> int | None:
    return next((i for i, row in enumerate(table.rows) if row.method == table.facts.main), None)


def grid(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], bold: int | None = None) -> Table:
    """Cells under columns of (name, unit), the first one's lines broken where they have to be."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for i, (name, unit) in enumerate(columns):
        wrap = i == 0
        shown.add_column(f"{name}\n{unit}", justify="left" if wrap else "right", no_wrap=not wrap, overflow="fold")
    for i, row in enumerate(rows):
        shown.add_row(*(cell.replace("[", "\\[") for cell in row), style="bold" if i == bold else "")
    return shown


def markdown(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """The same as Markdown."""
    header = [f"{name} [{unit}]" if unit else name for name, unit in columns]
    lines = [header, [":--", *("--:" for _ in columns[1:])], *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(value: Estimate | None, digits: int) -> str:
    if value is None:
        return NOT_RUN
    return f"{value.point:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _span(values: Sequence[int]) -> str:
    if not values:
        return "no"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
