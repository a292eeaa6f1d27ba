"""``rapport reproduce``: a paper's tables with one command, and the search for the hyper-parameters they use."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from rapport.agents.lerl import PPOConfig
from rapport.datasets.custom.manifest import is_manifest
from rapport.datasets.registry.load import available
from rapport.experiments.commands.options import (
    Cluster,
    FetchedData,
    LanguageModel,
    LanguageModelLimits,
    TrainingSizes,
    Workers,
    at_least_one,
)
from rapport.experiments.commands.run import fills_the_machine, find_run_data, planner_of, tell_problems
from rapport.experiments.core import EnvConfig, Experiment, jobs_of
from rapport.experiments.core.env_config import prepare
from rapport.experiments.lerl.environments import TITLES, data_of, session_env
from rapport.experiments.lerl.pages.paper import PAPER
from rapport.experiments.lerl.pages.reproduction import EnvironmentResults, reproduction_page, short_table
from rapport.experiments.lerl.pages.run import planner_label
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import (
    DEFINITIONS,
    OLD_NAMES,
    RECORDED,
    RowSettings,
    in_words,
    lerl_rows,
    tuned_settings,
)
from rapport.experiments.lerl.search import SPACES, Search
from rapport.experiments.lerl.sensitivity import sensitivity_rows
from rapport.experiments.report.page import publish
from rapport.experiments.results.store import wrote

EnvName = Literal["kuairand", "satiation", "kuairand-official", "kuairec"]
QUICK = {"seeds": 2, "transitions": 12_800, "sessions": 300}
FULL = {"seeds": 5, "transitions": 51_200, "sessions": 1_000}
MAIN = "kuairand"
"""The environment whose sensitivity is studied and whose sessions can be looked at."""


@dataclass(kw_only=True)
class ReproduceLerl(FetchedData, TrainingSizes, LanguageModel, LanguageModelLimits, Cluster):
    """Make LERL's main table, ablations, sensitivity studies and case study anew, paper beside ours."""

    out: Path = Path("runs/reproduce-lerl")
    """Folder of results, checkpoints and pages. A stopped grid goes on where it was; rows that `rapport run` has left
    in the same folder are taken from there."""
    worlds: tuple[EnvName, ...] = ("kuairand", "satiation", "kuairand-official", "kuairec")
    """Environments. KuaiRec is left out, and named as not run, where its data is not there."""
    methods: tuple[str, ...] = ()
    """Rows; by default all but LERL as published for KuaiRand under the paper's rule, those of a quick look elsewhere,
    and the paper's with LERL as published in the paper's own environments. The sensitivity studies are made beside the
    default rows."""
    plan_period: int = 20
    """Slates a plan holds."""

    def run(self) -> int:
        """Run the grid; 0 when the pages are written."""
        begun, console = time.monotonic(), Console()
        reproduction = self.reproduction(console)
        reproduction.say(console)
        experiments, folder = reproduction.experiments, self.out.resolve()
        for name, experiment in experiments.items():
            tell_problems(experiment, console, *([folder / MAIN / "results"] if name == MAIN else []))
        prepare([experiment.rows[0].env for experiment in experiments.values()], console)
        self.run_shared(jobs_of(experiments.values()), folder, console, 1 if fills_the_machine(self.llm) else None)
        reproduction.publish(folder, console)
        console.print(f"Done in {(time.monotonic() - begun) / 60:.1f} minutes.", highlight=False)
        return 0

    def reproduction(self, console: Console, base: PPOConfig | None = None) -> Reproduction:
        """The experiments, and the environments that cannot be run here with the reason.

        Args:
            console: where to say what is fetched.
            base: sizes of the policy; the defaults where None.
        """
        numbers = self.sizes(FULL, QUICK)
        at_least_one(plan_period=self.plan_period)
        if unknown := [name for name in self.methods if name not in (*DEFINITIONS, *OLD_NAMES)]:
            raise ValueError(f"--methods {unknown[0]}: unknown; choose of {', '.join(DEFINITIONS)}")
        folder = self.out.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        data = find_run_data(self.data, self.data_dir, console)
        envs: dict[str, EnvConfig] = {}
        missing: dict[str, str] = {}
        for name in dict.fromkeys(self.worlds):
            if is_manifest(data) and name != MAIN:
                missing[TITLES[name]] = "over a log of your own the first environment alone is run"
            elif self.quick and name == "kuairand-official":
                missing[TITLES[name]] = "not in a quick look: its simulator takes a quarter of an hour to fit"
            elif name == "kuairec" and not available("kuairec", self.data_dir):
                missing[TITLES[name]] = "KuaiRec is not in the data directory; rapport data fetch kuairec gets it"
            else:
                envs[name] = env_of(name, data, self.data_dir)
        if not envs:
            raise ValueError(
                f"--worlds {' '.join(self.worlds)}: none of them can be run here; {'; '.join(missing.values())}"
            )
        planner = planner_of(self, self, self.plan_period, folder)
        settings = RowSettings(planner, numbers["transitions"], base or PPOConfig(), tuned_settings(), folder)
        experiments: dict[str, Experiment] = {}
        for place, env in envs.items():
            rows, main = lerl_rows(self._rows(place), env, settings), place == MAIN
            if not rows:
                raise ValueError(f"--methods {' '.join(self.methods)}: a language model plans there; give --llm one")
            if main and not self.quick and not self.methods:
                rows += sensitivity_rows(rows, planner.llm is not None)
            protocol = HeldOutSessions(numbers["sessions"], recorded=RECORDED if main else ())
            experiments[place] = Experiment(rows, numbers["seeds"], protocol, folder if main else folder / place, place)
        return Reproduction(experiments, settings, missing)

    def _rows(self, env: str) -> tuple[str, ...]:
        """All rows for KuaiRand; elsewhere, and for a quick look, some of every kind, and the paper's where it ran."""
        published = {"lerl-published"}
        added = {
            "kuairand": set(DEFINITIONS) - published,
            "kuairand-official": set(PAPER["kuairand"]) | published,
            "kuairec": set(PAPER["kuairec"]) | published,
        }.get("" if self.quick else env, set())
        return self.methods or tuple(name for name, row in DEFINITIONS.items() if row.quick or name in added)


