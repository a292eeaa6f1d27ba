"""``rapport run``: from a log to a trained, evaluated and reported LERL agent, with its controls."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from rapport.agents.baselines.online_ctr import online_ctr_model
from rapport.agents.baselines.task import Settings
from rapport.agents.lerl import PPOConfig
from rapport.agents.llm.base.interface import Budget
from rapport.agents.llm.gguf.backend import is_small
from rapport.agents.llm.gguf.hub import PREFIX as HUB
from rapport.agents.llm.transcript import seal
from rapport.agents.planning.lm.embedded import EMBEDDED
from rapport.datasets.files.directory import data_directory
from rapport.datasets.registry.fetch import fetch
from rapport.datasets.registry.load import available
from rapport.datasets.schema import DataError
from rapport.envs.session.response.fit import Profile
from rapport.experiments.jobs.local import Named, run_jobs
from rapport.experiments.lerl.baseline_training import learn_baseline
from rapport.experiments.lerl.config import PlannerChoice, Setup, model_label, with_language_model
from rapport.experiments.lerl.grid import tuned_settings
from rapport.experiments.lerl.play import (
    NO_LLM,
    PLANNER_CONTROLS,
    SLATE_METHODS,
    Evaluation,
    play_agent,
    play_planned,
    play_slates,
)
from rapport.experiments.lerl.publish import publish
from rapport.experiments.lerl.training import Training, first_agent, train
from rapport.experiments.results.store import ResultStore, config_hash

LOGGER = logging.getLogger("rapport")
Progress = Callable[[float], None]
NO_MODEL = "none"

CLICK_LEARNERS = ("lerl-click", "mask-click")
"""Rows in which a click model that learns online takes PPO's place."""
QUICK = {"seeds": 2, "transitions": 12_800, "sessions": 500}
"""What ``--quick`` makes of the settings that were not given."""


@dataclass
class Run:
    """Train LERL and a planner-less PPO on simulated sessions of real people, and compare them with the controls."""

    quick: bool = False
    """A quick look: 2 seeds, 12,800 transitions, 500 sessions, unless these are given."""
    llm: str = EMBEDDED
    """Language model that plans: `embedded`, the small one that comes with Rapport; a GGUF file;
    hf:OWNER/REPO/FILE.gguf; an OpenAI-compatible server such as http://localhost:8080/v1#model; replay:FILE, the
    transcript of an earlier run; or none: then the planner is a heuristic, and every line says so."""
    data: Literal["auto", "kuairand-pure", "twin"] = "auto"
    """auto: KuaiRand-Pure where it is or can be fetched, else its statistical twin."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    out: Path = Path("runs/lerl")
    """Folder of checkpoints, results, TensorBoard logs and the report. A stopped run goes on where it was."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    transitions: int | None = None
    """Transitions each agent learns from; 51,200 by default."""
    sessions: int | None = None
    """Complete sessions of held-out users per method and seed; 1,000 by default."""
    quit_rule: Literal["positional", "set_overlap", "windowed_count", "satisfaction", "never"] = "positional"
    """When users leave."""
    profile: Profile = "corrected"
    """The environment: `corrected`, or `official`, that of LERL's released code with all its faults, which is slow."""
    plan_period: int = 20
    """Slates a plan holds; what was just shown is left out of it for one slate, but not in the official profile."""
    llm_seconds: float = 120.0
    """Seconds the language model may take in each training and each evaluation; beyond them the heuristic plans."""
    llm_calls: int | None = None
    """Prompts it may be sent in each training and each evaluation; beyond them the heuristic plans."""
    llm_tokens: int | None = None
    """Tokens it may read and write in each training and each evaluation; beyond them the heuristic plans."""
    llm_record: Path | None = None
    """File in which all prompts and answers are kept; --llm replay:FILE plays the run again without the model."""
    workers: int | None = None
    """Processes; by default one per core, and one alone where a GGUF file plans."""

    def run(self) -> int:
        """Run it; 0 when the table is printed."""
        begun = time.monotonic()
        console = Console()
        plan = Plan.of(self, find_run_data(self.data, self.data_dir, console))
        plan.say(console)
        fit_simulator(plan.setup, console)
        run_jobs(plan.jobs(), plan.workers, console)
        if plan.planner.record is not None:
            seal(plan.planner.record)
        publish(plan.store(), plan.facts(), plan.settings(), plan.setup, plan.folder, console)
        console.print(f"Done in {(time.monotonic() - begun) / 60:.1f} minutes.", highlight=False)
        return 0


