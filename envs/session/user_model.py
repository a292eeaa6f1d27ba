"""How people respond to what they are shown: a multi-behaviour sequence model of a log.

The shape is that of KuaiSim's and LERL's user response model (item and user features embedded and summed, a sequence
encoder over (item, behaviours) tokens, one scoring vector per behaviour), with two changes. A gated recurrent unit
stands in the encoder's place: it takes in a slate in O(slate), where a transformer re-reads the history. And counting,
which a recurrent unit is slow to learn, is done for it: how often the user did each thing is part of the state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.datasets.schema import Features, SessionData

HABIT = 10.0
"""Exposures that the overall rate of a behaviour is worth against a user's own."""


@dataclass(frozen=True)
class UserModelSize:
    """What must be known to build a :class:`UserModel` before its weights are loaded."""

    item_features: tuple[int, ...]
    """Cardinality of each item feature."""
    user_features: tuple[int, ...]
    """Cardinality of each user feature."""
    n_items: int
    """Items in the catalogue, N."""
    n_behaviours: int
    """Behaviours, F."""
    width: int = 64
    """Width of encodings and of the recurrent part of a state, W."""
    dropout: float = 0.4
    """Dropout while fitting; never in simulation."""

    @property
    def state_width(self) -> int:
        """Width of a state, D = W + 2 F: the recurrent part, then per behaviour how often it was done and recorded."""
        return self.width + 2 * self.n_behaviours

    @classmethod
    def of(cls, data: SessionData) -> UserModelSize:
        """The size that fits a data set."""
        return cls(
            item_features=item_features(data).cardinalities,
            user_features=data.population.features.cardinalities,
            n_items=data.catalog.n_items,
            n_behaviours=len(data.log.behaviours),
        )


def item_features(data: SessionData) -> Features:
    """The catalogue's item features with the category as one more."""
    catalog = data.catalog
    codes = torch.tensor(catalog.features.codes)
    both = torch.cat([codes, torch.tensor(catalog.category)[:, None]], dim=1).numpy()
    names = (*catalog.features.names, "category")
    return Features(names, (*catalog.features.values, catalog.category_names), both)


class UserModel(nn.Module):
    """Logits of every behaviour, given what happened before.

    Args:
        size: numbers of items, features and behaviours.
        item_codes: shape (N, number of item features), int64.
        user_codes: shape (U, number of user features), int64.
    """

    item_codes: Tensor
    user_codes: Tensor
    rates: Tensor

    def __init__(self, size: UserModelSize, item_codes: Tensor, user_codes: Tensor) -> None:
        super().__init__()
        width, n_behaviours = size.width, size.n_behaviours
        self.size = size
        self.register_buffer("item_codes", item_codes, persistent=False)
        self.register_buffer("user_codes", user_codes, persistent=False)
        self.register_buffer("rates", torch.full((n_behaviours,), 0.5))
        self.item_id = _embedding(size.n_items, width, 0.02)
        self.item_feature = nn.ModuleList(_embedding(n, width, 0.05) for n in size.item_features)
        self.user_feature = nn.ModuleList(_embedding(n, width, 0.05) for n in size.user_features)
        self.item_norm, self.user_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_item = nn.Linear(width, width)
        self.token_feedback = nn.Linear(2 * n_behaviours, width, bias=False)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.head_state = nn.Linear(width + n_behaviours, 2 * width, bias=False)
        self.head_user = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, n_behaviours * (width + 1))
        self.item_bias = nn.Linear(width, n_behaviours)
        self.dropout = nn.Dropout(size.dropout)

    def items(self) -> Tensor:
        """Encodings of all items, shape (N, W)."""
        total = self.item_id.weight
        for column, embedding in enumerate(self.item_feature):
            total = total + embedding(self.item_codes[:, column])
        encoded: Tensor = self.item_norm(total)
        return encoded

    def users(self, users: Tensor) -> Tensor:
        """Encodings of users, shape (B, W), from their features alone: who was never seen is encoded all the same."""
        codes = self.user_codes[users]
        total = sum(embedding(codes[:, column]) for column, embedding in enumerate(self.user_feature))
        encoded: Tensor = self.user_norm(total)
        return encoded

    def tokens(self, encoded: Tensor, feedback: Tensor) -> Tensor:
        """Encoder inputs, shape (..., W), from item encodings (..., W) and feedback (..., F) in {-1, 0, 1}."""
        seen = torch.cat([feedback.clamp(min=0), feedback >= 0], dim=-1).to(encoded.dtype)
        return torch.relu(self.token_item(encoded) + self.token_feedback(seen))

    def read(self, encoded: Tensor, feedback: Tensor) -> Tensor:
        """States after each exposure, shape (B, T, D), beginning with none seen.

        Args:
            encoded: item encodings, shape (B, T, W).
            feedback: shape (B, T, F), in {-1, 0, 1}.
        """
        memory, _ = self.encoder(self.tokens(encoded, feedback))
        done, recorded = (counted.to(memory.dtype).cumsum(1) for counted in (feedback > 0, feedback >= 0))
        return torch.cat([memory, done, recorded], dim=-1)

    def score(self, state: Tensor, user_part: Tensor) -> Tensor:
        """Scoring vectors and offsets, shape (..., F, W + 1), from states (..., D) and ``head_user`` of users."""
        memory, counts = state[..., : self.size.width], state[..., self.size.width :]
        done, recorded = counts.chunk(2, dim=-1)
        rate = (done + HABIT * self.rates) / (recorded + HABIT)
        habits = torch.logit(rate) - torch.logit(self.rates)
        known = torch.cat([self.dropout(memory), habits], dim=-1)
        hidden = self.dropout(torch.relu(self.head_state(known) + user_part))
        return self.head(hidden).unflatten(-1, (self.size.n_behaviours, self.size.width + 1))  # type: ignore[no-any-return]

    def forward(self, users: Tensor, items: Tensor, feedback: Tensor) -> Tensor:
        """Logits of each behaviour at each exposure, given the exposures before it.

        Args:
            users: shape (B,), int64.
            items: shape (B, T), int64, oldest first.
            feedback: shape (B, T, F), in {-1, 0, 1}.

        Returns:
            shape (B, T, F).
        """
        # Not indexing, whose gradient several threads sum in no fixed order.
        encoded = self.dropout(F.embedding(items, self.items()))
        after = self.read(encoded, feedback)
        before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], dim=1)
        scoring = self.score(before, self.head_user(self.users(users))[:, None])
        match = (scoring[..., :-1] @ encoded[..., None])[..., 0] / math.sqrt(self.size.width)
        logits: Tensor = match + scoring[..., -1] + self.item_bias(encoded)
        return logits


def new_user_model(data: SessionData, size: UserModelSize | None = None) -> UserModel:
    """A model with fresh weights for a data set, from torch's current generator."""
    item_codes = torch.tensor(item_features(data).codes).long()
    user_codes = torch.tensor(data.population.features.codes).long()
    return UserModel(size or UserModelSize.of(data), item_codes, user_codes)


def _embedding(n: int, width: int, scale: float) -> nn.Embedding:
    embedding = nn.Embedding(n, width)
    nn.init.normal_(embedding.weight, std=scale)
    return embedding
