"""The pages of a reproduction: the finding first, then every table with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console

from rapport.experiments.lerl import findings as answers
from rapport.experiments.lerl.cells import Cell, kept_sessions
from rapport.experiments.lerl.config import model_label
from rapport.experiments.lerl.grid import Grid, World
from rapport.experiments.lerl.paper import CASE, CLAIM, PAPER
from rapport.experiments.lerl.rows import FAMILIES, METHODS
from rapport.experiments.lerl.sensitivity import STUDIES, found
from rapport.experiments.lerl.user_groups import groupings
from rapport.experiments.report.compat import (
    FigureBlock,
    Page,
    Section,
    TableBlock,
    curves,
    forest,
    learning,
    write_page,
)
from rapport.experiments.report.figures import profile_figure
from rapport.experiments.report.performance_profile import performance_profile
from rapport.experiments.results.llm_cost import COST_COLUMNS, duration
from rapport.experiments.results.stats import Estimate, Scores, estimate
from rapport.experiments.results.store import MethodResult
from rapport.experiments.results.summary import NOT_RUN, WIDTH, ResultsTable, RunFacts, costs, grid, summarise

TITLE = "LERL, reproduced"
COLUMNS = (
    ("method", ""),
    ("T_int", "slates"),
    ("R_cum", "summed click rate"),
    ("R_sin", "click rate"),
    ("coverage", "categories"),
    ("within", "diversity"),
    ("between", "diversity"),
    ("learned from", "transitions"),
    ("time", "per seed"),
    ("LLM", "calls a seed"),
)
"""Name and unit of each column of a world's table."""
SHOWN = COLUMNS[:4]
"""Those the terminal has room for."""
PROFILED = ("lerl", "lerl-click", "heuristic", "mask", "rotation", "ppo", "popularity", "look-ahead")
"""Rows with a performance profile."""
GROUPED = ("lerl", "lerl-click", "heuristic", "mask", "rotation", "ppo", "popularity", "random")
"""Rows shown by groups of users."""
CURVED = ("lerl", "lerl-pl", "lerl-click", "mask-click", "heuristic", "mask", "ppo", "ppo-pl", "td3", "dqn", "hac")
"""Rows whose learning curves are drawn."""
ABLATIONS = {
    "lerl": "LERL",
    "no-reflection": "without reflection",
    "heuristic": "without the language model: plans by counting",
    "mask": "without a planner: the mask alone",
    "ppo": "without planner and mask: flat RL",
    "lerl-no-rl": "without RL: the first policy under its plans",
}
"""LERL with one part less."""
NOT_QUOTED = "not quoted"


@dataclass(frozen=True)
class WorldResults:
    """All results of one world."""

    grid: Grid
    world: World

    @cached_property
    def results(self) -> list[MethodResult]:
        """Every cell that is done."""
        return self.grid.results(self.world)

    @cached_property
    def found(self) -> dict[str, list[MethodResult]]:
        """Method -> results."""
        found: dict[str, list[MethodResult]] = {}
        for result in self.results:
            found.setdefault(result.method, []).append(result)
        return found

    @cached_property
    def table(self) -> ResultsTable:
        """Every row, in order."""
        data = self.world.setup.session_data()
        facts = RunFacts(data.name, int(data.held_out.sum()), self.world.setup.profile, planner_label(self.grid))
        return summarise(self.results, facts, [(name, METHODS[name].label) for name in self.world.methods])


def write_document(grid_: Grid, missing: dict[str, str], console: Console) -> tuple[Path, Path]:
    """Print the main table and write ``report.md`` and ``report.html`` into the grid's folder.

    Args:
        grid_: what was run.
        missing: worlds that could not be run -> why.
        console: where to print.
    """
    worlds = [WorldResults(grid_, world) for world in grid_.worlds]
    main = next((found for found in worlds if found.world.main), worlds[0])
    console.print()
    console.print(main.world.title, style="bold", highlight=False)
    wide = Console(file=console.file, highlight=False)
    wide.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    wide.print(grid(SHOWN, [row[: len(SHOWN)] for row in main_rows(main)]))
    page = document(grid_, worlds, main, missing)
    console.print()
    console.print(page.headline, style="bold", highlight=False, markup=False, soft_wrap=True)
    for line in page.findings:
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    paths = write_page(page, Path(grid_.folder))
    for path in paths:
        console.print(f"[green]Wrote[/] {path}", highlight=False, soft_wrap=True)
    return paths


