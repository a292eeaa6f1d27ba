"""``rapport run``: from a log to a trained, evaluated and reported LERL agent, with its controls."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from rapport.agents.lerl import PPOConfig
from rapport.agents.llm.gguf.backend import is_small
from rapport.agents.llm.gguf.hub import PREFIX as HUB
from rapport.agents.llm.transcript import seal
from rapport.datasets.files.directory import data_directory
from rapport.datasets.registry.fetch import fetch
from rapport.datasets.registry.load import available
from rapport.datasets.schema import DataError
from rapport.envs.session.response.fit import Profile
from rapport.experiments.commands.options import (
    FetchedData,
    LanguageModel,
    LanguageModelLimits,
    SomeEnvironment,
    TrainingSizes,
    Workers,
    at_least_one,
)
from rapport.experiments.core import EnvConfig, Experiment, Row
from rapport.experiments.core.env_config import prepare
from rapport.experiments.lerl.config import CACHE, LLM, PlannerConfig, with_language_model
from rapport.experiments.lerl.environments import data_of, reward_label, session_env, with_reward
from rapport.experiments.lerl.own_agents import OwnAgent, SB3Agent, own_rows, try_out_row
from rapport.experiments.lerl.pages.run import lerl_summary, planner_label, run_page
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import RECORDED, RUN_ROWS, RowSettings, in_words, lerl_rows, tuned_settings
from rapport.experiments.report.page import publish
from rapport.experiments.report.results_table import cost_table, results_table
from rapport.experiments.results.store import ResultStore
from rapport.experiments.results.summary import footer

NO_MODEL = "none"
QUICK = {"seeds": 2, "transitions": 12_800, "sessions": 500}
"""What ``--quick`` makes of the settings that were not given."""
FULL = {"seeds": 5, "transitions": 51_200, "sessions": 1_000}


@dataclass(kw_only=True)
class Run(FetchedData, SomeEnvironment, TrainingSizes, LanguageModel, LanguageModelLimits, Workers):
    """Train LERL and a planner-less PPO on simulated sessions of real people, and compare them with the controls."""

    out: Path = Path("runs/lerl")
    """Folder of checkpoints, results, TensorBoard logs and the report. A stopped run goes on where it was."""
    quit_rule: Literal["positional", "set_overlap", "windowed_count", "satisfaction", "never"] | None = None
    """When users leave; by default as the environment has it, `positional` for KuaiRand."""
    reward: str | None = None
    """What a slate is worth: a behaviour, e.g. `long_view`, or weights, e.g. `click=1,like=0.5,hate=-1`; by default the
    click."""
    profile: Profile | None = None
    """The environment: `corrected`, or `official`, that of LERL's released code with all its faults, which is slow. By
    default as the environment has it, `corrected` for KuaiRand."""
    plan_period: int = 20
    """Slates a plan holds; what was just shown is left out of it for one slate."""
    agent: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An agent of your own as one more row, e.g. my.py:Agent, package.module:Agent, model.zip of Stable-Baselines3 or
    PPO:model.zip; may be given several times. See docs/your_agent.md."""
    planner: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A planner of your own over LERL's policy as one more row, e.g. my.py:Planner; may be given several times."""

    def run(self) -> int:
        """Run it; 0 when the table is printed."""
        begun, console = time.monotonic(), Console()
        planned = self.planned(find_run_data(self.data, self.data_dir, console, self.env))
        planned.say(console)
        tell_problems(planned.experiment, console)
        prepare([planned.env], console)
        planned.try_out()
        self.run_jobs(planned.experiment.jobs(), console, planned.processes)
        if planned.settings.planner.record is not None:
            seal(Path(planned.settings.planner.record))
        summary = lerl_summary(planned.experiment, planned.experiment.results(), planned.settings.planner)
        tables = [table for table in (results_table(summary), cost_table(summary)) if table is not None]
        page = run_page(planned.experiment, planned.settings.planner, planned.told())
        publish(page, planned.folder, console, tables=tables)
        for line in footer(summary):
            console.print(line, style="dim", highlight=False, markup=False)
        console.print(
            f"Curves: tensorboard --logdir {planned.folder / 'tensorboard'}\n"
            f"Checkpoints: {planned.folder / 'checkpoints'} (rapport evaluate FILE)",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        console.print(f"Done in {(time.monotonic() - begun) / 60:.1f} minutes.", highlight=False)
        return 0

    def planned(self, data: str, base: PPOConfig | None = None) -> PlannedRun:
        """Decide what the command line left open, and see that it can be done.

        Args:
            data: name of the data set.
            base: sizes of the policy; the defaults where None.
        """
        numbers = self.sizes(FULL, QUICK)
        at_least_one(plan_period=self.plan_period)
        folder = self.out.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        env = session_env(self.env, data, self.data_dir, quit_rule=self.quit_rule, profile=self.profile)
        env = with_reward(env, self.reward)
        planner = planner_of(self, self, self.plan_period, folder)
        settings = RowSettings(planner, numbers["transitions"], base or PPOConfig(), tuned_settings())
        protocol = HeldOutSessions(numbers["sessions"], recorded=RECORDED)
        rows = lerl_rows(RUN_ROWS, env, settings)
        rows += own_rows(self.agent, self.planner, env, settings)
        experiment = Experiment(rows, numbers["seeds"], protocol, folder)
        return PlannedRun(experiment, env, settings, self.llm)


@dataclass(frozen=True)
class PlannedRun:
    """A run with all its settings decided."""

    experiment: Experiment
    env: EnvConfig
    settings: RowSettings
    llm: str = field(default=NO_MODEL)

    @property
    def folder(self) -> Path:
        """Keeps everything."""
        return self.experiment.folder

    @property
    def processes(self) -> int:
        """Processes where none are named: no more than there is work for."""
        return 1 if fills_the_machine(self.llm) else min(os.cpu_count() or 1, 2 * self.experiment.seeds)

    def try_out(self) -> None:
        """See that the user's own agents and planners can serve, before anything is trained.

        Raises:
            OwnCodeError: one cannot.
        """
        for row in self.experiment.rows:
            try_out_row(row)

    def say(self, console: Console) -> None:
        """Tell what will be done."""
        data, protocol = data_of(self.env), self.experiment.protocol
        assert isinstance(protocol, HeldOutSessions)
        console.print(
            f"Data: {data.name}, {data.population.n_users:,} users, {data.catalog.n_items:,} items, "
            f"{data.catalog.n_categories} categories, {len(data.log):,} exposures\n"
            f"planner: {planner_label(self.settings.planner)}\n"
            f"{self._own()}"
            f"{self.experiment.seeds} seeds, {self.settings.transitions:,} transitions each, {protocol.sessions:,} "
            f"sessions of held-out users; kept in {self.folder}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _own(self) -> str:
        own = [f"{row.label}, digest {digest}" for row, digest in self._own_rows()]
        return f"your own: {'; '.join(own)}\n" if own else ""

    def _own_rows(self) -> list[tuple[Row, str]]:
        """Rows of the user's own, and what tells their files from others."""
        found = []
        for row in self.experiment.rows:
            if isinstance(row.learner, OwnAgent):
                found.append((row, row.learner.code.digest))
            elif isinstance(row.learner, SB3Agent):
                found.append((row, row.learner.digest))
            elif row.planner is not None and row.planner.own is not None:
                found.append((row, row.planner.own.digest))
        return found

    def told(self) -> dict[str, str]:
        """What was run, for the report."""
        kwargs, settings, protocol = self.env.kwargs, self.settings, self.experiment.protocol
        assert isinstance(protocol, HeldOutSessions)
        click = settings.tuned.get("lerl-click", {})
        return {
            "environment": f"{self.env.id} over {self.env.data['dataset']}, quit rule {kwargs['quit_rule']}, "
            f"budget {kwargs['budget']:g}",
            "reward": reward_label(self.env),
            "profile": str(kwargs.get("profile", "none")),
            "planner": planner_label(settings.planner),
            **settings.planner.limits(),
            "plan period": f"{settings.planner.period} slates",
            "transitions per agent": f"{settings.transitions:,}",
            "sessions per seed": f"{protocol.sessions:,}",
            "seeds": str(self.experiment.seeds),
            "PPO under a planner": _ppo(settings.low_level("lerl")),
            "PPO without a planner": _ppo(settings.low_level("ppo")),
            "online CTR model": in_words(click) or "the defaults",
            **{row.label: f"digest {digest}" for row, digest in self._own_rows()},
        }


def _ppo(low_level: PPOConfig) -> str:
    """PPO's settings in words."""
    names = ("learning_rate", "gamma", "gae_lambda", "clip_range", "log_std_init", "n_envs", "n_steps", "n_epochs")
    return ", ".join(f"{name.replace('_', ' ')} {getattr(low_level, name):g}" for name in names)


def planner_of(model: LanguageModel, limits: LanguageModelLimits, period: int, folder: Path) -> PlannerConfig:
    """Who plans LERL's rows, as a command line says; a language model is opened once, to see that it is there.

    Raises:
        ValueError: there is nothing to record.
        FileNotFoundError: there is no such model file.
        ConnectionError: the server does not answer.
    """
    planner = PlannerConfig(period=period)
    if model.llm == NO_MODEL:
        if limits.llm_record is not None:
            raise ValueError(f"--llm-record {limits.llm_record}: there is nothing to record where no model plans")
        return planner
    planner = replace(planner, name=LLM, cache=str(folder / CACHE))
    planner = with_language_model(planner, model.llm, limits.budget(), limits.llm_record, limits.model_settings())
    planner.open(seed=0)
    return planner


def tell_problems(experiment: Experiment, console: Console, *former: Path) -> None:
    """Say which results are damaged and which are of an earlier version, before their rows are run anew.

    Args:
        experiment: whose results are looked through; damaged ones are set aside.
        console: where to say it.
        former: further folders, in which an earlier version kept results.
    """
    experiment.results()
    for problem in experiment.store.problems:
        said = f"A damaged result was set aside: {problem}"
        console.print(said, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for store in (experiment.store, *map(ResultStore, former)):
        if old := store.of_earlier_formats():
            console.print(
                f"{len(old)} results of an earlier version of Rapport are in {store.folder}, e.g. {old[0].name}: they "
                "are left alone and not read; their rows are run anew.",
                style="yellow",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def fills_the_machine(llm: str) -> bool:
    """Whether a language model runs in each process and is too large for several of them."""
    return llm.startswith(HUB) or (llm.lower().endswith(".gguf") and not is_small(Path(llm)))


def find_run_data(wanted: str, root: Path | None, console: Console, env: str = "rapport/KuaiRand-v0") -> str:
    """The name of the data to use, KuaiRand's fetched where that is wanted and possible."""
    if wanted != "auto" or not env.startswith("rapport/KuaiRand"):
        return wanted
    if available("kuairand-pure", root):
        return "kuairand-pure"
    console.print(
        f"KuaiRand-Pure is not in {data_directory(root)}; fetching it.", highlight=False, markup=False, soft_wrap=True
    )
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
            markup=False,
            soft_wrap=True,
        )
        return "twin"
