"""The page of a reproduction: the finding first, then every table with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rapport.datasets.registry.licence import licence_note
from rapport.datasets.schema import IntArray
from rapport.envs.registration import CUSTOM_LOG
from rapport.experiments.core import EnvConfig, Experiment
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.environments import banner, data_of
from rapport.experiments.lerl.metrics import METRICS, R_CUM, VARIETY
from rapport.experiments.lerl.pages import findings
from rapport.experiments.lerl.pages.controls import control_lines
from rapport.experiments.lerl.pages.paper import CASE, CLAIM, PAPER
from rapport.experiments.lerl.pages.run import PERSONAL, lerl_summary, who_planned
from rapport.experiments.lerl.pages.who_planned import named_rightly, relabelled, shortfall_lines
from rapport.experiments.lerl.protocol import recorded_sessions
from rapport.experiments.lerl.rows import DEFINITIONS, FAMILIES, RECORDED
from rapport.experiments.lerl.sensitivity import STUDIES, row_name
from rapport.experiments.lerl.user_groups import groupings
from rapport.experiments.report.blocks import Block, Figure
from rapport.experiments.report.figures import profile_figure
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.performance_profile import performance_profile
from rapport.experiments.report.results_table import cost_table, curves_of, forest_of, learned_from, shown
from rapport.experiments.report.session_viewer import session_viewer
from rapport.experiments.report.table import Table
from rapport.experiments.results.llm_cost import duration
from rapport.experiments.results.metrics import NOT_RUN
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Summary, estimated

TITLE = "LERL, reproduced"
NO_TITLE = "LERL's tables without its language model"
"""Ends the title where the language model planned too little."""
FIGURES = tuple(metric.column for metric in METRICS)
COLUMNS = (
    ("method", ""),
    *FIGURES,
    *(metric.column for metric in VARIETY),
    ("learned from", "transitions"),
    ("time", "per seed"),
    ("LLM", "calls a seed"),
)
"""Name and unit of each column of an environment's table."""
SHOWN = 4
"""Columns that the terminal has room for."""
PROFILED = ("lerl", "lerl-click", "top-k", "mask", "rotation", "ppo", "popularity", "look-ahead")
"""Rows with a performance profile."""
GROUPED = ("lerl", "lerl-click", "top-k", "mask", "rotation", "ppo", "popularity", "random")
"""Rows shown by groups of users."""
CURVED = ("lerl", "lerl-pl", "lerl-click", "mask-click", "top-k", "mask", "ppo", "ppo-pl", "td3", "dqn", "hac")
"""Rows whose learning curves are drawn."""
ABLATIONS = {
    "lerl": "LERL",
    "no-reflection": "without reflection",
    "top-k": "without the language model: the top-k preference planner",
    "mask": "without a planner: the no-repeat mask alone",
    "ppo": "without planner and mask: flat RL",
    "lerl-no-rl": "without RL: the pretrained policy under its plans",
}
"""LERL with one part less."""
NOT_QUOTED = "not quoted"


@dataclass(frozen=True)
class EnvironmentResults:
    """All results in one environment.

    Attributes:
        name: short name of the environment.
        experiment: its rows.
        planner: who plans LERL's rows.
    """

    name: str
    experiment: Experiment
    planner: PlannerConfig

    @property
    def env(self) -> EnvConfig:
        """The environment."""
        return self.experiment.rows[0].env

    @cached_property
    def found(self) -> dict[str, list[Result]]:
        """Row -> results, under the names that are true of them."""
        return relabelled(self.experiment.rows, self.experiment.results())

    @cached_property
    def of_lerl(self) -> dict[str, list[Result]]:
        """Those of rows that are what their definition says, of which alone something is said of LERL."""
        return named_rightly(self.experiment.rows, self.found)

    @property
    def says_lerl(self) -> bool:
        """Whether something is said of LERL: not where it was run and its model planned too little."""
        return bool(self.of_lerl.get("lerl")) or not self.found.get("lerl")

    def headline(self) -> list[str]:
        """The first lines: what was found, or why nothing is said of LERL."""
        said = shortfall_lines(self.experiment.rows, self.found)
        said = [findings.headline(self.of_lerl), *said] if self.says_lerl else said
        return [*said, *control_lines(self.found, PERSONAL)]

    @cached_property
    def summary(self) -> Summary:
        """Every row, in order."""
        return lerl_summary(self.experiment, self.found, self.planner)

    def label(self, name: str) -> str:
        """Shown name of a row."""
        if self.found.get(name):
            return self.found[name][0].label
        row = self.experiment.by_name.get(name)
        return DEFINITIONS[name].label if row is None else row.label