def document(grid_: Grid, worlds: Sequence[WorldResults], main: WorldResults, missing: dict[str, str]) -> Page:
    """The whole page."""
    findings = [answers.ladder_line(main.found), answers.rotation_line(main.found), *answers.aims(main.found)]
    for other in worlds:
        if other is not main:
            lines = [line(other.found) for line in (answers.headline, answers.ladder_line, answers.rotation_line)]
            findings.append(f"{other.world.title}: {' '.join(lines)}")
    sections: list[Section | None] = [main_section(found) for found in worlds]
    sections.insert(1, paper_section(worlds, missing))
    sections += [gain_section(worlds), ablation_section(worlds), sensitivity_section(main)]
    sections += [group_section(main), case_section(main), cost_section(worlds), not_run_section(missing)]
    data = main.world.setup.session_data()
    return Page(
        title=TITLE,
        subtitle=f"{data.name} · {planner_label(grid_)} · {grid_.seeds} seeds · {grid_.transitions:,} transitions",
        headline=answers.headline(main.found),
        findings=tuple(findings),
        sections=tuple(section for section in sections if section is not None),
        settings=settings_of(grid_, main),
    )


def planner_label(grid_: Grid) -> str:
    """Who plans LERL's rows."""
    return "heuristic (no LLM given)" if grid_.planner.llm is None else model_label(grid_.planner.llm)


def settings_of(grid_: Grid, main: WorldResults) -> dict[str, str]:
    """What was run."""
    data = main.world.setup.session_data()
    tuned = ", ".join(f"{m}: {dict(s)}" for m, s in grid_.tuned.items() if s) or "the defaults"
    return {
        "data": f"{data.name}, {data.population.n_users:,} users, {data.catalog.n_items:,} items, "
        f"{data.catalog.n_categories} categories, {len(data.log):,} exposures",
        "held-out users": f"{int(data.held_out.sum()):,}",
        "seeds": str(grid_.seeds),
        "transitions per learning method": f"{grid_.transitions:,}",
        "sessions per row and seed": f"{grid_.sessions:,}",
        "planner": planner_label(grid_),
        "plan period": f"{grid_.planner.period} slates",
        "hyper-parameters": tuned,
        "intervals": "95 % bootstrap of the interquartile mean over seeds and sessions; differences paired by seed",
    }


def main_rows(found_: WorldResults) -> list[tuple[str, ...]]:
    """A world's table: a heading per family, then its rows."""
    rows: list[tuple[str, ...]] = []
    by_method = {row.method: row for row in found_.table.rows}
    for family, heading in FAMILIES.items():
        members = [name for name in found_.world.methods if METHODS[name].family == family]
        if members:
            rows.append((heading, *("" for _ in COLUMNS[1:])))
        for name in members:
            row, results = by_method[name], found_.found.get(name, [])
            if not results:
                rows.append((row.label, *(NOT_RUN for _ in COLUMNS[1:])))
                continue
            varied = [_short(_variety(results, key)) for key in ("coverage", "intra", "between")]
            calls = f"{row.meter.get('calls', 0.0):,.0f}" if row.meter else "none"
            learned = f"{row.transitions:,.0f}" if row.transitions else "none"
            exact = (_interval(row.t_int, 2), _interval(row.r_cum, 2), _interval(row.r_sin, 3))
            rows.append((row.label, *exact, *varied, learned, duration(row.seconds or 0.0), calls))
    return rows


def main_section(found_: WorldResults) -> Section:
    """A world's table with its curves."""
    rows = main_rows(found_)
    bold = next((i for i, row in enumerate(rows) if row[0] == METHODS["lerl"].label), None)
    figures = (
        [FigureBlock(forest(found_.table, "r_cum", "R_cum [summed click rate]", longest=40))] if found_.results else []
    )
    if drawn_curves := curves([r for method in CURVED for r in found_.found.get(method, [])]):
        caption = "Sessions of training users that ended lately, while exploring: not comparable with the table."
        drawn = replace(found_.table, rows=tuple(row for row in found_.table.rows if row.method in CURVED))
        figures.append(FigureBlock(learning(drawn, drawn_curves, "r_cum"), caption))
    if (profiles := _profiles(found_)) is not None:
        figures.append(profiles)
    setup = found_.world.setup
    return Section(
        title=found_.world.title,
        paragraphs=(
            f"Profile {setup.profile}, quit rule {setup.quit_rule}, budget {setup.budget:g}, slates of "
            f"{setup.slate_size}; complete sessions of held-out users.",
        ),
        tables=(TableBlock(COLUMNS, tuple(rows), bold=bold),),
        figures=tuple(figures),
        anchor=found_.world.name,
    )


