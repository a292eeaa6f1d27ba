"""LERL's similarity penalty: the more an item resembles its slate, the less likely every behaviour."""

from __future__ import annotations

import numpy as np

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray
from rapport.envs.session.response.base import ReadsHistories


class SimilarityPenalty:
    """p = clip(p' - rho * corr, 0, 1) for every behaviour, with p' the probabilities of another response model.

    corr of an item is the mean of its cosine with the K items of its slate, itself included (LERL, KuaiSim: *item
    correlation*). The released code takes the mean instead of the sum of the unit vectors' products over their d
    dimensions, which divides the cosine by d = 64 and leaves a penalty of at most rho / 64.

    Args:
        inner: the other response model, which keeps the states.
        encodings: shape (N, d), vectors that items are compared by.
        rho: weight of the penalty, at least 0.
        divide_by_width: the released fault.

    Raises:
        ValueError: ``rho`` is below 0 or ``encodings`` is not one row per item.
    """

    def __init__(
        self, inner: ReadsHistories, encodings: FloatArray, rho: float = 0.2, divide_by_width: bool = False
    ) -> None:
        if not rho >= 0:
            raise ValueError(f"rho={rho}; the weight of the penalty must be at least 0")
        if encodings.ndim != 2:
            raise ValueError(f"encodings: shape {encodings.shape}; give one row per item, (N, d)")
        self.inner, self.rho, self.divide_by_width = inner, rho, divide_by_width
        self.behaviours = inner.behaviours
        length = np.linalg.norm(encodings, axis=1, keepdims=True)
        self._unit = (encodings / np.maximum(length, 1e-12)).astype(np.float32)

    def initial_state(self, users: IntArray) -> FloatArray:
        """The inner model's."""
        return self.inner.initial_state(users)

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """The inner model's."""
        return self.inner.state_after(users, items, feedback)

    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """The inner model's minus the penalty, shape (B, K, F)."""
        penalty = self.rho * self.correlation(slates)[..., None]
        lowered: FloatArray = np.clip(self.inner.probabilities(state, users, slates) - penalty, 0, 1)
        return lowered

    def correlation(self, slates: Int32Array) -> FloatArray:
        """Similarity of each item with its slate, shape (B, K)."""
        unit = self._unit[slates]
        resembles: FloatArray = np.einsum("bkd,bd->bk", unit, unit.mean(axis=1))
        return resembles / unit.shape[-1] if self.divide_by_width else resembles

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """The inner model's."""
        return self.inner.advance(state, users, slates, feedback)

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """The inner model's, shape (B, N): the penalty depends on the slate."""
        return self.inner.click_scores(state, users)