def reproduction_page(
    results: Sequence[EnvironmentResults], settings: Mapping[str, str], missing: Mapping[str, str]
) -> Page:
    """The whole page.

    Args:
        results: by environment, the main one first.
        settings: what was run.
        missing: environments that could not be run -> why.
    """
    main, *others = results
    first, *lines = main.headline()
    if main.says_lerl:
        lines += [findings.ladder_line(main.of_lerl), findings.rotation_line(main.of_lerl)]
        lines += findings.aims(main.of_lerl)
    for other in others:
        said = other.headline()
        if other.says_lerl:
            said += [line(other.of_lerl) for line in (findings.ladder_line, findings.rotation_line)]
        lines.append(f"{other.env.title}: {' '.join(said)}")
    sections = [
        main_section(main),
        paper_section(results, missing) if main.env.id != CUSTOM_LOG else None,
        *(main_section(other) for other in others),
        gain_section(results),
        ablation_section(results),
        sensitivity_section(main),
        group_section(main),
        case_section(main),
        cost_section(results),
        not_run_section(missing),
    ]
    data = data_of(main.env)
    who = who_planned(main.experiment, main.found, main.planner)
    subtitle = f"{data.name} · {who} · {main.experiment.seeds} seeds"
    shown_sections = tuple(section for section in sections if section is not None)
    title = TITLE if main.says_lerl else f"{main.label('lerl')}: {NO_TITLE}"
    told = {**settings, "planner": who} if "planner" in settings else settings
    trusted = banner(*(one.env for one in results))
    return Page(title, first, lines, subtitle, shown_sections, told, licence_note(data), trusted)


def main_table(results: EnvironmentResults) -> Table:
    """An environment's table: a heading per family, then its rows."""
    rows: list[tuple[str, ...]] = []
    bold = None
    for family, heading in FAMILIES.items():
        members = [row for row in results.experiment.rows if row.family == family and "." not in row.name]
        if members:
            rows.append((heading, *("" for _ in COLUMNS[1:])))
        for member in members:
            bold = len(rows) if member.name == "lerl" else bold
            rows.append(_main_cells(results, member.name))
    return Table(COLUMNS, tuple(rows), bold=bold)


def short_table(results: EnvironmentResults) -> Table:
    """The columns of it that the terminal has room for."""
    table = main_table(results)
    rows = tuple(row[:SHOWN] for row in table.rows)
    return Table(COLUMNS[:SHOWN], rows, results.env.title, table.bold)


def main_section(results: EnvironmentResults) -> Section:
    """An environment's table with its figures."""
    kwargs = results.env.kwargs
    blocks: list[Block] = [
        f"Profile {kwargs.get('profile', 'corrected')}, quit rule {kwargs['quit_rule']}, budget {kwargs['budget']:g}, "
        f"slates of {kwargs['slate_size']}; complete sessions of held-out users.",
        main_table(results),
    ]
    if results.found:
        blocks.append(forest_of(results.summary, R_CUM))
    caption = "Sessions of training users that ended lately, while exploring: not comparable with the table."
    drawn = curves_of([r for name in CURVED for r in results.found.get(name, [])], R_CUM, caption)
    blocks += [figure for figure in (drawn, _profiles(results)) if figure is not None]
    return Section(results.env.title, blocks, results.name)


