"""LERL's low-level policy for Stable-Baselines3: a transformer state and a Gaussian hyper-action over item encodings.

The policy's action is a hyper-action, E weights and a bias that score the items. Its likelihood is an exact Gaussian
for any number of items; :class:`~rapport.agents.policies.hyper_action.HyperActionEnv` turns it into the best items of
the planned categories (LERL, arXiv 2601.19585, sections on the low-level actor).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from torch import Tensor, nn

from rapport.agents.policies.encoder import StateEncoder


class SessionFeatures(BaseFeaturesExtractor):
    """An observation as a state vector: the encoder's state, the plan and the session's age.

    Args:
        observation_space: as of :class:`~rapport.agents.planning.wrapper.PlannedVectorEnv`.
        encoder: shared with the environment's wrapper, which scores items with its item encodings.
        plan_width: width of the embedded plan.
    """

    def __init__(self, observation_space: spaces.Dict, encoder: StateEncoder, plan_width: int = 16) -> None:
        super().__init__(observation_space, encoder.features_dim + plan_width)
        n_categories = observation_space["plan"].shape[0]  # type: ignore[index]
        self.encoder = encoder
        self.longest = float(observation_space["step"].high[0])  # type: ignore[attr-defined]
        self.plan = nn.Linear(n_categories + 1, plan_width, bias=False)
        nn.init.zeros_(self.plan.weight)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """States, shape (B, features_dim)."""
        window = self.encoder.settings.window
        items = observations["history_items"].long()[:, -window:]
        feedback = observations["history_feedback"].reshape(len(items), -1, self.encoder.n_behaviours)[:, -window:]
        state = self.encoder.encode(observations["user_features"].long(), items, feedback)
        context = torch.cat([observations["plan"].float(), observations["step"].float() / self.longest], dim=1)
        return torch.cat([state, self.plan(context)], dim=1)


class DetachedCritic(MlpExtractor):
    """Actor and critic heads; the critic reads the state without training the encoder."""

    def forward_critic(self, features: Tensor) -> Tensor:
        """The critic's latent; its gradient does not reach the encoder."""
        return super().forward_critic(features.detach())


class SlatePolicy(ActorCriticPolicy):
    """Actor and critic on one shared state; the actor outputs the mean of the hyper-action, shape (B, E + 1).

    Args:
        observation_space: as of the planned environment.
        action_space: Box of E + 1.
        lr_schedule: set by Stable-Baselines3.
        encoder: the state encoder.
        log_std_init: logarithm of the hyper-action's initial standard deviation (LERL: ln 0.8).
        **kwargs: passed on to Stable-Baselines3.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Callable[[float], float],
        encoder: StateEncoder,
        log_std_init: float = -0.223,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch={"pi": [256, 64], "vf": [256, 64]},
            activation_fn=nn.ReLU,
            features_extractor_class=SessionFeatures,
            features_extractor_kwargs={"encoder": encoder},
            log_std_init=log_std_init,
            ortho_init=False,
            **kwargs,
        )

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = DetachedCritic(
            self.features_dim, net_arch=self.net_arch, activation_fn=self.activation_fn, device=self.device
        )

    @property
    def encoder(self) -> StateEncoder:
        """The state encoder, which also encodes items."""
        return self.features_extractor.encoder  # type: ignore[return-value]

    def mean_action(self, states: Tensor) -> Tensor:
        """Mean hyper-actions, shape (B, E + 1), of states (B, features_dim)."""
        mean: Tensor = self.action_net(self.mlp_extractor.forward_actor(states))
        return mean
