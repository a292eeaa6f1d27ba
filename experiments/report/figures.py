"""Plotly figures of estimates, learning curves and performance profiles, readable on a page of any width.

Labels are never cut: they are broken into lines, stand above their rows or below the plot, and come escaped, because
plotly reads mark-up in them. All builders need the ``report`` extra.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapport.experiments.report.performance_profile import Profile
from rapport.experiments.results.stats import Estimate, FloatArray

COLOURS = ("#0b5f8a", "#c8553d", "#3c7d4f", "#8a5fa8", "#a07a1f", "#5b6770", "#b0476f", "#2f8f8f")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_INK, _GRID = "#22292f", "#e7eaec"
_DASHES = ("solid", "dash", "dot", "dashdot")
_LINE, _NOTE_LINE = 42, 54
"""Letters of a title or label, and of a note in small letters, that fit side by side on a phone."""


@dataclass(frozen=True, eq=False)
class Curve:
    """How one seed of one method learned.

    Attributes:
        label: shown name of the method.
        seed: seed of the training.
        x: shape (P,), how much it had learned from, increasing, e.g. transitions.
        y: shape (P,), how good it was then.
    """

    label: str
    seed: int
    x: NDArray[Any]
    y: NDArray[Any]

    def __post_init__(self) -> None:
        if self.x.shape != self.y.shape or self.x.ndim != 1 or not len(self.x):
            raise ValueError(
                f"curve {self.label!r}, seed {self.seed}: x {self.x.shape} and y {self.y.shape} need one number per "
                "point, and at least one point"
            )


def lay_out(figure: Any, title: str, height: int, note: str = "") -> Any:
    """Give a plotly figure the fonts, colours and margins of all figures.

    Args:
        figure: changed in place.
        title: heading, not escaped; it is broken into lines that fit a phone.
        height: pixels, for a title of one line without a note.
        note: stands below the title in small letters, not escaped.

    Returns:
        The figure.
    """
    lines = broken(title).split("<br>")
    lines += [f"<span style='font-size:11px'>{broken(note, _NOTE_LINE)}</span>"] if note else []
    above = 18 * len("<br>".join(lines).split("<br>"))
    figure.update_layout(
        height=height + above - 18,
        margin={"l": 8, "r": 12, "t": 20 + above, "b": 8},
        font={"family": _FONT, "size": 12, "color": _INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"family": _FONT}},
    )
    # An annotation, for plotly cuts a title of several lines at the top.
    heading = {"text": "<br>".join(lines), "name": "title", "font": {"size": 14}, "align": "left", "showarrow": False}
    figure.add_annotation(heading, x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="bottom", yshift=6)
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    return figure


def broken(text: str, letters: int = _LINE) -> str:
    """A text for a figure, escaped and broken into lines that fit a phone."""
    return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(text, letters))


def label_rows(figure: Any, labels: Sequence[str], title: str) -> Any:
    """Lay out a figure whose row number ``i`` lies at ``y = i``, first on top; each label stands above its row.

    Args:
        figure: with points and lines at whole numbers of ``y``.
        labels: one per row, not escaped.
        title: heading of the figure, not escaped.
    """
    lines = max((len(textwrap.wrap(label, _LINE)) for label in labels), default=1)
    row_height = 24 + 15 * lines
    lay_out(figure, title, 70 + row_height * len(labels))
    for place, label in enumerate(labels):
        figure.add_annotation(
            {"text": broken(label), "align": "left", "showarrow": False, "font": {"size": 12}},
            x=0,
            xref="paper",
            xanchor="left",
            y=place - 8 / row_height,
            yanchor="bottom",
        )
    top = -(8 + 15 * lines + 6) / row_height
    figure.update_yaxes(range=[len(labels) - 1 + 14 / row_height, top], showticklabels=False, showgrid=False)
    return figure


def forest(rows: Sequence[tuple[str, Estimate]], title: str) -> Any:
    """Points with intervals, one line per estimate, first on top.

    Args:
        rows: label and estimate.
        title: what is estimated, with its unit.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for place, (label, value) in enumerate(rows):
        figure.add_scatter(
            x=[value.point],
            y=[place],
            error_x={"array": [value.high - value.point], "arrayminus": [value.point - value.low], "thickness": 1.6},
            mode="markers",
            marker={"size": 9, "color": COLOURS[0]},
            hovertemplate=f"{broken(label)}<br>%{{x:.3f}} [{value.low:.3f}, {value.high:.3f}]<extra></extra>",
            showlegend=False,
        )
    return label_rows(figure, [label for label, _ in rows], title)