def paper_section(results: Sequence[EnvironmentResults], missing: Mapping[str, str]) -> Section:
    """The paper's figures beside ours."""
    blocks: list[Block] = [
        "The two are not the same experiment. The paper's figures are moving averages of one seed's training sessions, "
        "on data whose preparation was not released, with baselines that learned from fewer steps than LERL and whose "
        "code inverts the mask of ended sessions. Ours are complete sessions of held-out users, every method having "
        "learned from the same number of transitions.",
        f"The paper claims {CLAIM:.0%} more R_cum than the best baseline. What our sources do not quote is so named.",
    ]
    if why := next((why for title, why in missing.items() if "KuaiRec" in title), None):
        blocks.append(f"KuaiRec: {why}.")
    columns = [("method", "")]
    for metric in METRICS:
        columns += [(f"{metric.name}, paper", metric.unit), (f"{metric.name}, ours", metric.unit)]
    for name, title, source in (
        ("kuairand", "KuaiRand", "kuairand"),
        ("kuairand-official", "KuaiRand, ours under the official profile", "kuairand"),
        ("kuairec", "KuaiRec", "kuairec"),
    ):
        ours = next((one for one in results if one.name == name), None)
        rows = []
        for method, paper in PAPER[source].items():
            row = None if ours is None else ours.summary.row(method)
            cells: list[str] = []
            for value, metric in zip(paper, METRICS, strict=True):
                cells.append(NOT_QUOTED if value is None else f"{value:.{metric.digits}f}")
                cells.append(shown(row, metric))
            rows.append((_paper_label(ours, method), *cells))
        blocks.append(Table(tuple(columns), tuple(rows), title))
    return Section("The paper beside ours", blocks, "paper")


def gain_section(results: Sequence[EnvironmentResults]) -> Section:
    """How much of LERL's gain each of its parts makes."""
    blocks: list[Block] = [
        "Differences in R_cum, paired by seed. The ladder's parts add up to LERL less PPO, as far as interquartile "
        "means add up. What holds under one rule need not under another: compare the tables."
    ]
    columns = (("what is added", ""), ("R_cum gained", R_CUM.unit), ("share", "of LERL's gain over PPO"))
    for one in results:
        rows: list[tuple[str, ...]] = [("From planner-less PPO to LERL, a part at a time", "", "")]
        rows += [_part_cells(part) for part in findings.parts(one.of_lerl, findings.LADDER)]
        rows.append(("Beside it", "", ""))
        rows += [_part_cells(part) for part in findings.parts(one.of_lerl, findings.BESIDE)]
        blocks.append(Table(columns, tuple(rows), one.env.title))
    return Section("Whose gain is it?", blocks, "gain")


def ablation_section(results: Sequence[EnvironmentResults]) -> Section:
    """LERL with one part less."""
    tables = []
    for one in results:
        rows = tuple(
            (
                label if one.of_lerl.get(name) or not one.found.get(name) else one.label(name),
                *(shown(one.summary.row(name), metric) for metric in METRICS),
            )
            for name, label in ABLATIONS.items()
        )
        tables.append(Table((("method", ""), *FIGURES), rows, one.env.title, bold=0))
    return Section("Ablations", tables, "ablations")


def sensitivity_section(main: EnvironmentResults) -> Section:
    """Trained agents in other circumstances."""
    tables: list[Block] = []
    left_out = []
    for name, study in STUDIES.items():
        rows = []
        for row in study.rows:
            for value in study.values:
                results = main.found.get(row_name(name, value, row), [])
                usual = " (as trained)" if value == study.usual else ""
                figures = (metric.shown(estimated(results, metric)) for metric in METRICS)
                rows.append((f"{main.label(row)}, {value}{usual}", *figures))
        if any(row[1] != NOT_RUN for row in rows):
            tables.append(Table(((study.title.lower(), study.unit), *FIGURES), tuple(rows), study.title))
        else:
            left_out.append(study.title)
    text = (
        "Agents are played, not trained, in circumstances that differ in one thing from those they were trained in. "
        "With a budget of b a session lasts at most b slates, so T_int and R_cum grow with it by themselves."
    )
    paragraphs: list[Block] = [text] if tables else []
    if left_out:
        paragraphs.append(f"{', '.join(left_out)}: {NOT_RUN}.")
    return Section("Sensitivity", [*paragraphs, *tables], "sensitivity")


