"""Random numbers that belong to a session, not to a batch.

The n-th output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) is a pure function of its seed and n. Every slot of a
vector environment has its own seed, and every number it uses has its own n = (episode, step, position). So a user's
luck does not depend on who else is in the batch: an environment of one and a slot of a thousand with the same seed live
through the same sessions, and no step needs a Python loop over generators.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_STEP_BITS = np.uint64(12)
_EPISODE_BITS = np.uint64(32)

MAX_DRAWS = 1 << 12
"""Numbers one slot can draw in one step."""
MAX_STEPS = (1 << 20) - 1
"""Steps a session can have."""

USER_DRAW = 0
"""Step number reserved for the draw of a session's user; slates are steps 1, 2, ..."""


def new_key(generator: np.random.Generator) -> np.uint64:
    """Draw the seed of one slot from a numpy generator."""
    return generator.integers(2**64, dtype=np.uint64)


def uniform(
    key: NDArray[np.uint64], episode: NDArray[np.int64], step: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1).

    Args:
        key: shape (B,), seed of each slot.
        episode: shape (B,), sessions this slot has begun, below 2**32.
        step: shape (B,), at most :data:`MAX_STEPS`; :data:`USER_DRAW` or 1, 2, ...
        n: how many numbers per slot, at most :data:`MAX_DRAWS`.

    Returns:
        shape (B, n), float64.
    """
    number = (episode.astype(np.uint64) << _EPISODE_BITS) | (step.astype(np.uint64) << _STEP_BITS)
    state = key[:, None] + _GAMMA * (number[:, None] + np.arange(n, dtype=np.uint64))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    result: NDArray[np.float64] = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result
