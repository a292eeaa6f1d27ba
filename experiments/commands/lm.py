"""``rapport lm train | improve``: the embedded planner model, from nothing; and a planner that learns."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from rapport.agents.lm.sft import Teaching
from rapport.agents.planning.lm.embedded import embedded_model
from rapport.agents.planning.lm.policy_gradient import Improving
from rapport.experiments.commands.run import fit_simulator
from rapport.experiments.commands.simulator import DataName
from rapport.experiments.jobs.local import ProgressDisplay, run_jobs
from rapport.experiments.lerl.config import Setup
from rapport.experiments.planner_lm.build import School
from rapport.experiments.planner_lm.card import COLUMNS as COLUMNS_OF_CARD
from rapport.experiments.planner_lm.card import CardStudy, card_markdown, heeded, services, tables, unaided
from rapport.experiments.planner_lm.improve import COLUMNS, ImprovingStudy, as_markdown, curve, notes, page, said
from rapport.experiments.results.store import wrote
from rapport.experiments.results.summary import WIDTH, grid

QUICK = {"seeds": 2, "rounds": 10, "sessions": 200}
"""What ``--quick`` makes of the settings of `LmImprove` that were not given."""
FULL = {"seeds": 5, "rounds": 40, "sessions": 1_000}


@dataclass
class LmTrain:
    """Train the embedded planner model from scratch: lessons, vocabulary, model, GGUF file."""

    out: Path = Path("runs/lm")
    """Folder of lessons, states and the model, planner.gguf. A stopped training goes on where it was."""
    data: DataName = "auto"
    """Whose training users' simulated sessions lessons are made of: kuairand-pure, twin, or auto."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    steps: int = Teaching.steps
    """Lessons taught."""
    rounds: int = 30
    """Times that 256 training users' sessions are played to make lessons of them."""
    seed: int = 0
    """Source of all luck."""
    threads: int = 1
    """Of torch; sums over several threads differ in their last digits."""

    def run(self) -> int:
        """Train it; 0."""
        for name in ("steps", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: it must be at least 1")
        console = Console()
        setup = Setup(self.data, None if self.data_dir is None else str(self.data_dir))
        fit_simulator(setup, console)
        torch.set_num_threads(self.threads)
        school = School(
            setup, self.out.resolve(), self.rounds, seed=self.seed, teaching=replace(Teaching(), steps=self.steps)
        )
        with ProgressDisplay(console, 1) as board:
            path = school.graduate(board.show)
            board.finish("embedded planner model")
        console.print(f"Wrote {path}: {path.stat().st_size / 1e6:.2f} MB", highlight=False, soft_wrap=True)
        return 0


@dataclass
class LmCard:
    """What the model can do: where it was taught, under invented names, and on other data, beside the controls."""

    llm: Path | None = None
    """GGUF file written by `rapport lm train`; by default the embedded model."""
    quick: bool = False
    """A quick look: 2 seeds, 200 sessions, unless these are given."""
    data: DataName = "auto"
    """kuairand-pure, twin, or auto: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    sessions: int | None = None
    """Complete sessions of held-out users per row and seed; 1,000 by default."""
    temperature: float = 0.8
    """Of drawing tokens; 0 takes the likeliest."""
    out: Path = Path("runs/lm-card")
    """Folder of first policies, results and the table."""
    workers: int | None = None
    """Processes; by default one per core."""

    def run(self) -> int:
        """Play, print and write; 0."""
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
        free = {service.label: unaided(study, service) for service in study.services}
        heard = heeded(study)
        _narrow(console)
        for label, lines in found.items():
            console.print(label, style="bold", highlight=False)
            console.print(grid(COLUMNS_OF_CARD, lines))
        for label, share in free.items():
            console.print(f"Without a grammar, answers that are plans, {label}: {share:.1%}", highlight=False)
        console.print(f"Reflections: {heard}", highlight=False)
        wrote(console, folder / "card.md", card_markdown(study, found, free, heard))
        return 0


@dataclass
class LmImprove:
    """Let the planner learn from its sessions: policy gradient on the tokens of plans; curves on held-out users."""

    llm: Path | None = None
    """GGUF file written by `rapport lm train`; by default the embedded model."""
    quick: bool = False
    """A quick look: 2 seeds, 10 rounds, 200 sessions, unless these are given."""
    data: DataName = "auto"
    """kuairand-pure, twin, or auto: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    rounds: int | None = None
    """Rounds of learning; 40 by default."""
    every: int = 10
    """Rounds between two points of the curve."""
    sessions: int | None = None
    """Complete sessions of held-out users per point and seed; 1,000 by default."""
    kl: float = Improving.kl
    """Weight of the divergence from the starting model."""
    learning_rate: float = Improving.learning_rate
    """Adam's."""
    out: Path = Path("runs/lm-improve")
    """Folder of first policies, results, improved models and the report."""
    workers: int | None = None
    """Processes; by default one per core."""

    def run(self) -> int:
        """Learn, print and write; 0."""
        numbers = _numbers(self, QUICK, FULL)
        if self.every < 1:
            raise ValueError(f"--every {self.every}: it must be at least 1")
        console = Console()
        setup = Setup(self.data, None if self.data_dir is None else str(self.data_dir))
        settings = Improving(rounds=numbers["rounds"], learning_rate=self.learning_rate, kl=self.kl)
        model = str((self.llm or embedded_model()).resolve())
        folder = self.out.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        study = ImprovingStudy(setup, model, numbers["seeds"], numbers["sessions"], self.every, str(folder), settings)
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
    """Tables keep to `WIDTH` columns, also where nobody looks."""
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH


def _numbers(command: LmCard | LmImprove, quick: dict[str, int], full: dict[str, int]) -> dict[str, int]:
    """Sizes that were given, else the defaults.

    Raises:
        ValueError: one is below 1.
    """
    defaults = quick if command.quick else full
    given = {name: getattr(command, name) for name in defaults}
    numbers = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name} {number}: it must be at least 1")
    return numbers
