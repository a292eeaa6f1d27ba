"""A small Llama model in torch, equal to llama.cpp's "llama" architecture number for number.

A prefix that all rows of a batch have in common is read once (`Llama.read_prefix`). Every row attends to it without a
copy of it, in training as in decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_INIT_STD = 0.02


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of a model.

    d_model and d_ff should be multiples of 32: llama.cpp's kernels are written for them, and read a model with d_model
    112 four times slower than one with 128.
    """

    n_vocab: int
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    d_ff: int = 352
    max_length: int = 2048
    """Longest text in tokens, prompt and completion together."""
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True
    """Whether the input and output embeddings are the same matrix."""

    def __post_init__(self) -> None:
        for name in ("n_vocab", "d_model", "n_layers", "n_heads", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model must be a multiple of 2 * n_heads, because rotary positions rotate pairs in every head; got "
                f"d_model={self.d_model}, n_heads={self.n_heads}"
            )

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads

    @property
    def n_weights(self) -> int:
        """Number of parameters."""
        layer = 4 * self.d_model**2 + 3 * self.d_model * self.d_ff + 2 * self.d_model
        embeddings = (1 if self.tied else 2) * self.n_vocab * self.d_model
        return self.n_layers * layer + embeddings + self.d_model


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a prefix that all rows of a batch have in common."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, shape (H, P, d_head)."""

    def __len__(self) -> int:
        return self.layers[0][0].shape[1]


@dataclass
class Cache:
    """Keys and values of the rows of a batch beyond their common prefix; `Llama.decode_step` adds to it in place."""

    prefix: Prefix | None
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, shape (B, H, N, d_head); the first ``lengths[r]`` of N are filled in row r."""
    lengths: Tensor
    """Tokens of each row, shape (B,)."""


class Llama(nn.Module):
    """Decoder of a Llama language model (arXiv 2302.13971): RMSNorm, rotary positions on adjacent pairs, SwiGLU."""

    def __init__(self, config: LlamaConfig, generator: torch.Generator | None = None) -> None:
        """Initialise the weights for training from scratch.

        Args:
            config: the shape.
            generator: source of the random weights; torch's global one where None.
        """
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.n_vocab, config.d_model)
        self.blocks = cast("Sequence[Block]", nn.ModuleList(Block(config) for _ in range(config.n_layers)))
        self.norm = _RMSNorm(config.d_model, config.norm_eps)
        self.output = None if config.tied else nn.Linear(config.d_model, config.n_vocab, bias=False)
        self._rope: Tensor
        self.register_buffer("_rope", _rotations(config), persistent=False)
        self._initialise(generator)

    def forward(self, tokens: Tensor, prefix: Prefix | None = None) -> Tensor:
        """Logits of the token after each token.

        Args:
            tokens: shape (B, L), padded at the right with any token.
            prefix: the common prefix of all rows; gradients flow into it.

        Returns:
            Shape (B, L, V).
        """
        return self.logits(self.hidden(tokens, prefix))

    def hidden(self, tokens: Tensor, prefix: Prefix | None = None) -> Tensor:
        """Hidden states of the last layer, shape (B, L, d_model), for `logits` of a few positions only."""
        return self._run(tokens, prefix)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of shape (..., V) for hidden states of shape (..., d_model)."""
        weight = self.embedding.weight if self.output is None else self.output.weight
        return F.linear(self.norm(hidden), weight)

    def read_prefix(self, tokens: Tensor) -> Prefix:
        """Keys and values of a prefix, shape (P,) or (1, P), that all rows of later batches begin with."""
        layers = self._run(tokens.reshape(1, -1), None)[1]
        return Prefix([(keys[0], values[0]) for keys, values in layers])

    @torch.no_grad()
    def prefill(self, tokens: Tensor, lengths: Tensor, room: int, prefix: Prefix | None = None) -> tuple[Tensor, Cache]:
        """Read prompts of different lengths; `decode_step` continues them.

        Args:
            tokens: shape (B, L), padded at the right with any token.
            lengths: tokens of each row without the padding, shape (B,), at least 1.
            room: tokens that can be added to a row.
            prefix: the common prefix of all rows.

        Returns:
            Logits of the next token of each row, shape (B, V), and the cache.
        """
        hidden, layers = self._run(tokens, prefix)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        # The padding of a row is overwritten before it is attended to.
        roomy = [(F.pad(keys, (0, 0, 0, room)), F.pad(values, (0, 0, 0, room))) for keys, values in layers]
        return self.logits(last), Cache(prefix, roomy, lengths.clone())

    @torch.no_grad()
    def decode_step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Add one token to each row.

        Args:
            tokens: shape (B,).
            cache: of `prefill`; changed in place.

        Returns:
            Logits of the next token, shape (B, V).

        Raises:
            ValueError: a row is full.
        """
        slots = cache.layers[0][0].shape[2]
        if int(cache.lengths.max()) >= slots:
            raise ValueError(f"the cache holds {slots} tokens per row and is full: give prefill() a larger room")
        start = 0 if cache.prefix is None else len(cache.prefix)
        rotations = self._at(start + cache.lengths)[:, None, None]
        mask = (torch.arange(slots, device=tokens.device) <= cache.lengths[:, None])[:, None, None]
        rows = torch.arange(len(tokens), device=tokens.device)
        x = self.embedding(tokens[:, None])
        for number, block in enumerate(self.blocks):
            query, key, value = block.project(x, rotations)
            keys, values = cache.layers[number]
            keys[rows, :, cache.lengths] = key[:, :, 0]
            values[rows, :, cache.lengths] = value[:, :, 0]
            shared = None if cache.prefix is None else cache.prefix.layers[number]
            x = block.finish(x, _attend(query, keys, values, mask, shared))
        cache.lengths += 1
        return self.logits(x[:, 0])

    def _run(self, tokens: Tensor, prefix: Prefix | None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states of shape (B, L, d_model), and the keys and values of each layer."""
        length, start = tokens.shape[1], 0 if prefix is None else len(prefix)
        rotations = self._at(torch.arange(start, start + length, device=tokens.device))
        mask = None if prefix is None else _causal(length, start, device=tokens.device)
        x = self.embedding(tokens)
        layers = []
        for number, block in enumerate(self.blocks):
            query, keys, values = block.project(x, rotations)
            layers.append((keys, values))
            if prefix is not None:
                # A copy of a few megabytes costs less here than attention in two parts.
                shared_keys, shared_values = prefix.layers[number]
                keys = torch.cat([shared_keys.expand(len(tokens), -1, -1, -1), keys], dim=2)
                values = torch.cat([shared_values.expand(len(tokens), -1, -1, -1), values], dim=2)
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=mask is None)
            x = block.finish(x, mixed)
        return x, layers

    def _at(self, positions: Tensor) -> Tensor:
        """Rotations at some positions."""
        if int(positions.max()) >= self.config.max_length:
            raise ValueError(
                f"the text has at least {int(positions.max()) + 1} tokens and the model has max_length="
                f"{self.config.max_length}: shorten the text, or create the model with a larger max_length"
            )
        return self._rope[positions]

    def _initialise(self, generator: torch.Generator | None) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # Projections into the residual stream start smaller, so that its variance does not grow with depth.
                residual = name.endswith(("mix.weight", "down.weight"))
                std = _INIT_STD / math.sqrt(2 * self.config.n_layers) if residual else _INIT_STD
                nn.init.normal_(weight, std=std, generator=generator)


