"""A second system, from definition to table and page: bandits on a two-armed test whose variants sell now or later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rapport.experiments.core import EnvConfig, Episodes, Experiment, Row, ServingPolicy, play
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.results_table import forest_of, results_table
from rapport.experiments.results.metrics import Metric
from rapport.experiments.results.summary import summarise, verdict

METRICS = (
    Metric("sales", "per episode", 2, numerator="return"),
    Metric("regret", "of offers", 3, higher_is_better=False, numerator="regret", denominator="length"),
)


class TwoVariants(gym.Env[np.ndarray, int]):
    """Ten customers are each offered one of two variants, which sell with chances 0.2 and ``better``."""

    observation_space = gym.spaces.Box(0, 10, (4,), np.float32)  # offers and sales of each variant
    action_space = gym.spaces.Discrete(2)

    def __init__(self, better: float = 0.6) -> None:
        self.chances = np.array([0.2, better])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.counts = np.zeros(4, np.float32)
        return self.counts.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        sold = float(self.np_random.random() < self.chances[action])
        self.counts[[action, 2 + action]] += (1, sold)
        regret = float(self.chances.max() - self.chances[action])
        return self.counts.copy(), sold, bool(self.counts[:2].sum() == 10), False, {"regret": regret}


@dataclass(frozen=True)
class Epsilon:
    """Epsilon-greedy on the counts; 1 is a random choice, 0 the greedy one."""

    epsilon: float

    def __call__(self, task: Any, progress: Any) -> ServingPolicy:
        rng = np.random.default_rng([task.seed, 1])

        def act(counts: np.ndarray) -> np.ndarray:
            rates = (counts[:, 2:] + 1) / (counts[:, :2] + 2)
            return np.where(rng.random(len(counts)) < self.epsilon, rng.integers(2, size=len(counts)), rates.argmax(1))

        return ServingPolicy(lambda _: act)


class Regret:
    def __init__(self, n: int) -> None:
        self.sum = np.zeros(n)

    def count(self, rewards: Any, info: Any, running: Any) -> None:
        self.sum += np.where(running, info["regret"], 0.0)

    def measured(self, lengths: Any) -> dict[str, Any]:
        return {"regret": self.sum}


@dataclass(frozen=True)
class Customers:
    """Complete episodes of ten customers each."""

    episodes: int

    def __call__(self, task: Any, policy: ServingPolicy) -> Episodes:
        env = task.row.env.make_vec(self.episodes)
        arrays = play(env, policy.act(env), task.seed, counters=[Regret(self.episodes)])
        return Episodes(arrays, {"length": "offers", "return": "sales", "regret": "sales"})


def experiment(folder: Path) -> Experiment:
    env = EnvConfig("toy/TwoVariants-v0", {"better": 0.6}, title="Two variants", entry_point=TwoVariants)
    labels = {"random": 1.0, "epsilon-greedy": 0.1, "greedy": 0.0}
    rows = tuple(Row(name, name, env, Epsilon(epsilon), "bandit") for name, epsilon in labels.items())
    return Experiment(rows, 3, Customers(50), folder)


def page(done: Experiment) -> Page:
    table = summarise(done.results(), {row.name: row.label for row in done.rows}, METRICS, "greedy")
    finding, *further = verdict(table)
    return Page(
        "Two variants",
        finding,
        further,
        sections=[Section("Results", [results_table(table), forest_of(table, METRICS[0])])],
    )
