"""What a run leaves behind: the table on the screen, in Markdown and in a report with curves and the simulator card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.simulator_cache import load_simulator
from rapport.experiments.lerl.config import Setup
from rapport.experiments.lerl.play import NO_LLM, labels
from rapport.experiments.report.compat import Card, RunReport, curves, write_report
from rapport.experiments.results.store import ResultStore, write_atomically
from rapport.experiments.results.summary import RunFacts, print_table, summarise, to_markdown
from rapport.experiments.simulator.card import simulator_card
from rapport.experiments.simulator.card_tables import card_notes, card_tables

TITLE = "LERL on simulated sessions"
SHOWN_BEHAVIOURS = ("click", "long_view", "like")
"""Behaviours with enough positives to judge; the report leaves the others to the whole card."""


def publish(
    store: ResultStore, facts: RunFacts, settings: dict[str, str], setup: Setup, folder: Path, console: Console
) -> None:
    """Print the table; write ``table.md`` and ``report.html`` into the run's folder."""
    results = store.load_all()
    for problem in store.problems:
        console.print(f"A damaged result was set aside: {problem}", style="yellow", highlight=False)
    table = summarise(results, facts, list(labels(facts.planner != NO_LLM).items()))
    print_table(table)
    write_atomically(folder / "table.md", to_markdown(table))
    card, notes = trust(setup)
    page = RunReport(TITLE, table, settings, curves(results), card, notes)
    try:
        console.print(f"Report: {write_report(page, folder / 'report.html')}", highlight=False, soft_wrap=True)
    except ModuleNotFoundError as error:
        console.print(f"No report: {error}", style="yellow", highlight=False)
    console.print(
        f"Table: {folder / 'table.md'}\nCurves: tensorboard --logdir {folder / 'tensorboard'}\n"
        f"Checkpoints: {folder / 'checkpoints'} (rapport evaluate FILE)",
        highlight=False,
        soft_wrap=True,
    )


def trust(setup: Setup) -> tuple[Card | None, list[str]]:
    """How far the simulator can be trusted on later days, with notes; nothing where scikit-learn is not installed."""
    if setup.profile == "official":
        return None, [
            "No simulator card: the official profile's response model has learned from every day. "
            "How one does that has not: rapport simulator compare --lerl."
        ]
    data, settings = setup.session_data(), FitSettings()
    response, fitted = load_simulator(data, settings)
    try:
        card = simulator_card(data, fitted, response, np.random.default_rng(0), settings=settings)
    except ModuleNotFoundError as error:
        return None, [f"No simulator card: {error}"]
    table = card_tables(card)[0]
    rows = tuple(row for row in table.rows if row[0] in SHOWN_BEHAVIOURS)
    return Card(table.columns, rows, table.caption), [
        *card_notes(card),
        "The whole card, with all behaviours: rapport simulator card.",
    ]
