"""``rapport satiation measure | inside | separate``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rapport.datasets.kuairand.surfaces import surfaces
from rapport.envs.session.kuairand import find_data
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.satiation.model import Boredom
from rapport.envs.session.satiation.parameters import shipped
from rapport.experiments.commands.simulator import DataName, fitted_simulator
from rapport.experiments.report.page import print_page, write_page
from rapport.experiments.results.store import wrote
from rapport.experiments.satiation.controls import METHODS
from rapport.experiments.satiation.double_count import in_log, inside
from rapport.experiments.satiation.exposures import exposures
from rapport.experiments.satiation.fit import LOGGED_SHARE
from rapport.experiments.satiation.separation import PLAIN, TIRING, Trial, separate
from rapport.experiments.satiation.study import conduct, figures_of
from rapport.experiments.satiation.tables import effects_table, rows_table, separation_page, study_page

DEFAULT_SECONDS = 21.4
"""Mean watch time of KuaiRand-Pure's exposures, for logs whose files do not tell."""


@dataclass
class SatiationMeasure:
    """Measure the effect of repetition in a log: by gap, place, dose, time and group, with placebo tests."""

    data: DataName = "auto"
    """`kuairand-pure`, `twin`, or `auto`: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    seed: int = 0
    """Of placebos, random halves and bootstraps."""
    draws: int = 100
    """Of the placebo with permuted categories."""
    logged_share: float = LOGGED_SHARE
    """Share of what people saw that is in the log, in (0, 1]."""
    out: Path | None = None
    """Also write the tables to this file, as Markdown."""
    json: Path | None = None
    """Also write every estimate to this file, as JSON."""
    fit: Path | None = None
    """Also write the satiation component's figures to this file, as JSON."""

    def run(self) -> int:
        """Measure and print; 0."""
        if self.draws < 2:
            raise ValueError(f"draws={self.draws}; give at least 2")
        if not 0 < self.logged_share <= 1:
            raise ValueError(f"logged_share={self.logged_share}; it must lie in (0, 1]")
        root = None if self.data_dir is None else str(self.data_dir)
        data = find_data(self.data, root)
        beside = surfaces(data, root)
        e = exposures(data, None if beside is None else beside.tab)
        console, progress = Console(), Console(stderr=True)
        seconds = DEFAULT_SECONDS if beside is None else beside.seconds
        with progress.status("measuring") as status:
            study = conduct(
                data,
                e,
                seconds,
                self.logged_share,
                self.seed,
                self.draws,
                lambda doing: status.update(f"measuring: {doing}"),
            )
        page = study_page(study)
        print_page(page, console)
        if self.out is not None:
            write_page(page, self.out, console)
        estimates = asdict(study) | {"effects": [x._asdict() for x in study.effects]}
        estimates |= {"differences": [d._asdict() for d in study.differences]}
        written = {
            self.json: json.dumps(estimates, indent=1) + "\n",
            self.fit: json.dumps(figures_of(study), indent=1) + "\n",
        }
        for path, words in written.items():
            if path is not None:
                wrote(console, path, words)
        return 0


@dataclass
class SatiationInside:
    """Measure satiation inside the simulator, without and with the satiation component: is it counted twice?"""

    data: DataName = "auto"
    """`kuairand-pure`, `twin`, or `auto`: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    users: int = 1_000
    """People who are shown 20 slates each."""
    seed: int = 0
    """Of users, items and responses."""

    def run(self) -> int:
        """Measure and print; 0."""
        if self.users < 2:
            raise ValueError(f"users={self.users}; give at least 2")
        root, settings, parameters = None if self.data_dir is None else str(self.data_dir), FitSettings(), shipped()
        data = find_data(self.data, root)
        response, fitted = fitted_simulator(data, settings)
        beside = surfaces(data, root)
        e = exposures(data, None if beside is None else beside.tab)
        logged = in_log(data, e, fitted, parameters.tau_minutes, settings.length)
        found = inside(data, response, Boredom(data, parameters), np.random.default_rng(self.seed), self.users)
        console = Console()
        for table in (
            effects_table(logged, f"Per logged exposure, in the log; {data.name}"),
            effects_table(found, f"What a full recent past takes in the simulator; {data.name}"),
        ):
            console.print(table)
        return 0


SENSITIVITY_METHODS = ("greedy", "rotation", "greedy rotation", "oracle, look-ahead")
TOLERANCES = (0.1, 0.25, 0.5, 1.0, float("inf"))


@dataclass
class SatiationSeparate:
    """Play whole sessions with users who satiate, and under LERL's rule: do the methods separate?"""

    data: DataName = "auto"
    """`kuairand-pure`, `twin`, or `auto`: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    sessions: int = 1_000
    """Complete sessions of held-out users per seed."""
    seeds: int = 5
    """Draws of users and responses."""
    sensitivity: int = 2
    """Draws with other tolerances (assumed) and strengths (measured with error); 0: none."""
    out: Path | None = None
    """Also write the tables to this file, as Markdown."""

    def run(self) -> int:
        """Play and print; 0."""
        for name, least in (("sessions", 1), ("seeds", 1), ("sensitivity", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; give at least {least}")
        data = find_data(self.data, None if self.data_dir is None else str(self.data_dir))
        trial, console = Trial(data, self.sessions, self.seeds), Console()
        both: dict[str, dict[str, Any]] = {PLAIN: {}, TIRING: {}}
        with Console(stderr=True).status("playing") as status:

            def report(doing: str) -> None:
                status.update(f"playing {doing}")

            who = f"{data.name}, {self.seeds} x {self.sessions:,} sessions of held-out users"
            rows = separate(trial, METHODS, both, report)
            tables = [rows_table(rows, f"Every method in both environments; {who}")]
            if self.sensitivity:
                fewer = replace(trial, seeds=self.sensitivity)
                varied = separate(fewer, SENSITIVITY_METHODS, _varied(), report)
                caption = f"Other tolerances (assumed) and strengths (measured); {self.sensitivity} draws"
                tables.append(rows_table(varied, caption))
        page = separation_page(data.name, tables, rows)
        print_page(page, console)
        if self.out is not None:
            write_page(page, self.out, console)
        return 0


def _varied() -> dict[str, dict[str, Any]]:
    """Environments that differ in one argument each."""
    varied: dict[str, dict[str, Any]] = {f"tolerance {value:g}": {"tolerance": value} for value in TOLERANCES}
    return varied | {f"strength {name}": {"strength": name} for name in ("low", "high")}
