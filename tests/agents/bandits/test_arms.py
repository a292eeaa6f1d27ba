"""Arm bandits against counting by hand, closed forms and plain loops."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rapport.agents.bandits import ArmCounts, epsilon_greedy, top_arms, ucb1

pytestmark = pytest.mark.filterwarnings("error")


def test_counts_are_plain_addition() -> None:
    arms = ArmCounts([2, 0, 1.5], [1, 0, 0.5])
    arms.update(np.array([[0, 0], [1, 0]]), np.array([[1, 0], [1, 1]]))
    assert arms.pulls.tolist() == [5, 1, 1.5] and arms.rewards.tolist() == [3, 1, 0.5]
    assert arms.means.tolist() == [0.6, 1.0, 0.5 / 1.5]


def test_what_is_given_stays_as_it_is() -> None:
    pulls = np.ones(2)
    ArmCounts(pulls, pulls).update(np.array([0]), np.array([1.0]))
    assert pulls.tolist() == [1, 1]


def test_ucb1_by_hand() -> None:
    """Three arms pulled 8, 2 and 0 times: ln 10 in both bounds, and an arm never pulled comes first."""
    bounds = ucb1(ArmCounts([8, 2, 0], [4, 1, 0]), width=0.5)
    assert bounds[0] == pytest.approx(0.5 + 0.5 * math.sqrt(2 * 2.302585093 / 8))
    assert bounds[1] == pytest.approx(0.5 + 0.5 * math.sqrt(2 * 2.302585093 / 2))
    assert bounds[2] == np.inf
    assert np.isinf(ucb1(ArmCounts([0, 0], [0, 0]))).all()


def test_ucb1_finds_the_best_arm_and_pulls_the_others_seldom() -> None:
    """Theorem 1: an arm a gap below the best is pulled at most 8 ln n / gap^2 + 1 + pi^2 / 3 times on average."""
    chance, rng, n = np.array([0.2, 0.5, 0.9]), np.random.default_rng(0), 3_000
    arms = ArmCounts(np.zeros(3), np.zeros(3))
    for _ in range(n):
        arm = np.array([np.argmax(ucb1(arms))])
        arms.update(arm, (rng.random(1) < chance[arm]).astype(float))
    bound = 8 * math.log(n) / (0.9 - chance[:2]) ** 2 + 1 + math.pi**2 / 3
    assert arms.pulls.sum() == n and (arms.pulls[:2] < bound).all() and arms.pulls[2] > 2_500


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_top_arms_are_a_plain_sort(data: st.DataObject) -> None:
    n_arms, rounds = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 3))
    k = data.draw(st.integers(1, n_arms))
    values = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n_arms, max_size=n_arms)), float)
    bits = st.lists(st.booleans(), min_size=n_arms, max_size=n_arms)
    available = np.array(data.draw(st.lists(bits, min_size=rounds, max_size=rounds)))
    chosen = top_arms(np.broadcast_to(values, available.shape), available, k)
    for row, free in zip(chosen.tolist(), available.tolist(), strict=True):
        assert row == sorted(range(n_arms), key=lambda arm: (not free[arm], -values[arm], arm))[:k]


def test_exploring_gives_a_share_of_places_to_any_arm() -> None:
    rng = np.random.default_rng(0)
    values = -np.arange(20.0)
    available = np.ones((4000, 20), bool)
    available[:, [0, 7]] = False
    best = {1, 2, 3}

    def chosen(epsilon: float) -> NDArray[np.int64]:
        return top_arms(epsilon_greedy(values, available, 3, epsilon, rng), available, 3)

    assert all(set(row) == best for row in chosen(0.0))
    counts = np.bincount(chosen(0.3).ravel(), minlength=20) / 4000
    assert counts[0] == counts[7] == 0
    # A place is given up with probability 0.3; an arm without a place is drawn like any other of the 18 - kept.
    kept = [math.comb(3, m) * 0.3**m * 0.7 ** (3 - m) for m in range(4)]
    each = sum(p * m / (15 + m) for m, p in enumerate(kept))
    np.testing.assert_allclose(counts[[4, 5, 6, *range(8, 20)]], each, atol=0.02)
    everything = np.bincount(chosen(1.0).ravel(), minlength=20) / 4000
    np.testing.assert_allclose(everything[available[0]], 3 / 18, atol=0.03)


def test_the_package_needs_neither_torch_nor_sessions() -> None:
    program = """
import sys
import rapport.agents.bandits
loaded = {name for name in sys.modules if name.startswith(("torch", "rapport.envs.session", "rapport.agents."))}
print(sorted(name for name in loaded if not name.startswith("rapport.agents.bandits")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
