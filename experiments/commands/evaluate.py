"""``rapport evaluate``: play a checkpoint on held-out users."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO

from rapport.agents.checkpoint import check_note, read_checkpoint, restore_agent
from rapport.agents.lerl import PPOConfig, new_agent, pretrain_policy
from rapport.agents.llm.base.interface import Budget
from rapport.agents.llm.transcript import seal
from rapport.agents.policies.encoder import EncoderSettings
from rapport.experiments.lerl.config import PlannerChoice, Setup, model_label, planned, with_language_model
from rapport.experiments.lerl.play import LABELS, NO_LLM, Evaluation, play_agent
from rapport.experiments.results.llm_cost import COST_COLUMNS, cost_rows, mean_meter, planned_by
from rapport.experiments.results.stats import Estimate, Scores, estimate
from rapport.experiments.results.store import MethodResult
from rapport.experiments.results.summary import grid


@dataclass
class Evaluate:
    """Play a trained agent on sessions of held-out users."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """A file that `rapport run` wrote, e.g. runs/lerl/checkpoints/lerl-seed0.safetensors."""
    data: str = "auto"
    """kuairand-pure, twin, or auto: the first where it is there."""
    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""
    planner: str | None = None
    """Another planner than in training: none, random, rotation, "greedy preference",
    "greedy rotation" or "lasting preference"."""
    llm: str | None = None
    """Another language model than the agent was trained with, or replay:FILE, a transcript."""
    llm_seconds: float = 120.0
    """Seconds the language model may take for each draw; beyond them the heuristic plans."""
    llm_calls: int | None = None
    """Prompts it may be sent for each draw."""
    llm_tokens: int | None = None
    """Tokens it may read and write for each draw."""
    llm_record: Path | None = None
    """File in which all prompts and answers are kept; --llm replay:FILE plays them again without the model."""
    sessions: int = 1_000
    """Complete sessions per seed."""
    seeds: int = 5
    """Draws of users and luck."""

    def run(self) -> int:
        """Print T_int, R_cum and R_sin with 95 % intervals over users and luck; 0."""
        setup, agent, note = load_agent(self.checkpoint, self.data, self.data_dir)
        choice = self._choice(note)
        console = Console()
        results = []
        for seed in range(self.seeds):
            console.print(f"  playing {self.sessions:,} sessions, draw {seed + 1} of {self.seeds}", highlight=False)
            results.append(play_agent(Evaluation(setup, seed, self.sessions), _row_of(note), agent, choice))
        if choice.record is not None:
            seal(choice.record)
        self._print(console, note, choice, results)
        return 0

    def _choice(self, note: dict[str, Any]) -> PlannerChoice:
        trained_with = PlannerChoice(**note["planner"])
        choice = trained_with if self.llm is None else replace(trained_with, name="llm", llm=self.llm, cache=None)
        if self.planner is not None:
            choice = PlannerChoice(self.planner, period=trained_with.period)
        if choice.llm is not None:
            budget = Budget(self.llm_calls, self.llm_tokens, self.llm_seconds)
            return with_language_model(choice, choice.llm, budget, self.llm_record)
        if self.llm_record is not None:
            raise ValueError(f"--llm-record {self.llm_record}: no language model plans here; give --llm")
        return choice

    def _print(self, console: Console, note: dict[str, Any], choice: PlannerChoice, results: list[Any]) -> None:
        scores = {
            "T_int, slates": Scores.mean([r.lengths for r in results]),
            "R_cum, summed click rate": Scores.mean([r.returns for r in results]),
            "R_sin, click rate": Scores.ratio([r.returns for r in results], [r.lengths for r in results]),
        }
        who = f"{choice.name}, {NO_LLM}" if choice.llm is None else model_label(choice.llm)
        table = Table(title=f"{LABELS[_row_of(note)]}, {note['transitions']:,} transitions\nplanner: {who}")
        table.add_column("measure")
        table.add_column("value", justify="right")
        table.add_column("95 % interval", justify="right")
        for name, score in scores.items():
            value: Estimate = estimate(score, np.random.default_rng(0))
            table.add_row(name, f"{value.point:.3f}", f"{value.low:.3f} to {value.high:.3f}")
        console.print(table)
        console.print(
            f"{note['dataset']}, quit rule {note['quit_rule']}, "
            f"{self.seeds} draws of {self.sessions:,} held-out users; training luck is not in the interval.",
            highlight=False,
        )
        if choice.llm is not None:
            _print_cost(console, LABELS[_row_of(note)], results)


def _print_cost(console: Console, label: str, results: list[MethodResult]) -> None:
    """What the language model cost, who planned, and where a limit was reached."""
    meter = mean_meter([r.meter for r in results])
    slates = sum(r.steps_total for r in results) / len(results)
    console.print(grid(COST_COLUMNS, cost_rows(label, meter, slates)))
    notes = dict.fromkeys(f"{label}: {note}" for r in results for note in r.notes)
    for line in (*planned_by(label, meter), *notes):
        console.print(line, highlight=False, markup=False)


def load_agent(checkpoint: Path, data: str, data_dir: Path | None) -> tuple[Setup, PPO, dict[str, Any]]:
    """A trained agent, where it was trained, and what its checkpoint says of it.

    Raises:
        CheckpointError: the file holds no agent, or one of other data.
    """
    arrays, note = read_checkpoint(checkpoint)
    setup = Setup(
        data,
        None if data_dir is None else str(data_dir),
        note["quit_rule"],
        note["budget"],
        note["slate_size"],
        note["profile"],
        note["environment"],
    )
    check_note(checkpoint, note, setup.identity())
    low_level = stored_low_level(note)
    sessions = planned(
        setup.sessions(low_level.n_envs, "held_out"),
        setup.session_data(),
        PlannerChoice("none"),
        None,
        np.random.default_rng(0),
    )
    agent = new_agent(sessions, low_level, seed=0)
    pretrain_policy(agent, setup.session_data(), low_level, seed=0)
    restore_agent(checkpoint, agent, arrays, note)
    return setup, agent, note


def stored_low_level(note: dict[str, Any]) -> PPOConfig:
    """The low level's settings as they stand in a checkpoint, without the warm start that its weights already carry."""
    settings = {**note["low_level"], "warm_start": None}
    return PPOConfig(**{**settings, "encoder": EncoderSettings(**settings["encoder"])})


def _row_of(note: dict[str, Any]) -> str:
    return note["method"] if note["method"] in LABELS else "no-rl"
