"""The pages of the planner studies: what plans cost, and what reflections do."""

from __future__ import annotations

from typing import Any

from rapport.datasets.registry.licence import licence_note
from rapport.experiments.core import Experiment
from rapport.experiments.lerl.config import LLM, LLM_ONLY
from rapport.experiments.lerl.environments import data_of
from rapport.experiments.lerl.metrics import R_CUM, T_INT
from rapport.experiments.lerl.pages.controls import control_lines
from rapport.experiments.lerl.pages.who_planned import relabelled, shortfall_lines, true_labels
from rapport.experiments.lerl.planner_study import (
    PERIODS,
    StudyLearner,
    against,
    cost_finding,
    per_slate,
    study_notes,
    study_summary,
)
from rapport.experiments.report.blocks import Figure
from rapport.experiments.report.figures import COLOURS, lay_out
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.results_table import forest_of, shown
from rapport.experiments.report.table import Table
from rapport.experiments.results.llm_cost import count, duration
from rapport.experiments.results.summary import Found, Summary, SummaryRow, verdict

PERSONAL_COST = (f"llm-{PERIODS[-1]}", f"top-k-{PERIODS[-1]}")
"""Rows of the study of costs that its controls are compared with: they hold their plans as long."""
PERSONAL_REFLECTIONS = (LLM, LLM_ONLY.replace(" ", "-"))
"""Those of the study of reflections."""
RETURNS = (
    ("planner", ""),
    T_INT.column,
    R_CUM.column,
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


def cost_page(study: Experiment, reference: str) -> Page:
    """Return against calls."""
    found = relabelled(study.rows, study.results())
    summary = study_summary(true_labels(study.rows, found), found, reference)
    said = shortfall_lines(study.rows, found) or [cost_finding(summary, found)]
    said += control_lines(found, PERSONAL_COST)
    return _page(study, "What plans cost", said, summary, found, Figure(lambda: _cost_figure(summary)))


def reflections_page(study: Experiment, reference: str) -> Page:
    """What reflections change, the variant without them against each of the others."""
    found = relabelled(study.rows, study.results())
    summary = study_summary(true_labels(study.rows, found), found, reference)
    headline, *further = verdict(summary)
    said = [*shortfall_lines(study.rows, found), headline, *control_lines(found, PERSONAL_REFLECTIONS), *further]
    return _page(study, "What reflections do", said, summary, found, forest_of(summary, R_CUM))


def _page(study: Experiment, title: str, said: list[str], summary: Summary, found: Found, figure: Figure) -> Page:
    learner = study.rows[0].learner
    assert isinstance(learner, StudyLearner)
    trained = "the pretrained policy of each seed, without RL"
    if learner.agents is not None:
        trained = f"LERL as trained in {learner.agents}"
    notes = study_notes(study, learner.pool_sessions, trained)
    run = [row for row in summary.rows if row.seeds]
    returns = Table(RETURNS, tuple(_returns(row, summary.reference, found) for row in run))
    costs = Table(COSTS, tuple(_costs(row) for row in run if row.name.startswith("llm")))
    sections = (
        Section("Return, with its intervals", [figure], "return"),
        Section("In figures", [returns, costs], "figures"),
    )
    licence = licence_note(data_of(study.rows[0].env))
    return Page(title, said[0], said[1:], notes["data"], sections, notes, licence)


def _returns(row: SummaryRow, reference: str, found: Found) -> tuple[str, ...]:
    """A row's line of the first table."""
    value = against(found, row.name, reference)
    difference = "reference" if value is None else R_CUM.shown(value, signed=True)
    return (row.label, shown(row, T_INT), shown(row, R_CUM), difference, f"{per_slate(row, 'plans'):.3f}")


def _costs(row: SummaryRow) -> tuple[str, ...]:
    """A row's line of the second table."""
    meter = row.meter
    tokens, waited = meter.get("prompt_tokens", 0) + meter.get("completion_tokens", 0), meter.get("seconds", 0)
    pace = f"{meter.get('plans', 0) / waited:,.0f}" if waited > 0 else "-"
    counts = [count(meter.get("calls", 0)), f"{per_slate(row, 'calls'):.3f}", count(tokens)]
    return (row.label, *counts, count(meter.get("fallbacks", 0)), duration(waited), pace)


def _cost_figure(summary: Summary) -> Any:
    """Return against plans made per slate shown; planners with a language model are joined by a line."""
    import plotly.graph_objects as go

    figure = go.Figure()
    run = [row for row in summary.rows if row.seeds]
    for asks, name, colour in ((True, "language model", COLOURS[0]), (False, "without a model", COLOURS[1])):
        own = [row for row in run if row.name.startswith("llm") == asks]
        rows = sorted(own, key=lambda row: per_slate(row, "plans"))
        values = [row.estimates[R_CUM.name] for row in rows]
        figure.add_scatter(
            x=[per_slate(row, "plans") for row in rows],
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
            text=[row.label for row in rows],
            hovertemplate="%{text}<br>%{x:.3f} plans per slate<br>R_cum %{y:.2f}<extra></extra>",
        )
    lay_out(figure, f"{R_CUM.name} [{R_CUM.unit}]", 380)
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"})
    figure.update_xaxes(title="plans per slate shown", type="log", tickvals=[0.05, 0.1, 0.2, 0.5, 1])
    return figure
