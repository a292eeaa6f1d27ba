"""Counter-based random numbers: each belongs to a session, not to a batch.

The n-th output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) is a pure function of its seed and n. Every slot of a
vector environment has its own seed, and every number it uses has its own n = (episode, step, position). A user's
responses therefore do not depend on who else is in the batch: an environment of one session and a slot of a thousand
with the same seed go through the same sessions, and no step needs a Python loop over generators.

A session's random stream is a counter, shape (B,): :func:`new_stream` sets it, and adding :data:`STEP` moves it to the
next slate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WORD = (1 << 64) - 1
_FACTOR_1, _FACTOR_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_STEP_BITS, _EPISODE_BITS = 12, 32

GAMMA = 0x9E3779B97F4A7C15
"""Increment of SplitMix64's state from one output to the next."""
SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31))
FACTORS = np.uint64(_FACTOR_1), np.uint64(_FACTOR_2)
"""SplitMix64's output function: the state is shifted, XORed and multiplied by these in turn."""

MAX_DRAWS = 1 << _STEP_BITS
"""Numbers one slot can draw in one step."""
MAX_STEPS = (1 << (_EPISODE_BITS - _STEP_BITS)) - 1
"""Steps a session can have."""
STEP = np.uint64((GAMMA << _STEP_BITS) & _WORD)
"""Added to a session's random stream before each slate; uint64, wraps around."""
EPISODE = np.uint64((GAMMA << _EPISODE_BITS) & _WORD)
"""Distance between the random streams of a slot's sessions; uint64, wraps around."""

_OFFSETS = (np.arange(MAX_DRAWS, dtype=np.uint64) * np.uint64(GAMMA)).astype(np.uint64)


def new_key(generator: np.random.Generator) -> np.uint64:
    """Draw the seed of one slot from a numpy generator."""
    return generator.integers(2**64, dtype=np.uint64)


def new_stream(key: NDArray[np.uint64], episode: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Random streams of new sessions, shape (B,); their first number draws the user.

    Args:
        key: shape (B,), seed of each slot.
        episode: shape (B,), number of the session in its slot, below 2**32.
    """
    return key + EPISODE * episode.astype(np.uint64)


def uniform(stream: NDArray[np.uint64], n: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), multiples of 2**-32: every output of SplitMix64 makes two.

    Args:
        stream: shape (B,).
        n: how many numbers per slot, at most :data:`MAX_DRAWS`.

    Returns:
        shape (B, n).
    """
    if len(stream) == 1 and n <= 64:  # Python's integers are faster than arrays of a few words
        return np.array([_words(int(stream[0]), n)], np.float64) * 2.0**-32
    state = stream[:, None] + _OFFSETS[: (n + 1) // 2]
    spare = state >> SHIFTS[0]
    state ^= spare
    state *= FACTORS[0]
    np.right_shift(state, SHIFTS[1], out=spare)
    state ^= spare
    state *= FACTORS[1]
    np.right_shift(state, SHIFTS[2], out=spare)
    state ^= spare
    result: NDArray[np.float64] = state.astype("<u8", copy=False).view("<u4")[:, :n] * 2.0**-32
    return result


def _words(stream: int, n: int) -> list[int]:
    words: list[int] = []
    for i in range((n + 1) // 2):
        state = (stream + i * GAMMA) & _WORD
        state = ((state ^ (state >> 30)) * _FACTOR_1) & _WORD
        state = ((state ^ (state >> 27)) * _FACTOR_2) & _WORD
        state ^= state >> 31
        words += (state & 0xFFFFFFFF, state >> 32)
    return words[:n]
