"""Slates drawn place by place, with their exact likelihood: our own candidate beside LERL's Gaussian hyper-action.

LERL's likelihood is of a hyper-action, of which the slate is only what comes out: many hyper-actions give one slate,
and PPO's ratio weighs what nobody saw. Here the policy's scores of all items are the logits of a Plackett-Luce
distribution over ordered slates (Plackett, 1975; Luce, 1959): each place is drawn by softmax from the items left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rapport.agents.policies.encoder import StateEncoder
from rapport.agents.policies.slate_policy import SlatePolicy

EXCLUDED = -1e9
"""Logit of an item that must not be shown; minus infinity would give gradients that are no numbers."""


def sample(logits: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """Ordered slates, shape (B, k), of logits (B, N): the k largest with Gumbel noise (Kool et al., 2019)."""
    uniform = torch.rand(logits.shape, generator=generator).clamp_(1e-10, 1.0 - 1e-7)
    return (logits - uniform.log_().neg_().log_()).topk(k, dim=1).indices


def log_likelihood(logits: Tensor, slates: Tensor) -> Tensor:
    """Log probability, shape (B,), of ordered slates (B, K) under logits (B, N).

    sum_j [ s_j - log(sum of exp over the items not placed before j) ]: all items but the slate's are summed once, the
    slate's own are added from the last place to the first.
    """
    chosen = logits.gather(1, slates)
    rest = logits.scatter(1, slates, EXCLUDED).logsumexp(dim=1, keepdim=True)
    own = chosen.flip(1).logcumsumexp(dim=1).flip(1)
    return (chosen - torch.logaddexp(own, rest)).sum(dim=1)


class PlackettLucePolicy(SlatePolicy):
    """Actor and critic of LERL's low level whose actions are the slates themselves.

    Args:
        observation_space: as of the planned environment.
        action_space: its own, K item indices.
        lr_schedule: set by Stable-Baselines3.
        encoder: the state encoder.
        category: shape (N,), category of each item.
        temperature: scores are divided by it, at first; it is learned.
        **kwargs: passed on to Stable-Baselines3.
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        lr_schedule: Callable[[float], float],
        encoder: StateEncoder,
        category: np.ndarray[Any, Any],
        temperature: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self._start = (encoder.settings.item_width, math.log(temperature))
        self.slate_size = len(action_space.nvec)
        super().__init__(observation_space, action_space, lr_schedule, encoder, **kwargs)
        self.register_buffer("category", torch.from_numpy(category.astype(np.int64)), persistent=False)

    category: Tensor

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        self._build_mlp_extractor()
        width, log_temperature = self._start
        self.action_net = nn.Linear(self.mlp_extractor.latent_dim_pi, width + 1)
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        self.log_temperature = nn.Parameter(torch.tensor(log_temperature))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def logits(self, states: Tensor, plan: Tensor) -> Tensor:
        """Scores of all items over the temperature, shape (B, N), :data:`EXCLUDED` outside the plans (B, C)."""
        weights = self.mean_action(states)
        items = self.encoder.items()
        scores = torch.addmm(weights[:, -1:], weights[:, :-1] / math.sqrt(items.shape[1]), items.T)
        allowed = plan.bool()[:, self.category]
        return (scores / self.log_temperature.exp()).masked_fill(~allowed, EXCLUDED)

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Slates (B, K), values (B, 1) and log probabilities (B,)."""
        states = self._states(obs)
        logits = self.logits(states, obs["plan"])
        slates = logits.topk(self.slate_size, dim=1).indices if deterministic else sample(logits, self.slate_size)
        return slates, self.value_net(self.mlp_extractor.forward_critic(states)), log_likelihood(logits, slates)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, log probabilities and None: Stable-Baselines3 then estimates the entropy by the likelihood."""
        states = self._states(obs)
        values = self.value_net(self.mlp_extractor.forward_critic(states))
        return values, log_likelihood(self.logits(states, obs["plan"]), actions.long()), None

    def _states(self, obs: Any) -> Tensor:
        states = self.extract_features(obs)
        assert isinstance(states, Tensor)  # actor and critic share one extractor
        return states

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.forward(observation, deterministic)[0]
