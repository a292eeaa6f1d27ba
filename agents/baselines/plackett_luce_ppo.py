"""PPO on slates with their exact Plackett-Luce likelihood, under the plans that the sessions have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO

from rapport.agents.baselines.task import Act, Settings, TrainingTask, settings_of
from rapport.agents.policies.encoder import StateEncoder
from rapport.agents.policies.plackett_luce import PlackettLucePolicy
from rapport.agents.sb3 import GymnasiumVecEnv

if TYPE_CHECKING:
    import optuna

DEFAULTS: Settings = {
    "learning_rate": 1e-3,
    "gamma": 0.8,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "n_steps": 20,
    "batch_size": 320,
    "n_epochs": 4,
    "temperature": 0.1,
    "greedy": False,
}


def plackett_luce_ppo(task: TrainingTask) -> Act:
    """Train from the pretrained policy.

    Settings: PPO's; ``temperature``, the initial one; ``greedy``, whether the best slate is served in place of a draw.
    """
    settings = settings_of("Plackett-Luce PPO", DEFAULTS, task.settings)
    temperature, greedy = settings.pop("temperature"), settings.pop("greedy")
    encoder = StateEncoder(task.data, task.ctr_model.policy.encoder.settings)
    encoder.disable_dropout()
    encoder.freeze_items()
    arguments = {"encoder": encoder, "category": task.data.catalog.labels, "temperature": temperature}
    agent = PPO(
        PlackettLucePolicy,
        GymnasiumVecEnv(task.sessions),
        policy_kwargs=arguments,
        seed=task.seed,
        device="cpu",
        **settings,
    )
    policy = agent.policy
    assert isinstance(policy, PlackettLucePolicy)
    weights = {k: v for k, v in task.ctr_model.policy.state_dict().items() if k != "log_std"}
    policy.load_state_dict({**weights, "log_temperature": policy.log_temperature})
    agent.learn(task.transitions)
    policy.set_training_mode(False)
    generator, size = torch.Generator().manual_seed(task.seed), policy.slate_size

    @torch.no_grad()
    def act(observations: dict[str, Any]) -> NDArray[Any]:
        seen: Any = policy.obs_to_tensor(observations)[0]
        states: Any = policy.extract_features(seen)
        distribution = policy.slates(states, seen["plan"])
        drawn = distribution.mode(size) if greedy else distribution.sample(size, generator)
        return drawn.numpy()

    return act


def space(trial: optuna.Trial) -> dict[str, Any]:
    """The search space."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gamma": trial.suggest_float("gamma", 0.3, 0.99),
        "clip_range": trial.suggest_float("clip_range", 0.1, 0.4),
        "temperature": trial.suggest_float("temperature", 0.02, 0.4, log=True),
        "greedy": trial.suggest_categorical("greedy", [False, True]),
    }
