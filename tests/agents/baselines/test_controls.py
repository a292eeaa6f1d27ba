"""Controls do what they say: random, popular, and oracles that read the simulator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import OracleSlates
from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core, kuairand_vector_env
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.response.learned import SequenceResponse

HeldOut = Callable[[int], SessionVectorEnv]


@pytest.fixture
def held_out(small_data: SessionData, sequence_response: SequenceResponse) -> HeldOut:
    """Sessions of held-out users, side by side, whose clicks depend on what they saw."""

    def made(n: int) -> SessionVectorEnv:
        same_step = AutoresetMode.SAME_STEP
        return kuairand_vector_env(n, same_step, data=small_data, response=sequence_response, users="held_out")

    return made


def test_the_oracle_never_repeats_a_category(held_out: HeldOut) -> None:
    env = held_out(64)
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


def test_the_oracle_takes_the_best_items_of_fresh_categories(held_out: HeldOut) -> None:
    env = held_out(3)
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


def test_popularity_counts_training_users_training_days_only_and_shows_nothing_twice() -> None:
    data = twin()
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


def test_random_slates_are_uniform() -> None:
    slates = RandomSlates(10, 6, np.random.default_rng(0))({"step": np.zeros((5_000, 1))})
    counts = np.bincount(slates.ravel(), minlength=10)
    assert slates.shape == (5_000, 6)
    assert abs(counts - 3_000).max() < 5 * np.sqrt(3_000)


def test_the_oracle_reads_a_table(small_data: SessionData) -> None:
    rng = np.random.default_rng(0)
    chance = rng.random((small_data.population.n_users, small_data.catalog.n_items, 7))
    response = MatrixResponse(chance, small_data.log.behaviours)
    core = kuairand_core(3, data=small_data, response=response, slate_size=2)
    core.begin(np.arange(3), np.array([4, 0, 9]))
    wanted = np.argsort(-chance[[4, 0, 9], :, 0], axis=1)[:, :2]
    assert [set(slate) for slate in OracleSlates(core)({}).tolist()] == [set(slate) for slate in wanted.tolist()]


def test_the_oracle_needs_a_simulator_it_can_read(held_out: HeldOut) -> None:
    core = held_out(1).core
    core.response = object()  # type: ignore[assignment]
    with pytest.raises(
        TypeError, match=r"object has no click_scores\(state, users\), which an oracle reads; add the method"
    ):
        OracleSlates(core)({})
