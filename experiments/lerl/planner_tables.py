"""What a study of planners found, as a table, in words and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rapport.experiments.lerl.planner_study import Study
from rapport.experiments.report.compat import forest, planner_page
from rapport.experiments.report.figures import COLOURS, lay_out
from rapport.experiments.results.llm_cost import count, duration
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import MethodResult
from rapport.experiments.results.summary import ResultsTable, Row, RunFacts, compare, markdown, summarise, verdict

TENTH = 0.1
"""Calls per slate shown at which a planner counts as one that asks a tenth as often as LERL's."""
RETURNS = (
    ("planner", ""),
    ("T_int", "slates"),
    ("R_cum", "summed click rate"),
    ("difference", "R_cum"),
    ("plans", "per slate"),
)
"""Name and unit of each column of the first table."""
COSTS = (
    ("planner", "per seed"),
    ("calls", "sent"),
    ("calls", "per slate"),
    ("tokens", ""),
    ("fallbacks", "plans"),
    ("waited", "time"),
    ("plans", "per s"),
)
"""Of the second, in which planners without a language model are left out."""


class Table(NamedTuple):
    """Columns as (name, unit), and lines of as many cells."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Found:
    """One variant over all its seeds.

    Attributes:
        row: its estimates, and its meter as a mean over seeds.
        against: R_cum minus the reference's, paired; None for the reference itself.
        slates: shown, mean over seeds.
        asks: a language model planned.
    """

    row: Row
    against: Estimate | None
    slates: float
    asks: bool

    @property
    def plans_per_slate(self) -> float:
        """Plans made for each slate shown."""
        return self._meter("plans") / self.slates

    @property
    def calls_per_slate(self) -> float:
        """Calls made for each slate shown; LERL makes one."""
        return self._meter("calls") / self.slates

    @property
    def returns(self) -> tuple[str, ...]:
        """Its line of the first table, in the order of :data:`RETURNS`."""
        assert self.row.t_int is not None and self.row.r_cum is not None
        t_int, r_cum = (f"{x.point:.2f} [{x.low:.2f}, {x.high:.2f}]" for x in (self.row.t_int, self.row.r_cum))
        against = "reference" if self.against is None else signed(self.against)
        return (self.row.label, t_int, r_cum, against, f"{self.plans_per_slate:.3f}")

    @property
    def costs(self) -> tuple[str, ...]:
        """Its line of the second table, in the order of :data:`COSTS`."""
        tokens, waited = self._meter("prompt_tokens") + self._meter("completion_tokens"), self._meter("seconds")
        pace = f"{self._meter('plans') / waited:,.0f}" if waited > 0 else "-"
        counts = [count(self._meter("calls")), f"{self.calls_per_slate:.3f}", count(tokens)]
        return (self.row.label, *counts, count(self._meter("fallbacks")), duration(waited), pace)

    def _meter(self, name: str) -> float:
        return (self.row.meter or {}).get(name, 0.0)


def signed(x: Estimate) -> str:
    """A difference with its interval."""
    return f"{x.point:+.2f} [{x.low:+.2f}, {x.high:+.2f}]"


def summary(study: Study, results: Sequence[MethodResult]) -> ResultsTable:
    """Estimates of every variant, in the study's order."""
    data = study.setup.session_data()
    models = {variant.choice.llm for variant in study.variants} - {None}
    planner = ", ".join(sorted(str(model) for model in models))
    facts = RunFacts(data.name, int(data.held_out.sum()), study.setup.profile, planner, study.reference)
    return summarise(results, facts, [(variant.name, variant.label) for variant in study.variants])


def found_in(study: Study, results: Sequence[MethodResult]) -> list[Found]:
    """Every variant that was played, with its difference from the reference."""
    groups = {variant.name: [r for r in results if r.method == variant.name] for variant in study.variants}
    asks = {variant.name: variant.choice.llm is not None for variant in study.variants}
    found = []
    for row in summary(study, results).rows:
        group = groups[row.method]
        if group:
            other = None if row.method == study.reference else compare(group, groups[study.reference])
            slates = float(np.mean([result.steps_total for result in group]))
            found.append(Found(row, other, slates, asks[row.method]))
    return found


