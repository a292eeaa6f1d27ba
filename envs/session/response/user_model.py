"""The user model: a multi-behaviour sequence model of how users respond to what they are shown.

The architecture is that of KuaiSim's and LERL's user response model (embedded item and user features, summed; a
sequence encoder over (item, behaviours) tokens; one scoring vector per behaviour) with two changes. The encoder is a
gated recurrent unit, which processes a slate in O(slate) where a transformer reads the history again. And counts, which
networks are slow to learn, are given as features: the state holds how often the user did each behaviour, in all and by
category; the item holds how often each behaviour was done with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.datasets.schema import Features, SessionData
from rapport.envs.session.response.causal_transformer import CausalTransformer

Encoder = Literal["gru", "transformer"]

HABIT = 10.0
"""Weight of the overall rate of a behaviour against a user's or an item's own, in exposures."""
CATEGORY_HABIT = 5.0
"""Weight of a user's rate against the same user's rate in one category, in exposures."""
BY_CATEGORY = 3
"""Behaviours, from the first, that are counted by category: the others are too rare."""


@dataclass(frozen=True)
class UserModelSize:
    """Sizes that define a :class:`UserModel`, needed before its weights are loaded."""

    item_features: tuple[int, ...]
    """Cardinality of each item feature."""
    user_features: tuple[int, ...]
    """Cardinality of each user feature."""
    n_items: int
    """Items in the catalogue, N."""
    n_behaviours: int
    """Behaviours, F."""
    n_categories: int
    """Categories, C."""
    encoder: Encoder = "gru"
    """Encoder of the history; a transformer is for comparison only, the simulator cannot use it."""
    width: int = 64
    """Width of encodings and of the recurrent part of a state, W."""
    dropout: float = 0.4
    """Dropout while fitting; never in simulation."""

    @property
    def by_category(self) -> int:
        """Behaviours counted by category, H."""
        return min(BY_CATEGORY, self.n_behaviours)

    @property
    def read_width(self) -> int:
        """Width of an encoded history, W + 2 F: the encoder's output, then counts of done and recorded behaviours."""
        return self.width + 2 * self.n_behaviours

    @property
    def state_width(self) -> int:
        """Width of a state, D = W + 2 F + 2 H C: the encoded history, then counts of done and recorded by category."""
        return self.read_width + 2 * self.by_category * self.n_categories

    @classmethod
    def of(cls, data: SessionData, encoder: Encoder = "gru") -> UserModelSize:
        """The size that fits a data set."""
        return cls(
            item_features=item_features(data).cardinalities,
            user_features=data.population.features.cardinalities,
            n_items=data.catalog.n_items,
            n_behaviours=len(data.log.behaviours),
            n_categories=data.catalog.n_categories,
            encoder=encoder,
        )


def item_features(data: SessionData) -> Features:
    """The catalogue's item features and, as the last one, the category."""
    return data.catalog.with_categories()


