"""The pretrained CTR model: states, items and click scores of the policy that was pretrained on the log, frozen.

Every agent that learns begins with it, LERL included, so that none is ahead by what it knew before its first reward.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapport._deprecation import renamed
from rapport.agents.planning.planner import last_slate
from rapport.agents.planning.preference import mark_categories
from rapport.agents.policies.score import score_items
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.datasets.schema import SessionData


class CTRModel:
    """A pretrained policy (:func:`rapport.agents.lerl.pretrain_policy`) as a model of click-through rates (CTR).

    Args:
        policy: fitted to training users' log; it is not changed.
        data: its data set.
        slate_size: K.

    Attributes:
        policy: the same.
        data: the same.
        slate_size: the same.
        items: shape (N, E), item encodings.
        width: D, width of a state.
    """

    def __init__(self, policy: SlatePolicy, data: SessionData, slate_size: int) -> None:
        policy.set_training_mode(False)
        self.policy, self.data, self.slate_size = policy, data, slate_size
        self.encode_items()
        self.width = policy.encoder.features_dim + 1 + data.catalog.n_categories
        self.category = torch.from_numpy(data.catalog.category.astype(np.int64))
        self._longest = float(policy.observation_space["step"].high[0])  # type: ignore[index]

    def copy(self) -> CTRModel:
        """A copy whose policy may be changed."""
        return CTRModel(copy.deepcopy(self.policy), self.data, self.slate_size)

    @torch.no_grad()
    def encode_items(self) -> None:
        """Encode the items; needed again after the policy was changed."""
        self.items = self.policy.encoder.items()

    def read(self, observations: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's input for B sessions: user features (B, G), newest items (B, W), their feedback (B, W, F)."""
        window, seen = self.policy.encoder.settings.window, observations["history_items"]
        items = torch.from_numpy(np.ascontiguousarray(seen[:, -window:])).long()
        feedback = torch.from_numpy(observations["history_feedback"]).reshape(*seen.shape, -1)[:, -window:]
        return torch.from_numpy(observations["user_features"]).long(), items, feedback

    @torch.no_grad()
    def states(self, observations: dict[str, Any]) -> Tensor:
        """States of B sessions, shape (B, D): the encoder's state, the session's age, the last slate's categories.

        The age is a share of the longest session; categories are 1 where the last slate showed them.
        """
        state = self.policy.encoder.encode(*self.read(observations))
        age = torch.from_numpy(observations["step"]).float() / self._longest
        last = torch.from_numpy(self.last_categories(observations)).float()
        return torch.cat([state, age, last], dim=1)

    @torch.no_grad()
    def weights(self, states: Tensor) -> Tensor:
        """The hyper-actions that score items by their click log-odds, shape (B, E + 1)."""
        encoded = states[:, : self.policy.encoder.features_dim]
        plan = encoded.new_zeros(len(encoded), self.policy.features_dim - encoded.shape[1])
        return self.policy.mean_action(torch.cat([encoded, plan], dim=1))

    def scores(self, weights: Tensor) -> Tensor:
        """Scores of all items, shape (B, N), under hyper-actions (B, E + 1)."""
        return score_items(weights, self.items)

    def click_scores(self, observations: dict[str, Any]) -> Tensor:
        """Click log-odds of all items, shape (B, N)."""
        return self.scores(self.weights(self.states(observations)))

    def allowed(self, observations: dict[str, Any]) -> Tensor:
        """Items the plans allow, shape (B, N), bool."""
        return torch.from_numpy(observations["plan"]).bool()[:, self.category]

    def last_categories(self, observations: dict[str, Any]) -> NDArray[np.bool_]:
        """Categories of the slate just shown, shape (B, C); none at a session's start."""
        last = last_slate(observations, self.slate_size)
        return mark_categories(
            np.where(last >= 0, self.data.catalog.category[last], -1), self.data.catalog.n_categories
        )


def top_items(scores: Tensor, allowed: Tensor, k: int) -> NDArray[np.int64]:
    """The k best allowed items of each row, best first, shape (B, k).

    Args:
        scores: shape (B, N); not changed.
        allowed: shape (B, N), bool; where fewer than k are, others follow in no order.
        k: items to choose.
    """
    best: NDArray[np.int64] = scores.masked_fill(~allowed, float("-inf")).topk(k, dim=1).indices.numpy()
    return best


__getattr__ = renamed(__name__, {"LogModel": "CTRModel"})
