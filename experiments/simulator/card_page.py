"""The simulator card as one self-contained HTML page, with reliability plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapport.experiments.report.figures import COLOURS, LICENCE_KUAIRAND, figure_html, lay_out, template_of
from rapport.experiments.results.store import write_atomically
from rapport.experiments.simulator.card import SimulatorCard
from rapport.experiments.simulator.card_tables import TEXT_COLUMNS, card_notes, card_tables
from rapport.experiments.simulator.metrics import Reliability
from rapport.experiments.simulator.selection_bias import Selection

_READING = (
    "One point per bin of {bins} of equal mass: the mean predicted chance, and the share that did it, with its "
    "95 % Wilson interval. On the line, chances come true. ECE: expected calibration error, with its 95 % bootstrap "
    "interval over users, and what a perfectly calibrated predictor would show on so few exposures."
)


def write_card_page(card: SimulatorCard, path: Path) -> None:
    """Render the card and write it atomically to ``path``.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, card_page(card))


def card_page(card: SimulatorCard) -> str:
    """The page as one HTML text; everything that comes from outside is escaped.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    template, page = template_of("card.html.j2")
    groups = [row for row in card.selection if row.published_random is not None]
    behaviours = list(dict.fromkeys(row.behaviour for row in groups))
    return str(
        template.render(
            title=f"Simulator card: {card.data}",
            subtitle=f"{card.profile} profile · measured on later days, {card.users:,} users",
            reliability=[figure_html(_reliability(found)) for found in card.reliability],
            reading=_READING.format(bins=card.bins),
            selection=[
                figure_html(_selection([r for r in groups if r.behaviour == name], name)) for name in behaviours
            ],
            tables=card_tables(card),
            text_columns=TEXT_COLUMNS,
            notes=card_notes(card),
            licence=LICENCE_KUAIRAND,
            **page,
        )
    )


def _reliability(found: Reliability) -> Any:
    """Predicted against observed, with intervals, beside the line on which both are equal."""
    import plotly.graph_objects as go

    predicted = [one.predicted for one in found.bins]
    observed = [one.observed for one in found.bins]
    end = 1.05 * max(*predicted, *(interval.high for interval in observed))
    figure = go.Figure()
    line = {"color": "#9aa4ab", "width": 1, "dash": "dot"}
    figure.add_scatter(x=[0, end], y=[0, end], mode="lines", line=line, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        x=predicted,
        y=[interval.point for interval in observed],
        error_y={
            "array": [interval.high - interval.point for interval in observed],
            "arrayminus": [interval.point - interval.low for interval in observed],
            "thickness": 1.3,
        },
        mode="markers",
        marker={"size": 7, "color": COLOURS[0]},
        customdata=[one.rows for one in found.bins],
        hovertemplate="predicted %{x:.2%}<br>observed %{y:.2%}<br>%{customdata:,} exposures<extra></extra>",
        showlegend=False,
    )
    point, low, high = (100 * value for value in found.error)
    error = f"ECE {point:.2f} % [{low:.2f}, {high:.2f}], by luck {100 * found.luck:.2f} %"
    lay_out(figure, f"{found.behaviour}<br><sup>{error}</sup>", 350)
    figure.update_layout(margin={"t": 58})
    figure.update_xaxes(title="predicted", tickformat=".2~%", range=[0, end])
    figure.update_yaxes(title="observed", tickformat=".2~%", range=[0, end])
    return figure


def _selection(rows: list[Selection], behaviour: str) -> Any:
    """From random items to the platform's, in the simulator and among real people, one pair of lines per group."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for place, row in enumerate(rows):
        ends = [(row.published_random, row.published_logged), (row.simulated_random, row.simulated_logged)]
        for (left, right), symbol, colour, shift in zip(
            ends, ("circle-open", "circle"), COLOURS[1::-1], (-0.14, 0.14), strict=True
        ):
            figure.add_scatter(
                x=[left, right],
                y=[place + shift] * 2,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 8, "symbol": symbol},
                hovertemplate=f"%{{x:.1%}}<extra>{'real' if symbol == 'circle-open' else 'simulated'}</extra>",
                showlegend=False,
            )
    lay_out(figure, behaviour, 110 + 34 * len(rows))
    figure.update_yaxes(
        autorange="reversed", showgrid=False, tickvals=list(range(len(rows))), ticktext=[row.group for row in rows]
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure
