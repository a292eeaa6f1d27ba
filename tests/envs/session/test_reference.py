"""The engine against a reference that is slow, plain and obviously right, step for step."""

from __future__ import annotations

import functools
from collections import Counter
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
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import session_core
from rapport.envs.session.response.base import MatrixResponse

WORD = (1 << 64) - 1
History = list[tuple[int, list[int]]]
"""Items seen, oldest first: index + 1, and what was done with it."""


class Moods:
    """A response model with a memory that two ways of starting and every slate go through.

    The state counts the ones that a user's observed history and session hold. Who counts an odd number does everything
    half as often.
    """

    def __init__(self, matrix: np.ndarray, behaviours: tuple[str, ...], histories: Histories) -> None:
        self.matrix, self.behaviours, self.histories = matrix, behaviours, histories

    def initial_state(self, users: np.ndarray) -> np.ndarray:
        return self.state_after(users, self.histories.items[users], self.histories.feedback[users])

    def state_after(self, users: np.ndarray, items: np.ndarray, feedback: np.ndarray) -> np.ndarray:
        return (feedback == 1).sum(axis=(1, 2), dtype=np.float32)[:, None]

    def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> np.ndarray:
        half = np.where(state[:, 0] % 2 == 1, np.float32(0.5), np.float32(1))
        return self.matrix[users[:, None], slates] * half[:, None, None]

    def advance(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> np.ndarray:
        return state + feedback.sum(axis=(1, 2), dtype=np.float32)[:, None]


class Facts:
    """What is known of a data set before anybody comes, as Python's lists."""

    def __init__(self, data: SessionData) -> None:
        log = data.log
        self.rows = list(zip(log.user.tolist(), log.item.tolist(), log.feedback.tolist(), strict=True))
        self.before_test = [time < data.test_from_ms for time in log.time_ms.tolist()]
        self.category: list[int] = data.catalog.category.tolist()
        self.features: list[list[int]] = data.population.features.codes.tolist()
        self.pool = [user for user, held_out in enumerate(data.held_out.tolist()) if not held_out]
        self.n_behaviours = len(log.behaviours)

    def history(self, user: int, until: int | None = None) -> History:
        """What a user saw before the test days, or before a row of the log."""
        rows = range(len(self.rows)) if until is None else range(until)
        return [(self.rows[r][1] + 1, self.rows[r][2]) for r in rows if self.rows[r][0] == user and self.before_test[r]]


class Person:
    """One slot, in Python's own numbers and lists: the definition of the environment, read straight from its page."""

    def __init__(self, facts: Facts, matrix: np.ndarray, seed: int, how: dict[str, Any]) -> None:
        self.facts, self.matrix, self.how = facts, matrix, how
        self.key = int(np.random.default_rng(np.random.SeedSequence(seed)).integers(2**64, dtype=np.uint64))
        self.session = 0

    def uniform(self, step: int, place: int) -> float:
        """Of two numbers that each output of SplitMix64 makes, the low half comes first."""
        state = (self.key + 0x9E3779B97F4A7C15 * ((self.session << 32) + (step << 12) + place // 2)) & WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        state ^= state >> 31
        return (state >> 32 if place % 2 else state % 2**32) / 2**32

    def begin(self) -> None:
        facts = self.facts
        self.session += 1
        if self.how["start_at_log_rows"]:
            rows = [r for r in range(len(facts.rows)) if facts.before_test[r] and facts.rows[r][0] in facts.pool]
            row = rows[int(self.uniform(0, 0) * len(rows))]
            self.user = facts.rows[row][0]
            self.past = facts.history(self.user, until=row)
        else:
            self.user = facts.pool[int(self.uniform(0, 0) * len(facts.pool))]
            self.past = facts.history(self.user)
        self.before = self.past[-self.how["history"] :]
        self.budget = float(self.how["budget"])
        self.steps = 0
        self.previous: list[int] | None = None
        self.shown: list[int] = []

    def show(self, slate: list[int]) -> dict[str, Any]:
        """What a slate leads to."""
        self.steps += 1
        feedback = [self.reaction(k, item, slate) for k, item in enumerate(slate)]
        reward = self.reward(slate, feedback)
        categories = [self.facts.category[item] for item in slate]
        cost = self.cost(slate, categories, feedback)
        self.budget = max(self.budget - cost, 0.0)
        self.previous = categories
        self.shown += slate
        self.past = self.past + [(item + 1, marks) for item, marks in zip(slate, feedback, strict=True)]
        left = self.budget < 1
        return {
            "reward": reward,
            "terminated": left,
            "truncated": not left and self.steps >= self.how["max_steps"],
            "categories": categories,
            "feedback": feedback,
            "cost": cost,
            "budget": self.budget,
            "user": self.user,
        }

    def reaction(self, k: int, item: int, slate: list[int]) -> list[int]:
        behaviours = range(self.facts.n_behaviours)
        if not self.how["repeats"] and item in self.shown + slate[:k]:
            return [0 for _ in behaviours]
        session = self.past[len(self.past) - len(self.shown) :]
        ones = sum(mark == 1 for _, marks in self.before + session for mark in marks)
        factor = 0.5 if self.how["moods"] and ones % 2 else 1.0
        draws = [self.uniform(self.steps, k * self.facts.n_behaviours + f) for f in behaviours]
        return [int(draws[f] < float(self.matrix[self.user, item, f]) * factor) for f in behaviours]

    def reward(self, slate: list[int], feedback: list[list[int]]) -> float:
        if self.how["own_reward"]:
            return self.user + slate[0] / 2 + 10 * sum(marks[-1] for marks in feedback)
        return sum(marks[0] for marks in feedback) / len(slate)

    def cost(self, slate: list[int], new: list[int], feedback: list[list[int]]) -> float:
        rule, old = self.how["quit_rule"], self.previous
        if rule == "never":
            return 0
        if rule == "satisfaction":
            liked = [sum(w * mark for w, mark in zip(self.how["weights"], marks, strict=True)) for marks in feedback]
            return -min(max(sum(liked) / len(liked) - 2, -2), 0)
        if rule == "windowed_count":
            leaves = [self.too_frequent(item, self.shown + slate[:k]) for k, item in enumerate(slate)]
            return float("inf") if any(leaves) else 0
        if old is None:
            return 1
        if rule == "positional":
            return 1 + any(new[k] == old[k] for k in range(len(new)))
        return 1 + any(a == b for a in new for b in old)

    def too_frequent(self, item: int, shown: list[int]) -> bool:
        t, n = len(shown), self.how["window"]
        if t == 0:
            return False
        looked_at = shown[t - n : t] if self.how["early_window"] == "easyrl4rec" else shown[max(0, t - n) : t]
        counts = Counter(label for i in looked_at for label in self.labels(i))
        return any(counts[label] > self.how["threshold"] for label in self.labels(item))

    def labels(self, item: int) -> list[int]:
        return [label for label in self.how["labels"][item].tolist() if label >= 0]

    def sees(self) -> dict[str, list[Any]]:
        length = self.how["history"]
        shown = self.past[-length:]
        missing = length - len(shown)
        feedback = [[-1] * self.facts.n_behaviours] * missing + [marks for _, marks in shown]
        return {
            "history_items": [0] * missing + [item for item, _ in shown],
            "history_feedback": [mark for marks in feedback for mark in marks],
            "step": [self.steps],
            "user_features": self.facts.features[self.user],
        }

    def may_be_shown(self) -> list[bool]:
        n_items = len(self.facts.category)
        free = [self.how["repeats"] or item not in self.shown for item in range(n_items)]
        return free * (self.how["slate_size"] or 1)


# --- worlds to compare in ---------------------------------------------------------------------------------------------


@functools.cache
def world() -> tuple[SessionData, Facts, MatrixResponse]:
    """30 users, 40 items, and random probabilities."""
    data = twin(n_users=30, n_items=40, seed=1)
    shape = (30, 40, len(data.log.behaviours))
    return data, Facts(data), MatrixResponse(np.random.default_rng(5).random(shape), data.log.behaviours)


def own_reward(users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> np.ndarray:
    return users + slates[:, 0] / 2 + 10.0 * feedback[:, :, -1].sum(axis=1)


EIGHTHS = st.integers(-16, 24).map(lambda n: n / 8)
"""Numbers whose sums are exact, so that a session ends at one and the same slate for everybody."""
HOW = st.fixed_dictionaries(
    {
        "quit_rule": st.sampled_from(["positional", "set_overlap", "windowed_count", "satisfaction", "never"]),
        "window": st.sampled_from([1, 2, 3, 5, 9, 12, 70]),
        "threshold": st.integers(0, 3),
        "early_window": st.sampled_from(["exact", "easyrl4rec"]),
        "labels": st.builds(
            lambda seed, n, kinds: np.random.default_rng(seed).integers(-1, kinds, size=(40, n)).astype(np.int32),
            st.integers(0, 99),
            st.integers(1, 3),
            st.sampled_from([4, 15, 200]),
        ),
        "weights": st.lists(EIGHTHS, min_size=7, max_size=7),
        "budget": st.sampled_from([1, 2, 3.5, 6, 20]),
        "max_steps": st.sampled_from([1, 4, 12, 50]),
        "slate_size": st.sampled_from([None, 1, 2, 6]),
        "history": st.sampled_from([1, 4, 50, 130]),
        "repeats": st.booleans(),
        "start_at_log_rows": st.booleans(),
    }
)
OURS = st.fixed_dictionaries({"own_reward": st.booleans(), "moods": st.booleans()})


def made(how: dict[str, Any], n_envs: int) -> SessionCore:
    data, _, matrix = world()
    arguments = {name: value for name, value in how.items() if name not in ("own_reward", "moods")}
    response: Any = matrix
    if how["moods"]:
        histories = Histories.before(data, data.test_from_ms, how["history"])
        response = Moods(matrix.matrix, matrix.behaviours, histories)
    return session_core(data, response, n_envs, reward=own_reward if how["own_reward"] else None, **arguments)


def actions(how: dict[str, Any], n_envs: int, choices: int, few: bool, steps: int) -> np.ndarray:
    """Slates, shape (steps, B, K), or items, shape (steps, B); a few items only, so that they repeat, or any."""
    shape = (steps, n_envs) if how["slate_size"] is None else (steps, n_envs, how["slate_size"])
    return np.random.default_rng(choices).integers(4 if few else 40, size=shape)


def shown(action: Any) -> list[int]:
    """The slate that one person's action is."""
    return np.atleast_1d(action).tolist()


def row(values: dict[str, Any], i: int) -> dict[str, Any]:
    return {name: value[i].tolist() for name, value in values.items()}


def told(info: dict[str, Any], reward: Any, terminated: Any, truncated: Any, i: int) -> dict[str, Any]:
    """What a vector environment says of slot i after a slate."""
    names = ("categories", "feedback", "cost", "budget", "user")
    assert all(info[f"_{name}"][i] for name in names)
    endings = {"reward": reward[i], "terminated": terminated[i], "truncated": truncated[i]}
    return {**endings, **{name: info[name][i].tolist() for name in names}}


@settings(max_examples=120, deadline=None)
@given(
    how=HOW,
    ours=OURS,
    n_envs=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 2**31),
    choices=st.integers(0, 2**31),
    few=st.booleans(),
)
def test_the_engine_is_the_reference_step_for_step(
    how: dict[str, Any], ours: dict[str, bool], n_envs: int, seed: int, choices: int, few: bool
) -> None:
    how = how | ours
    env = SessionVectorEnv(made(how, n_envs), AutoresetMode.SAME_STEP, single_item=how["slate_size"] is None)
    people = [Person(world()[1], world()[2].matrix, seed + i, how) for i in range(n_envs)]
    observation, info = env.reset(seed=seed)
    for person in people:
        person.begin()
    for action in actions(how, n_envs, choices, few, steps=25):
        for i, person in enumerate(people):
            assert row(observation, i) == person.sees()
            assert (info["user"][i], info["budget"][i]) == (person.user, person.budget)
            assert env.action_masks()[i].tolist() == person.may_be_shown()
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated | truncated
        for i, person in enumerate(people):
            expected = person.show(shown(action[i]))
            ending = {**info, **info["final_info"]} if ended[i] else info
            assert told(ending, reward, terminated, truncated, i) == expected
            if ended[i]:
                assert {name: value.tolist() for name, value in info["final_obs"][i].items()} == person.sees()
                person.begin()


@settings(max_examples=50, deadline=None)
@given(
    how=HOW,
    ours=OURS,
    n_envs=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**31),
    choices=st.integers(0, 2**31),
    few=st.booleans(),
)
def test_so_it_is_where_sessions_begin_on_the_next_step(
    how: dict[str, Any], ours: dict[str, bool], n_envs: int, seed: int, choices: int, few: bool
) -> None:
    how = how | ours
    env = SessionVectorEnv(made(how, n_envs), AutoresetMode.NEXT_STEP, single_item=how["slate_size"] is None)
    people = [Person(world()[1], world()[2].matrix, seed + i, how) for i in range(n_envs)]
    observation, _ = env.reset(seed=seed)
    for person in people:
        person.begin()
    over = [False] * n_envs
    for action in actions(how, n_envs, choices, few, steps=25):
        observation, reward, terminated, truncated, info = env.step(action)
        for i, person in enumerate(people):
            if over[i]:
                person.begin()
                assert not (info["_categories"][i] or info["_feedback"][i] or info["_cost"][i])
                assert (reward[i], info["cost"][i], terminated[i], truncated[i]) == (0, 0, False, False)
                assert (info["user"][i], info["budget"][i]) == (person.user, person.budget)
            else:
                assert told(info, reward, terminated, truncated, i) == person.show(shown(action[i]))
            assert row(observation, i) == person.sees()
        over = (terminated | truncated).tolist()


@settings(max_examples=50, deadline=None)
@given(how=HOW, ours=OURS, seed=st.integers(0, 2**31), choices=st.integers(0, 2**31), few=st.booleans())
def test_so_it_is_for_one_user_at_a_time(
    how: dict[str, Any], ours: dict[str, bool], seed: int, choices: int, few: bool
) -> None:
    how = how | ours
    env = SessionEnv(made(how, 1), single_item=how["slate_size"] is None)
    person = Person(world()[1], world()[2].matrix, seed, how)
    observation, info = env.reset(seed=seed)
    person.begin()
    for action in actions(how, 1, choices, few, steps=25)[:, 0]:
        assert {name: value.tolist() for name, value in observation.items()} == person.sees()
        assert info["budget"] == person.budget and env.action_masks().tolist() == person.may_be_shown()
        observation, reward, terminated, truncated, info = env.step(action)
        got = {"reward": reward, "terminated": terminated, "truncated": truncated, **info}
        got |= {name: info[name].tolist() for name in ("categories", "feedback")}
        assert got == person.show(shown(action))
        if terminated or truncated:
            assert {name: value.tolist() for name, value in observation.items()} == person.sees()
            observation, info = env.reset()
            person.begin()


@pytest.mark.parametrize("slate_size", [None, 1, 6])
@pytest.mark.parametrize("history", [1, 7, 400])
@pytest.mark.parametrize("rule", ["windowed_count", "satisfaction", "never"])
def test_so_it_is_in_sessions_longer_than_the_buffers(slate_size: int | None, history: int, rule: str) -> None:
    """60 slates, where buffers are moved back every 16; the history may be shorter than a slate, or never filled."""
    how = {
        "quit_rule": rule,
        "window": 150,
        "threshold": 99,
        "early_window": "exact",
        "labels": np.arange(80, dtype=np.int32).reshape(40, 2) % 7,
        "weights": [2.0, 0.125, 0.0, -0.125, 0.0, 0.0, 0.0],
        "budget": 60,
        "max_steps": 60,
        "slate_size": slate_size,
        "history": history,
        "repeats": True,
        "start_at_log_rows": False,
        "own_reward": False,
        "moods": True,
    }
    env = SessionVectorEnv(made(how, 2), AutoresetMode.SAME_STEP, single_item=slate_size is None)
    people = [Person(world()[1], world()[2].matrix, i, how) for i in range(2)]
    env.reset(seed=0)
    longest = 0
    for person in people:
        person.begin()
    for action in actions(how, 2, choices=1, few=False, steps=70):
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated | truncated
        for i, person in enumerate(people):
            ending = {**info, **info["final_info"]} if ended[i] else info
            assert told(ending, reward, terminated, truncated, i) == person.show(shown(action[i]))
            longest = max(longest, person.steps)
            if ended[i]:
                person.begin()
            assert row(observation, i) == person.sees()
    assert longest > 16
