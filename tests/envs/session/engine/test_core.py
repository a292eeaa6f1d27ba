"""The engine: how long sessions last, where they begin, what it refuses. Step for step: test_reference.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.initial_histories import Histories
from rapport.envs.session.engine.quit_rules import Positional
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.factory import session_core
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

# --- LERL's rule: how long sessions last ------------------------------------------------------------------------------


def lengths(data: SessionData, response: MatrixResponse, rule: str, slates: Any, budget: float = 20) -> list[int]:
    """Length of sessions fed ``slates(step)``, one per user of a batch of 40."""
    core = kuairand_core(40, data=data, response=response, quit_rule=rule, budget=budget, max_steps=100)
    env = SessionVectorEnv(core, AutoresetMode.NEXT_STEP)
    env.reset(seed=0)
    ended_at = np.zeros(40, int)
    for step in range(101):
        _, _, terminated, truncated, _ = env.step(slates(step))
        ended_at[(terminated | truncated) & (ended_at == 0)] = step + 1
        if ended_at.all():
            break
    return ended_at.tolist()


def of_category(data: SessionData, category: int) -> np.ndarray:
    return np.full((40, 6), np.flatnonzero(data.catalog.category == category)[0])


def test_always_repeating_ends_after_11_and_never_repeating_after_20(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    same = lengths(small_data, matrix_response, "positional", lambda _: of_category(small_data, 0))
    fresh = lengths(small_data, matrix_response, "positional", lambda step: of_category(small_data, step % 2))
    assert set(same) == {11} and set(fresh) == {20}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n_categories=st.integers(1, 37), rule=st.sampled_from(["positional", "set_overlap"]))
def test_a_session_ends_at_the_first_n_with_n_plus_violations_at_least_20(
    small_data: SessionData, matrix_response: MatrixResponse, seed: int, n_categories: int, rule: str
) -> None:
    items = np.flatnonzero(small_data.catalog.category < n_categories)
    slates = np.random.default_rng(seed).choice(items, size=(100, 40, 6))
    got = lengths(small_data, matrix_response, rule, lambda step: slates[step])
    category = small_data.catalog.category[slates]
    for i, length in enumerate(got):
        n = violations = 0
        while n + violations < 20:
            new, old = category[n, i].tolist(), category[n - 1, i].tolist()
            pairs = zip(new, old, strict=True) if rule == "positional" else ((a, b) for a in new for b in old)
            violations += n > 0 and any(a == b for a, b in pairs)
            n += 1
        assert length == n
        assert 11 <= length <= 20


@pytest.mark.parametrize(("clicks", "slates"), [(0, 10), (1, 20)])
def test_kuaisims_sessions_last_10_to_20_slates(small_data: SessionData, clicks: int, slates: int) -> None:
    """With the click alone weighted and a budget of 20: 10 where nothing is clicked, 20 where everything is."""
    response = MatrixResponse(np.full((200, 150, 7), clicks), small_data.log.behaviours)
    assert set(lengths(small_data, response, "satisfaction", lambda _: np.zeros((40, 6), int))) == {slates}


def test_never_ends_at_the_time_limit_and_is_truncated(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    core = kuairand_core(2, data=small_data, response=matrix_response, quit_rule="never", max_steps=3)
    env = SessionVectorEnv(core)
    env.reset(seed=0)
    for step in range(3):
        _, _, terminated, truncated, info = env.step(np.zeros((2, 6), int))
        assert not terminated.any() and truncated.all() == (step == 2)
        assert info["budget"].tolist() == [20.0, 20.0] and info["cost"].tolist() == [0.0, 0.0]


def test_leaving_at_the_time_limit_is_terminated_not_truncated(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    core = kuairand_core(1, data=small_data, response=matrix_response, budget=1, max_steps=1)
    env = SessionVectorEnv(core)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(np.zeros((1, 6), int))
    assert (terminated.tolist(), truncated.tolist()) == ([True], [False])


def test_a_table_of_zeros_and_ones_is_certain(small_data: SessionData) -> None:
    truth = np.random.default_rng(3).integers(2, size=(200, 150, 7))
    response = MatrixResponse(truth, small_data.log.behaviours)
    env = SessionVectorEnv(kuairand_core(50, data=small_data, response=response))
    _, info = env.reset(seed=0)
    slates = np.random.default_rng(4).integers(150, size=(50, 6))
    _, _, _, _, after = env.step(slates)
    assert response.certain
    np.testing.assert_array_equal(after["feedback"], truth[info["user"][:, None], slates])


def test_slates_of_any_batch_cost_the_same_to_the_last_bit(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    """Weights counted in the log are no round numbers; sums must not depend on how many people there are."""
    slates = np.random.default_rng(0).integers(150, size=(12, 300, 6))
    arguments = {"quit_rule": "satisfaction", "weights": "ratio", "budget": 50}
    together, alone = (
        SessionVectorEnv(kuairand_core(n, data=small_data, response=matrix_response, **arguments)) for n in (300, 1)
    )
    for env in (together, alone):
        env.reset(seed=0)
    users = together.core.user
    spent = [together.step(slates[t])[-1]["cost"] for t in range(12)]
    assert len(set(np.ravel(spent))) > 50
    for i in (0, 7, 299):
        _, info = alone.reset(seed=i)
        assert info["user"] == users[i]
        assert [alone.step(slates[t, [i]])[-1]["cost"][0] for t in range(12)] == [cost[i] for cost in spent]


# --- the slate before -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [1, 50])
def test_the_slate_before_is_known_until_the_session_ends(
    small_data: SessionData, matrix_response: MatrixResponse, history: int
) -> None:
    core = kuairand_core(3, data=small_data, response=matrix_response, history=history, budget=4)
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    assert core.previous.tolist() == [[-1] * 6] * 3
    for slates in np.random.default_rng(0).integers(150, size=(40, 3, 6)):
        _, _, terminated, truncated, info = env.step(slates)
        ended = (terminated | truncated)[:, None]
        np.testing.assert_array_equal(core.previous, np.where(ended, -1, info["categories"]))


# --- histories --------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 60), share=st.floats(-0.1, 1.1))
def test_histories_match_a_slow_reference(small_data: SessionData, length: int, share: float) -> None:
    log = small_data.log
    first, last = int(log.time_ms.min()), int(log.time_ms.max())
    until = first + int(share * (last - first))
    histories = Histories.before(small_data, until, length)
    for user in range(0, small_data.population.n_users, 7):
        rows = [r for r in np.flatnonzero(log.user == user) if log.time_ms[r] < until][-length:]
        missing = length - len(rows)
        assert histories.items[user].tolist() == [0] * missing + [int(log.item[r]) + 1 for r in rows]
        unknown = [[-1] * len(log.behaviours)] * missing
        assert histories.feedback[user].tolist() == unknown + [log.feedback[r].tolist() for r in rows]


def test_histories_cannot_be_written_to(small_data: SessionData) -> None:
    histories = Histories.before(small_data, small_data.test_from_ms, 5)
    with pytest.raises(ValueError, match="read-only"):
        histories.items[0, 0] = 1


def test_a_log_shorter_than_the_history_can_be_started_from() -> None:
    data = twin(n_users=30, n_items=40, seed=1)
    response = MatrixResponse(np.full((30, 40, 7), 0.5), data.log.behaviours)
    env = SessionVectorEnv(session_core(data, response, 50, history=2 * len(data.log), start_at_log_rows=True))
    observation, info = env.reset(seed=0)
    for i in range(50):
        seen = observation["history_items"][i]
        own = data.log.item[data.log.user == info["user"][i]] + 1
        assert seen[seen > 0].tolist() == own[: (seen > 0).sum()].tolist()


def test_starting_at_log_rows_draws_active_users_more_often(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    env = SessionVectorEnv(kuairand_core(4_000, data=small_data, response=matrix_response, start_at_log_rows=True))
    drawn = np.bincount(env.reset(seed=0)[1]["user"], minlength=200)
    log = small_data.log
    rows = np.bincount(log.user[log.time_ms < small_data.test_from_ms], minlength=200) * ~small_data.held_out
    expected = 4_000 * rows / rows.sum()
    assert (drawn[rows == 0] == 0).all()
    assert ((drawn - expected)[rows > 0] ** 2 / expected[rows > 0]).sum() < (rows > 0).sum() + 5 * np.sqrt(400)


# --- what does not fit together ---------------------------------------------------------------------------------------


def core_of(data: SessionData, response: Any, slate_size: int = 6, max_steps: int = 50) -> SessionCore:
    histories = Histories.before(data, data.test_from_ms, 10)
    rule = Positional(slate_size)
    return SessionCore(data, response, rule, histories, np.arange(5), 2, slate_size, 20, max_steps)


def test_a_response_model_of_other_behaviours_is_refused(small_data: SessionData) -> None:
    response = MatrixResponse(np.zeros((200, 150)), ("click",))
    with pytest.raises(
        ValueError, match=r"^response.behaviours=\('click',\) are not those of the log, \('click', 'lon"
    ):
        core_of(small_data, response)


def test_more_noise_than_there_is_is_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    with pytest.raises(
        ValueError, match=r"^slate_size=586 times 7 behaviours is more than 4096; take a smaller slate$"
    ):
        core_of(small_data, matrix_response, slate_size=586)
    with pytest.raises(ValueError, match=r"^max_steps=1048576; it must be at most 1048575$"):
        core_of(small_data, matrix_response, max_steps=1 << 20)
    core_of(small_data, matrix_response, slate_size=585)


def test_a_response_model_that_knows_logged_histories_alone_cannot_start_from_rows(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    class Logged:
        behaviours = matrix_response.behaviours
        initial_state = staticmethod(matrix_response.initial_state)
        probabilities = staticmethod(matrix_response.probabilities)
        advance = staticmethod(matrix_response.advance)

    with pytest.raises(ValueError, match=r"^log_rows: Logged cannot start from a row of the log \(it has no state_aft"):
        session_core(small_data, Logged(), 1, start_at_log_rows=True)  # type: ignore[arg-type]
    session_core(small_data, Logged(), 1)  # type: ignore[arg-type]


def test_nobody_to_draw_from_is_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    trained = np.flatnonzero(~small_data.held_out)
    with pytest.raises(ValueError, match=r"^users='held_out': none of them can be served; choose another of train"):
        session_core(small_data, matrix_response, 1, users="held_out", among=trained)
    late = np.setdiff1d(np.arange(200), small_data.log.user[small_data.log.time_ms < small_data.test_from_ms])
    if len(late):
        with pytest.raises(ValueError, match=r"^start_at_log_rows=True: these users have no row before the test days"):
            session_core(small_data, matrix_response, 1, users="all", among=late, start_at_log_rows=True)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (
            np.zeros((3, 4, 2)),
            r"^matrix: shape \(3, 4, 2\) does not hold one probability per user, item and behaviour ",
        ),
        (np.full((3, 4), 1.5), r"^matrix: values from 1.5 to 1.5; probabilities must lie in \[0, 1\]$"),
        (np.full((3, 4), np.nan), r"^matrix: values from nan to nan; probabilities must lie in \[0, 1\]$"),
    ],
)
def test_a_bad_matrix_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MatrixResponse(matrix)


def test_a_matrix_of_some_users_is_read_by_user() -> None:
    table = np.random.default_rng(0).random((3, 4))
    model = MatrixResponse(table, users=np.array([1, 5, 6]))
    users, slates = np.array([6, 1]), np.array([[0, 3], [2, 2]], np.int32)
    got = model.probabilities(model.initial_state(users), users, slates)
    np.testing.assert_array_equal(got[..., 0], table[[[2], [0]], slates].astype(np.float32))
    with pytest.raises(IndexError):
        model.probabilities(model.initial_state(users), np.array([2, 1]), slates)
    with pytest.raises(ValueError, match=r"^users: 2 where the matrix has 3 rows; give one for each$"):
        MatrixResponse(table, users=np.array([1, 5]))
