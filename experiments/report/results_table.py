"""A summary of results as tables and figures: the rows, what language models cost, intervals and learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapport.experiments.report.blocks import Figure
from rapport.experiments.report.figures import Curve, forest, learning_curves
from rapport.experiments.report.table import Table
from rapport.experiments.results.llm_cost import COST_COLUMNS, cost_rows, duration, had_model
from rapport.experiments.results.metrics import NOT_RUN, Metric
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Summary, SummaryRow


def results_table(summary: Summary) -> Table:
    """Every row with its metrics, what it learned from and how long it took; the reference stands out."""
    figures = tuple(metric.column for metric in summary.metrics)
    columns = (("method", ""), *figures, ("learned from", "transitions"), ("time", "per seed"))
    rows = tuple(_cells(row, summary.metrics) for row in summary.rows)
    bold = next((i for i, row in enumerate(summary.rows) if row.name == summary.reference), None)
    return Table(columns, rows, bold=bold)


def shown(row: SummaryRow | None, metric: Metric) -> str:
    """A row's estimate of a metric as text; "not run" where there is none."""
    return metric.shown(None if row is None else row.estimates.get(metric.name))


def learned_from(row: SummaryRow) -> str:
    """Transitions that a row learned from, as text."""
    return f"{row.steps:,.0f}" if row.steps else "none"


def cost_table(summary: Summary, caption: str = "") -> Table | None:
    """What language models cost, two lines for each row that has one; None where there is no such row."""
    run = [row for row in summary.rows if row.seeds and had_model(row.meter)]
    lines = tuple(line for row in run for line in cost_rows(row.label, row.meter, row.served))
    return Table(COST_COLUMNS, lines, caption) if lines else None


def forest_of(summary: Summary, metric: Metric) -> Figure:
    """Every row that was run with its interval."""
    rows = [(row.label, row.estimates[metric.name]) for row in summary.rows if row.seeds]
    title = f"{metric.name} [{metric.unit}]"
    return Figure(lambda: forest(rows, title), f"{title} with 95 % intervals.", small=True)


def curves_of(results: Sequence[Result], metric: Metric, caption: str) -> Figure | None:
    """How rows learned, by mean length or mean return; None where no curve has two points, as nothing would be seen."""
    column = {"length": 1, "return": 2}[metric.numerator]
    curves = []
    for result in results:
        if result.curve:
            points = np.array(result.curve)
            curves.append(Curve(result.label, result.seed, points[:, 0], points[:, column]))
    if max((len(curve.x) for curve in curves), default=0) < 2:
        return None
    return Figure(lambda: learning_curves(curves, f"{metric.name} [{metric.unit}]", "training transitions"), caption)


def _cells(row: SummaryRow, metrics: Sequence[Metric]) -> tuple[str, ...]:
    if not row.seeds:
        return (row.label, *(NOT_RUN for _ in range(len(metrics) + 2)))
    return (row.label, *(shown(row, metric) for metric in metrics), learned_from(row), duration(row.seconds))