@dataclass(frozen=True)
class Plan:
    """A run with all its settings decided; ``low_level`` is of planned agents, ``flat`` of the planner-less one."""

    setup: Setup
    planner: PlannerChoice
    low_level: PPOConfig
    flat: PPOConfig
    click: Settings
    seeds: int
    transitions: int
    sessions: int
    folder: Path
    workers: int

    @classmethod
    def of(cls, run: Run, data: str) -> Plan:
        """Decide what the command line left open, and see that it can be done."""
        defaults = QUICK if run.quick else {"seeds": 5, "transitions": 51_200, "sessions": 1_000}
        given = {name: getattr(run, name) for name in defaults}
        numbers = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
        for name, number in (*numbers.items(), ("plan-period", run.plan_period)):
            if number < 1:
                raise ValueError(f"--{name} {number}: it must be at least 1")
        folder = run.out.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        setup = Setup(data, None if run.data_dir is None else str(run.data_dir), run.quit_rule, profile=run.profile)
        rest = False if run.profile == "official" else None  # LERL's has none
        planner = PlannerChoice(period=run.plan_period, rest=rest)
        if run.llm != NO_MODEL:
            pool, cache = (str(folder / f"{name}.sqlite") for name in ("reflections", "llm-cache"))
            planner = replace(planner, name="llm", cache=cache, pool=pool)
            budget = Budget(run.llm_calls, run.llm_tokens, run.llm_seconds)
            planner = with_language_model(planner, run.llm, budget, run.llm_record)
            planner.open(seed=0)
        elif run.llm_record is not None:
            raise ValueError(f"--llm-record {run.llm_record}: there is nothing to record where no model plans")
        tuned = tuned_settings()
        low_level, flat = (replace(PPOConfig(), **tuned.get(name, {})) for name in ("lerl", "ppo"))
        workers = run.workers or (1 if fills_the_machine(run.llm) else min(os.cpu_count() or 1, 2 * numbers["seeds"]))
        click = tuned.get("lerl-click", {})
        return cls(setup, planner, low_level, flat, click, **numbers, folder=folder, workers=workers)

    @property
    def planner_label(self) -> str:
        """How every line names the planner."""
        return NO_LLM if self.planner.llm is None else model_label(self.planner.llm)

    def store(self) -> ResultStore:
        """Results of this very configuration."""
        config = {
            "environment": self.setup.identity(),
            "planner": asdict(self.planner),
            "low_level": [asdict(self.low_level), asdict(self.flat), self.click],
            "numbers": [self.transitions, self.sessions],
        }
        return ResultStore(self.folder / "results", config_hash(config))

    def training(self, method: str, seed: int) -> Training:
        """The training of one agent."""
        planner = self.planner if method in ("lerl", "lerl-click") else PlannerChoice("none")
        if method == "no-reflection":
            planner = self._without_reflection()
        elif method == "mask-click":
            planner = replace(planner, rest=True)
        elif planner.pool is not None:
            pool = f"{planner.pool.removesuffix('.sqlite')}{method.removeprefix('lerl')}-seed{seed}.sqlite"
            planner = replace(planner, pool=pool)
        low_level = self.flat if method == "ppo" else self.low_level
        return Training(self.setup, method, seed, self.transitions, str(self.folder), planner, low_level)

    def untrained(self) -> PlannerChoice:
        """The planner before any session was looked back on."""
        return self.planner if self.planner.llm is None else self._without_reflection()

    def _without_reflection(self) -> PlannerChoice:
        return replace(self.planner, name="llm without reflection", pool=None)

    def without_model(self) -> PlannerChoice:
        """The heuristic in the language model's place, its plans held as long."""
        return PlannerChoice(period=self.planner.period, rest=self.planner.rest)

    def learners(self) -> tuple[str, ...]:
        """Methods that are trained."""
        return ("lerl", "ppo", *CLICK_LEARNERS, *(("no-reflection",) if self.planner.llm is not None else ()))

    def jobs(self) -> list[Named]:
        """Per seed: the first policy, then all that is trained and played from it."""
        jobs = []
        for seed in range(self.seeds):
            later = tuple(
                Named(f"{method}, seed {seed}", TrainAndPlay(self, method, seed)) for method in self.learners()
            )
            jobs.append(Named(f"first policy, seed {seed}", FirstAndControls(self, seed), later))
        return jobs

    def say(self, console: Console) -> None:
        """Tell what will be done."""
        data = self.setup.session_data()
        console.print(
            f"Data: {data.name}, {data.population.n_users:,} users, {data.catalog.n_items:,} items, "
            f"{data.catalog.n_categories} categories, {len(data.log):,} exposures\n"
            f"planner: {self.planner_label}\n"
            f"{self.seeds} seeds, {self.transitions:,} transitions each, {self.sessions:,} sessions of held-out users, "
            f"{self.workers} processes; kept in {self.folder}",
            highlight=False,
            soft_wrap=True,
        )

    def settings(self) -> dict[str, str]:
        """What was run, for the report."""
        return {
            "environment": f"rapport/KuaiRand-v0, quit rule {self.setup.quit_rule}, budget {self.setup.budget:g}",
            "simulator profile": self.setup.profile,
            "planner": self.planner_label,
            **self.planner.limits(),
            "plan period": f"{self.planner.period} slates",
            "transitions per agent": f"{self.transitions:,}",
            "sessions per seed": f"{self.sessions:,}",
            "seeds": str(self.seeds),
            "low level": str(self.low_level),
            "low level without a planner": str(self.flat),
            "click model": ", ".join(f"{name} {value}" for name, value in self.click.items()) or "the defaults",
        }

    def facts(self) -> Any:
        """What the table's footer says."""
        from rapport.experiments.results.summary import RunFacts

        data = self.setup.session_data()
        return RunFacts(data.name, int(data.held_out.sum()), self.setup.profile, self.planner_label)


