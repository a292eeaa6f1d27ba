"""The recorder of learning curves: its curve is of the episodes that ended, and it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.agents.baselines.controls import RandomSlates
from rapport.experiments.core import EpisodeStatistics
from rapport.experiments.lerl.environments import data_of, sessions_of


@pytest.mark.parametrize("every", [1_280, 320])
def test_a_training_has_the_curve_of_its_sessions(twin_env, every):
    told: list[int] = []
    watched = EpisodeStatistics(sessions_of(twin_env, 64, "train"), every, told.append)
    bare = sessions_of(twin_env, 64, "train")
    act = RandomSlates(data_of(twin_env).catalog.n_items, 6, np.random.default_rng(0))
    observations, _ = watched.reset(seed=0)
    bare.reset(seed=0)
    lengths, totals, running, ended, points = np.zeros(64, int), np.zeros(64), [], [], []
    for step in range(1, 41):
        slates = act(observations)
        observations, rewards, terminated, truncated, _ = watched.step(slates)
        np.testing.assert_array_equal(rewards, bare.step(slates)[1])
        lengths, totals = lengths + 1, totals + rewards
        over = terminated | truncated
        running += list(zip(lengths[over], totals[over], strict=True))
        lengths[over], totals[over] = 0, 0.0
        if step * 64 % every == 0:
            points.append(step * 64)
            if running:
                ended.append((step * 64, *np.mean(running, axis=0)))
            running = []
    assert watched.steps == 40 * 64 and told == points
    assert len(ended) > 1 and (every == 1_280) == (len(ended) == len(points))  # no session ends within five slates
    np.testing.assert_allclose(watched.curve, ended)
