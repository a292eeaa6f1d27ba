"""Drawing the next token from a model's logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import Sampling

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

_FIRST_LOOK = 32
"""Likeliest tokens that are sorted first; seldom are more needed."""


def nucleus(logits: FloatArray, sampling: Sampling) -> tuple[IntArray, FloatArray]:
    """The tokens that may be drawn, and how likely each is.

    As in llama.cpp, `top_p` is of the model's own probabilities, and the temperature applies to what is left.

    Args:
        logits: of B tokens to draw from a vocabulary of V, shape (B, V).
        sampling: temperature and top_p.

    Returns:
        Tokens, likeliest first, and their probabilities, both of shape (B, K); 0 for those that may not be drawn.
    """
    size = logits.shape[1]
    if sampling.temperature == 0:
        best = logits.argmax(1, keepdims=True)
        return best, np.ones(best.shape, np.float32)
    top = logits.max(1, keepdims=True)
    total = np.exp(logits - top).sum(1, keepdims=True)
    k = size if sampling.top_p == 1 else min(_FIRST_LOOK, size)
    while True:
        tokens = _likeliest(logits, k)
        above = np.take_along_axis(logits, tokens, 1) - top
        share = np.exp(above) / total
        held = share.cumsum(1)
        if k == size or held[:, -1].min() >= sampling.top_p:
            break
        k = min(8 * k, size)
    weights = np.exp(above / sampling.temperature)
    if sampling.top_p < 1:  # rounding must not cut off what holds all
        weights[held - share >= sampling.top_p] = 0
    return tokens, weights / weights.sum(1, keepdims=True)


def _likeliest(logits: FloatArray, k: int) -> IntArray:
    """The k likeliest tokens of each row, likeliest first, shape (B, k)."""
    rows, size = logits.shape
    if k == size:
        tokens = np.tile(np.arange(size), (rows, 1))
    else:
        tokens = np.argpartition(logits, size - k, axis=1)[:, size - k :]
    order = np.argsort(-np.take_along_axis(logits, tokens, 1), axis=1, kind="stable")
    return np.take_along_axis(tokens, order, 1)


def draw(
    logits: FloatArray,
    tokens: IntArray,
    weights: FloatArray,
    allowed: Callable[[IntArray], BoolArray] | None,
    sampling: Sampling,
    rng: np.random.Generator,
) -> int | None:
    """Draw one token that is allowed; None where there is none.

    Asking which tokens are allowed is dear, so one is drawn without asking, and only where it is refused a second one
    is drawn from those of the nucleus that are allowed. With q(A) the probability of these, a token of theirs comes up
    with q(x) at once and with (1 - q(A)) * q(x) / q(A) at the second draw, together q(x) / q(A): just as if the others
    had been left out to begin with. Where none of the nucleus is allowed, which leaves nothing to compare with, the
    token is drawn from the nucleus of all that are.

    Args:
        logits: shape (V,).
        tokens: its nucleus, shape (K,).
        weights: probabilities of the nucleus, shape (K,).
        allowed: says which of some tokens may come next; None where all may.
        sampling: temperature and top_p.
        rng: where chance comes from.
    """
    token = _pick(tokens, weights, rng)
    if allowed is None or allowed(np.array([token]))[0]:
        return token
    inside = np.flatnonzero(weights)
    tokens, weights = tokens[inside], weights[inside]
    fits = allowed(tokens)
    if fits.any():
        return _pick(tokens[fits], weights[fits], rng)
    every = np.flatnonzero(allowed(np.arange(len(logits))))
    if not len(every):
        return None
    left, held = nucleus(logits[np.newaxis, every], sampling)
    return _pick(every[left[0]], held[0], rng)


def _pick(tokens: IntArray, weights: FloatArray, rng: np.random.Generator) -> int:
    edges = np.cumsum(weights, dtype=np.float64)
    place = np.searchsorted(edges, rng.random() * edges[-1], side="right")
    return int(tokens[min(int(place), int(np.count_nonzero(weights)) - 1)])