@dataclass(frozen=True)
class FirstAndControls:
    """Makes a seed's first policy and plays all that needs no training."""

    plan: Plan
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Do what is not done yet."""
        plan, store = self.plan, self.plan.store()
        first_agent(plan.training("ppo", self.seed), lambda share: progress(0.8 * share))
        task = Evaluation(plan.setup, self.seed, plan.sessions)
        for method in SLATE_METHODS:
            if store.load(method, self.seed) is None:
                store.save(play_slates(task, method))
        for method, learned, choice in (
            ("no-rl", "ppo", PlannerChoice("none")),
            ("lerl-no-rl", "lerl", plan.untrained()),
        ):
            if store.load(method, self.seed) is None:
                # It explores as widely as the one it is compared with: what they differ in is learning.
                agent = first_agent(plan.training(learned, self.seed), lambda _: None)
                store.save(play_agent(task, method, agent, choice))


@dataclass(frozen=True)
class TrainAndPlay:
    """Trains one agent and plays it; LERL's is also played under the planner controls."""

    plan: Plan
    method: str
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Do what is not done yet."""
        plan, store = self.plan, self.plan.store()
        names = [name for name in PLANNER_CONTROLS if name != "heuristic" or plan.planner.llm is not None]
        controls = names if self.method == "lerl" else []
        if all(store.load(method, self.seed) is not None for method in (self.method, *controls)):
            return
        training = plan.training(self.method, self.seed)
        task = Evaluation(plan.setup, self.seed, plan.sessions)
        if self.method in CLICK_LEARNERS:
            served = learn_baseline(training, online_ctr_model, plan.click, lambda share: progress(0.9 * share))
            result = play_planned(task, self.method, served.act, training.planner, served.cost)
            store.save(replace(result, curve=served.curve))
            return
        trained = train(training, lambda share: progress(0.9 * share))
        store.save(play_agent(task, self.method, trained.agent, training.planner, trained))
        for method in controls:
            choice = plan.without_model() if method == "heuristic" else PlannerChoice(PLANNER_CONTROLS[method])
            store.save(play_agent(task, method, trained.agent, choice))


def fills_the_machine(llm: str) -> bool:
    """Whether a language model runs in each process and is too large for several of them."""
    return llm.startswith(HUB) or (llm.lower().endswith(".gguf") and not is_small(Path(llm)))


def find_run_data(wanted: str, root: Path | None, console: Console) -> str:
    """The name of the KuaiRand data to use, fetched where that is wanted and possible."""
    if wanted != "auto":
        return wanted
    if available("kuairand-pure", root):
        return "kuairand-pure"
    console.print(f"KuaiRand-Pure is not in {data_directory(root)}; fetching it.", highlight=False, soft_wrap=True)
    try:
        fetch("kuairand-pure", root, attempts=2)
        return "kuairand-pure"
    except (DataError, OSError) as error:
        console.print(
            f"It could not be fetched: {error}\n"
            "Using its statistical twin, drawn from aggregate figures that ship with Rapport: what follows is of a "
            "made-up log throughout. For real data, put KuaiRand-Pure in the data directory and run this again.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
        return "twin"


def fit_simulator(setup: Setup, console: Console) -> None:
    """Fit the simulator, once for all processes, on all cores."""
    from rapport.envs.session.official.profile import FAULTS, official_settings
    from rapport.envs.session.simulator_cache import load_official, load_simulator
    from rapport.experiments.jobs.local import shown

    torch.set_num_threads(os.cpu_count() or 1)
    with shown(console, 1) as board:

        def report(done: int, total: int, loss: float) -> None:
            board.show("fitting the simulator", done / total)

        if setup.profile == "official":
            load_official(setup.session_data(), official_settings(frozenset(FAULTS)), report=report)
        else:
            load_simulator(setup.session_data(), report=report)
        board.finish("simulator")