@dataclass(frozen=True)
class Reproduction:
    """Experiments in several environments.

    Attributes:
        experiments: by environment.
        settings: what all rows share.
        missing: titles of environments that cannot be run -> why.
    """

    experiments: Mapping[str, Experiment]
    settings: RowSettings
    missing: Mapping[str, str]

    def say(self, console: Console) -> None:
        """Tell what will be done."""
        first = next(iter(self.experiments.values()))
        cells = sum(len(experiment.rows) * experiment.seeds for experiment in self.experiments.values())
        assert isinstance(first.protocol, HeldOutSessions)
        console.print(
            f"{', '.join(self.experiments)}: {cells:,} results, {first.seeds} seeds, "
            f"{self.settings.transitions:,} transitions each, {first.protocol.sessions:,} sessions of held-out users; "
            f"kept in {self.settings.pretrained_folder}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def publish(self, folder: Path, console: Console) -> None:
        """Print the main table and what was found, and write the page."""
        planner = self.settings.planner
        results = [EnvironmentResults(name, one, planner) for name, one in self.experiments.items()]
        results.sort(key=lambda one: one.name != MAIN)
        page = reproduction_page(results, self.told(results[0]), self.missing)
        publish(page, folder, console, tables=[short_table(results[0])], name="reproduction")

    def told(self, main: EnvironmentResults) -> dict[str, str]:
        """What was run."""
        data, protocol = data_of(main.env), main.experiment.protocol
        assert isinstance(protocol, HeldOutSessions)
        tuned = "; ".join(f"{name}: {in_words(found)}" for name, found in self.settings.tuned.items() if found)
        return {
            "data": f"{data.name}, {data.population.n_users:,} users, {data.catalog.n_items:,} items, "
            f"{data.catalog.n_categories} categories, {len(data.log):,} exposures",
            "held-out users": f"{int(data.held_out.sum()):,}",
            "seeds": str(main.experiment.seeds),
            "transitions per learning method": f"{self.settings.transitions:,}",
            "sessions per row and seed": f"{protocol.sessions:,}",
            "planner": planner_label(self.settings.planner),
            "plan period": f"{self.settings.planner.period} slates",
            "hyper-parameters": tuned or "the defaults",
            "intervals": "95 % bootstrap of the interquartile mean over seeds and sessions; differences paired by seed",
        }


@dataclass(kw_only=True)
class ReproduceSearch(FetchedData, Workers):
    """Search hyper-parameters with an equal budget for every method, on training users alone."""

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
    """File to write what was found to, e.g. experiments/lerl/tuned.json, from where the rows take it. What it has of
    other methods stays."""

    def run(self) -> int:
        """Search; 0 when what was found is shown."""
        console = Console()
        at_least_one(trials=self.trials, transitions=self.transitions, sessions=self.sessions)
        if unknown := [name for name in self.methods if name not in SPACES]:
            raise ValueError(f"--methods {unknown[0]}: it has no settings to search; choose of {', '.join(SPACES)}")
        env = env_of("kuairand", find_run_data(self.data, self.data_dir, console), self.data_dir)
        budget = {"trials": self.trials, "transitions": self.transitions, "sessions": self.sessions}
        note = {"made by": "rapport reproduce search", "data": data_of(env).name, **budget}
        if self.write is not None:
            _with_others(self.write, note, {}, {})  # what it would refuse is refused before the search
        prepare([env], console)
        methods = self.methods or tuple(SPACES)
        search = Search(env, self.trials, self.transitions, self.sessions, self.out.resolve())
        self.run_jobs(search.jobs(methods), console)
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


def env_of(name: EnvName, data: str, data_dir: Path | None) -> EnvConfig:
    """One of the environments."""
    if name == "kuairand-official":
        return session_env("kuairand", data, data_dir, profile="official")
    return session_env(name, "kuairec" if name == "kuairec" else data, data_dir)
