"""Do methods separate where users satiate? Complete sessions of held-out users in two environments, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode

from rapport.datasets.schema import SessionData
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.kuairand_satiation import satiation_core
from rapport.experiments.lerl.evaluation import Played, evaluation_users, play
from rapport.experiments.results.stats import Estimate, Scores, estimate, paired_difference
from rapport.experiments.satiation.controls import control

PLAIN, TIRING = "KuaiRand, positional", "KuaiRandSatiation"
Report = Callable[[str], None]


class Row(NamedTuple):
    """How one method fares in one environment; estimates over seeds, intervals over seeds and users.

    Attributes:
        environment: in words.
        method: a name in :data:`~rapport.experiments.satiation.controls.METHODS`.
        length: T_int, slates.
        total: R_cum, summed click rate.
        single: R_sin, click rate.
        against: R_cum minus that of ``rotation``, the same users and seeds paired; None for rotation itself.
    """

    environment: str
    method: str
    length: Estimate
    total: Estimate
    single: Estimate
    against: Estimate | None


@dataclass(frozen=True)
class Trial:
    """Who plays, how often."""

    data: SessionData
    """People and items."""
    sessions: int
    """Complete sessions per seed."""
    seeds: int
    """Draws of users and responses."""


def separate(
    trial: Trial, methods: tuple[str, ...], environments: dict[str, dict[str, Any]], report: Report = lambda _: None
) -> list[Row]:
    """Play every method in every environment.

    Args:
        trial: who plays.
        methods: names in :data:`~rapport.experiments.satiation.controls.METHODS`.
        environments: name -> arguments of :func:`~rapport.envs.session.kuairand_satiation.satiation_core`;
            :data:`PLAIN` -> of :func:`~rapport.envs.session.kuairand.kuairand_core`.
        report: told what is being played.
    """
    rows = []
    for name, arguments in environments.items():
        played: dict[str, list[Played]] = {}
        for method in methods:
            report(f"{name}: {method}")
            played[method] = [_play(trial, name, arguments, method, seed) for seed in range(trial.seeds)]
        rows += [_row(name, method, played) for method in methods]
    return rows


def _play(trial: Trial, environment: str, arguments: dict[str, Any], method: str, seed: int) -> Played:
    make: Callable[..., SessionCore] = kuairand_core if environment == PLAIN else satiation_core
    core = make(trial.sessions, data=trial.data, users="held_out", **arguments)
    users = evaluation_users(trial.data, trial.sessions, seed)
    act = control(method, core, np.random.default_rng([seed, 2]))
    return play(SessionVectorEnv(core, AutoresetMode.SAME_STEP), act, users, seed)


def _row(environment: str, method: str, played: dict[str, list[Played]]) -> Row:
    lengths = [p.lengths for p in played[method]]
    returns = [p.returns for p in played[method]]
    scores = Scores.mean(lengths), Scores.mean(returns), Scores.ratio(returns, lengths)
    figures = [estimate(score, np.random.default_rng(0)) for score in scores]
    against = None
    if method != "rotation" and "rotation" in played:
        other = Scores.mean([p.returns for p in played["rotation"]])
        against = paired_difference(scores[1], other, np.random.default_rng(0))
    return Row(environment, method, figures[0], figures[1], figures[2], against)