def study_tables(found: Sequence[Found]) -> list[Table]:
    """What was gained, and what it cost."""
    return [
        Table(RETURNS, tuple(one.returns for one in found)),
        Table(COSTS, tuple(one.costs for one in found if one.asks)),
    ]


def study_markdown(study: Study, title: str, said: Sequence[str], found: Sequence[Found]) -> str:
    """The tables and what they say, as Markdown."""
    lists = ["\n".join(f"- {line}" for line in lines) for lines in (said, study_notes(study))]
    tables = [markdown(table.columns, table.rows) for table in study_tables(found)]
    return "\n\n".join([f"# {title}", lists[0], *tables, lists[1]]) + "\n"


def study_notes(study: Study) -> list[str]:
    """What the tables rest on, and how to read them."""
    data = study.setup.session_data()
    trained = "the first policy of each seed, without RL"
    if study.agents is not None:
        trained = f"LERL as trained in {study.agents}"
    return [
        f"data: {data.name}, quit rule {study.setup.quit_rule}; {study.seeds} seeds of {study.sessions:,} sessions of "
        f"{int(data.held_out.sum()):,} held-out users",
        f"low level: {trained}; under every plan a category rests for a slate after one that showed it",
        f"reflections: per seed a pool filled beforehand on {study.pool_sessions:,} sessions of training users",
        "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]; differences paired by seed "
        "and session",
        "calls: prompts sent, equal ones of a batch once, repeated ones again; LERL makes one per slate",
    ]


def cost_verdict(found: Sequence[Found]) -> list[str]:
    """Whether a tenth of the calls gives the same return, in one sentence."""
    few = [one for one in found if one.asks and one.against is not None and one.calls_per_slate < TENTH * 1.05]
    if not few:
        return ["No planner was asked as rarely as once in ten slates."]
    best = max(few, key=lambda one: one.calls_per_slate)
    assert best.against is not None
    share, x = f"{best.row.label}, makes {100 * best.calls_per_slate:.0f} % of LERL's calls", best.against
    if x.high < 0:
        return [f"A tenth of the calls does not give the same return: {share} and loses {signed(x)} in R_cum."]
    if x.low > 0:
        return [f"A tenth of the calls gives more: {share} and gains {signed(x)} in R_cum."]
    return [f"A tenth of the calls gives the same return within the interval: {share}; R_cum differs by {signed(x)}."]


def reflections_verdict(study: Study, results: Sequence[MethodResult]) -> list[str]:
    """What reflections change, the variant without them against each of the others."""
    return verdict(summary(study, results))


def study_page(study: Study, title: str, said: Sequence[str], found: Sequence[Found], figure: Any) -> str:
    """The page as one HTML text; everything that comes from outside is escaped.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    return planner_page(title, said, figure, study_tables(found), study_notes(study))


def cost_figure(found: Sequence[Found]) -> Any:
    """Return against plans made per slate shown; planners that hold a language model are joined by a line."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for asks, name, colour in ((True, "language model", COLOURS[0]), (False, "without a model", COLOURS[1])):
        rows = sorted((one for one in found if one.asks == asks), key=lambda one: one.plans_per_slate)
        values = [one.row.r_cum for one in rows if one.row.r_cum is not None]
        figure.add_scatter(
            x=[one.plans_per_slate for one in rows],
            y=[value.point for value in values],
            error_y={
                "array": [value.high - value.point for value in values],
                "arrayminus": [value.point - value.low for value in values],
                "thickness": 1.4,
            },
            mode="lines+markers" if asks else "markers",
            marker={"size": 9, "color": colour},
            line={"color": colour, "width": 1.6},
            name=name,
            text=[one.row.label for one in rows],
            hovertemplate="%{text}<br>%{x:.3f} plans per slate<br>R_cum %{y:.2f}<extra></extra>",
        )
    lay_out(figure, "R_cum [summed click rate]", 380)
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"})
    figure.update_xaxes(title="plans per slate shown", type="log", tickvals=[0.05, 0.1, 0.2, 0.5, 1])
    return figure


def reflections_figure(study: Study, results: Sequence[MethodResult]) -> Any:
    """Every variant's return with its interval."""
    return forest(summary(study, results), "r_cum", "R_cum [summed click rate]")
