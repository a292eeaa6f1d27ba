"""The simulator card as a page, with reliability plots."""

from __future__ import annotations

from functools import partial
from typing import Any

from rapport.experiments.report.blocks import Block, Figure
from rapport.experiments.report.figures import COLOURS, label_rows, lay_out
from rapport.experiments.report.page import Page, Section
from rapport.experiments.simulator.card import SimulatorCard
from rapport.experiments.simulator.card_tables import (
    calibration_tables,
    card_finding,
    card_findings,
    card_reading,
    cold_tables,
    prediction_tables,
    selection_tables,
)
from rapport.experiments.simulator.metrics import Reliability
from rapport.experiments.simulator.selection_bias import Selection

_READING = (
    "One point per bin of {bins} of equal mass: the mean predicted probability, and the share that did it, with its "
    "95 % Wilson interval. On the line, predictions come true. ECE: expected calibration error, with its 95 % "
    "bootstrap interval over users; noise floor: what a perfectly calibrated predictor would show on so few exposures."
)
_SELECTION = (
    "Each line goes from the rate of items drawn at random (left) to that of items the platform chose (right), for all "
    "exposures and by groups of people and of videos. Red and hollow: real people, as published; blue and filled: the "
    "simulator, whose lines should be as long as the real ones."
)


def card_page(card: SimulatorCard, banner: str = "") -> Page:
    """The whole card, under a banner if there is one."""
    calibration: list[Block] = [_READING.format(bins=card.bins)] if card.reliability else []
    calibration += [Figure(partial(_reliability, found), small=True) for found in card.reliability]
    published = [row for row in card.selection if row.published_random is not None]
    selection: list[Block] = [_SELECTION] if published else []
    for behaviour in dict.fromkeys(row.behaviour for row in published):
        rows = [row for row in published if row.behaviour == behaviour]
        selection.append(Figure(partial(_selection, rows, behaviour)))
    sections = (
        Section("Does it predict what people did?", prediction_tables(card)),
        Section("Is it calibrated?", [*calibration, *calibration_tables(card)]),
        Section("Users and items that it hardly knows", cold_tables(card)),
        Section("Items that nobody would have been shown", [*selection, *selection_tables(card)]),
        Section("How to read it", card_reading(card)),
    )
    return Page(
        title=f"Simulator card: {card.data}, {card.profile} profile",
        finding=card_finding(card),
        findings=card_findings(card),
        subtitle=f"measured on later days, {card.users:,} users",
        sections=[section for section in sections if section.blocks],
        licence=card.licence,
        banner=banner,
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
    error = f"ECE {point:.2f} % [{low:.2f}, {high:.2f}], noise floor {100 * found.floor:.2f} %"
    lay_out(figure, found.behaviour, 340, error)
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
            ends, ("circle-open", "circle"), COLOURS[1::-1], (-0.07, 0.14), strict=True
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
    label_rows(figure, [row.group for row in rows], behaviour)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure
