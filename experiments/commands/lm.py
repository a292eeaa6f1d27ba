"""``rapport lm train | card | improve``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from rapport.agents.lm.sft import SFTConfig
from rapport.agents.planning.lm.embedded import embedded_model
from rapport.agents.planning.lm.policy_gradient import PolicyGradientConfig
from rapport.experiments.commands.options import LocalData, Sizes, Workers, at_least_one
from rapport.experiments.core.env_config import prepare
from rapport.experiments.jobs.local import ProgressDisplay
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.planner_lm.build import PlannerBuild
from rapport.experiments.planner_lm.card import (
    CardModel,
    card_experiment,
    card_page,
    reflection_effect,
    services,
    unconstrained_plan_rate,
)
from rapport.experiments.planner_lm.improve import fine_tuning, page
from rapport.experiments.report.page import publish


@dataclass(kw_only=True)
class LmTrain(LocalData):
    """Train the embedded planner model from scratch: examples, vocabulary, weights, GGUF file."""

    out: Path = Path("runs/lm")
    """Folder of examples, checkpoints and the model, planner.gguf. A stopped training resumes from it."""
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
        at_least_one(steps=self.steps, rounds=self.rounds, threads=self.threads)
        console = Console()
        env = session_env("kuairand", self.data, self.data_dir)
        prepare([env], console)
        torch.set_num_threads(self.threads)
        training = replace(SFTConfig(), steps=self.steps)
        build = PlannerBuild(env, self.out.resolve(), self.rounds, seed=self.seed, training=training)
        with ProgressDisplay(console, 1) as display:
            path = build.run(display.show)
            display.finish("embedded planner model")
        console.print(
            f"Wrote {path}: {path.stat().st_size / 1e6:.2f} MB", highlight=False, markup=False, soft_wrap=True
        )
        return 0


@dataclass(kw_only=True)
class LmCard(LocalData, Sizes, Workers):
    """Evaluate the model and the controls: on its training data, under synthetic names, and on other data."""

    llm: Path | None = None
    """GGUF file written by `rapport lm train`; by default the embedded model."""
    temperature: float = 0.8
    """Sampling temperature; 0 takes the likeliest token."""
    out: Path = Path("runs/lm-card")
    """Folder of pretrained policies, results and the table."""

    def run(self) -> int:
        """Evaluate, print and write; returns 0."""
        sizes = self.sizes({"seeds": 5, "sessions": 1_000}, {"seeds": 2, "sessions": 200})
        console, folder = Console(), self.out.resolve()
        where = services(session_env("kuairand", self.data, self.data_dir))
        model = CardModel.of((self.llm or embedded_model()).resolve(), self.temperature)
        card = card_experiment(model, where, sizes["seeds"], sizes["sessions"], folder)
        prepare([service.env for service in where], console)
        self.run_jobs(card.jobs(), console)
        plan_rates = {service.label: unconstrained_plan_rate(model, service) for service in where}
        publish(card_page(card, where, model, plan_rates, reflection_effect(model)), folder, console, name="card")
        return 0


@dataclass(kw_only=True)
class LmImprove(LocalData, Sizes, Workers):
    """Fine-tune the planner by policy gradient on the tokens of its plans; learning curves on held-out users."""

    llm: Path | None = None
    """GGUF file written by `rapport lm train`; by default the embedded model."""
    rounds: int | None = None
    """Updates; 40 by default."""
    every: int = 10
    """Updates between two points of the curve."""
    kl: float = PolicyGradientConfig.kl
    """Weight of the divergence from the initial model."""
    learning_rate: float = PolicyGradientConfig.learning_rate
    """Adam's learning rate."""
    out: Path = Path("runs/lm-improve")
    """Folder of pretrained policies, results, fine-tuned models and the report."""

    def run(self) -> int:
        """Fine-tune, print and write; returns 0."""
        sizes = self.sizes({"seeds": 5, "rounds": 40, "sessions": 1_000}, {"seeds": 2, "rounds": 10, "sessions": 200})
        at_least_one(every=self.every)
        console, folder = Console(), self.out.resolve()
        env = session_env("kuairand", self.data, self.data_dir)
        config = PolicyGradientConfig(rounds=sizes["rounds"], learning_rate=self.learning_rate, kl=self.kl)
        model = (self.llm or embedded_model()).resolve()
        study = fine_tuning(env, model, sizes["seeds"], sizes["sessions"], self.every, folder, config)
        prepare([env], console)
        self.run_jobs(study.jobs(), console)
        publish(page(study), folder, console)
        return 0