def group_section(main: EnvironmentResults) -> Section:
    """Who is served how well."""
    data, tables = data_of(main.env), []
    for grouping in groupings(data):
        groups = range(len(grouping.groups))
        sizes = np.bincount(grouping.of_user[data.held_out & (grouping.of_user >= 0)], minlength=len(groups))
        run = {name: main.found[name] for name in GROUPED if main.found.get(name)}
        rows = tuple(
            (main.label(name), *(_of_group(results, grouping.of_user, group) for group in groups))
            for name, results in run.items()
        )
        columns = [("method", "")]
        columns += [(name, f"{n:,} held-out users") for name, n in zip(grouping.groups, sizes, strict=True)]
        tables.append(Table(tuple(columns), rows, f"R_cum by {grouping.name}"))
    return Section("Who is served how well", tables, "groups")


def case_section(main: EnvironmentResults) -> Section | None:
    """Sessions to look at, and the paper's case study."""
    labels = {name: main.label(name) for name in RECORDED}
    sessions = recorded_sessions(main.experiment.folder, RECORDED, labels)
    if not sessions:
        return None
    user, rows = sessions[0].user, []
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
    columns = (("method", ""), ("shared", "in rounds 2 and 3"), ("shared", "mean of all"), *FIGURES[:2])
    paper = "; ".join(f"{who}: {what}" for who, what in CASE.items())
    text = (
        f"Categories that a slate shares with the one before, for user {user}. The paper's case study, of user 5 of "
        f"KuaiRec, has: {paper}."
    )
    return Section("Case study", [text, Table(columns, tuple(rows)), session_viewer(sessions)], "case")


def cost_section(results: Sequence[EnvironmentResults]) -> Section | None:
    """What the language model cost."""
    tables = [table for one in results if (table := cost_table(one.summary, one.env.title)) is not None]
    return Section("What the language model cost", tables, "cost") if tables else None


def not_run_section(missing: Mapping[str, str]) -> Section | None:
    """What could not be run here, and why."""
    if not missing:
        return None
    rows = tuple((title, NOT_RUN, why) for title, why in missing.items())
    return Section("Not run", [Table((("environment", ""), ("results", ""), ("why", "")), rows)], "not-run")


def _main_cells(results: EnvironmentResults, name: str) -> tuple[str, ...]:
    row = results.summary.row(name)
    assert row is not None
    if not row.seeds:
        return (row.label, *(NOT_RUN for _ in COLUMNS[1:]))
    figures = [shown(row, metric) for metric in METRICS]
    for metric in VARIETY:
        value = estimated(results.found[name], metric)
        figures.append(NOT_RUN if value is None else f"{value.point:.{metric.digits}f}")
    calls = f"{row.meter.get('calls', 0.0):,.0f}" if row.meter else "none"
    return (row.label, *figures, learned_from(row), duration(row.seconds), calls)


def _paper_label(ours: EnvironmentResults | None, method: str) -> str:
    """The paper's name of a method, and ours where it is something else here."""
    label = DEFINITIONS[method].label
    if ours is None or not ours.found.get(method) or ours.of_lerl.get(method):
        return label
    return f"{label} in the paper; {ours.label(method)} here"


def _profiles(results: EnvironmentResults) -> Figure | None:
    run = {name: results.found[name] for name in PROFILED if results.found.get(name)}
    if not run:
        return None
    returns = {name: [r.arrays["return"] for r in group] for name, group in run.items()}
    top = max(float(np.quantile(np.concatenate(values), 0.999)) for values in returns.values())
    taus = np.linspace(0.0, top, 61)
    profiles = {
        results.label(name): performance_profile(values, taus, np.random.default_rng(0))
        for name, values in returns.items()
    }
    return Figure(
        lambda: profile_figure(profiles, taus, "Sessions with at least this R_cum", "R_cum of a session"),
        "Performance profiles (Agarwal et al., 2021), with 95 % bands.",
    )


def _of_group(results: Sequence[Result], of_user: IntArray, group: int) -> str:
    parts = []
    for result in results:
        assert result.ids is not None
        own = of_user[result.ids] == group
        if own.any():
            parts.append({"return": result.arrays["return"][own]})
    return R_CUM.shown(R_CUM.estimate(parts, np.random.default_rng(0)) if parts else None)


def _part_cells(part: findings.Part) -> tuple[str, ...]:
    if part.added is None:
        return (part.what, NOT_RUN, NOT_RUN)
    share = "no gain to share" if part.share is None else f"{part.share:.0%}"
    return (part.what, R_CUM.shown(part.added, signed=True), share)
