"""Sampling of the next token from a model's logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import Sampling

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

_TOP_K = 32
"""Number of likeliest tokens sorted first; more are seldom needed."""


def nucleus(logits: FloatArray, sampling: Sampling) -> tuple[IntArray, FloatArray]:
    """Tokens of the nucleus (top-p) and their probabilities.

    As in llama.cpp, `top_p` applies to the model's own probabilities, and the temperature to the tokens that remain.

    Args:
        logits: shape (B, V), of B sequences over a vocabulary of V tokens.
        sampling: temperature and top_p.

    Returns:
        Tokens, likeliest first, and their probabilities, both of shape (B, K); 0 for tokens outside the nucleus.
    """
    size = logits.shape[1]
    if sampling.temperature == 0:
        best = logits.argmax(1, keepdims=True)
        return best, np.ones(best.shape, np.float32)
    top = logits.max(1, keepdims=True)
    total = np.exp(logits - top).sum(1, keepdims=True)
    k = size if sampling.top_p == 1 else min(_TOP_K, size)
    while True:
        tokens = _likeliest(logits, k)
        above = np.take_along_axis(logits, tokens, 1) - top
        share = np.exp(above) / total
        held = share.cumsum(1)
        if k == size or held[:, -1].min() >= sampling.top_p:
            break
        k = min(8 * k, size)
    weights = np.exp(above / sampling.temperature)
    if sampling.top_p < 1:  # rounding must not cut anything off where top_p is 1
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


def sample(
    logits: FloatArray,
    tokens: IntArray,
    weights: FloatArray,
    allowed: Callable[[IntArray], BoolArray] | None,
    sampling: Sampling,
    rng: np.random.Generator,
) -> int | None:
    """Sample one token that the grammar allows; None where it allows none.

    A check of all tokens against the grammar is slow. The function therefore samples without the grammar first, and
    only if the token is not allowed it samples again among the allowed tokens A of the nucleus. A token x of A then has
    probability q(x) + (1 - q(A)) * q(x) / q(A) = q(x) / q(A), as if the others had been excluded from the start. If no
    token of the nucleus is allowed, the function samples from the nucleus of all allowed tokens.

    Args:
        logits: shape (V,).
        tokens: shape (K,), the nucleus.
        weights: shape (K,), probabilities of the nucleus.
        allowed: tells which of some tokens the grammar allows; None where there is no grammar.
        sampling: temperature and top_p.
        rng: source of randomness.
    """
    token = _pick(tokens, weights, rng)
    if allowed is None or allowed(np.array([token]))[0]:
        return token
    inside = np.flatnonzero(weights)
    tokens, weights = tokens[inside], weights[inside]
    fits = allowed(tokens)
    if fits.any():
        return _pick(tokens[fits], weights[fits], rng)
    candidates = np.flatnonzero(allowed(np.arange(len(logits))))
    if not len(candidates):
        return None
    (kept,), (weights,) = nucleus(logits[np.newaxis, candidates], sampling)
    return _pick(candidates[kept], weights, rng)


def log_probability(logits: FloatArray, token: int) -> float:
    """Natural log-probability of a token under the softmax of the logits (V,)."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[token] - np.log(np.exp(shifted).sum()))


def _pick(tokens: IntArray, weights: FloatArray, rng: np.random.Generator) -> int:
    edges = np.cumsum(weights, dtype=np.float64)
    place = np.searchsorted(edges, rng.random() * edges[-1], side="right")
    return int(tokens[min(int(place), int(np.count_nonzero(weights)) - 1)])
