"""The engine against a reference that is slow, plain and obviously right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.datasets.schema import SessionData
from rapport.envs.session.core import Histories, SessionCore
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.quit import never, positional, quit_rule
from rapport.envs.session.response import MatrixResponse

WORD = (1 << 64) - 1


class Person:
    """One slot, in Python's own numbers and lists: the definition of the environment, read straight from its page."""

    def __init__(self, data: SessionData, matrix: np.ndarray, seed: int, **how: Any) -> None:
        self.data, self.matrix, self.how = data, matrix, how
        self.key = int(np.random.default_rng(np.random.SeedSequence(seed)).integers(2**64, dtype=np.uint64))
        self.session = 0

    def luck(self, step: int, place: int) -> float:
        state = (self.key + 0x9E3779B97F4A7C15 * ((self.session << 32) + (step << 12) + place)) & WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        return ((state ^ (state >> 31)) >> 11) / 2**53

    def begin(self) -> None:
        self.session += 1
        pool = [u for u in range(self.data.population.n_users) if not self.data.held_out[u]]
        self.user = pool[int(self.luck(0, 0) * len(pool))]
        self.budget = float(self.how["budget"])
        self.steps = 0
        self.previous: list[int] | None = None
        log = self.data.log
        self.past = [
            (int(log.item[r]) + 1, log.feedback[r].tolist())
            for r in range(len(log))
            if log.user[r] == self.user and log.time_ms[r] < self.data.test_from_ms
        ]

    def show(self, slate: list[int]) -> tuple[float, bool, bool, list[int], list[list[int]]]:
        self.steps += 1
        behaviours = self.data.log.behaviours
        feedback = [
            [
                int(self.luck(self.steps, k * len(behaviours) + f) < float(self.matrix[self.user, item, f]))
                for f in range(len(behaviours))
            ]
            for k, item in enumerate(slate)
        ]
        categories = [int(self.data.catalog.category[item]) for item in slate]
        if self.how["rule"] != "never":
            self.budget -= 1
            if self.previous is not None and self.repeats(categories, self.previous):
                self.budget -= 1
        self.previous = categories
        self.past += [(item + 1, marks) for item, marks in zip(slate, feedback, strict=True)]
        left = self.budget < 1
        cut = not left and self.steps >= self.how["max_steps"]
        return sum(marks[0] for marks in feedback) / len(slate), left, cut, categories, feedback

    def repeats(self, new: list[int], old: list[int]) -> bool:
        if self.how["rule"] == "positional":
            return any(new[k] == old[k] for k in range(len(new)))
        return any(a == b for a in new for b in old)

    def sees(self) -> dict[str, list[Any]]:
        length, n_behaviours = self.how["history"], len(self.data.log.behaviours)
        shown = self.past[-length:]
        missing = length - len(shown)
        feedback = [[-1] * n_behaviours] * missing + [marks for _, marks in shown]
        return {
            "history_items": [0] * missing + [item for item, _ in shown],
            "history_feedback": [mark for marks in feedback for mark in marks],
            "step": [self.steps],
            "user_features": self.data.population.features.codes[self.user].tolist(),
        }


HOW = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(["positional", "set_overlap", "never"]),
        "budget": st.sampled_from([1, 2, 3.5, 6, 20]),
        "max_steps": st.sampled_from([1, 4, 12, 50]),
        "slate_size": st.sampled_from([1, 2, 6]),
        "history": st.sampled_from([1, 4, 50]),
        "n_envs": st.sampled_from([1, 2, 5]),
    }
)


@settings(max_examples=60, deadline=None)
@given(how=HOW, seed=st.integers(0, 2**31), choices=st.integers(0, 2**31), few=st.booleans())
def test_the_engine_is_the_reference_step_for_step(
    small_data: SessionData,
    matrix_response: MatrixResponse,
    how: dict[str, Any],
    seed: int,
    choices: int,
    few: bool,
) -> None:
    core = kuairand_core(
        how["n_envs"],
        data=small_data,
        response=matrix_response,
        quit_rule=how["rule"],
        budget=how["budget"],
        slate_size=how["slate_size"],
        history=how["history"],
        max_steps=how["max_steps"],
    )
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    people = [Person(small_data, matrix_response.matrix, seed + i, **how) for i in range(how["n_envs"])]
    observation, info = env.reset(seed=seed)
    for person in people:
        person.begin()
    rng = np.random.default_rng(choices)
    for _ in range(25):
        for i, person in enumerate(people):
            assert {k: v[i].tolist() for k, v in observation.items()} == person.sees()
            assert (info["user"][i], info["budget"][i]) == (person.user, person.budget)
        slates = rng.integers(4 if few else small_data.catalog.n_items, size=(how["n_envs"], how["slate_size"]))
        observation, reward, terminated, truncated, info = env.step(slates)
        for i, person in enumerate(people):
            expected = person.show(slates[i].tolist())
            got = (reward[i], terminated[i], truncated[i], info["categories"][i].tolist(), info["feedback"][i].tolist())
            assert got == (pytest.approx(expected[0]), *expected[1:])
            if expected[1] or expected[2]:
                final = {name: value.tolist() for name, value in info["final_obs"][i].items()}
                assert final == person.sees()
                assert info["final_info"]["budget"][i] == person.budget
                person.begin()


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


def test_never_ends_at_the_time_limit_and_is_truncated(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    core = kuairand_core(2, data=small_data, response=matrix_response, quit_rule="never", max_steps=3)
    env = SessionVectorEnv(core)
    env.reset(seed=0)
    for step in range(3):
        _, _, terminated, truncated, info = env.step(np.zeros((2, 6), int))
        assert not terminated.any() and truncated.all() == (step == 2)
        assert info["budget"].tolist() == [20.0, 20.0]


def test_leaving_at_the_time_limit_is_terminated_not_truncated(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    core = kuairand_core(1, data=small_data, response=matrix_response, budget=1, max_steps=1)
    env = SessionVectorEnv(core)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(np.zeros((1, 6), int))
    assert (terminated.tolist(), truncated.tolist()) == ([True], [False])


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


# --- what does not fit together ---------------------------------------------------------------------------------------


def core_of(data: SessionData, response: MatrixResponse, slate_size: int = 6, max_steps: int = 50) -> SessionCore:
    histories = Histories.before(data, data.test_from_ms, 10)
    return SessionCore(data, response, positional, histories, np.arange(5), 2, slate_size, 20, max_steps)


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


def test_rules_by_name_are_the_functions() -> None:
    assert quit_rule("positional") is positional and quit_rule("never") is never