class Block(nn.Module):
    """One layer: attention, then the feed-forward network."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads = config.n_heads
        self.attention_norm = _RMSNorm(d, config.norm_eps)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.mix = nn.Linear(d, d, bias=False)
        self.feed_norm = _RMSNorm(d, config.norm_eps)
        self.gate_up = nn.Linear(d, 2 * config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, d, bias=False)

    def project(self, x: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each of shape (B, H, L, d_head), of hidden states of shape (B, L, d_model)."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.n_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return _rotate(query, rotations), _rotate(key, rotations), value

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Output of the layer, given the heads' outputs of shape (B, H, L, d_head)."""
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.feed_norm(x)).chunk(2, dim=-1)
        fed: Tensor = self.down(F.silu(gate) * up)
        return x + fed


class _RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def _rotations(config: LlamaConfig) -> Tensor:
    """Rotation of each pair of dimensions at each position: unit complex numbers, shape (max_length, d_head / 2)."""
    speed = config.rope_base ** (-torch.arange(0, config.d_head, 2, dtype=torch.float64) / config.d_head)
    angle = torch.arange(config.max_length, dtype=torch.float64)[:, None] * speed
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def _rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864) on adjacent pairs, as in llama.cpp's "llama" architecture."""
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotations).flatten(-2)


def _causal(length: int, start: int, device: torch.device) -> Tensor:
    """Which keys each of the tokens ``start`` to ``start + length - 1`` may see, shape (length, start + length)."""
    return torch.ones(length, start + length, dtype=torch.bool, device=device).tril(start)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, shared: tuple[Tensor, Tensor] | None) -> Tensor:
    """Attention of one token per row to the row's own keys, where the mask is true, and to the prefix.

    Args:
        query: shape (B, H, 1, d_head).
        keys: shape (B, H, N, d_head).
        values: shape (B, H, N, d_head).
        mask: shape (B, 1, 1, N).
        shared: keys and values of the prefix, shape (H, P, d_head).

    Returns:
        Shape (B, H, 1, d_head).
    """
    if shared is None:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    scaled = query / math.sqrt(query.shape[-1])
    own = (scaled @ keys.transpose(-1, -2)).masked_fill(~mask, -torch.inf)
    # All rows' queries of a head form one matrix, so that the prefix is read once per step, not once per row.
    stacked = scaled[:, :, 0].transpose(0, 1)
    common = (stacked @ shared[0].transpose(-1, -2)).transpose(0, 1)[:, :, None]
    weights = torch.cat([common, own], dim=-1).softmax(-1)
    split = shared[0].shape[1]
    front = weights[:, :, 0, :split].transpose(0, 1) @ shared[1]
    return weights[..., split:] @ values + front.transpose(0, 1)[:, :, None]
