"""Slates drawn place by place, with their exact likelihood: an alternative to LERL's Gaussian hyper-action.

LERL's likelihood is of a hyper-action. Many hyper-actions give one slate, so PPO's ratio weighs differences that no
user sees. Here the policy's scores of all items are the logits of a Plackett-Luce distribution over ordered slates
(Plackett, 1975; Luce, 1959): each place is drawn by softmax from the items left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rapport.agents.policies.encoder import StateEncoder
from rapport.agents.policies.hyper_action import allowed_items
from rapport.agents.policies.score import score_items
from rapport.agents.policies.slate_policy import SlatePolicy

EXCLUDED = -1e9
"""Logit of an item that must not be shown; with minus infinity a plan of K items would have NaN gradients."""


@dataclass(frozen=True)
class PlackettLuce:
    """A distribution over ordered slates for each of B sessions.

    Attributes:
        logits: shape (B, N), :data:`EXCLUDED` for items that must not be shown; each row has at least K others.
    """

    logits: Tensor

    def sample(self, k: int, generator: torch.Generator | None = None) -> Tensor:
        """Slates, shape (B, k): the k largest logits after Gumbel noise (Yellott, 1977; Kool et al., ICML 2019)."""
        waiting = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - waiting.clamp_(min=1e-30).log_()).topk(k, dim=1).indices

    def mode(self, k: int) -> Tensor:
        """The likeliest slates, shape (B, k): the best items, best first."""
        return self.logits.topk(k, dim=1).indices

    def log_prob(self, slates: Tensor) -> Tensor:
        """Log probabilities, shape (B,), of slates of shape (B, K), no item twice in one.

        sum_j [s_j - log(sum of exp(s) over the items not placed before j)]. Items outside the slate are summed once;
        the slate's own are added from the last place to the first, which needs no subtraction.
        """
        chosen = self.logits.gather(1, slates)
        others = self.logits.scatter(1, slates, EXCLUDED).logsumexp(dim=1, keepdim=True)
        own = chosen.flip(1).logcumsumexp(dim=1).flip(1)
        return (chosen - torch.logaddexp(own, others)).sum(dim=1)


class PlackettLucePolicy(SlatePolicy):
    """Actor and critic of LERL's low level with slates, shape (B, K), as actions.

    Args:
        observation_space: as of :class:`~rapport.agents.planning.wrapper.PlannedVectorEnv`.
        action_space: its own, K item indices.
        lr_schedule: set by Stable-Baselines3.
        encoder: the state encoder.
        category: category of each item, as of :func:`~rapport.agents.policies.hyper_action.allowed_items`.
        temperature: initial temperature that scores are divided by; it is learned.
        **kwargs: passed on to Stable-Baselines3.
    """

    category: Tensor

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        lr_schedule: Callable[[float], float],
        encoder: StateEncoder,
        category: NDArray[Any],
        temperature: float,
        **kwargs: Any,
    ) -> None:
        self.slate_size = len(action_space.nvec)
        self._first = (encoder.settings.item_width, math.log(temperature))
        super().__init__(observation_space, action_space, lr_schedule, encoder, **kwargs)
        self.register_buffer("category", torch.tensor(category).long(), persistent=False)

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        """In place of Stable-Baselines3's, which would give the actor one output for each item and place."""
        self._build_mlp_extractor()
        item_width, log_temperature = self._first
        self.action_net = nn.Linear(self.mlp_extractor.latent_dim_pi, item_width + 1)
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        self.log_temperature = nn.Parameter(torch.tensor(log_temperature))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def slates(self, states: Tensor, plan: Tensor) -> PlackettLuce:
        """The distribution of slates in states (B, features_dim) under plans (B, C).

        An item's logit is its score (:func:`~rapport.agents.policies.score.score_items`) over the temperature.
        """
        logits = score_items(self.mean_action(states) / self.log_temperature.exp(), self.encoder.items())
        planned = plan.bool()
        if not planned.all():  # saves a pass over all items where every category is allowed
            logits = logits.masked_fill_(~allowed_items(planned, self.category), EXCLUDED)
        return PlackettLuce(logits)

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Slates (B, K), values (B, 1) and log probabilities (B,)."""
        states = self._states(obs)
        distribution = self.slates(states, obs["plan"])
        shown = distribution.mode(self.slate_size) if deterministic else distribution.sample(self.slate_size)
        return shown, self._values(states), distribution.log_prob(shown)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (B, 1), log probabilities (B,) of slates, and None.

        None lets Stable-Baselines3 estimate the entropy by the mean negative log probability and saves a pass over all
        items.
        """
        states = self._states(obs)
        return self._values(states), self.slates(states, obs["plan"]).log_prob(actions.long()), None

    def _states(self, obs: Any) -> Tensor:
        states = self.extract_features(obs)
        assert isinstance(states, Tensor)  # actor and critic share one extractor
        return states

    def _values(self, states: Tensor) -> Tensor:
        values: Tensor = self.value_net(self.mlp_extractor.forward_critic(states))
        return values

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.forward(observation, deterministic)[0]
