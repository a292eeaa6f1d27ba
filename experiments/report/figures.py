"""One self-contained HTML page about a run: verdict, table, learning curves, simulator card, how to read it.

The page needs nothing but itself: plotly.js is inlined, and a content policy forbids it to load anything.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rapport.experiments.results import summary as tables
from rapport.experiments.results.llm_cost import COST_COLUMNS
from rapport.experiments.results.store import MethodResult, write_atomically

LICENCE_KUAIRAND = (
    "Figures computed from KuaiRand (Gao et al., CIKM 2022), published by its authors under the licence CC BY-SA 4.0."
)
COLOURS = ("#0b5f8a", "#c8553d", "#3c7d4f", "#8a5fa8", "#a07a1f", "#5b6770", "#b0476f", "#2f8f8f")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_INK, _GRID = "#22292f", "#e7eaec"
_METRICS = (("t_int", "T_int [slates]"), ("r_cum", "R_cum [summed click rate]"), ("r_sin", "R_sin [click rate]"))


@dataclass(frozen=True, eq=False)
class Curve:
    """How one seed of one method learned, measured on training sessions.

    Attributes:
        method: name of the method, as in the table.
        seed: seed of the training.
        transitions: shape (P,), transitions collected so far, increasing.
        t_int: shape (P,), mean length of the sessions that ended lately [slates].
        r_cum: shape (P,), mean return of the sessions that ended lately [mean clicks].
    """

    method: str
    seed: int
    transitions: NDArray[np.int64]
    t_int: NDArray[np.float64]
    r_cum: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.transitions.shape == self.t_int.shape == self.r_cum.shape:
            raise ValueError(
                f"curve {self.method!r}, seed {self.seed}: transitions {self.transitions.shape}, "
                f"t_int {self.t_int.shape} and r_cum {self.r_cum.shape} need one number per point"
            )


def curves(results: Sequence[MethodResult]) -> list[Curve]:
    """The learning curves that results have."""
    found = []
    for result in results:
        if result.curve:
            points = np.array(result.curve)
            found.append(Curve(result.method, result.seed, points[:, 0].astype(np.int64), points[:, 1], points[:, 2]))
    return found


@dataclass(frozen=True)
class Card:
    """The simulator card as a table; numbers are shown with three decimals.

    Attributes:
        columns: names, e.g. ``("behaviour", "predictor", "AUC", "log-loss", "calibration error")``.
        rows: one value per column; None is "not run".
        caption: what it was measured on.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    caption: str = ""


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything the page shows.

    Attributes:
        title: heading of the page.
        table: the results (:func:`rapport.experiments.results.summary.summarise`).
        settings: what was run, name to value, in the order shown.
        curves: learning curves; may be empty.
        card: simulator card, or None.
        notes: paragraphs for the reader.
        licence: note on the data's licence.
    """

    title: str
    table: tables.ResultsTable
    settings: Mapping[str, str]
    curves: Sequence[Curve] = ()
    card: Card | None = None
    notes: Sequence[str] = ()
    licence: str = LICENCE_KUAIRAND


def write_report(report: RunReport, path: Path) -> Path:
    """Render ``report`` and write it atomically to ``path``.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(report))
    return path


def render(report: RunReport) -> str:
    """The page as one HTML text; everything that comes from outside is escaped."""
    template, page = template_of("report.html.j2")
    table = report.table
    return str(
        template.render(
            report=report,
            columns=tables.COLUMNS,
            rows=[(row.method == table.facts.main, tables.cells(row)) for row in table.rows],
            cost_columns=COST_COLUMNS,
            costs=tables.costs(table),
            verdict=tables.verdict(table),
            footer=tables.footer(table),
            card_rows=[[_cell(value) for value in row] for row in report.card.rows] if report.card else [],
            forest=[figure_html(forest(table, name, title)) for name, title in _METRICS if _has_results(table)],
            curves=[figure_html(learning(table, report.curves, name)) for name in ("r_cum", "t_int")]
            if report.curves
            else [],
            **page,
            not_run=tables.NOT_RUN,
        )
    )


