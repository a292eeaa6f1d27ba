"""Search spaces of Stable-Baselines3's methods; those of the others stand beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


def _common(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gamma": trial.suggest_float("gamma", 0.3, 0.99),
    }


def _on_policy(trial: optuna.Trial) -> dict[str, Any]:
    return {**_common(trial), "log_std_init": trial.suggest_float("log_std_init", -2.5, -0.5)}


def _off_policy(trial: optuna.Trial) -> dict[str, Any]:
    return {**_common(trial), "radius": trial.suggest_float("radius", 0.2, 3.0, log=True)}


def _noisy(trial: optuna.Trial) -> dict[str, Any]:
    return {**_off_policy(trial), "noise": trial.suggest_float("noise", 0.05, 1.0, log=True)}


def _q_network(trial: optuna.Trial) -> dict[str, Any]:
    return {
        **_common(trial),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.1, 0.8),
        "exploration_final_eps": trial.suggest_float("exploration_final_eps", 0.01, 0.2, log=True),
    }


def _masked_ppo(trial: optuna.Trial) -> dict[str, Any]:
    return {
        **_common(trial),
        "clip_range": trial.suggest_float("clip_range", 0.1, 0.4),
        "ent_coef": trial.suggest_float("ent_coef", 1e-4, 0.1, log=True),
    }


SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {
    "reinforce": _on_policy,
    "a2c": _on_policy,
    "ddpg": _noisy,
    "td3": _noisy,
    "sac": _off_policy,
    "sac4ir": _off_policy,
    "dqn": _q_network,
    "dnair": _q_network,
    "masked-ppo": _masked_ppo,
}
"""Short name -> search space."""
