"""What a run leaves behind: the table on the screen, in Markdown and in a report with curves and the simulator card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rapport.agents.checkpoint import CheckpointError, read_checkpoint
from rapport.envs.session.fit import FitSettings
from rapport.envs.session.simulator import load_simulator
from rapport.experiments.methods import LABELS
from rapport.experiments.report import Card, Curve, RunReport, write_report
from rapport.experiments.results import ResultStore, write_atomically
from rapport.experiments.setup import Setup
from rapport.experiments.table import RunFacts, print_table, summarise, to_markdown

TITLE = "LERL on simulated sessions"


def publish(
    store: ResultStore, facts: RunFacts, settings: dict[str, str], setup: Setup, folder: Path, console: Console
) -> None:
    """Print the table; write ``table.md`` and ``report.html`` into the run's folder."""
    results = store.load_all()
    for problem in store.problems:
        console.print(f"A damaged result was set aside: {problem}", style="yellow", highlight=False)
    table = summarise(results, facts, list(LABELS.items()))
    print_table(table)
    write_atomically(folder / "table.md", to_markdown(table))
    page = RunReport(TITLE, table, settings, curves(folder), simulator_card(setup))
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


def curves(folder: Path) -> list[Curve]:
    """The learning curves of all agents of a run, from their checkpoints."""
    found = []
    for path in sorted((folder / "checkpoints").glob("*.safetensors")):
        try:
            note = read_checkpoint(path)[1]
        except CheckpointError:
            continue
        if note.get("curve"):
            points = np.array(note["curve"])
            found.append(Curve(note["method"], note["seed"], points[:, 0].astype(np.int64), points[:, 1], points[:, 2]))
    return found


def simulator_card(setup: Setup) -> Card | None:
    """How far the simulator can be trusted on later days; None where scikit-learn is not installed."""
    try:
        from rapport.envs.session.card import simulator_card as measure
        from rapport.experiments.card_tables import card_tables
    except ModuleNotFoundError:
        return None
    data = setup.session_data()
    response, fitted = load_simulator(data, FitSettings(profile=setup.profile))
    tables: Any = card_tables(measure(data, fitted, response, np.random.default_rng(0)))
    return tables[0] if tables else None
