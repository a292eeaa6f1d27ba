"""LERL (arXiv 2601.19585) on one page: a planner of categories above, a transformer policy trained by PPO below.

    session views -> planner -> category mask -> hyper-action -> best six allowed items -> users -> reward
                       ^                                                                     |
                 reflection pool  <-  critic  <-  finished session  <------------------------+

The high level is :mod:`rapport.agents.planning`, the low level :mod:`rapport.agents.policies`. ``docs/lerl.md`` lists
the differences from the authors' released code with their reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rapport._deprecation import renamed
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.hyper_action import BOUND, HyperActionEnv, allowed_items, best_items
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.agents.policies.warm_start import WarmStart, warm_start
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.datasets.schema import SessionData


@dataclass(frozen=True)
class PPOConfig:
    """Sizes of the low level and settings of PPO; PPO without a planner is the same with every category allowed."""

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Sizes of the state encoder."""
    warm_start: WarmStart | None = field(default_factory=WarmStart)
    """How the policy is pretrained on training users' log; None: PPO starts from random features, as in LERL."""
    n_envs: int = 64
    """Users served at once in training (LERL: 12)."""
    n_steps: int = 20
    """Slates per user between updates (LERL: 20)."""
    batch_size: int = 320
    """Transitions in a minibatch (LERL: 64)."""
    n_epochs: int = 4
    """Passes over a rollout (LERL: 4)."""
    learning_rate: float = 1e-3
    """Learning rate of Adam, for actor, critic and state encoder."""
    gamma: float = 0.8
    """Discount per slate (LERL: 0.9); chosen by hand on training users, one seed, the same for all agents."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (LERL: 0, one-step errors)."""
    clip_range: float = 0.2
    """Clipping of PPO's ratio (LERL: 0.8)."""
    log_std_init: float = -1.2
    """Logarithm of the hyper-action's initial standard deviation, ln 0.3 (LERL: ln 0.8)."""

    @property
    def rollout(self) -> int:
        """Transitions between updates."""
        return self.n_envs * self.n_steps


def act_on(sessions: PlannedVectorEnv, encoder: StateEncoder) -> HyperActionEnv:
    """Sessions that take hyper-actions over the encoder's items."""
    return HyperActionEnv(sessions, encoder, sessions.data.catalog.labels)


def new_agent(sessions: PlannedVectorEnv, settings: PPOConfig, seed: int) -> PPO:
    """An untrained low level for planned sessions."""
    torch.manual_seed(seed)
    encoder = StateEncoder(sessions.data, settings.encoder)
    return PPO(
        SlatePolicy,
        GymnasiumVecEnv(act_on(sessions, encoder)),
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.n_epochs,
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        clip_range=settings.clip_range,
        policy_kwargs={"encoder": encoder, "log_std_init": settings.log_std_init},
        seed=seed,
        device="cpu",
    )


def pretrain_policy(
    agent: PPO,
    data: SessionData,
    settings: PPOConfig,
    seed: int,
    report: Callable[[int, int, float], None] | None = None,
) -> None:
    """Pretrain an untrained agent's policy on the log, in place, and fix its item encodings.

    PPO's likelihood is of the hyper-action, so a hyper-action must stand for the same slate throughout training.
    """
    policy = slate_policy(agent)
    if settings.warm_start is not None:
        warm_start(policy, data, settings.warm_start, seed, report)
    policy.encoder.disable_dropout()
    policy.encoder.freeze_items()


def slate_policy(agent: OnPolicyAlgorithm) -> SlatePolicy:
    """The agent's policy, by its own type."""
    assert isinstance(agent.policy, SlatePolicy)
    return agent.policy


def sampled_actions(agent: OnPolicyAlgorithm, seed: int, best: bool = False) -> Callable[[dict[str, Any]], Any]:
    """The agent's policy as a function from observations to hyper-actions: drawn as in training, or the mean.

    LERL always draws.

    Args:
        agent: a PPO or A2C agent with a :class:`~rapport.agents.policies.slate_policy.SlatePolicy`.
        seed: of the draws.
        best: return the mean hyper-action in place of a draw.
    """
    policy = slate_policy(agent)
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def act(observations: dict[str, Any]) -> Any:
        policy.set_training_mode(False)
        tensors, _ = policy.obs_to_tensor(observations)
        mean = policy.mean_action(policy.extract_features(tensors))  # type: ignore[arg-type]
        noise = torch.zeros(()) if best else torch.randn(mean.shape, generator=generator)
        return (mean + policy.log_std.exp() * noise).clamp(-BOUND, BOUND).numpy()

    return act


def serving_policy(
    agent: OnPolicyAlgorithm, category: NDArray[np.integer], slate_size: int, seed: int, best: bool = False
) -> Callable[[Any], Any]:
    """The agent as a function from observations with plans to slates of shape (B, K).

    Args:
        agent: an agent whose policy was pretrained.
        category: category of each item, as of :func:`~rapport.agents.policies.hyper_action.allowed_items`.
        slate_size: K.
        seed: of the draws.
        best: serve the mean hyper-action's slate in place of a draw's, which is as in training.
    """
    hyper_actions = sampled_actions(agent, seed, best)
    of_item = torch.from_numpy(category.astype(np.int64))
    with torch.no_grad():
        items = slate_policy(agent).encoder.items()

    def act(observations: dict[str, Any]) -> Any:
        weights = torch.from_numpy(hyper_actions(observations))
        allowed = allowed_items(torch.from_numpy(observations["plan"]).bool(), of_item)
        return best_items(weights, items, allowed, slate_size).numpy()

    return act


def learn(agent: PPO, sessions: PlannedVectorEnv, transitions: int, seed: int, callback: Any = None) -> None:
    """Train for ``transitions`` more, on fresh sessions; ``seed`` alone determines all random draws."""
    environment: VectorEnv[Any, Any, Any] = act_on(sessions, slate_policy(agent).encoder)
    agent.set_env(GymnasiumVecEnv(environment))
    agent.set_random_seed(seed)
    agent.learn(transitions, callback=callback, reset_num_timesteps=False)


__getattr__ = renamed(
    __name__, {"LowLevel": "PPOConfig", "first_policy": "pretrain_policy", "served_slates": "serving_policy"}
)
