"""From a hyper-action to a slate: the items of the planned categories with the highest scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from rapport.agents.policies.encoder import StateEncoder
from rapport.agents.policies.score import score_items

BOUND = 20.0
"""Hyper-actions are clipped to [-BOUND, BOUND]; Stable-Baselines3 needs finite bounds."""


def best_items(weights: Tensor, items: Tensor, allowed: Tensor, k: int) -> Tensor:
    """The k best-scored allowed items, shape (B, k), best first.

    Scores are :func:`~rapport.agents.policies.score.score_items`'s. Items that are not allowed score minus infinity:
    LERL's code multiplied scores by the 0/1 mask instead, which ranks them above allowed items of negative score.

    Args:
        weights: shape (B, E + 1), hyper-actions (w, b).
        items: shape (N, E), item encodings.
        allowed: shape (B, N), bool; at least k true in each row.
        k: items to choose, at most N.
    """
    return score_items(weights, items).masked_fill_(~allowed, float("-inf")).topk(k, dim=1).indices


def allowed_items(plan: Tensor, category: Tensor) -> Tensor:
    """Items that plans allow, shape (B, N), bool: those of which any category is planned.

    Args:
        plan: shape (B, C), bool.
        category: shape (N,), the category of each item, or (N, L), its categories, -1 where it has fewer.
    """
    if category.ndim == 1:
        return plan[:, category]
    padded = plan if category.shape[1] == 1 else torch.nn.functional.pad(plan, (0, 1))  # -1 reads the last column
    items = padded[:, category[:, 0]]
    for column in category.T[1:]:
        items |= padded[:, column]
    return items


class HyperActionEnv(VectorWrapper):
    """Lets an agent act by hyper-actions on sessions whose observations carry a plan.

    Args:
        env: a :class:`~rapport.agents.planning.wrapper.PlannedVectorEnv`.
        encoder: the acting policy's encoder; its item encodings are read afresh whenever its weights change.
        category: category of each item, as of :func:`allowed_items`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], encoder: StateEncoder, category: NDArray[np.integer]) -> None:
        super().__init__(env)
        self.encoder = encoder
        self.slate_size = int(env.single_action_space.shape[0])  # type: ignore[index]
        self.single_action_space = spaces.Box(-BOUND, BOUND, (encoder.settings.item_width + 1,), np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._category = torch.from_numpy(category.astype(np.int64))
        self._plan = torch.empty(0)
        self._items = torch.empty(0)
        self._items_of: tuple[tuple[int, int], ...] = ()

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions and keep their plans."""
        observations, info = self.env.reset(**arguments)
        self._plan = torch.from_numpy(observations["plan"]).bool()
        return observations, info

    def step(self, actions: NDArray[np.floating]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Serve the slates that hyper-actions of shape (B, E + 1) stand for."""
        observations, *rest, info = self.env.step(self.slates(actions))
        self._plan = torch.from_numpy(observations["plan"]).bool()
        return observations, *rest, info

    def slates(self, actions: NDArray[np.floating]) -> NDArray[np.int64]:
        """The slates, shape (B, K), that hyper-actions stand for under the present plans."""
        weights = torch.as_tensor(actions, dtype=torch.float32)
        allowed = allowed_items(self._plan, self._category)
        slates: NDArray[np.int64] = best_items(weights, self._item_encodings(), allowed, self.slate_size).numpy()
        return slates

    @torch.no_grad()
    def _item_encodings(self) -> Tensor:
        version = tuple((p.data_ptr(), p._version) for p in self.encoder.parameters())
        if version != self._items_of:
            self._items, self._items_of = self.encoder.items(), version
        return self._items
