"""``rapport reproduce``: a paper's tables with one command, and the search for the hyper-parameters they use."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from rapport.agents.llm.base.interface import Budget
from rapport.agents.planning.lm.embedded import EMBEDDED
from rapport.datasets.registry.load import available
from rapport.experiments.commands.run import NO_MODEL, fills_the_machine, find_run_data, fit_simulator
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.jobs.ray import check_shared, run_on_ray
from rapport.experiments.lerl.config import PlannerChoice, Setup, with_language_model
from rapport.experiments.lerl.grid import Grid, World, tuned_settings
from rapport.experiments.lerl.grid_jobs import grid_jobs
from rapport.experiments.lerl.paper import PAPER
from rapport.experiments.lerl.report import write_document
from rapport.experiments.lerl.rows import METHODS
from rapport.experiments.lerl.search import SPACES, Search
from rapport.experiments.results.store import wrote

WorldName = Literal["kuairand", "satiation", "kuairand-official", "kuairec"]
TITLES: dict[WorldName, str] = {
    "kuairand": "KuaiRand, the paper's quit rule",
    "satiation": "KuaiRandSatiation, where people tire as measured",
    "kuairand-official": "KuaiRand, official profile: the released code's environment",
    "kuairec": "KuaiRec, the paper's quit rule",
}
QUICK = {"seeds": 2, "transitions": 12_800, "sessions": 300}
FULL = {"seeds": 5, "transitions": 51_200, "sessions": 1_000}


@dataclass
class ReproduceLerl:
    """Make LERL's main table, ablations, sensitivity studies and case study anew, paper beside ours."""

    quick: bool = False
    """A quick look in minutes: fewer rows, 2 seeds, 12,800 transitions, 300 sessions, unless these are given."""
    llm: str = EMBEDDED
    """Language model that plans, as of `rapport run`; none: the heuristic plans, and every line says so."""
    data: Literal["auto", "kuairand-pure", "twin"] = "auto"
    """auto: KuaiRand-Pure where it is or can be fetched, else its statistical twin."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    out: Path = Path("runs/reproduce-lerl")
    """Folder of results, checkpoints and pages. A stopped grid goes on where it was."""
    worlds: tuple[WorldName, ...] = ("kuairand", "satiation", "kuairand-official", "kuairec")
    """Environments. KuaiRec is left out, and named as not run, where its data is not there."""
    methods: tuple[str, ...] = ()
    """Rows; by default all but LERL as published for KuaiRand under the paper's rule, those of a quick look elsewhere,
    and the paper's with LERL as published in the paper's own environments."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    transitions: int | None = None
    """Transitions each agent learns from; 51,200 by default."""
    sessions: int | None = None
    """Complete sessions of held-out users per row and seed; 1,000 by default."""
    plan_period: int = 20
    """Slates a plan holds."""
    llm_seconds: float = 600.0
    """Seconds the language model may take in each training and each evaluation; beyond them the heuristic plans."""
    ray: str | None = None
    """Address of a Ray cluster, e.g. 10.0.0.1:6379, whose nodes share the run folder; by default this machine alone."""
    workers: int | None = None
    """Processes; by default one per core."""

    def run(self) -> int:
        """Run the grid; 0 when the pages are written."""
        begun, console = time.monotonic(), Console()
        grid, missing = self.grid(console)
        say(grid, console)
        fit_all(grid, console)
        studies = [] if self.quick else [world for world in grid.worlds if world.main]
        jobs = grid_jobs(grid, studies)
        if self.ray is not None:
            check_shared(Path(grid.folder), self.ray)
            run_on_ray(jobs, self.ray, console)
        else:
            workers = self.workers or (1 if fills_the_machine(self.llm) else os.cpu_count() or 1)
            run_jobs(jobs, workers, console)
        write_document(grid, missing, console)
        console.print(f"Done in {(time.monotonic() - begun) / 60:.1f} minutes.", highlight=False)
        return 0

    def grid(self, console: Console) -> tuple[Grid, dict[str, str]]:
        """The grid, and the worlds that cannot be run here with the reason."""
        defaults = QUICK if self.quick else FULL
        numbers = {k: v if getattr(self, k) is None else getattr(self, k) for k, v in defaults.items()}
        for name, number in (*numbers.items(), ("plan-period", self.plan_period)):
            if number < 1:
                raise ValueError(f"--{name} {number}: it must be at least 1")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"--methods {unknown[0]}: unknown; choose of {', '.join(METHODS)}")
        folder = self.out.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        data = find_run_data(self.data, self.data_dir, console)
        root = None if self.data_dir is None else str(self.data_dir)
        worlds, missing = [], {}
        for name in dict.fromkeys(self.worlds):
            if self.quick and name == "kuairand-official":
                missing[TITLES[name]] = "not in a quick look: its simulator takes a quarter of an hour to fit"
            elif name == "kuairec" and not available("kuairec", self.data_dir):
                missing[TITLES[name]] = "KuaiRec is not in the data directory; rapport data fetch kuairec gets it"
            else:
                setup = setup_of(name, data, root)
                worlds.append(World(name, TITLES[name], setup, self._methods(name), main=name == "kuairand"))
        if not worlds:
            raise ValueError(
                f"--worlds {' '.join(self.worlds)}: none of them can be run here; {'; '.join(missing.values())}"
            )
        sizes = (numbers["seeds"], numbers["transitions"], numbers["sessions"])
        return Grid(tuple(worlds), self._planner(folder), *sizes, str(folder), tuned_settings()), missing

    def _methods(self, world: WorldName) -> tuple[str, ...]:
        """All rows for KuaiRand; elsewhere, and for a quick look, some of every kind, and the paper's where it ran."""
        published = {"lerl-published"}
        added = {
            "kuairand": set(METHODS) - published,
            "kuairand-official": set(PAPER["kuairand"]) | published,
            "kuairec": set(PAPER["kuairec"]) | published,
        }.get("" if self.quick else world, set())
        return self.methods or tuple(name for name, row in METHODS.items() if row.quick or name in added)

    def _planner(self, folder: Path) -> PlannerChoice:
        choice = PlannerChoice(period=self.plan_period)
        if self.llm == NO_MODEL:
            return choice
        choice = replace(choice, name="llm", cache=str(folder / "llm-cache.sqlite"))
        choice = with_language_model(choice, self.llm, Budget(None, None, self.llm_seconds), None)
        choice.open(seed=0)
        return choice


