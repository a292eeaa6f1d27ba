"""Policy-gradient fine-tuning of the planner model: learning curves on held-out users, against the frozen model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO

from rapport.agents.lerl import PPOConfig, slate_policy
from rapport.agents.llm.gguf.backend import file_fingerprint
from rapport.agents.llm.scripted import ScriptedLLM
from rapport.agents.lm.gguf import read_gguf, write_gguf
from rapport.agents.planning.build import TOP_K_PREFERENCE, control_planner, llm_planner
from rapport.agents.planning.lm.lookahead import FixedPlanPolicy
from rapport.agents.planning.lm.policy_gradient import PolicyGradientConfig, PolicyGradientTrainer, Update
from rapport.agents.planning.lm.torch_planner import TorchPlanner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.registry.licence import licence_note
from rapport.experiments.core import (
    LOCAL,
    EnvConfig,
    Episodes,
    Experiment,
    Prerequisite,
    Row,
    ServingPolicy,
    Task,
    play,
)
from rapport.experiments.core.row import Progress
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.learners import PretrainedLearner, slates_of
from rapport.experiments.lerl.metrics import R_CUM, T_INT
from rapport.experiments.lerl.protocol import UNITS, Variety, evaluation_users
from rapport.experiments.lerl.training import pretrained_agent
from rapport.experiments.report.blocks import Figure
from rapport.experiments.report.figures import COLOURS, lay_out
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.table import Table
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import write_atomically
from rapport.experiments.results.summary import Found, compare, estimated

COLUMNS = (
    ("rounds", ""),
    T_INT.column,
    R_CUM.column,
    ("against frozen", "R_cum, paired"),
    ("KL", "nats a token"),
    ("no plan", "of completions"),
)
_HELD = 20
"""Slates a plan holds during evaluation: one plan per session."""


class Snapshot(NamedTuple):
    """A fine-tuned model after some updates: its weights, and beside them what the last update said."""

    weights: Path
    note: Path

    @classmethod
    def of(cls, folder: Path, seed: int, rounds: int) -> Snapshot:
        """Where the snapshot of a seed is kept."""
        path = folder / "models" / f"rounds-{rounds:04d}-seed{seed}"
        return cls(path.with_suffix(".safetensors"), path.with_suffix(".json"))

    def is_there(self) -> bool:
        """Whether it was kept whole: the note is written last."""
        return self.weights.exists() and self.note.exists()


@dataclass(frozen=True)
class FineTuned:
    """The planner model after ``rounds`` updates; the row that all others name in ``trained_as`` fine-tunes it.

    Attributes:
        fingerprint: of the initial model's file.
        config: hyper-parameters of the fine-tuning.
        points: numbers of updates after which the model is kept.
        rounds: which of them the row plays.
        low_level: of the pretrained policy under the plans.
        model: the initial model's GGUF file.
    """

    fingerprint: str
    config: PolicyGradientConfig
    points: tuple[int, ...]
    rounds: int
    low_level: PPOConfig = field(default_factory=PPOConfig)
    model: Path = field(default=Path(), metadata=LOCAL)

    def prerequisite(self, task: Task) -> Prerequisite:
        """The pretrained policy of the task's seed."""
        return PretrainedLearner(self.low_level).prerequisite(task)

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Fine-tune the model, unless that is done."""
        agent = pretrained_agent(PretrainedLearner(self.low_level).training(task))
        if not Snapshot.of(task.folder, task.seed, self.points[-1]).is_there():
            self._train(task, agent, progress)
        return ServingPolicy(slates_of(agent, task))

    def planner(self, task: Task) -> tuple[TorchPlanner, float]:
        """The planner of a finished fine-tuning, and the divergence of its last update [nats a token]."""
        snapshot = Snapshot.of(task.folder, task.seed, self.rounds)
        model, tokenizer = read_gguf(self.model)
        model.load_state_dict(load_file(snapshot.weights))
        prompts, fallback = _planners(task)
        note = json.loads(snapshot.note.read_text("utf-8"))
        return TorchPlanner(model, tokenizer, prompts, fallback), float(note["kl"])

    def _train(self, task: Task, agent: PPO, progress: Progress) -> None:
        data = data_of(task.row.env)
        model, tokenizer = read_gguf(self.model)
        prompts, fallback = _planners(task)
        catalog = data.catalog
        size = int(task.row.env.kwargs["slate_size"])
        low_level = FixedPlanPolicy(slate_policy(agent), catalog.labels, catalog.category_sizes, size)
        trainer = PolicyGradientTrainer(model, tokenizer, prompts, fallback, low_level, self.config, task.seed)

        def keep(rounds: int, kl: float) -> None:
            snapshot = Snapshot.of(task.folder, task.seed, rounds)
            snapshot.weights.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, snapshot.weights)
            write_atomically(snapshot.note, json.dumps({"kl": kl}))

        def report(rounds: int, update: Update) -> None:
            if rounds in self.points:
                keep(rounds, update.kl)
            progress(rounds / self.config.rounds)

        keep(0, 0.0)
        trainer.train(sessions_of(task.row.env, self.config.users, "train"), report)
        write_gguf(model_path(task.folder, task.seed), model, tokenizer, name="Rapport planner, improved")


def model_path(folder: Path, seed: int) -> Path:
    """File of the fine-tuned model of a seed."""
    return folder / f"improved-seed{seed}.gguf"


def _planners(task: Task) -> tuple[Any, Any]:
    """What writes and reads the prompts, and the planner to fall back on."""
    data, rng = data_of(task.row.env), np.random.default_rng([task.seed, 6])
    return llm_planner(ScriptedLLM([]), data, rng, None), control_planner(TOP_K_PREFERENCE, data, rng)


@dataclass(frozen=True)
class FineTunedSessions:
    """Complete sessions of held-out users, one plan each, the likeliest tokens."""

    sessions: int

    def __call__(self, task: Task, policy: ServingPolicy) -> Episodes:
        """Play them."""
        assert isinstance(task.row.learner, FineTuned)
        planner, kl = task.row.learner.planner(task)
        data, sessions = data_of(task.row.env), sessions_of(task.row.env, self.sessions, "held_out")
        env = PlannedVectorEnv(sessions, data, planner, period=_HELD, cooldown=True, once=True)
        users = evaluation_users(data, self.sessions, task.seed)
        variety = Variety(len(users), data.catalog.n_categories)
        arrays = play(env, policy.act(env), task.seed, {"user": users}, [variety])
        return Episodes(arrays, UNITS, users, {"unusable": planner.unusable, "plans": env.plans_made, "kl": kl})


def fine_tuning(
    env: EnvConfig,
    model: Path,
    seeds: int,
    sessions: int,
    every: int,
    folder: Path,
    config: PolicyGradientConfig,
    low_level: PPOConfig | None = None,
) -> Experiment:
    """The model after more and more updates, the frozen one first.

    Args:
        env: data and environment.
        model: GGUF file of the initial model.
        seeds: number of seeds, of pretrained policies, users and tokens.
        sessions: sessions of held-out users for each point of a curve.
        every: updates between two points.
        folder: holds pretrained policies, results and fine-tuned models; a stopped study resumes seed by seed.
        config: hyper-parameters of the fine-tuning.
        low_level: of the pretrained policies; the defaults where None.
    """
    points = (*range(0, config.rounds, every), config.rounds)
    learner = FineTuned(file_fingerprint(model), config, points, 0, low_level or PPOConfig(), model)
    last = row_name(points[-1])
    rows = []
    for rounds in points:
        label = "frozen" if rounds == 0 else f"{rounds} rounds"
        trained_as = None if rounds == points[-1] else last
        rows.append(Row(row_name(rounds), label, env, replace(learner, rounds=rounds), trained_as=trained_as))
    return Experiment(tuple(rows), seeds, FineTunedSessions(sessions), folder)


def row_name(rounds: int) -> str:
    """Name of a point of the curve in the results."""
    return f"rounds-{rounds:04d}"


@dataclass(frozen=True)
class Point:
    """One point of the learning curve, over all seeds.

    Attributes:
        rounds: updates so far.
        cells: its row of the table, with the columns :data:`COLUMNS`.
        against: R_cum minus the frozen planner's, paired; None for the frozen planner.
    """

    rounds: int
    cells: tuple[str, ...]
    against: Estimate | None


def curve(study: Experiment, found: Found) -> list[Point]:
    """The points in order."""
    points = []
    for row in study.rows:
        assert isinstance(row.learner, FineTuned)
        group, rounds = found[row.name], row.learner.rounds
        against = compare(group, found[row_name(0)], R_CUM) if rounds else None
        kl = np.mean([result.meter["kl"] for result in group])
        unusable = sum(r.meter["unusable"] for r in group) / sum(r.meter["plans"] for r in group)
        gain = "reference" if against is None else against.shown(3, signed=True)
        figures = (metric.shown(estimated(group, metric)) for metric in (T_INT, R_CUM))
        points.append(Point(rounds, (str(rounds), *figures, gain, f"{kl:.3f}", f"{unusable:.1%}"), against))
    return points


def page(study: Experiment) -> Page:
    """The curve as a page."""
    env, learner, points = study.rows[0].env, study.rows[0].learner, curve(study, study.results())
    assert isinstance(learner, FineTuned) and isinstance(study.protocol, FineTunedSessions)
    data, how = data_of(env), learner.config
    table = Table(COLUMNS, tuple(point.cells for point in points))
    rule = env.kwargs["quit_rule"]
    return Page(
        title="Policy-gradient fine-tuning of the planner",
        finding=finding(points),
        subtitle=f"{data.name}, quit rule {rule}",
        sections=(Section("Return after each round of learning", [Figure(lambda: _figure(points)), table]),),
        settings={
            "data": f"{data.name}, quit rule {rule}; {study.seeds} seeds, {study.protocol.sessions:,} sessions "
            f"of {int(data.held_out.sum()):,} held-out users each; one plan per session, the likeliest tokens",
            "learning": f"{how.users} training users x {how.plans} plans a round, valued over {how.horizon} slates; "
            f"learning rate {how.learning_rate:g}, KL weight {how.kl:g}",
            "intervals": "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]; differences "
            "paired by seed and session",
        },
        licence=licence_note(data),
    )


def finding(points: Sequence[Point]) -> str:
    """What the curve says, in a sentence."""
    last = points[-1].against
    if last is None:
        return "Nothing was learned yet."
    how = f"{last.shown(3, signed=True)} in R_cum after {points[-1].rounds} rounds"
    if last.low > 0:
        return f"The planner that learns beats the frozen one on held-out users: {how}."
    if last.high < 0:
        return f"The planner that learns is worse than the frozen one on held-out users: {how}."
    return f"Learning makes no difference on held-out users within the interval: {how}."


def _figure(points: Sequence[Point]) -> Any:
    import plotly.graph_objects as go

    later = [(point.rounds, point.against) for point in points if point.against is not None]
    figure = go.Figure()
    figure.add_scatter(
        x=[0, *(rounds for rounds, _ in later)],
        y=[0, *(x.point for _, x in later)],
        error_y={
            "array": [0, *(x.high - x.point for _, x in later)],
            "arrayminus": [0, *(x.point - x.low for _, x in later)],
            "thickness": 1.4,
        },
        mode="lines+markers",
        marker={"size": 8, "color": COLOURS[0]},
        line={"color": COLOURS[0], "width": 1.6},
        hovertemplate="after %{x} rounds<br>%{y:+.3f}<extra></extra>",
        showlegend=False,
    )
    lay_out(figure, "R_cum above the frozen planner [summed click rate]", 340)
    figure.update_xaxes(title="rounds of learning")
    return figure
