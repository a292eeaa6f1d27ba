"""The counter-based random numbers: SplitMix64 by its definition, uniform, independent along every axis."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rapport.envs.session.engine import counter_rng

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


def halves(seed: int, first: int, n: int) -> list[float]:
    """n numbers from the outputs first, first + 1, ... of a seed: the low 32 bits of each, then the high."""
    outputs = [splitmix64(seed, first + i // 2) for i in range(n)]
    return [(output >> 32 if i % 2 else output & 0xFFFFFFFF) / 2**32 for i, output in enumerate(outputs)]


def stream_at(key: int, episode: int, step: int) -> np.ndarray:
    """The random stream of one slot: a session begun, then moved on slate by slate."""
    stream = counter_rng.new_stream(np.array([key], np.uint64), np.array([episode]))
    return stream + counter_rng.STEP * np.array([step], np.uint64)


@given(
    key=st.integers(0, WORD),
    episode=st.integers(0, 2**32 - 1),
    step=st.integers(0, counter_rng.MAX_STEPS),
    n=st.integers(1, 200),
    batch=st.sampled_from([1, 3]),
)
def test_numbers_are_those_of_splitmix64(key: int, episode: int, step: int, n: int, batch: int) -> None:
    """Output (episode, step, i // 2) of the slot's seed makes the numbers i = 0, 1, ..."""
    first = (episode << 32) + (step << 12)
    drawn = counter_rng.uniform(np.repeat(stream_at(key, episode, step), batch), n)
    assert drawn.shape == (batch, n) and drawn.dtype == np.float64
    assert drawn.tolist() == [halves(key, first, n)] * batch


@given(stream=st.lists(st.integers(0, WORD), min_size=1, max_size=5), n=st.sampled_from([1, 2, 63, 64, 65, 4096]))
def test_one_slot_and_many_draw_alike(stream: list[int], n: int) -> None:
    """A single slot's few numbers are made in Python's own arithmetic, all others by numpy."""
    words = np.array(stream, np.uint64)
    together = counter_rng.uniform(np.concatenate([words, words]), n)
    alone = [counter_rng.uniform(words[[i]], n)[0] for i in range(len(words))]
    np.testing.assert_array_equal(together, alone + alone)


def test_counters_of_different_draws_differ() -> None:
    """(episode, step, place) is a number of its own up to the limits that the engine checks."""
    edge = [0, 1, 2, 2**20 - 2, counter_rng.MAX_STEPS]
    places = [0, 1, counter_rng.MAX_DRAWS // 2 - 1]
    counters = [(e << 32) + (s << 12) + p for e, s, p in itertools.product([0, 1, 7, 2**32 - 1], edge, places)]
    assert len(set(counters)) == len(counters)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """Shape (64 slots, 20 sessions, 10 steps, 42 numbers), the layout that 64 real environments use."""
    keys = np.array([counter_rng.new_key(np.random.default_rng(s)) for s in range(64)])
    out = np.empty((64, 20, 10, 42))
    for episode in range(20):
        stream = counter_rng.new_stream(keys, np.full(64, episode + 1))
        for step in range(10):
            stream += counter_rng.STEP
            out[:, episode, step] = counter_rng.uniform(stream, 42)
    return out


def test_numbers_are_uniform(sample: np.ndarray) -> None:
    assert sample.min() >= 0 and sample.max() < 1
    counts = np.bincount((sample.ravel() * 1000).astype(int), minlength=1000)
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999
    assert stats.kstest(sample.ravel(), "uniform").pvalue > 0.001
    low_bits = (sample.ravel() * 2**32).astype(np.uint64) & np.uint64(0xFF)
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
    stream = np.random.default_rng(0).integers(2**64, size=100, dtype=np.uint64)
    together = counter_rng.uniform(stream, 7)
    for i in (0, 1, 50, 99):
        np.testing.assert_array_equal(counter_rng.uniform(stream[[i]], 7)[0], together[i])
    np.testing.assert_array_equal(counter_rng.uniform(stream, 3), together[:, :3])


def test_drawing_does_not_change_the_stream() -> None:
    stream = np.array([5, 6], np.uint64)
    counter_rng.uniform(stream, 9)
    counter_rng.new_stream(stream, np.array([1, 2]))
    assert stream.tolist() == [5, 6]
