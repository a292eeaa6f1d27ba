"""``rapport evaluate``: play a checkpoint on held-out users."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from stable_baselines3 import PPO

from rapport.agents.checkpoint import read_checkpoint, reading_note
from rapport.agents.llm.transcript import seal
from rapport.experiments.commands.options import DataDirectory, LanguageModelLimits, at_least_one
from rapport.experiments.core import EnvConfig, Row, ServingPolicy, Task
from rapport.experiments.core.own_code import is_own
from rapport.experiments.lerl.agents import load_agent, planner_of_agent, pool_of_agent
from rapport.experiments.lerl.config import (
    PlannerConfig,
    model_label,
    planner_by_name,
    planner_of_note,
    with_language_model,
)
from rapport.experiments.lerl.environments import env_of_note
from rapport.experiments.lerl.learners import slates_of
from rapport.experiments.lerl.metrics import METRICS
from rapport.experiments.lerl.pages.who_planned import relabelled
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS, OLD_NAMES
from rapport.experiments.report.table import Table
from rapport.experiments.results.llm_cost import COST_COLUMNS, cost_rows, mean_meter, planned_by
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import estimated


@dataclass(frozen=True)
class _Loaded:
    """Plays an agent that was read already."""

    agent: PPO

    def __call__(self, task: Task, progress: Any = None) -> ServingPolicy:
        return ServingPolicy(slates_of(self.agent, task))


@dataclass(kw_only=True)
class Evaluate(DataDirectory, LanguageModelLimits):
    """Play a trained agent on sessions of held-out users."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """A file that `rapport run` wrote, e.g. runs/lerl/checkpoints/lerl-seed0.safetensors."""
    data: str = "auto"
    """kuairand-pure, twin, auto: the first where it is there; or the manifest of a log of your own, shop.toml."""
    planner: str | None = None
    """Another planner than in training, as the table's row of that name has it: none, random, random-held, constant,
    rotation, "greedy preference", "greedy rotation", "top-k preference", or my.py:Planner, a class of your own."""
    plan_period: int | None = None
    """Slates a plan holds; by default as in training or, with --planner, as in the table's row of that name."""
    llm: str | None = None
    """Language model that plans: needed where the agent was trained with one of your own, because a checkpoint does not
    choose whom to ask; a GGUF file, a server, embedded, or replay:FILE, a transcript."""
    sessions: int = 1_000
    """Complete sessions per seed."""
    seeds: int = 5
    """Draws of users and chance."""

    def run(self) -> int:
        """Print T_int, R_cum and R_sin with 95 % intervals over users and chance; 0."""
        at_least_one(sessions=self.sessions, seeds=self.seeds)
        if self.checkpoint.suffix == ".zip" or is_own(str(self.checkpoint)):
            raise ValueError(
                f"{self.checkpoint}: no checkpoint of `rapport run`; an agent of your own has its row by "
                f"`rapport run --agent {self.checkpoint}`, and by rapport.evaluate in Python"
            )
        env, agent, note = trained_agent(self.checkpoint, self.data, self.data_dir)
        planner, console = self._planner(note), Console()
        name, label = _row_of(note)
        folder = self.checkpoint.resolve().parent.parent
        protocol = HeldOutSessions(self.sessions, pool_file=pool_of_agent(self.checkpoint, note))
        results = []
        for seed in range(self.seeds):
            console.print(f"  playing {self.sessions:,} sessions, draw {seed + 1} of {self.seeds}", highlight=False)
            row = Row(name, label, env, _Loaded(agent), planner=planner)
            task = Task(row, row, seed, folder)
            played = protocol(task, row.learner(task, lambda _: None))
            arrays, units, ids, meter, notes = played
            results.append(Result(name, label, seed, arrays, units, ids, meter, notes=notes))
        results = relabelled([row], {name: results})[name]
        if planner.record is not None:
            seal(Path(planner.record))
        self._print(console, note, planner, results)
        return 0

    def _planner(self, note: dict[str, Any]) -> PlannerConfig:
        if self.planner is None:
            planner = planner_of_agent(self.checkpoint, note, self.llm)
        else:
            with reading_note(self.checkpoint):
                period = planner_of_note(note["planner"]).period
            planner = planner_by_name(self.planner, period)
        if self.plan_period is not None:
            at_least_one(plan_period=self.plan_period)
            planner = replace(planner, period=self.plan_period)
        if planner.llm is not None:
            return with_language_model(planner, planner.llm, self.budget(), self.llm_record, self.model_settings())
        if self.llm_record is not None:
            raise ValueError(f"--llm-record {self.llm_record}: no language model plans here; give --llm")
        return planner

    def _print(self, console: Console, note: dict[str, Any], planner: PlannerConfig, results: list[Result]) -> None:
        who = f"{planner.name} (no LLM given)" if planner.llm is None else model_label(planner.llm)
        who = who if planner.own is None else planner.own.shown
        held = "every slate" if planner.period == 1 else f"every {planner.period} slates"
        schedule = f"A plan {held}, {'with' if planner.cools_down else 'without'} the one-slate cooldown."
        rows = []
        for metric in METRICS:
            value = estimated(results, metric)
            assert value is not None
            rows.append((f"{metric.name}, {metric.unit}", f"{value.point:.3f}", f"{value.low:.3f} to {value.high:.3f}"))
        title = f"{results[0].label}, {note['transitions']:,} transitions; planner: {who}"
        columns = (("measure", ""), ("value", ""), ("95 % interval", ""))
        console.print(Table(columns, tuple(rows), title))
        console.print(
            f"{note['dataset']}, quit rule {note['quit_rule']}, {self.seeds} draws of {self.sessions:,} held-out "
            f"users; chance in training is not in the interval. {schedule}",
            highlight=False,
            markup=False,
        )
        if planner.llm is not None:
            _print_cost(console, results)


def _print_cost(console: Console, results: list[Result]) -> None:
    """What the language model cost, who planned, and where a limit was reached."""
    label = results[0].label
    meter = mean_meter([r.meter for r in results])
    served = sum(r.served for r in results) / len(results)
    console.print(Table(COST_COLUMNS, tuple(cost_rows(label, meter, served))))
    notes = dict.fromkeys(f"{label}: {note}" for r in results for note in r.notes)
    for line in (*planned_by(label, meter), *notes):
        console.print(line, highlight=False, markup=False)


def trained_agent(checkpoint: Path, data: str, data_dir: Path | None) -> tuple[EnvConfig, PPO, dict[str, Any]]:
    """Where an agent was trained, the agent, and what its checkpoint says of it.

    Raises:
        CheckpointError: the file holds no agent, or one of other data.
    """
    note = read_checkpoint(checkpoint)[1]
    with reading_note(checkpoint):
        env = env_of_note(note, data, data_dir)
    agent, note = load_agent(checkpoint, env)
    return env, agent, note


def _row_of(note: dict[str, Any]) -> tuple[str, str]:
    """Short and shown name of the row that a checkpoint belongs to."""
    name = OLD_NAMES.get(note["method"], note["method"])
    name = name if name in DEFINITIONS else "no-rl"
    return name, DEFINITIONS[name].label
