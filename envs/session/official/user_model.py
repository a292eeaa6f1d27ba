"""LERL's user response model: a causal transformer over the history (arXiv 2601.19585, released code).

It is used by the ``official`` profile and for comparison; the default simulator's model is
:mod:`rapport.envs.session.response.user_model`. Items and users are sums of encoded features, a token joins an item and
its feedback, and one scoring vector per behaviour is multiplied with the item. The whole history is read at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.datasets.schema import SessionData
from rapport.envs.session.response.user_model import item_features

EMBEDDING, ENCODING, HEADS, FEED_FORWARD, LAYERS, SCORER = 32, 64, 4, 64, 2, 128
"""Widths of the released model: of an embedded feature, of an encoding, and of the transformer's parts."""
TOKEN = 2 * ENCODING


class LayerMasks(NamedTuple):
    """Dropout masks of one transformer layer: True is kept.

    Attributes:
        attention: shape (B, HEADS, Q, L).
        attended: shape (B, Q, TOKEN).
        inner: shape (B, Q, FEED_FORWARD).
        outer: shape (B, Q, TOKEN).
    """

    attention: Tensor
    attended: Tensor
    inner: Tensor
    outer: Tensor

    @classmethod
    def shapes(cls, length: int, queries: int) -> tuple[tuple[int, ...], ...]:
        """Shapes for one user, without B, where the last ``queries`` of ``length`` tokens are read out."""
        attention = HEADS, queries, length
        return attention, (queries, TOKEN), (queries, FEED_FORWARD), (queries, TOKEN)


@dataclass(frozen=True)
class HistoryModelSize:
    """Sizes that define a :class:`HistoryModel`, needed before its weights are loaded."""

    length: int = 100
    """Tokens of a history, L; shorter ones are padded on the left, and the padding is read too."""
    dropout: float = 0.1
    """Of the transformer."""
    scramble: bool = False
    """Released fault: behaviours arrive as F rows of L and are reshaped to (L, F), which mixes the axes for F > 1."""


class HistoryModel(nn.Module):
    """Scoring vectors of every behaviour, given the last L exposures.

    Args:
        item_codes: shape (N, number of item features), int64.
        item_sizes: cardinality of each.
        user_codes: shape (U, number of user features), int64.
        user_sizes: cardinality of each.
        n_behaviours: F.
        size: length and dropout.
    """

    def __init__(
        self,
        item_codes: Tensor,
        item_sizes: tuple[int, ...],
        user_codes: Tensor,
        user_sizes: tuple[int, ...],
        n_behaviours: int,
        size: HistoryModelSize,
    ) -> None:
        super().__init__()
        self.size, self.n_behaviours = size, n_behaviours
        self.item_encoder = _Encoder(item_codes, item_sizes)
        self.user_encoder = _Encoder(user_codes, user_sizes)
        self.position = nn.Embedding(size.length, ENCODING)
        self.behaviour = nn.Linear(n_behaviours, ENCODING)
        self.layers = nn.ModuleList(_Layer(size.dropout) for _ in range(LAYERS))
        self.scorer = nn.Sequential(
            nn.Linear(TOKEN + ENCODING, SCORER), nn.ReLU(), nn.Linear(SCORER, n_behaviours * ENCODING)
        )
        self.scoring_norm = nn.LayerNorm(ENCODING)

    def items(self) -> Tensor:
        """Encodings of the padding and of all items, shape (1 + N, 64)."""
        encoded: Tensor = self.item_encoder()
        return encoded

    def tokens(self, encoded: Tensor, feedback: Tensor) -> Tensor:
        """Tokens, shape (B, L, 128), of item encodings (B, L, 64) and feedback (B, L, F), where unknown counts as 0."""
        done = feedback.clamp(min=0).to(encoded.dtype)
        if self.size.scramble:
            done = done.transpose(1, 2).reshape(done.shape)
        return torch.cat([encoded + self.position.weight, self.behaviour(done)], dim=-1)

    def read(self, tokens: Tensor, queries: int = 1, masks: list[LayerMasks] | None = None) -> Tensor:
        """Outputs at the last ``queries`` tokens, shape (B, queries, 128).

        Args:
            tokens: shape (B, L, 128).
            queries: number of outputs, from the end.
            masks: dropout masks, one per layer, in simulation; by default torch draws them in training mode.
        """
        for place, layer in enumerate(self.layers):
            wanted = queries if place == LAYERS - 1 else tokens.shape[1]
            tokens = layer(tokens, wanted, None if masks is None else masks[place])
        return tokens

    def scoring(self, users: Tensor, read: Tensor) -> Tensor:
        """Scoring vectors, shape (B, Q, F, 64), of users (B,) and outputs (B, Q, 128)."""
        who = self.user_encoder(users)[:, None].expand(-1, read.shape[1], -1)
        scored = self.scorer(torch.cat([read, who], dim=-1))
        normed: Tensor = self.scoring_norm(scored.unflatten(-1, (self.n_behaviours, ENCODING)))
        return normed

    def forward(self, users: Tensor, items: Tensor, feedback: Tensor, targets: Tensor) -> Tensor:
        """Logits, shape (B, Q, F), of the last Q targets, each given the tokens up to its own place.

        Args:
            users: shape (B,), int64.
            items: shape (B, L), int64, item index + 1; 0 where there is none.
            feedback: shape (B, L, F), in {-1, 0, 1}.
            targets: shape (B, Q), int64, item indices: the q-th is shown after token L - Q + q.
        """
        # Not by indexing: threads sum its gradient in no fixed order.
        encoded = self.items()
        read = self.read(self.tokens(F.embedding(items, encoded), feedback), targets.shape[1])
        shown = F.embedding(targets + 1, encoded)
        return (self.scoring(users, read) * shown[:, :, None]).mean(dim=-1)


