"""``rapport planner cost | reflections``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from rapport.agents.planning.lm.embedded import EMBEDDED
from rapport.experiments.commands.evaluate import load_agent
from rapport.experiments.commands.run import fit_simulator
from rapport.experiments.commands.simulator import DataName
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.planner_study import Study, Variant, checkpoint_of, cost_variants, reflection_variants
from rapport.experiments.lerl.planner_tables import (
    Found,
    cost_figure,
    cost_verdict,
    found_in,
    reflections_figure,
    reflections_verdict,
    study_markdown,
    study_notes,
    study_page,
    study_tables,
)
from rapport.experiments.results.store import MethodResult, wrote
from rapport.experiments.results.summary import WIDTH, grid

QUICK = {"seeds": 2, "sessions": 200, "pool_sessions": 40}
"""What ``--quick`` makes of the settings that were not given."""
FULL = {"seeds": 5, "sessions": 1_000, "pool_sessions": 200}


@dataclass
class _PlannerStudy:
    llm: str = EMBEDDED
    """Language model that plans: `embedded`, a GGUF file or a server, as of `rapport run`."""
    quick: bool = False
    """A quick look: 2 seeds, 200 sessions, 40 to fill the pool, unless these are given."""
    data: DataName = "auto"
    """kuairand-pure, twin, or auto: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    checkpoint: Path | None = None
    """Folder of a run, e.g. runs/lerl, whose trained LERL agents play; by default first policies do, without RL."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    sessions: int | None = None
    """Complete sessions of held-out users per row and seed; 1,000 by default."""
    pool_sessions: int | None = None
    """Sessions of training users that fill each seed's pool of reflections beforehand; 200 by default."""
    llm_seconds: float | None = None
    """Seconds the language model may take for each row and seed; beyond them the heuristic plans. Default: no limit."""
    workers: int | None = None
    """Processes; by default one per core. Give 1 where a large GGUF file plans."""

    def _study(self, variants: Callable[[PlannerChoice], tuple[Variant, ...]], reference: str, out: Path) -> Study:
        defaults = QUICK if self.quick else FULL
        given = {name: getattr(self, name) for name in defaults}
        chosen = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
        for name, number in chosen.items():
            if number < 1:
                raise ValueError(f"--{name.replace('_', '-')} {number}: it must be at least 1")
        setup = Setup(self.data, None if self.data_dir is None else str(self.data_dir))
        if self.checkpoint is not None:
            setup = load_agent(checkpoint_of(self.checkpoint, 0), self.data, self.data_dir)[0]
        llm = PlannerChoice("llm", self.llm, self.llm_seconds)
        llm.open(seed=0)
        agents = None if self.checkpoint is None else str(self.checkpoint.resolve())
        numbers = chosen["seeds"], chosen["sessions"], chosen["pool_sessions"]
        return Study(setup, variants(llm), reference, *numbers, str(out.resolve()), agents)

    def _results(self, study: Study, console: Console) -> list[MethodResult]:
        """Play what has not been played yet."""
        jobs = study.jobs()
        if jobs:
            fit_simulator(study.setup, console)
            run_jobs(jobs, self.workers or os.cpu_count() or 1, console)
        return study.results()


def _publish(
    console: Console, study: Study, title: str, found: Sequence[Found], said: Sequence[str], figure: Callable[[], Any]
) -> None:
    """Print the table and what it says; write both as Markdown and, where plotly is there, as a page."""
    folder = Path(study.folder)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    for table in study_tables(found):
        console.print(grid(table.columns, table.rows))
        console.print()
    for line in study_notes(study):
        console.print(line, style="dim", highlight=False, markup=False)
    for line in ("", *said):
        console.print(line, highlight=False, markup=False)
    wrote(console, folder / "table.md", study_markdown(study, title, said, found))
    try:
        wrote(console, folder / "report.html", study_page(study, title, said, found, figure()))
    except ModuleNotFoundError as error:
        console.print(f"No page: {error}", style="yellow", highlight=False, markup=False)


@dataclass
class PlannerCost(_PlannerStudy):
    """Return against calls: plans that hold for 1 to 20 slates, or until a session surprises."""

    surprise: float = 2.0
    """Standard deviations from the clicks expected beyond which a session is planned anew, in the row that does so."""
    out: Path = Path("runs/planner-cost")
    """Folder of first policies, pools, results and the report. A stopped study goes on where it was."""

    def run(self) -> int:
        """Play, print and write; 0."""
        console = Console()
        study = self._study(lambda llm: cost_variants(llm, self.surprise), "llm-1", self.out)
        found = found_in(study, self._results(study, console))
        _publish(console, study, "What plans cost", found, cost_verdict(found), lambda: cost_figure(found))
        return 0


@dataclass
class PlannerReflections(_PlannerStudy):
    """What reflections do: as LERL draws them, none, with shuffled scores, and those on the worst sessions."""

    period: int = 5
    """Slates a plan holds."""
    out: Path = Path("runs/planner-reflections")
    """Folder of first policies, pools, results and the report. A stopped study goes on where it was."""

    def run(self) -> int:
        """Play, print and write; 0."""
        if self.period < 1:
            raise ValueError(f"--period {self.period}: it must be at least 1")
        console = Console()
        study = self._study(
            lambda llm: reflection_variants(replace(llm, period=self.period)), "llm-without-reflection", self.out
        )
        results = self._results(study, console)
        said = reflections_verdict(study, results)
        found = found_in(study, results)
        _publish(console, study, "What reflections do", found, said, lambda: reflections_figure(study, results))
        return 0
