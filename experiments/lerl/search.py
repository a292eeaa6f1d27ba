"""One search of hyper-parameters for all: as many trials of as many transitions for every method that has any.

Trials learn from training users and are judged by other sessions of training users: held-out users are never met. The
first trial is of the defaults, and where no other is better they stay.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rapport.agents.baselines import (
    bandits,
    hac,
    linear_bandits,
    online_ctr,
    plackett_luce_ppo,
    reranking,
    search_spaces,
)
from rapport.agents.lerl import PPOConfig
from rapport.experiments.core import EnvConfig, Row, Task, play
from rapport.experiments.core.row import Progress
from rapport.experiments.jobs.local import Job
from rapport.experiments.lerl.config import PlannerConfig, planned
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.rows import DEFINITIONS, RowSettings, lerl_row
from rapport.experiments.results.store import config_hash, write_atomically

if TYPE_CHECKING:
    import optuna

SEED = 1_000
"""Of all trials: none that results are reported for."""
STAND_IN = PlannerConfig(period=20)
"""Who plans in trials for the language model: the top-k preference planner, so that the search depends on no model."""


def gaussian_space(trial: optuna.Trial) -> dict[str, Any]:
    """PPO with LERL's Gaussian hyper-action, planned for or not."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gamma": trial.suggest_float("gamma", 0.3, 0.99),
        "gae_lambda": trial.suggest_float("gae_lambda", 0.5, 1.0),
        "clip_range": trial.suggest_float("clip_range", 0.1, 0.4),
        "log_std_init": trial.suggest_float("log_std_init", -2.5, -0.5),
    }


SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {
    "ppo": gaussian_space,
    "lerl": gaussian_space,
    "ppo-pl": plackett_luce_ppo.space,
    "lerl-pl": plackett_luce_ppo.space,
    "hac": hac.space,
    "click": online_ctr.space,
    "lerl-click": online_ctr.space,
    "mask-linucb": linear_bandits.space_lin_ucb,
    **search_spaces.SPACES,
    **linear_bandits.SPACES,
    **bandits.SPACES,
    **reranking.SPACES,
}
"""Where each method's settings are looked for."""


@dataclass(frozen=True)
class Search:
    """What is spent on each method.

    Attributes:
        env: data and environment.
        trials: settings tried, the defaults among them.
        transitions: transitions a trial learns from.
        sessions: sessions of training users that judge it.
        folder: keeps trials; a stopped search goes on.
        base: sizes of the policy.
    """

    env: EnvConfig
    trials: int
    transitions: int
    sessions: int
    folder: Path
    base: PPOConfig = field(default_factory=PPOConfig)

    def jobs(self, methods: tuple[str, ...]) -> list[Job]:
        """The pretrained policy, then one job per method."""
        first = self.row("ppo", {})
        needed = first.learner.prerequisite(self.task(first, self.folder))  # type: ignore[attr-defined]
        later = tuple(Job(f"search: {method}", SearchMethod(self, method)) for method in methods)
        return [Job(needed.name, needed.make, later)]

    def row(self, method: str, settings: Mapping[str, Any]) -> Row:
        """A method's row with settings to be tried."""
        definition = DEFINITIONS[method]
        name = (definition.tuned_as or method) if definition.baseline is not None else definition.explores_as
        return lerl_row(
            method, self.env, RowSettings(STAND_IN, self.transitions, self.base, {name: settings}, self.folder)
        )

    def task(self, row: Row, folder: Path) -> Task:
        """A trial."""
        return Task(row, row, SEED, folder)

    def result(self, method: str) -> dict[str, Any] | None:
        """What was found for a method: settings, value, that of the defaults; None where it is not done."""
        path = self.folder / f"{method}.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None


@dataclass(frozen=True)
class SearchMethod:
    """All trials of one method; Optuna keeps them in a journal, so that a stopped search goes on."""

    search: Search
    method: str

    def __call__(self, progress: Progress) -> None:
        """Do the trials that are missing and keep what was found."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("optuna").setLevel(logging.WARNING)
        search, folder = self.search, self.search.folder
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {name: getattr(search, name) for name in ("trials", "transitions", "sessions")}
        name = f"{self.method} {config_hash({**numbers, 'environment': search.env.identity()})}"
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / f"{self.method}.journal"))),
            study_name=name,
            sampler=optuna.samplers.TPESampler(seed=SEED, n_startup_trials=4),
            direction="maximize",
            load_if_exists=True,
        )
        if "defaults" not in study.user_attrs:
            study.set_user_attr("defaults", trial_value(search, self.method, {}))
        while (done := len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))) < search.trials - 1:
            progress((done + 1) / search.trials)
            study.optimize(self._try, n_trials=1)
        defaults = study.user_attrs["defaults"]
        best = study.best_trial if search.trials > 1 else None
        better = best is not None and best.value is not None and best.value > defaults
        found = {
            "settings": best.user_attrs["settings"] if better and best is not None else {},
            "value": best.value if better and best is not None else defaults,
            "defaults": defaults,
        }
        write_atomically(folder / f"{self.method}.json", json.dumps(found, indent=1) + "\n")

    def _try(self, trial: optuna.Trial) -> float:
        settings = _rounded(SPACES[self.method](trial))
        trial.set_user_attr("settings", settings)
        return trial_value(self.search, self.method, settings)


def trial_value(search: Search, method: str, settings: dict[str, Any]) -> float:
    """Mean R_cum of training users' sessions after learning with these settings."""
    row = search.row(method, settings)
    folder = search.folder / f"{method}-{config_hash(settings)}"  # a checkpoint of its own
    policy = row.learner(search.task(row, folder), lambda _: None)
    sessions = sessions_of(search.env, search.sessions, "train")
    rng = np.random.default_rng([SEED, 7])
    users = rng.choice(sessions.core.users, search.sessions, replace=search.sessions > len(sessions.core.users))
    env = planned(sessions, data_of(search.env), row.planner, None, rng, once=True)
    return float(play(env, policy.act(env), SEED, {"user": users})["return"].mean())


def _rounded(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with three digits: what is tried is what is written down."""
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in settings.items()}
