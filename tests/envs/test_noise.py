"""The session noise: SplitMix64 by its definition, uniform, and independent of slot, session, step, place and batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rapport.envs.session import noise

WORD = (1 << 64) - 1


def splitmix64(seed: int, n: int) -> int:
    """The n-th output (from 1) of Steele, Lea and Flood's generator, in Python's own whole numbers."""
    state = (seed + n * 0x9E3779B97F4A7C15) & WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
    return state ^ (state >> 31)


def test_the_reference_is_splitmix64() -> None:
    """The first outputs for seed 1234567, as published with the reference implementation in C."""
    assert [splitmix64(1234567, n) for n in (1, 2, 3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(
    key=st.integers(0, WORD),
    episode=st.integers(0, 2**32 - 1),
    step=st.integers(0, noise.MAX_STEPS),
    n=st.integers(1, 50),
)
def test_numbers_are_those_of_splitmix64(key: int, episode: int, step: int, n: int) -> None:
    first = (episode << 32) | (step << 12)
    expected = [(splitmix64(key, first + i) >> 11) / 2**53 for i in range(n)]
    drawn = noise.uniform(np.array([key], np.uint64), np.array([episode]), np.array([step]), n)
    assert drawn.shape == (1, n)
    assert drawn[0].tolist() == expected


def test_counters_of_different_draws_differ() -> None:
    """(episode, step, place) is a number of its own up to the limits that the engine checks."""
    edge = [0, 1, 2, 2**20 - 2, noise.MAX_STEPS]
    places = [0, 1, noise.MAX_DRAWS - 1]
    counters = [(e << 32) + (s << 12) + p for e, s, p in itertools.product([0, 1, 7, 2**32 - 1], edge, places)]
    assert len(set(counters)) == len(counters)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """Shape (64 slots, 20 sessions, 10 steps, 42 numbers), the layout that 64 real environments use."""
    keys = np.array([noise.new_key(np.random.default_rng(s)) for s in range(64)])
    out = np.empty((64, 20, 10, 42))
    for episode, step in itertools.product(range(20), range(10)):
        out[:, episode, step] = noise.uniform(keys, np.full(64, episode + 1), np.full(64, step + 1), 42)
    return out


def test_numbers_are_uniform(sample: np.ndarray) -> None:
    assert sample.min() >= 0 and sample.max() < 1
    counts = np.bincount((sample.ravel() * 1000).astype(int), minlength=1000)
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999
    assert stats.kstest(sample.ravel(), "uniform").pvalue > 0.001
    low_bits = (sample.ravel() * 2**53).astype(np.uint64) & np.uint64(0xFF)
    assert 0.001 < stats.chisquare(np.bincount(low_bits.astype(int), minlength=256)).pvalue < 0.999


@pytest.mark.parametrize("axis", range(4), ids=["slot", "session", "step", "place"])
def test_neighbours_are_independent(sample: np.ndarray, axis: int) -> None:
    """Pairs of neighbours along each axis fill a 16 x 16 table evenly, and their correlation is nil."""
    first, second = (np.take(sample, range(start, sample.shape[axis] - 1 + start), axis).ravel() for start in (0, 1))
    table = np.zeros((16, 16))
    np.add.at(table, ((first * 16).astype(int), (second * 16).astype(int)), 1)
    assert stats.chisquare(table.ravel()).pvalue > 0.0005
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / np.sqrt(len(first))


def test_a_slot_draws_the_same_in_any_batch() -> None:
    rng = np.random.default_rng(0)
    keys, episode, step = rng.integers(2**64, size=100, dtype=np.uint64), rng.integers(9, size=100), np.arange(100)
    together = noise.uniform(keys, episode, step, 7)
    for i in (0, 1, 50, 99):
        np.testing.assert_array_equal(noise.uniform(keys[[i]], episode[[i]], step[[i]], 7)[0], together[i])
    np.testing.assert_array_equal(noise.uniform(keys, episode, step, 3), together[:, :3])