def paper_section(worlds: Sequence[WorldResults], missing: dict[str, str]) -> Section:
    """The paper's figures beside ours."""
    tables = []
    for name, title, source in (
        ("kuairand", "KuaiRand", "kuairand"),
        ("kuairand-official", "KuaiRand, ours under the official profile", "kuairand"),
        ("kuairec", "KuaiRec", "kuairec"),
    ):
        ours = next((found_ for found_ in worlds if found_.world.name == name), None)
        rows = []
        for method, paper in PAPER[source].items():
            row = ours.table.row(method) if ours is not None else None
            cells: list[str] = []
            for value, measure, digits in zip(paper, ("t_int", "r_cum", "r_sin"), (2, 2, 3), strict=True):
                cells.append(NOT_QUOTED if value is None else f"{value:.{digits}f}")
                cells.append(_interval(getattr(row, measure) if row is not None else None, digits))
            rows.append((METHODS[method].label, *cells))
        columns = [("method", "")]
        for measure, unit in (("T_int", "slates"), ("R_cum", "summed click rate"), ("R_sin", "click rate")):
            columns += [(f"{measure}, paper", unit), (f"{measure}, ours", unit)]
        tables.append(TableBlock(tuple(columns), tuple(rows), caption=title))
    paragraphs = [
        "The two are not the same experiment. The paper's figures are moving averages of one seed's training sessions, "
        "on data whose preparation was not released, with baselines that learned from fewer steps than LERL and whose "
        "code inverts the mask of ended sessions. Ours are complete sessions of held-out users, every method having "
        "learned from the same number of transitions.",
        f"The paper claims {CLAIM:.0%} more R_cum than the best baseline. What our sources do not quote is so named.",
    ]
    if any("KuaiRec" in title for title in missing):
        paragraphs.append("KuaiRec: " + next(why for title, why in missing.items() if "KuaiRec" in title) + ".")
    return Section("The paper beside ours", tuple(paragraphs), tuple(tables), anchor="paper")


def gain_section(worlds: Sequence[WorldResults]) -> Section:
    """How much of LERL's gain each of its parts makes."""
    tables = []
    for found_ in worlds:
        rows: list[tuple[str, ...]] = [("From planner-less PPO to LERL, a part at a time", "", "")]
        rows += [_part_cells(part) for part in answers.parts(found_.found, answers.LADDER)]
        rows.append(("Beside it", "", ""))
        rows += [_part_cells(part) for part in answers.parts(found_.found, answers.BESIDE)]
        columns = (("what is added", ""), ("R_cum gained", "summed click rate"), ("share", "of LERL's gain over PPO"))
        tables.append(TableBlock(columns, tuple(rows), caption=found_.world.title))
    text = (
        "Differences in R_cum, paired by seed. The ladder's parts add up to LERL less PPO, as far as interquartile "
        "means add up. What holds under one rule need not under another: compare the tables."
    )
    return Section("Whose gain is it?", (text,), tuple(tables), anchor="gain")


def ablation_section(worlds: Sequence[WorldResults]) -> Section:
    """LERL with one part less."""
    tables = []
    for found_ in worlds:
        rows = []
        for method, label in ABLATIONS.items():
            row = found_.table.row(method)
            values = [(getattr(row, m) if row else None) for m in ("t_int", "r_cum", "r_sin")]
            rows.append((label, *(_interval(v, d) for v, d in zip(values, (2, 2, 3), strict=True))))
        tables.append(TableBlock(COLUMNS[:4], tuple(rows), caption=found_.world.title, bold=0))
    return Section("Ablations", (), tuple(tables), anchor="ablations")


def sensitivity_section(main: WorldResults) -> Section:
    """Trained agents in other circumstances."""
    tables, left_out = [], []
    for name, study in STUDIES.items():
        rows = []
        for method in study.methods:
            for value in study.values:
                cells = [Cell(main.grid, main.world, method, seed) for seed in range(main.grid.seeds)]
                results = [r for cell in cells if (r := found(cell, name, value)) is not None]
                usual = " (as trained)" if value == study.usual else ""
                measured = _measured(results) if results else (NOT_RUN, NOT_RUN, NOT_RUN)
                rows.append((f"{METHODS[method].label}, {value}{usual}", *measured))
        columns = ((f"{study.title.lower()}", study.unit), *COLUMNS[1:4])
        if any(row[1] != NOT_RUN for row in rows):
            tables.append(TableBlock(columns, tuple(rows), caption=study.title))
        else:
            left_out.append(study.title)
    text = (
        "Agents are played, not trained, in circumstances that differ in one thing from those they were trained in. "
        "With a budget of b a session lasts at most b slates, so T_int and R_cum grow with it by themselves."
    )
    paragraphs = [text] if tables else []
    if left_out:
        paragraphs.append(f"{', '.join(left_out)}: {NOT_RUN}.")
    return Section("Sensitivity", tuple(paragraphs), tuple(tables), anchor="sensitivity")


