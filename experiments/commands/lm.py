"""``rapport lm train | card | improve``: builds, evaluates and fine-tunes the embedded planner model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from rapport.agents.lm.sft import SFTConfig
from rapport.agents.planning.lm.embedded import embedded_model
from rapport.agents.planning.lm.policy_gradient import PolicyGradientConfig
from rapport.experiments.commands.run import fit_simulator
from rapport.experiments.commands.simulator import DataName
from rapport.experiments.jobs.local import run_jobs, shown
from rapport.experiments.lerl.config import Setup
from rapport.experiments.planner_lm.build import PlannerBuild
from rapport.experiments.planner_lm.card import COLUMNS as COLUMNS_OF_CARD
from rapport.experiments.planner_lm.card import (
    CardStudy,
    card_markdown,
    reflection_effect,
    services,
    tables,
    unconstrained_plan_rate,
)
from rapport.experiments.planner_lm.improve import COLUMNS, FineTuningStudy, as_markdown, curve, notes, page, said
from rapport.experiments.results.store import wrote
from rapport.experiments.results.summary import WIDTH, grid

QUICK = {"seeds": 2, "rounds": 10, "sessions": 200}
"""Defaults of `LmImprove` with ``--quick``, and without it."""
FULL = {"seeds": 5, "rounds": 40, "sessions": 1_000}


@dataclass
class LmTrain:
    """Train the embedded planner model from scratch: examples, vocabulary, weights, GGUF file."""

    out: Path = Path("runs/lm")
    """Folder of examples, checkpoints and the model, planner.gguf. A stopped training resumes from it."""
    data: DataName = "auto"
    """Data set whose training users are simulated for examples: kuairand-pure, twin, or auto."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    steps: int = SFTConfig.steps
    """Training steps."""
    rounds: int = 30
    """Times that 256 training users' sessions are simulated for examples."""
    seed: int = 0
    """Random seed."""
    threads: int = 1
    """Threads of torch; with several threads the last digits of sums differ."""

    def run(self) -> int:
        """Train the model; returns 0."""
        for name in ("steps", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: it must be at least 1")
        console = Console()
        setup = Setup(self.data, None if self.data_dir is None else str(self.data_dir))
        fit_simulator(setup, console)
        torch.set_num_threads(self.threads)
        training = replace(SFTConfig(), steps=self.steps)
        build = PlannerBuild(setup, self.out.resolve(), self.rounds, seed=self.seed, training=training)
        with shown(console, 1) as board:
            path = build.run(board.show)
            board.finish("embedded planner model")
        console.print(f"Wrote {path}: {path.stat().st_size / 1e6:.2f} MB", highlight=False, soft_wrap=True)
        return 0


@dataclass
class LmCard:
    """Evaluate the model and the controls: on its training data, under synthetic names, and on other data."""

    llm: Path | None = None
    """GGUF file written by `rapport lm train`; by default the embedded model."""
    quick: bool = False
    """Use 2 seeds and 200 sessions where these are not given."""
    data: DataName = "auto"
    """kuairand-pure, twin, or auto: kuairand-pure where it is installed, else twin."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    sessions: int | None = None
    """Complete sessions of held-out users per row and seed; 1,000 by default."""
    temperature: float = 0.8
    """Sampling temperature; 0 takes the likeliest token."""
    out: Path = Path("runs/lm-card")
    """Folder of pretrained policies, results and the table."""
    workers: int | None = None
    """Processes; by default one per core."""

    def run(self) -> int:
        """Evaluate, print and write; returns 0."""
        numbers = _numbers(self, {"seeds": 2, "sessions": 200}, {"seeds": 5, "sessions": 1_000})
        console = Console()
        setup = Setup(self.data, None if self.data_dir is None else str(self.data_dir))
        model, folder = str((self.llm or embedded_model()).resolve()), self.out.resolve()
        study = CardStudy(model, services(setup), numbers["seeds"], numbers["sessions"], str(folder), self.temperature)
        if jobs := study.jobs():
            for service in study.services:
                fit_simulator(service.setup, console)
            run_jobs(jobs, self.workers or os.cpu_count() or 1, console)
        found = tables(study)
        plan_rates = {service.label: unconstrained_plan_rate(study, service) for service in study.services}
        effect = reflection_effect(study)
        _narrow(console)
        for label, lines in found.items():
            console.print(label, style="bold", highlight=False)
            console.print(grid(COLUMNS_OF_CARD, lines))
        for label, share in plan_rates.items():
            console.print(f"Completions without a grammar that are plans, {label}: {share:.1%}", highlight=False)
        console.print(f"Reflections: {effect}", highlight=False)
        wrote(console, folder / "card.md", card_markdown(study, found, plan_rates, effect))
        return 0


@dataclass
class LmImprove:
    """Fine-tune the planner by policy gradient on the tokens of its plans; learning curves on held-out users."""

    llm: Path | None = None
    """GGUF file written by `rapport lm train`; by default the embedded model."""
    quick: bool = False
    """Use 2 seeds, 10 rounds and 200 sessions where these are not given."""
    data: DataName = "auto"
    """kuairand-pure, twin, or auto: kuairand-pure where it is installed, else twin."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    rounds: int | None = None
    """Updates; 40 by default."""
    every: int = 10
    """Updates between two points of the curve."""
    sessions: int | None = None
    """Complete sessions of held-out users per point and seed; 1,000 by default."""
    kl: float = PolicyGradientConfig.kl
    """Weight of the divergence from the initial model."""
    learning_rate: float = PolicyGradientConfig.learning_rate
    """Adam's learning rate."""
    out: Path = Path("runs/lm-improve")
    """Folder of pretrained policies, results, fine-tuned models and the report."""
    workers: int | None = None
    """Processes; by default one per core."""

    def run(self) -> int:
        """Fine-tune, print and write; returns 0."""
        numbers = _numbers(self, QUICK, FULL)
        if self.every < 1:
            raise ValueError(f"--every {self.every}: it must be at least 1")
        console = Console()
        setup = Setup(self.data, None if self.data_dir is None else str(self.data_dir))
        config = PolicyGradientConfig(rounds=numbers["rounds"], learning_rate=self.learning_rate, kl=self.kl)
        model = str((self.llm or embedded_model()).resolve())
        folder = self.out.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        study = FineTuningStudy(setup, model, numbers["seeds"], numbers["sessions"], self.every, str(folder), config)
        if jobs := study.jobs():
            fit_simulator(setup, console)
            run_jobs(jobs, self.workers or os.cpu_count() or 1, console)
        points = curve(study, study.results())
        _narrow(console)
        console.print(grid(COLUMNS, [point.cells for point in points]))
        for line in ("", *said(points), *notes(study)):
            console.print(line, highlight=False, markup=False)
        wrote(console, folder / "table.md", as_markdown(study, points))
        try:
            wrote(console, folder / "report.html", page(study, points))
        except ModuleNotFoundError as error:
            console.print(f"No page: {error}", style="yellow", highlight=False, markup=False)
        return 0


def _narrow(console: Console) -> None:
    """Limit tables to `WIDTH` columns."""
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH


def _numbers(command: LmCard | LmImprove, quick: dict[str, int], full: dict[str, int]) -> dict[str, int]:
    """Sizes that were given, else the defaults.

    Raises:
        ValueError: a size is below 1.
    """
    defaults = quick if command.quick else full
    given = {name: getattr(command, name) for name in defaults}
    numbers = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name} {number}: it must be at least 1")
    return numbers
