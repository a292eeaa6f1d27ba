"""``rapport satiation measure | inside | separate``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from rapport.datasets.kuairand.surfaces import surfaces
from rapport.envs.session.kuairand import find_data
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.satiation.model import SatiationState
from rapport.envs.session.satiation.parameters import shipped
from rapport.experiments.commands.options import DataName, LocalData, Workers
from rapport.experiments.commands.simulator import fitted_simulator
from rapport.experiments.core import jobs_of
from rapport.experiments.core.env_config import prepare
from rapport.experiments.lerl.environments import data_of
from rapport.experiments.report.page import print_page, write_page
from rapport.experiments.results.store import wrote
from rapport.experiments.satiation.controls import METHODS
from rapport.experiments.satiation.double_count import in_log, inside
from rapport.experiments.satiation.exposures import exposures
from rapport.experiments.satiation.fit import LOGGED_SHARE
from rapport.experiments.satiation.separation import (
    SENSITIVITY_METHODS,
    both_environments,
    separation,
    varied_environments,
)
from rapport.experiments.satiation.study import conduct, figures_of
from rapport.experiments.satiation.tables import effects_table, rows_table, separation_page, study_page

DEFAULT_SECONDS = 21.4
"""Mean watch time of KuaiRand-Pure's exposures, for logs whose files do not tell."""


@dataclass
class SatiationMeasure:
    """Measure user satiation in a log: by gap, place, dose, time and group, with placebos."""

    data: DataName = "auto"
    """`kuairand-pure`, `twin`, or `auto`: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    seed: int = 0
    """Of placebos, random halves and bootstraps."""
    draws: int = 100
    """Of the placebo with dealt labels."""
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
        found = inside(data, response, SatiationState(data, parameters), np.random.default_rng(self.seed), self.users)
        console = Console()
        for table in (
            effects_table(logged, f"Per logged exposure, in the log; {data.name}"),
            effects_table(found, f"What a full recent past takes in the simulator; {data.name}"),
        ):
            console.print(table)
        return 0


@dataclass(kw_only=True)
class SatiationSeparate(LocalData, Workers):
    """Play whole sessions with users who satiate, and under LERL's rule: do the methods separate?"""

    sessions: int = 1_000
    """Complete sessions of held-out users per seed."""
    seeds: int = 5
    """Draws of users and chance."""
    sensitivity: int = 2
    """Draws for which what is assumed (the tolerance) and uncertain (the strength) is varied too; 0: it is not."""
    out: Path | None = None
    """Also write the tables to this file, as Markdown."""
    folder: Path = Path("runs/satiation-separate")
    """Folder of the results. A stopped comparison goes on where it was."""

    def run(self) -> int:
        """Play and print; 0."""
        for name, least in (("sessions", 1), ("seeds", 1), ("sensitivity", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; give at least {least}")
        console, folder = Console(), self.folder.resolve()
        both = both_environments(self.data, self.data_dir)
        data = data_of(next(iter(both.values()))).name
        main = separation(both, METHODS, self.seeds, self.sessions, folder)
        parts = {f"Every method in both environments; {data}, {self.seeds} x {self.sessions:,} sessions": main}
        if self.sensitivity:
            varied = varied_environments(self.data, self.data_dir)
            caption = f"Other tolerances (assumed) and strengths (measured); {self.sensitivity} draws"
            parts[caption] = separation(varied, SENSITIVITY_METHODS, self.sensitivity, self.sessions, folder)
        prepare(both.values(), console)
        self.run_jobs(jobs_of(parts.values()), console)
        tables = [rows_table(experiment, experiment.results(), caption) for caption, experiment in parts.items()]
        page = separation_page(data, tables, main, main.results())
        print_page(page, console)
        if self.out is not None:
            write_page(page, self.out, console)
        return 0