def template_of(name: str) -> tuple[Any, dict[str, str]]:
    """A page's template, in which all that is filled in is escaped, and what every page is given.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    jinja2, plotly_script = _libraries()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("rapport.experiments.report")
    style = folder.joinpath("style.css.j2").read_text("utf-8")
    template = environment.from_string(folder.joinpath(name).read_text("utf-8"))
    return template, {"style": style, "plotly_script": plotly_script}


def _libraries() -> tuple[Any, str]:
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the report needs {error.name}, which is not installed; install it: pip install "rapport-gym[report]"',
            name=error.name,
        ) from error
    return jinja2, str(get_plotlyjs())


def _has_results(table: tables.ResultsTable) -> bool:
    return any(row.seeds for row in table.rows)


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return tables.NOT_RUN
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value


def figure_html(figure: Any) -> str:
    """A plotly figure as a piece of a page that holds plotly.js already."""
    import plotly.io

    config = {"displayModeBar": False, "responsive": True}
    return str(plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, config=config))


def lay_out(figure: Any, title: str, height: int) -> Any:
    """Give a plotly figure the house's fonts, colours and margins; the same figure."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "xref": "paper", "font": {"size": 14}},
        height=height,
        margin={"l": 8, "r": 12, "t": 38, "b": 8},
        font={"family": _FONT, "size": 12, "color": _INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"family": _FONT}},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    return figure


def forest(table: tables.ResultsTable, name: str, title: str, longest: int = 22) -> Any:
    """Points with intervals, one line per method that was run, first on top; labels are cut at ``longest`` letters."""
    import plotly.graph_objects as go

    figure = go.Figure()
    rows = [row for row in table.rows if row.seeds]
    for place, row in enumerate(rows):
        value = getattr(row, name)
        figure.add_scatter(
            x=[value.point],
            y=[place],
            error_x={"array": [value.high - value.point], "arrayminus": [value.point - value.low], "thickness": 1.6},
            mode="markers",
            marker={"size": 9, "color": _colour(table, row.method)},
            hovertemplate=f"%{{x:.3f}} [{value.low:.3f}, {value.high:.3f}]<extra></extra>",
            showlegend=False,
        )
    lay_out(figure, title, 96 + 27 * len(rows))
    figure.update_layout(title={"xref": "container", "x": 0.02})
    labels = [_short(row.label, longest) for row in rows]
    figure.update_yaxes(autorange="reversed", showgrid=False, tickvals=list(range(len(rows))), ticktext=labels)
    return figure


def learning(table: tables.ResultsTable, curves: Sequence[Curve], name: Literal["t_int", "r_cum"]) -> Any:
    """How methods learned: mean over seeds with a band of one standard error, and a thin line per seed."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for method in dict.fromkeys(curve.method for curve in curves):
        own = [curve for curve in curves if curve.method == method and len(curve.transitions)]
        if not own:
            continue
        row = table.row(method)
        label, colour = (_short(row.label) if row else method), _colour(table, method)
        thin = {
            "mode": "lines",
            "line": {"color": colour, "width": 0.8},
            "opacity": 0.3,
            "hoverinfo": "skip",
            "showlegend": False,
        }
        for curve in own if len(own) > 1 else ():
            figure.add_scatter(x=curve.transitions, y=getattr(curve, name), legendgroup=method, **thin)
        x, mean, error = _band(own, name)
        fill = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": method}
        figure.add_scatter(x=x, y=mean + error, **fill)
        figure.add_scatter(x=x, y=mean - error, fill="tonexty", fillcolor=_faint(colour), **fill)
        line = {"color": colour, "width": 2.2}
        figure.add_scatter(x=x, y=mean, name=label, legendgroup=method, mode="lines", line=line)
    lay_out(figure, dict(_METRICS)[name], 330)
    figure.update_layout(legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"}, hovermode="x unified")
    figure.update_xaxes(title="training transitions")
    return figure


def _band(
    curves: Sequence[Curve], name: Literal["t_int", "r_cum"]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Grid, mean and standard error over seeds, each of shape (G,), where all seeds have points."""
    low = max(float(curve.transitions[0]) for curve in curves)
    high = min(float(curve.transitions[-1]) for curve in curves)
    points = np.unique(np.concatenate([curve.transitions for curve in curves]).astype(np.float64))
    grid = points[(points >= low) & (points <= high)]
    values = np.array([np.interp(grid, curve.transitions, getattr(curve, name)) for curve in curves])
    error = values.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros(len(grid))
    return grid, values.mean(axis=0), error


def _colour(table: tables.ResultsTable, method: str) -> str:
    names = [row.method for row in table.rows]
    return COLOURS[(names.index(method) if method in names else len(names)) % len(COLOURS)]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _short(label: str, limit: int = 30) -> str:
    """A label for an axis: cut, and escaped because plotly reads mark-up in it."""
    return html.escape(label if len(label) <= limit else label[: limit - 1] + "…", quote=False)
