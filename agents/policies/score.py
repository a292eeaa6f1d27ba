"""An item's score under a hyper-action (w, b): <w, e> / sqrt(E) + b, with e the item's encoding of width E.

Two functions compute it in two orders of operations, which differ in the last bits: one divides the weights and adds up
by a matrix product, the other adds up products and divides their sum. Trained weights depend on which of them is used
where, so neither stands in for the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def score_items(weights: Tensor, items: Tensor) -> Tensor:
    """Scores of all items in every session, shape (B, N), by one matrix product.

    Args:
        weights: shape (B, E + 1), hyper-actions (w, b).
        items: shape (N, E), encodings of all items.
    """
    return torch.addmm(weights[:, -1:], weights[:, :-1] / math.sqrt(items.shape[1]), items.T)


def score_pairs(weights: Tensor, items: Tensor) -> Tensor:
    """Scores of chosen items, each under its own hyper-action, shape (...).

    Args:
        weights: shape (..., E + 1), or what broadcasts to it: (B, 1, E + 1) for one hyper-action a slate.
        items: shape (..., E), encodings of the chosen items.
    """
    return (weights[..., :-1] * items).sum(dim=-1) / math.sqrt(items.shape[-1]) + weights[..., -1]