def group_section(main: WorldResults) -> Section:
    """Who is served how well."""
    data, tables = main.world.setup.session_data(), []
    for grouping in groupings(data):
        sizes = np.bincount(grouping.of_user[data.held_out & (grouping.of_user >= 0)], minlength=len(grouping.groups))
        rows = []
        for method in GROUPED:
            results = main.found.get(method, [])
            if not results:
                continue
            cells = [_of_group(results, grouping.of_user, group) for group in range(len(grouping.groups))]
            rows.append((METHODS[method].label, *cells))
        columns = [("method", "")]
        columns += [(name, f"{n:,} held-out users") for name, n in zip(grouping.groups, sizes, strict=True)]
        tables.append(TableBlock(tuple(columns), tuple(rows), caption=f"R_cum by {grouping.name}"))
    return Section("Who is served how well", (), tuple(tables), anchor="groups")


def case_section(main: WorldResults) -> Section | None:
    """Sessions to look at, and the paper's case study."""
    sessions = kept_sessions(main.grid, main.world)
    if not sessions:
        return None
    user = sessions[0].user
    rows = []
    for session in (s for s in sessions if s.user == user):
        shared = session.overlaps()
        rows.append(
            (
                session.label,
                ", ".join(map(str, shared[:2])) or "none",
                f"{np.mean(shared) if shared else 0.0:.2f}",
                f"{len(session.slates)}",
                f"{sum(s.reward for s in session.slates):.2f}",
            )
        )
    columns = (
        ("method", ""),
        ("shared", "in rounds 2 and 3"),
        ("shared", "mean of all"),
        ("T_int", "slates"),
        ("R_cum", "summed click rate"),
    )
    paper = "; ".join(f"{who}: {what}" for who, what in CASE.items())
    text = (
        f"Categories that a slate shares with the one before, for user {user}. The paper's case study, of user 5 of "
        f"KuaiRec, has: {paper}."
    )
    return Section("Case study", (text,), (TableBlock(columns, tuple(rows)),), sessions=tuple(sessions), anchor="case")


def cost_section(worlds: Sequence[WorldResults]) -> Section | None:
    """What the language model cost."""
    tables = [
        TableBlock(COST_COLUMNS, tuple(rows), caption=found_.world.title)
        for found_ in worlds
        if (rows := [row for row in costs(found_.table) if row[1] != "none"])
    ]
    return Section("What the language model cost", (), tuple(tables), anchor="cost") if tables else None


def not_run_section(missing: dict[str, str]) -> Section | None:
    """What could not be run here, and why."""
    if not missing:
        return None
    rows = tuple((title, NOT_RUN, why) for title, why in missing.items())
    table = TableBlock((("environment", ""), ("results", ""), ("why", "")), rows)
    return Section("Not run", (), (table,), anchor="not-run")


def _profiles(found_: WorldResults) -> FigureBlock | None:
    run = {method: found_.found[method] for method in PROFILED if found_.found.get(method)}
    if not run:
        return None
    returns = {method: [r.returns for r in results] for method, results in run.items()}
    top = max(float(np.quantile(np.concatenate(values), 0.999)) for values in returns.values())
    taus = np.linspace(0.0, top, 61)
    shown = {
        METHODS[method].label: performance_profile(values, taus, np.random.default_rng(0))
        for method, values in returns.items()
    }
    figure = profile_figure(shown, taus, "Sessions with at least this R_cum", "R_cum of a session")
    return FigureBlock(figure, "Performance profiles (Agarwal et al., 2021), with 95 % bands.")


def _of_group(results: Sequence[MethodResult], of_user: np.ndarray, group: int) -> str:
    parts = []
    for result in results:
        assert result.users is not None
        own = of_user[result.users] == group
        if own.any():
            parts.append(result.returns[own])
    return _interval(estimate(Scores.mean(parts), np.random.default_rng(0)), 2) if parts else NOT_RUN


def _measured(results: Sequence[MethodResult]) -> tuple[str, str, str]:
    lengths, returns = [r.lengths for r in results], [r.returns for r in results]
    scores = (Scores.mean(lengths), Scores.mean(returns), Scores.ratio(returns, lengths))
    t, r, s = (_interval(estimate(x, np.random.default_rng(0)), d) for x, d in zip(scores, (2, 2, 3), strict=True))
    return t, r, s


def _variety(results: Sequence[MethodResult], name: str) -> Estimate | None:
    values = [r.variety[name] for r in results if name in r.variety]
    return estimate(Scores.mean(values), np.random.default_rng(0), resamples=200) if values else None


def _part_cells(part: answers.Part) -> tuple[str, ...]:
    if part.added is None:
        return (part.what, NOT_RUN, NOT_RUN)
    share = "no gain to share" if part.share is None else f"{part.share:.0%}"
    d = part.added
    return (part.what, f"{d.point:+.2f} [{d.low:+.2f}, {d.high:+.2f}]", share)


def _interval(value: Estimate | None, digits: int) -> str:
    if value is None:
        return NOT_RUN
    return f"{value.point:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _short(value: Estimate | None) -> str:
    return NOT_RUN if value is None else f"{value.point:.2f}"