def learning_curves(curves: Sequence[Curve], title: str, unit: str) -> Any:
    """How methods learned: mean over seeds with a band of one standard error, and a thin line per seed.

    Args:
        curves: one per seed of each method, in the order of the legend; a curve of one point is drawn as a point.
        title: what y is, with its unit.
        unit: what x is, e.g. ``"training transitions"``.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    labels = list(dict.fromkeys(curve.label for curve in curves))
    for place, label in enumerate(labels):
        own = [curve for curve in curves if curve.label == label]
        colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)]
        quiet = {"hoverinfo": "skip", "showlegend": False, "legendgroup": label}
        for curve in own if len(own) > 1 else ():
            line = {"color": colour, "width": 0.8}
            figure.add_scatter(x=curve.x, y=curve.y, mode=_mode(curve.x), line=line, opacity=0.3, **quiet)
        x, mean, error = _band(own)
        for edge in ({"y": mean + error}, {"y": mean - error, "fill": "tonexty", "fillcolor": _faint(colour)}):
            figure.add_scatter(x=x, mode="lines", line={"width": 0}, **edge, **quiet)
        line = {"color": colour, "width": 2.2, "dash": dash}
        name = {"name": broken(label), "legendgroup": label, "showlegend": True}
        figure.add_scatter(x=x, y=mean, mode=_mode(x), line=line, marker={"size": 8, "color": colour}, **name)
    return _legend_below(lay_out(figure, title, 330), labels, unit)


def profile_figure(profiles: Mapping[str, Profile], taus: ArrayLike, title: str, unit: str) -> Any:
    """Performance profiles, a curve with its band for each.

    Args:
        profiles: shown name to what :func:`~rapport.experiments.report.performance_profile.performance_profile` gave,
            in the order of the legend.
        taus: shape (T,), their levels.
        title: heading of the figure.
        unit: what the scores are, with their unit.
    """
    import plotly.graph_objects as go

    levels = np.asarray(taus, dtype=np.float64)
    figure = go.Figure()
    for place, (name, (point, low, high)) in enumerate(profiles.items()):
        colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)]
        figure.add_scatter(
            x=np.concatenate([levels, levels[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=colour,
            opacity=0.15,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=str(place),
        )
        figure.add_scatter(
            x=levels,
            y=point,
            mode="lines",
            name=broken(name),
            legendgroup=str(place),
            showlegend=True,
            line={"color": colour, "width": 2.2, "dash": dash},
            hovertemplate="%{y:.1%}",
        )
    _legend_below(lay_out(figure, title, 330), list(profiles), unit)
    figure.update_yaxes(title="share of sessions above", range=[0, 1.01], tickformat=".0%")
    return figure


def _legend_below(figure: Any, labels: Sequence[str], unit: str) -> Any:
    """Put the legend below the plot, and make room for one line of it per label, as a phone needs."""
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"},
        hovermode="x unified",
        height=figure.layout.height + 20 * sum(len(textwrap.wrap(label, _LINE)) for label in labels),
    )
    figure.update_xaxes(title=unit)
    return figure


def _band(curves: Sequence[Curve]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Grid, mean and standard error over seeds, each of shape (G,), where all seeds have points; else all points.

    A seed that ends earlier, or begins later, than the grid keeps the value of its nearest point.
    """
    points = np.unique(np.concatenate([curve.x for curve in curves]).astype(np.float64))
    shared = points[(points >= max(curve.x[0] for curve in curves)) & (points <= min(curve.x[-1] for curve in curves))]
    grid = shared if len(shared) else points
    values = np.array([np.interp(grid, curve.x, curve.y) for curve in curves])
    error = values.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros(len(grid))
    return grid, values.mean(axis=0), error


def _mode(x: NDArray[Any]) -> str:
    return "lines" if len(x) > 1 else "markers"


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
