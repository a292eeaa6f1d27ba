"""``rapport simulator fit | card | compare``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rapport.datasets.schema import SessionData
from rapport.envs.session.official.fit import OfficialSettings
from rapport.envs.session.official.profile import FAULTS, official_settings
from rapport.envs.session.response.fit import FitSettings, Fitted, Profile, Report
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.simulator_cache import load_official, load_simulator, simulator_path
from rapport.experiments.commands.options import LocalData
from rapport.experiments.report.page import print_page, write_page
from rapport.experiments.simulator.card import simulator_card
from rapport.experiments.simulator.card_page import card_page
from rapport.experiments.simulator.compare import compare_predictors, comparison_page
from rapport.experiments.simulator.trust import simulator_trust

Loaded = TypeVar("Loaded")


@dataclass(kw_only=True)
class SimulatorFit(LocalData):
    """Fit the user model that people in the environment respond by, once; it is kept in the cache."""

    profile: Profile = "corrected"
    """`corrected`: the simulator; `official`: LERL's response model with all its faults, which takes far longer."""
    threads: int | None = None
    """Threads of torch; by default RAPPORT_THREADS, else 1. A fit on several threads is kept apart from one on one."""
    refit: bool = False
    """Fit it anew even if it is in the cache."""

    def run(self) -> int:
        """Fit or load, and say where it is; 0."""
        data = self.session_data()
        lerl, settings = official_settings(frozenset(FAULTS)), FitSettings()
        official = self.profile == "official"
        path = simulator_path(data, lerl if official else settings)
        there = path.exists() and not self.refit
        if official:
            _under_bar(path, self.refit, lambda report: load_official(data, lerl, report=report))
        else:
            fitted_simulator(data, settings, refit=self.refit)
        word = "Found" if there else "Fitted"
        Console().print(f"{word}: {path}", highlight=False, markup=False, soft_wrap=True)
        return 0


@dataclass(kw_only=True)
class SimulatorCardCommand(LocalData):
    """Say how far the simulator can be trusted, measured on later days beside predictors that only count."""

    seed: int = 0
    """Of the bootstrap and the random items."""
    resamples: int = 400
    """Bootstrap samples of users behind each interval."""
    out: Path | None = None
    """Also write the card to this file, as Markdown."""
    html: Path | None = None
    """Also write it to this file as one self-contained page with reliability plots; needs the `report` extra."""

    def run(self) -> int:
        """Measure and print; 0."""
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples}; give at least 1")
        data, settings = self.session_data(), FitSettings()
        response, fitted = fitted_simulator(data, settings)
        rng = np.random.default_rng(self.seed)
        card = simulator_card(data, fitted, response, rng, settings=settings, resamples=self.resamples)
        page, console = card_page(card, simulator_trust(data, settings).banner()), Console()
        print_page(page, console)
        if self.out is not None:
            write_page(page, self.out, console)
        if self.html is not None:
            write_page(page, self.html, console)
        return 0


@dataclass(kw_only=True)
class SimulatorCompare(LocalData):
    """Fit counting, factorisation, GRU and transformer alike, and compare them on later days, with intervals."""

    seeds: int = 3
    """Fits of each model, kept in the cache."""
    resamples: int = 400
    """Bootstrap samples of users behind each interval."""
    seed: int = 0
    """Of the bootstrap."""
    lerl: bool = False
    """Also fit LERL's own response model, once; that takes half an hour or more."""
    out: Path | None = None
    """Also write the tables to this file, as Markdown."""

    def run(self) -> int:
        """Fit, measure and print; 0."""
        for name in ("seeds", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give at least 1")
        data, console = self.session_data(), Console()
        with Console(stderr=True).status("") as status:
            found = compare_predictors(
                data,
                self.seeds,
                self.resamples,
                np.random.default_rng(self.seed),
                lerl=OfficialSettings() if self.lerl else None,
                report=status.update,
            )
        page = comparison_page(data, found)
        print_page(page, console)
        if self.out is not None:
            write_page(page, self.out, console)
        return 0


def fitted_simulator(data: SessionData, settings: FitSettings, refit: bool = False) -> tuple[SequenceResponse, Fitted]:
    """The simulator from the cache, or fitted under a progress bar; an old one stays until the new one is whole."""
    path = simulator_path(data, settings)
    return _under_bar(path, refit, lambda report: load_simulator(data, settings, report))


def _under_bar(path: Path, refit: bool, load: Callable[[Report | None], Loaded]) -> Loaded:
    aside = path.with_suffix(".old")
    if refit and path.exists():
        os.replace(path, aside)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=Console(stderr=True)) as progress:
            task = progress.add_task("Fitting the user model", total=None, loss=float("nan"), visible=False)

            def report(done: int, total: int, loss: float) -> None:
                progress.update(task, completed=done, total=total, loss=loss, visible=True)

            return load(report if progress.console.is_terminal else None)  # elsewhere the log has lines
    finally:
        if aside.exists():
            aside.unlink() if path.exists() else os.replace(aside, path)
