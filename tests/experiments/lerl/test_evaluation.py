"""Evaluation: whole sessions, the same people and luck for every method, and controls that do what they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import OracleSlates
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse
from rapport.experiments.lerl.evaluation import Variety, evaluation_users, play
from rapport.experiments.lerl.play import Evaluation, play_slates


def play_one_by_one(setup, act_for, users, seed):
    """The slow reference: each session alone in its own environment, stepped until it ends."""
    lengths, returns = [], []
    for slot, user in enumerate(users):
        env = setup.sessions(1, "held_out")
        observations, _ = env.reset(seed=seed + slot, options={"user": np.array([user])})
        length, total, ended = 0, 0.0, False
        act = act_for(env)
        while not ended:
            observations, reward, terminated, truncated, _ = env.step(act(observations))
            length, total, ended = length + 1, total + reward[0], bool(terminated[0] or truncated[0])
        lengths.append(length)
        returns.append(total)
    return np.array(lengths), np.array(returns)


def test_playing_together_equals_playing_one_by_one(twin_setup):
    data = twin_setup.session_data()
    users = evaluation_users(data, 12, seed=5)
    env = twin_setup.sessions(12, "held_out")
    together = play(env, PopularSlates(data, 6), users, seed=5)
    alone = play_one_by_one(twin_setup, lambda _: PopularSlates(data, 6), users, seed=5)
    np.testing.assert_array_equal(together.lengths, alone[0])
    np.testing.assert_allclose(together.returns, alone[1])


def variety_of(categories: list[np.ndarray], n_categories: int) -> tuple[float, float, float]:
    """The slow reference: one session's slates, each an array of K categories."""
    pairs = [(a != b) for slate in categories for i, a in enumerate(slate) for b in slate[i + 1 :]]
    changes = []
    for old, new in itertools.pairwise(set(slate.tolist()) for slate in categories):
        changes.append(1 - len(old & new) / len(old | new))
    coverage = len(set(np.concatenate(categories).tolist())) / n_categories
    return coverage, float(np.mean(pairs)), float(np.mean(changes)) if changes else 1.0


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), n_categories=st.integers(2, 9))
def test_variety_agrees_with_a_plain_loop(seed, size, n_categories):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 8, 5)
    slates = rng.integers(0, n_categories, (lengths.max(), 5, size)).astype(np.int32)
    variety = Variety(5, n_categories)
    for step, shown in enumerate(slates):
        variety.count(shown, lengths > step)
    found = np.array(variety.measured(lengths)).T
    wanted = [variety_of(list(slates[: lengths[row], row]), n_categories) for row in range(5)]
    np.testing.assert_allclose(found, wanted)


def test_single_items_cannot_be_varied_within(twin_setup):
    variety = Variety(2, 5)
    for step in range(3):
        variety.count(np.array([[step], [0]]), np.ones(2, bool))
    coverage, intra, between = variety.measured(np.array([3, 3]))
    np.testing.assert_allclose(coverage, [0.6, 0.2])
    np.testing.assert_allclose(intra, 1.0)
    np.testing.assert_allclose(between, [1.0, 0.0])


def test_evaluation_users_are_held_out_distinct_and_drawn_by_the_seed(twin_setup):
    data = twin_setup.session_data()
    users = evaluation_users(data, 100, seed=1)
    assert data.held_out[users].all()
    assert len(set(users)) == 100
    assert (users == evaluation_users(data, 100, seed=1)).all()
    assert (users != evaluation_users(data, 100, seed=2)).any()
    assert len(evaluation_users(data, 10_000, seed=1)) == 10_000


def test_the_oracle_never_repeats_a_category_and_beats_random(twin_setup):
    env = twin_setup.sessions(64, "held_out")
    category = env.core.data.catalog.category
    observations, _ = env.reset(seed=0)
    oracle, previous = OracleSlates(env.core), None
    for _ in range(5):
        slates = oracle(observations)
        assert all(len(set(slate)) == 6 for slate in slates.tolist())
        if previous is not None:
            for now, before in zip(category[slates], previous, strict=True):
                assert not set(now) & set(before)
        observations, *_ = env.step(slates)
        previous = category[slates]
    task = Evaluation(twin_setup, 0, 200)
    assert play_slates(task, "oracle").r_cum > 1.5 * play_slates(task, "random").r_cum


def test_the_oracle_takes_the_best_items_of_fresh_categories(twin_setup):
    env = twin_setup.sessions(3, "held_out")
    observations, _ = env.reset(seed=0)
    first = OracleSlates(env.core)(observations)
    env.step(first)
    slates = OracleSlates(env.core)(observations)
    core = env.core
    for row in range(3):
        chance = core.response.probabilities(
            core.state[[row]], core.user[[row]], np.arange(core.data.catalog.n_items, dtype=np.int32)[None]
        )[0, :, 0]
        fresh = ~np.isin(core.data.catalog.category, core.previous[row])
        best = np.sort(chance[fresh])[-6:]
        np.testing.assert_allclose(np.sort(chance[slates[row]]), best, rtol=1e-4)


def test_popularity_counts_training_users_training_days_only_and_shows_nothing_twice(twin_setup):
    data = twin_setup.session_data()
    log, click = data.log, data.log.feedback[:, 0]
    shown, clicked = np.zeros(data.catalog.n_items), np.zeros(data.catalog.n_items)
    total = [0, 0]
    for row in range(len(log)):
        if click[row] >= 0 and log.time_ms[row] < data.valid_from_ms and not data.held_out[log.user[row]]:
            shown[log.item[row]] += 1
            clicked[log.item[row]] += click[row]
            total = [total[0] + 1, total[1] + int(click[row])]
    rate = (clicked + 20 * total[1] / total[0]) / (shown + 20)
    popular = PopularSlates(data, 6)
    steps = np.concatenate([popular({"step": np.array([[t]], np.int32)})[0] for t in range(20)])
    assert len(set(steps)) == 120
    np.testing.assert_allclose(rate[steps], np.sort(rate)[::-1][:120])


def test_random_slates_are_uniform():
    slates = RandomSlates(10, 6, np.random.default_rng(0))({"step": np.zeros((5_000, 1))})
    counts = np.bincount(slates.ravel(), minlength=10)
    assert slates.shape == (5_000, 6)
    assert abs(counts - 3_000).max() < 5 * np.sqrt(3_000)


def test_the_oracle_reads_a_table(small_data):
    rng = np.random.default_rng(0)
    chance = rng.random((small_data.population.n_users, small_data.catalog.n_items, 7))
    response = MatrixResponse(chance, small_data.log.behaviours)
    core = kuairand_core(3, data=small_data, response=response, slate_size=2)
    core.begin(np.arange(3), np.array([4, 0, 9]))
    wanted = np.argsort(-chance[[4, 0, 9], :, 0], axis=1)[:, :2]
    assert [set(slate) for slate in OracleSlates(core)({}).tolist()] == [set(slate) for slate in wanted.tolist()]


def test_the_oracle_needs_a_simulator_it_can_read(twin_setup):
    core = twin_setup.sessions(1, "all").core
    core.response = object()
    with pytest.raises(
        TypeError, match=r"object has no click_scores\(state, users\), which an oracle reads; add the method"
    ):
        OracleSlates(core)({})
