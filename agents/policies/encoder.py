"""The low level's state encoder: a small transformer over the items that a user saw and the user's behaviours on them.

It has the shape of LERL's policy encoder (item features embedded and summed, tokens of item and behaviours, four heads,
feed-forward width 64). The original is a fixed random feature map in effect; here padding is masked, positions are
relative, and gradients reach every weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.datasets.schema import SessionData


@dataclass(frozen=True)
class EncoderSettings:
    """Sizes of the state encoder."""

    item_width: int = 32
    """Width of item encodings, E; a hyper-action has E weights and a bias."""
    width: int = 64
    """Width of tokens, D."""
    feed_forward: int = 64
    """Width of the feed-forward layers."""
    heads: int = 4
    """Attention heads."""
    layers: int = 1
    """Transformer layers (LERL: 3); a second one more than halves the speed, and its gain was not measured."""
    window: int = 30
    """Newest items read: five slates of six, as LERL's planner reads (LERL's encoder: 100)."""
    dropout: float = 0.1
    """Dropout while pretraining; none while acting or in PPO, whose likelihood ratios it would blur."""


class Layer(nn.Module):
    """Pre-norm causal attention with a learned bias per head and distance, then a feed-forward part."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(settings.heads, settings.window + 2))
        self.forward_in, self.forward_out = (
            nn.Linear(width, settings.feed_forward),
            nn.Linear(settings.feed_forward, width),
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, tokens: Tensor, visible: Tensor, last_only: bool) -> Tensor:
        """Tokens after the layer, shape (B, T, D), or only the last, (B, 1, D); ``visible`` (B, T) bool masks padding.

        Distances beyond the window count as the window's. Token 0 is the user's; it has no place in time and a bias of
        its own.
        """
        length = tokens.shape[1]
        normed = self.norm_attention(tokens)
        asked = slice(length - 1, None) if last_only else slice(None)
        query = self._split(self.query(normed[:, asked]))
        key, value = (self._split(part) for part in self.key_value(normed).chunk(2, dim=-1))
        place = torch.arange(length, device=tokens.device)
        apart = place[asked, None] - place
        farthest = self.distance.shape[1] - 2
        bias = self.distance[:, torch.where(place > 0, apart.clamp(0, farthest), farthest + 1)]
        allowed = visible[:, None, None, :] & (apart >= 0)
        mask = torch.where(allowed, bias, float("-inf"))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens[:, asked] + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        change = self.forward_out(F.relu(self.forward_in(self.norm_forward(tokens))))
        result: Tensor = tokens + self.dropout(change)
        return result

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class StateEncoder(nn.Module):
    """Encodes items, and the state of a session: the user and the newest items with the user's behaviours.

    Args:
        data: its items' and users' features are read, its log is not.
        settings: sizes.
    """

    item_codes: Tensor

    def __init__(self, data: SessionData, settings: EncoderSettings) -> None:
        super().__init__()
        catalog, width = data.catalog, settings.width
        self.settings = settings
        self.n_behaviours = len(data.log.behaviours)
        features = catalog.with_categories()
        self.register_buffer("item_codes", torch.tensor(features.codes).long(), persistent=False)
        sizes = features.cardinalities
        self.item_id = nn.Embedding(catalog.n_items, settings.item_width)
        self.item_feature = nn.ModuleList(nn.Embedding(n, settings.item_width) for n in sizes)
        self.user_feature = nn.ModuleList(nn.Embedding(n, width) for n in data.population.features.cardinalities)
        for embedding in (self.item_id, *self.item_feature, *self.user_feature):
            nn.init.normal_(embedding.weight, std=0.1)
        self.item_norm, self.user_norm = nn.LayerNorm(settings.item_width), nn.LayerNorm(width)
        self.token_item = nn.Linear(settings.item_width, width)
        self.token_feedback = nn.Linear(2 * self.n_behaviours, width, bias=False)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width)

    @property
    def features_dim(self) -> int:
        """Width of a state, 2 D: the newest token and the user."""
        return 2 * self.settings.width

    def items(self) -> Tensor:
        """Encodings of all items, shape (N, E)."""
        total = self.item_id.weight
        for column, embedding in enumerate(self.item_feature):
            total = total + embedding(self.item_codes[:, column])
        encoded: Tensor = self.item_norm(total)
        return encoded

    def disable_dropout(self) -> None:
        """Switch dropout off for good: with it, the likelihoods of PPO's ratio would differ at random."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def freeze_items(self) -> None:
        """Keep the item encodings fixed in training."""
        for name, parameter in self.named_parameters():
            if name.startswith("item_"):
                parameter.requires_grad_(False)

    def encode(self, user_features: Tensor, items: Tensor, feedback: Tensor, last_only: bool = True) -> Tensor:
        """States of B sessions.

        Args:
            user_features: shape (B, G), int64 codes.
            items: shape (B, T), int64, item index + 1, oldest first; 0 where there is none.
            feedback: shape (B, T, F), in {-1, 0, 1}.
            last_only: whether to return only the state after the newest item.

        Returns:
            shape (B, 2 D), or for every place (before the first item, after each) (B, T + 1, 2 D).
        """
        user = sum(embedding(user_features[:, g]) for g, embedding in enumerate(self.user_feature))
        user = self.user_norm(user)
        shown = items > 0
        looked_up = F.embedding((items - 1).clamp(min=0), self.items())
        told = torch.cat([feedback.clamp(min=0), feedback >= 0], dim=-1).to(looked_up.dtype)
        tokens = F.relu(self.token_item(looked_up) + self.token_feedback(told))
        # Padding repeats the user's token, which no other token attends to: an empty history has the user's state.
        tokens = torch.cat([user[:, None], torch.where(shown[..., None], tokens, user[:, None])], dim=1)
        visible = F.pad(shown, (1, 0), value=True)
        for depth, layer in enumerate(self.layers):
            tokens = layer(tokens, visible, last_only and depth == len(self.layers) - 1)
        tokens = self.norm(tokens)
        states = torch.cat([tokens, user[:, None].expand_as(tokens)], dim=-1)
        return states[:, -1] if last_only else states