class _Encoder(nn.Module):
    """Embeds ids and features in 32 dimensions, normalises, maps to 64, sums and normalises again."""

    codes: Tensor

    def __init__(self, codes: Tensor, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)
        self.identity = nn.Embedding(1 + len(codes), EMBEDDING)
        self.features = nn.ModuleList(nn.Linear(n, EMBEDDING) for n in sizes)
        self.feature_norm, self.norm = nn.LayerNorm(EMBEDDING), nn.LayerNorm(ENCODING)
        self.widen = nn.Linear(EMBEDDING, ENCODING)

    def forward(self, who: Tensor | None = None) -> Tensor:
        """Encodings of ``who``, shape (B, 64); by default of the padding and then of all, shape (1 + n, 64)."""
        if who is not None:
            identity, codes = F.embedding(who + 1, self.identity.weight), self.codes[who]
            parts = [identity, *(_one_hot(m, codes[:, c]) for c, m in enumerate(self.features))]
        else:
            parts = [self.identity.weight]
            for column, linear in enumerate(self.features):
                known = _one_hot(linear, self.codes[:, column])
                parts.append(torch.cat([linear.bias[None], known]))  # type: ignore[index]
        encoded: Tensor = self.norm(self.widen(self.feature_norm(torch.stack(parts, dim=1))).sum(dim=1))
        return encoded


def _one_hot(linear: nn.Module, codes: Tensor) -> Tensor:
    """A linear map of one-hot codes, shape (n, 32), computed without the one-hot rows."""
    assert isinstance(linear, nn.Linear)
    return F.embedding(codes, linear.weight.T) + linear.bias


class _Layer(nn.Module):
    """A causal transformer layer (post-norm, ReLU), whose dropout masks can be given from outside."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.rate = dropout
        self.query, self.key, self.value, self.out = (nn.Linear(TOKEN, TOKEN) for _ in range(4))
        self.inner, self.outer = nn.Linear(TOKEN, FEED_FORWARD), nn.Linear(FEED_FORWARD, TOKEN)
        self.norm_1, self.norm_2 = nn.LayerNorm(TOKEN), nn.LayerNorm(TOKEN)

    def forward(self, tokens: Tensor, queries: int, masks: LayerMasks | None) -> Tensor:
        """Outputs at the last ``queries`` tokens, shape (B, queries, 128)."""
        own = tokens[:, -queries:]
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query(own), self.key(tokens), self.value(tokens))
        )
        fit = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        length = tokens.shape[1]
        later = torch.ones(queries, length, dtype=torch.bool, device=fit.device).triu(length - queries + 1)
        weight = self._drop(fit.masked_fill(later, -math.inf).softmax(dim=-1), masks and masks.attention)
        attended = self.out((weight @ value).transpose(1, 2).flatten(-2))
        own = self.norm_1(own + self._drop(attended, masks and masks.attended))
        inner = self._drop(torch.relu(self.inner(own)), masks and masks.inner)
        result: Tensor = self.norm_2(own + self._drop(self.outer(inner), masks and masks.outer))
        return result

    def _drop(self, x: Tensor, kept: Tensor | None) -> Tensor:
        if kept is not None:
            return x * kept / (1 - self.rate)
        return F.dropout(x, self.rate, self.training)


def new_history_model(data: SessionData, size: HistoryModelSize | None = None) -> HistoryModel:
    """A model with fresh weights for a data set, from torch's current generator."""
    items, users = item_features(data), data.population.features
    return HistoryModel(
        torch.tensor(items.codes).long(),
        items.cardinalities,
        torch.tensor(users.codes).long(),
        users.cardinalities,
        len(data.log.behaviours),
        size or HistoryModelSize(),
    )