class UserModel(nn.Module):
    """Logits of every behaviour, given the history.

    Args:
        size: numbers of items, features and behaviours.
        item_codes: shape (N, number of item features), int64; the last one is the category.
        user_codes: shape (U, number of user features), int64.

    Attributes:
        rates: shape (F,), how often each behaviour is done overall.
        item_counts: shape (N, 2 F), how often each was done with an item, then how often it was recorded.
    """

    item_codes: Tensor
    user_codes: Tensor
    rates: Tensor
    item_counts: Tensor

    def __init__(self, size: UserModelSize, item_codes: Tensor, user_codes: Tensor) -> None:
        super().__init__()
        width, n_behaviours = size.width, size.n_behaviours
        self.size = size
        self.register_buffer("item_codes", item_codes, persistent=False)
        self.register_buffer("user_codes", user_codes, persistent=False)
        self.register_buffer("rates", torch.full((n_behaviours,), 0.5))
        self.register_buffer("item_counts", torch.zeros(size.n_items, 2 * n_behaviours))
        self.item_id = _embedding(size.n_items, width, 0.02)
        self.item_feature = nn.ModuleList(_embedding(n, width, 0.05) for n in size.item_features)
        self.user_feature = nn.ModuleList(_embedding(n, width, 0.05) for n in size.user_features)
        self.item_norm, self.user_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_item = nn.Linear(width, width)
        self.token_feedback = nn.Linear(2 * n_behaviours, width, bias=False)
        self.encoder = nn.GRU(width, width, batch_first=True) if size.encoder == "gru" else CausalTransformer(width)
        self.head_state = nn.Linear(width + n_behaviours, 2 * width, bias=False)
        self.head_user = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, n_behaviours * (width + 1))
        self.item_bias = nn.Linear(width, n_behaviours)
        self.counted = nn.ModuleDict(
            {
                "item": _zero_linear(2 * n_behaviours, width),
                "item_bias": _zero_linear(2 * n_behaviours, n_behaviours),
                "category": _zero_linear(size.by_category, n_behaviours),
            }
        )
        self.dropout = nn.Dropout(size.dropout)

    @property
    def category(self) -> Tensor:
        """Category of each item, shape (N,), int64."""
        return self.item_codes[:, -1]

    def items(self) -> Tensor:
        """Encodings of all items, shape (N, W), from ids and features: the encoder's input."""
        total = self.item_id.weight
        for column, embedding in enumerate(self.item_feature):
            total = total + embedding(self.item_codes[:, column])
        encoded: Tensor = self.item_norm(total)
        return encoded

    def shown(self, encoded: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Item vectors for scoring, (..., W), and the items' own offsets of the logits, (..., F).

        Args:
            encoded: shape (..., W), encodings of items.
            counts: shape (..., 2 F), as ``item_counts``.
        """
        done, recorded = counts.chunk(2, dim=-1)
        rates = torch.cat([self._log_odds(done, recorded), torch.log1p(recorded) / 3], dim=-1)
        judged = encoded + self.counted["item"](rates)
        return judged, self.item_bias(judged) + self.counted["item_bias"](rates)

    def users(self, users: Tensor) -> Tensor:
        """Encodings of users, shape (B, W), from their features alone, so that new users are encoded too."""
        codes = self.user_codes[users]
        total = sum(embedding(codes[:, column]) for column, embedding in enumerate(self.user_feature))
        encoded: Tensor = self.user_norm(total)
        return encoded

    def tokens(self, encoded: Tensor, feedback: Tensor) -> Tensor:
        """Encoder inputs, shape (..., W), from item encodings (..., W) and feedback (..., F) in {-1, 0, 1}."""
        seen = torch.cat([feedback.clamp(min=0), feedback >= 0], dim=-1).to(encoded.dtype)
        return torch.relu(self.token_item(encoded) + self.token_feedback(seen))

    def read(self, encoded: Tensor, feedback: Tensor) -> Tensor:
        """Encoded history after each exposure, shape (B, T, W + 2 F), starting from an empty one.

        Args:
            encoded: item encodings, shape (B, T, W).
            feedback: shape (B, T, F), in {-1, 0, 1}.
        """
        memory, _ = self.encoder(self.tokens(encoded, feedback))
        done, recorded = (counted.to(memory.dtype).cumsum(1) for counted in (feedback > 0, feedback >= 0))
        return torch.cat([memory, done, recorded], dim=-1)

    def score(self, state: Tensor, user_part: Tensor) -> Tensor:
        """Scoring vectors and offsets, shape (..., F, W + 1), from states (..., D) and ``head_user`` of users."""
        memory, (done, recorded) = state[..., : self.size.width], self._habits(state)
        known = torch.cat([self.dropout(memory), self._log_odds(done, recorded)], dim=-1)
        hidden = self.dropout(torch.relu(self.head_state(known) + user_part))
        return self.head(hidden).unflatten(-1, (self.size.n_behaviours, self.size.width + 1))  # type: ignore[no-any-return]

    def category_offsets(self, state: Tensor, done: Tensor, recorded: Tensor) -> Tensor:
        """Contribution of the user's habit with an item's category to its logits, shape (..., F).

        Args:
            state: shape (..., D) or wider than W + 2 F.
            done: shape (..., H), counts of the first H behaviours with items of that category.
            recorded: shape (..., H), counts of exposures that recorded them there.
        """
        own = self._smoothed(*self._habits(state))[..., : self.size.by_category]
        rate = (done + CATEGORY_HABIT * own) / (recorded + CATEGORY_HABIT)
        added: Tensor = self.counted["category"](torch.logit(rate) - torch.logit(own))
        return added

    def forward(self, users: Tensor, items: Tensor, feedback: Tensor, counts: Tensor | None = None) -> Tensor:
        """Logits of each behaviour at each exposure, given the exposures before it.

        Args:
            users: shape (B,), int64.
            items: shape (B, T), int64, oldest first.
            feedback: shape (B, T, F), in {-1, 0, 1}.
            counts: shape (B, T, 2 F), as ``item_counts``, of each exposure's item; by default those.

        Returns:
            shape (B, T, F).
        """
        # Not by indexing: threads sum its gradient in no fixed order.
        encoded = self.dropout(F.embedding(items, self.items()))
        judged, own = self.shown(encoded, self.item_counts[items] if counts is None else counts)
        after = self.read(encoded, feedback)
        before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], dim=1)
        scoring = self.score(before, self.head_user(self.users(users))[:, None])
        match = (scoring[..., :-1] @ judged[..., None])[..., 0] / math.sqrt(self.size.width)
        habit = self.category_offsets(before, *self._earlier_by_category(items, feedback))
        logits: Tensor = match + scoring[..., -1] + own + habit
        return logits

    def by_category(self, state: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of done and of recorded behaviours (the first H) in categories (B, K), each (B, K, H)."""
        kept = self._category_counts(state)
        who = torch.arange(len(state), device=state.device)[:, None]
        done, recorded = kept[who, categories].chunk(2, dim=-1)
        return done, recorded

    def count_by_category(self, state: Tensor, items: Tensor, feedback: Tensor) -> None:
        """Count exposures into states (B, D), in place: items (B, K) and feedback (B, K, F) in {-1, 0, 1}."""
        some = feedback[..., : self.size.by_category]
        new = torch.cat([some > 0, some >= 0], dim=-1).to(state.dtype)
        place = self.category[items][..., None].expand_as(new)
        self._category_counts(state).scatter_add_(1, place, new)

    def _category_counts(self, state: Tensor) -> Tensor:
        """A view of states (B, D), shape (B, C, 2 H)."""
        return state[:, self.size.read_width :].view(len(state), self.size.n_categories, 2 * self.size.by_category)

    def _earlier_by_category(self, items: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of done and of recorded behaviours, each (B, T, H), at earlier exposures of the same category."""
        category, some = self.category[items], feedback[..., : self.size.by_category]
        same = (category[:, :, None] == category[:, None, :]).to(self.rates.dtype).tril(-1)
        return same @ (some > 0).to(same.dtype), same @ (some >= 0).to(same.dtype)

    def _habits(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The user's counts of done and of recorded behaviours, each (..., F)."""
        done, recorded = state[..., self.size.width : self.size.read_width].chunk(2, dim=-1)
        return done, recorded

    def _smoothed(self, done: Tensor, recorded: Tensor) -> Tensor:
        return (done + HABIT * self.rates) / (recorded + HABIT)

    def _log_odds(self, done: Tensor, recorded: Tensor) -> Tensor:
        """Log-odds of counted rates minus those of the overall rates; 0 where nothing was counted."""
        return torch.logit(self._smoothed(done, recorded)) - torch.logit(self.rates)


def new_user_model(data: SessionData, size: UserModelSize | None = None) -> UserModel:
    """A model with fresh weights for a data set, from torch's current generator."""
    item_codes = torch.tensor(item_features(data).codes).long()
    user_codes = torch.tensor(data.population.features.codes).long()
    return UserModel(size or UserModelSize.of(data), item_codes, user_codes)


def _embedding(n: int, width: int, scale: float) -> nn.Embedding:
    embedding = nn.Embedding(n, width)
    nn.init.normal_(embedding.weight, std=scale)
    return embedding


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias, initialised to zero."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear
