"""Do methods separate where users tire? Complete sessions of held-out users in two environments, in one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rapport.experiments.core import EnvConfig, Experiment, Row, ServingPolicy, Task
from rapport.experiments.core.row import Progress
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.satiation.controls import control

PLAIN, TIRING = "KuaiRand, positional", "KuaiRandSatiation"
REFERENCE = "rotation"
"""The method that all others in an environment are compared with."""
SENSITIVITY_METHODS = ("greedy", "rotation", "greedy rotation", "oracle, look-ahead")
TOLERANCES = (0.1, 0.25, 0.5, 1.0, float("inf"))


@dataclass(frozen=True)
class Served:
    """Serves slates without training, by a rule or by reading the simulator."""

    method: str
    """A name in :data:`~rapport.experiments.satiation.controls.METHODS`."""

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Ready at once."""
        return ServingPolicy(
            lambda env: control(self.method, env.unwrapped.core, np.random.default_rng([task.seed, 2]))  # type: ignore[attr-defined]
        )


def separation(
    envs: Mapping[str, EnvConfig], methods: Iterable[str], seeds: int, sessions: int, folder: Path
) -> Experiment:
    """Every method in every environment.

    Args:
        envs: by shown name.
        methods: names in :data:`~rapport.experiments.satiation.controls.METHODS`.
        seeds: draws of users and chance.
        sessions: complete sessions of held-out users per seed.
        folder: keeps the results.
    """
    names = tuple(methods)
    rows = (Row(row_name(env, m), m, config, Served(m), env) for env, config in envs.items() for m in names)
    return Experiment(tuple(rows), seeds, HeldOutSessions(sessions), folder)


def row_name(env: str, method: str) -> str:
    """Name of a row."""
    return re.sub(r"[^a-z0-9.]+", "-", f"{env.lower()}.{method}")


def both_environments(data: str, data_dir: Path | None) -> dict[str, EnvConfig]:
    """LERL's rule, and users who tire as measured."""
    return {
        PLAIN: session_env("kuairand", data, data_dir),
        TIRING: session_env("satiation", data, data_dir),
    }


def varied_environments(data: str, data_dir: Path | None) -> dict[str, EnvConfig]:
    """Environments that differ from the second in one argument each, assumed or uncertain."""
    base = session_env("satiation", data, data_dir)
    varied = {f"tolerance {value:g}": base.changed(tolerance=value) for value in TOLERANCES}
    return varied | {f"strength {name}": base.changed(strength=name) for name in ("low", "high")}