@dataclass
class ReproduceSearch:
    """Search hyper-parameters with an equal budget for every method, on training users alone."""

    data: Literal["auto", "kuairand-pure", "twin"] = "auto"
    """auto: KuaiRand-Pure where it is or can be fetched, else its statistical twin."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    out: Path = Path("runs/search")
    """Folder of trials; a stopped search goes on where it was."""
    trials: int = 8
    """Settings tried per method, the defaults among them."""
    transitions: int = 12_800
    """Transitions a trial learns from."""
    sessions: int = 500
    """Sessions of training users that judge a trial."""
    methods: tuple[str, ...] = ()
    """Methods; by default all that have settings."""
    write: Path | None = None
    """File to write what was found to, e.g. experiments/lerl/tuned.json, from where the grid takes it. What it has
    of other methods stays."""
    workers: int | None = None
    """Processes; by default one per core."""

    def run(self) -> int:
        """Search; 0 when what was found is shown."""
        console = Console()
        for name in ("trials", "transitions", "sessions"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: it must be at least 1")
        if unknown := [name for name in self.methods if name not in SPACES]:
            raise ValueError(f"--methods {unknown[0]}: it has no settings to search; choose of {', '.join(SPACES)}")
        data = find_run_data(self.data, self.data_dir, console)
        setup = setup_of("kuairand", data, None if self.data_dir is None else str(self.data_dir))
        budget = {"trials": self.trials, "transitions": self.transitions, "sessions": self.sessions}
        note = {"made by": "rapport reproduce search", "data": setup.session_data().name, **budget}
        if self.write is not None:
            _with_others(self.write, note, {}, {})  # what it would refuse is refused before the search
        fit_simulator(setup, console)
        methods = self.methods or tuple(SPACES)
        search = Search(setup, self.trials, self.transitions, self.sessions, str(self.out.resolve()))
        run_jobs(search.jobs(methods), self.workers or os.cpu_count() or 1, console)
        found = {method: result for method in methods if (result := search.result(method)) is not None}
        for method, result in found.items():
            console.print(
                f"  {method:<26} R_cum {result['value']:.2f}, with the defaults {result['defaults']:.2f}: "
                f"{result['settings'] or 'the defaults stay'}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        if self.write is not None:
            kept = {m: r["settings"] for m, r in found.items() if r["settings"]}
            values = {m: {k: round(r[k], 3) for k in ("value", "defaults")} for m, r in found.items()}
            wrote(console, self.write, json.dumps(_with_others(self.write, note, values, kept), indent=1) + "\n")
        return 0


def _with_others(path: Path, note: dict[str, Any], values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What was found now, beside what the file has of other methods.

    Raises:
        ValueError: the file is of something else, or its search had another budget.
    """
    if not path.exists():
        return {**note, "R_cum": values, "settings": settings}
    try:
        old = json.loads(path.read_text("utf-8"))
        kept = old["R_cum"], old["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--write {path}: it is there and no search's file ({error!r}); name another file, or delete it"
        ) from error
    if differs := [name for name in note if old.get(name) != note[name]]:
        name = differs[0]
        raise ValueError(
            f"--write {path}: its search had {name} {old.get(name)}, this one {note[name]}; search with that, search "
            "all methods anew into another file, or delete it"
        )
    others = {name: found for name, found in kept[1].items() if name not in values}
    return {**note, "R_cum": {**kept[0], **values}, "settings": {**others, **settings}}


def setup_of(name: WorldName, data: str, root: str | None) -> Setup:
    """Data and environment of a world."""
    if name == "kuairec":
        return Setup("kuairec", root, environment="kuairec")
    if name == "satiation":
        return Setup(data, root, "satiation", environment="satiation")
    return Setup(data, root, profile="official" if name == "kuairand-official" else "corrected")


def say(grid: Grid, console: Console) -> None:
    """Tell what will be done."""
    cells = sum(len(world.methods) for world in grid.worlds) * grid.seeds
    names = ", ".join(world.name for world in grid.worlds)
    console.print(
        f"{names}: {cells:,} cells, {grid.seeds} seeds, {grid.transitions:,} transitions each, {grid.sessions:,} "
        f"sessions of held-out users; kept in {grid.folder}",
        highlight=False,
        soft_wrap=True,
    )


def fit_all(grid: Grid, console: Console) -> None:
    """Fit every simulator the worlds need, once for all processes."""
    for setup in {world.setup.profile: world.setup for world in grid.worlds if world.name != "kuairec"}.values():
        fit_simulator(setup, console)
