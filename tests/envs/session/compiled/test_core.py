"""The compiled engine against the one in NumPy, to the last bit; who gets which; observations that are not copied."""

from __future__ import annotations

import copy
import functools
import importlib
import logging
import pickle
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import rapport  # noqa: F401 - registers the environments
from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.compiled import select as engine
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.quit_rules import Positional
from rapport.envs.session.engine.reward import RewardChoice, TableReward
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import session_core
from rapport.envs.session.response.base import MatrixResponse

numba = pytest.importorskip("numba")

from rapport.envs.session.compiled import kernels  # noqa: E402 - after the skip
from rapport.envs.session.compiled.core import LookupCore  # noqa: E402

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
N_USERS, N_ITEMS = 30, 40
SERVED = np.arange(4, 29, 2)
"""Users that the table knows."""

HOW = st.fixed_dictionaries(
    {
        "quit_rule": st.sampled_from(["positional", "set_overlap", "windowed_count"]),
        "window": st.sampled_from([1, 2, 5, 9]),
        "threshold": st.integers(0, 2),
        "labels": st.builds(
            lambda seed, n: np.random.default_rng(seed).integers(-1, 9, size=(N_ITEMS, n)).astype(np.int32),
            st.integers(0, 99),
            st.integers(1, 3),
        ),
        "budget": st.sampled_from([1, 3.5, 20]),
        "max_steps": st.sampled_from([1, 4, 50]),
        "slate_size": st.sampled_from([None, 1, 2, 6]),
        "history": st.sampled_from([1, 4, 50]),
        "users": st.sampled_from(["train", "all"]),
    }
)


@functools.cache
def parts() -> tuple[SessionData, MatrixResponse, list[RewardChoice]]:
    """Seven behaviours, all certain, and rewards: the engine's own, and those that the loops look up or call."""
    data = twin(n_users=N_USERS, n_items=N_ITEMS, seed=1)
    rng = np.random.default_rng(2)
    responses = rng.integers(2, size=(len(SERVED), N_ITEMS, len(data.log.behaviours)))
    worth = (rng.integers(1, 500, size=(N_USERS, N_ITEMS)) / 100).astype(np.float32)
    rewards: list[RewardChoice] = [
        None,
        TableReward(worth[: len(SERVED)], SERVED, N_USERS),  # laid out as the responses are
        TableReward(worth, np.arange(N_USERS), N_USERS),
        TableReward(worth * np.float32(10.0) ** rng.integers(-20, 20, worth.shape), np.arange(N_USERS), N_USERS),
        "long_view",
        {"click": 0.1, "like": 1 / 3, "hate": -0.7},
        lambda users, slates, feedback: users / 7 + np.sqrt(slates).sum(axis=1) + feedback.mean(axis=(1, 2)),
    ]
    return data, MatrixResponse(responses, data.log.behaviours, SERVED), rewards


def made(how: dict[str, Any], n_envs: int, reward: int, compiled: bool) -> SessionCore:
    data, response, rewards = parts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "compiles", lambda: compiled)
        core = session_core(data, response, n_envs, among=SERVED, reward=rewards[reward], **how)
    assert type(core) is (LookupCore if compiled else SessionCore)
    return core


def same(a: Any, b: Any) -> None:
    """Assert that two observations, infos or arrays are equal to the last bit, types of numbers included."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif a is None:
        assert b is None
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b, strict=True)


def state(core: SessionCore) -> dict[str, Any]:
    names = ("tick", "key", "stream", "episode", "user", "steps", "budget", "memory", "state", "previous")
    return {name: getattr(core, name) for name in names}


def actions(how: dict[str, Any], n_envs: int, seed: int, few: bool) -> np.ndarray:
    """40 steps of items, of few that repeat or of all."""
    shape = (40, n_envs) if how["slate_size"] is None else (40, n_envs, how["slate_size"])
    return np.random.default_rng(seed).integers(4 if few else N_ITEMS, size=shape)


@settings(max_examples=60, deadline=None)
@given(
    how=HOW,
    mode=st.sampled_from(MODES),
    n_envs=st.sampled_from([1, 3, 70]),
    reward=st.integers(0, 6),
    seed=st.integers(0, 2**31),
    few=st.booleans(),
    views=st.booleans(),
)
def test_the_compiled_engine_is_the_other_to_the_last_bit(
    how: dict[str, Any], mode: AutoresetMode, n_envs: int, reward: int, seed: int, few: bool, views: bool
) -> None:
    single = how["slate_size"] is None
    ours, theirs = (
        SessionVectorEnv(made(how, n_envs, reward, compiled), mode, single, copy=not (compiled and views))
        for compiled in (True, False)
    )
    same(ours.reset(seed=seed), theirs.reset(seed=seed))
    for action in actions(how, n_envs, seed, few):
        same(ours.step(action), theirs.step(action))
        same(state(ours.core), state(theirs.core))
    users = {"user": SERVED[np.arange(n_envs) % len(SERVED)]}
    same(ours.reset(options=users), theirs.reset(options=users))


@settings(max_examples=20, deadline=None)
@given(how=HOW, reward=st.integers(0, 6), seed=st.integers(0, 2**31), few=st.booleans())
def test_so_it_is_for_one_user(how: dict[str, Any], reward: int, seed: int, few: bool) -> None:
    single = how["slate_size"] is None
    ours, theirs = (SessionEnv(made(how, 1, reward, compiled), single) for compiled in (True, False))
    same(ours.reset(seed=seed), theirs.reset(seed=seed))
    for action in actions(how, 1, seed, few)[:, 0]:
        results = ours.step(action), theirs.step(action)
        same(*results)
        if results[0][2] or results[0][3]:
            same(ours.reset(), theirs.reset())


@pytest.mark.parametrize("env_id", ["rapport/KuaiRec-v0", "rapport/KuaiRecItem-v0", "rapport/KuaiRecDORL-v0"])
@pytest.mark.parametrize("mode", MODES)
def test_so_it_is_in_the_registered_environments(
    env_id: str, mode: AutoresetMode, small_arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = gym.make_vec(env_id, num_envs=80, autoreset_mode=mode, **small_arguments(env_id))
    monkeypatch.setattr(engine, "compiles", lambda: False)
    theirs = gym.make_vec(env_id, num_envs=80, autoreset_mode=mode, **small_arguments(env_id))
    assert (type(ours.core), type(theirs.core)) == (LookupCore, SessionCore)
    same(ours.reset(seed=3), theirs.reset(seed=3))
    for action in np.random.default_rng(0).integers(60, size=(60, *ours.action_space.shape)):
        same(ours.step(action), theirs.step(action))


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_their_own_way(twin_of: Any, small_arguments: Any) -> None:
    env = gym.make_vec("rapport/KuaiRecItem-v0", num_envs=5, **small_arguments("rapport/KuaiRec"))
    env.reset(seed=0)
    first, second = np.random.default_rng(0).integers(60, size=(2, 40, 5))
    for action in first[:20]:
        env.step(action)
    other = twin_of(env)
    before = [env.step(action) for action in first[20:]]
    for action in second:
        env.step(action)
    for expected, action in zip(before, first[20:], strict=True):
        same(other.step(action), expected)


def test_a_session_is_drawn_as_by_the_other(small_arguments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = []
    for compiled in (True, False):
        monkeypatch.setattr(engine, "compiles", lambda compiled=compiled: compiled)
        env = gym.make_vec("rapport/KuaiRec-v0", num_envs=2, render_mode="ansi", **small_arguments("rapport/KuaiRec"))
        env.reset(seed=1)
        for action in np.random.default_rng(0).integers(60, size=(4, 2, 6)):
            env.step(action)
        pictures.append(env.render())
    assert pictures[0] == pictures[1]


# --- who gets which ---------------------------------------------------------------------------------------------------


class Lenient(Positional):
    """Somebody's own rule."""


@pytest.mark.parametrize(
    "arguments",
    [
        {"quit_rule": Lenient(6)},
        {"quit_rule": "satisfaction"},
        {"quit_rule": "never"},
        {"quit_rule": "windowed_count", "early_window": "easyrl4rec"},
        {"repeats": False},
        {"start_at_log_rows": True},
    ],
)
def test_what_is_not_compiled_is_served_by_the_other(arguments: dict[str, Any]) -> None:
    data, response, *_ = parts()
    assert type(session_core(data, response, 2, **{"among": SERVED, **arguments})) is SessionCore
    assert type(session_core(data, response, 2, among=SERVED)) is LookupCore


def test_chances_are_drawn_by_the_other() -> None:
    data, response, *_ = parts()
    chances = MatrixResponse(response.matrix / 2, response.behaviours, SERVED)
    assert type(session_core(data, chances, 2, among=SERVED)) is SessionCore


@given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=12), st.integers(1, 8), st.randoms())
def test_sums_that_are_exact_are_so_in_any_order(values: list[float], n: int, rng: Any) -> None:
    table = np.array([values], np.float32)
    if TableReward(table, np.array([0]), 1).sums_exactly(n):
        shown = rng.choices(table[0].tolist(), k=n)
        assert Fraction(sum(shown)) == sum(map(Fraction, shown))


def test_sums_that_may_not_be_exact_are_told() -> None:
    def told(values: list[float], n: int) -> bool:
        return TableReward(np.array([values], np.float32), np.array([0]), 1).sums_exactly(n)

    assert told([0, 0], 9) and told([5, 1e-6], 6)
    assert not told([5, 1e-12], 2)


def test_unfit_numba_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(name: str) -> None:
        raise ImportError("Numba needs NumPy 2.1 or less")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with caplog.at_level(logging.WARNING, "rapport"):
        assert not engine.compiles.__wrapped__()
    assert "needs NumPy 2.1" in caplog.text


def test_no_folder_to_keep_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def nowhere(function: Any, cache: bool = False, **named: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **named)

    monkeypatch.setattr(numba, "njit", nowhere)
    assert kernels.compiled(lambda number: number + 1)(2) == 3


@pytest.mark.slow
def test_numba_is_imported_where_it_is_used_and_not_needed() -> None:
    program = """
import sys
import gymnasium, numpy as np
import rapport
from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.envs.session import env, factory, kuairec
from rapport.envs.session.compiled import select
from rapport.envs.session.engine import core
assert "numba" not in sys.modules
data = synthetic_kuairec(20, 20, 30)
gymnasium.make("rapport/KuaiRec-v0", data=data, quit_rule="never")
assert "numba" not in sys.modules
gymnasium.make("rapport/KuaiRec-v0", data=data)
assert "numba" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    without = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "numba" else find(name, package)
import numpy as np
from rapport.envs.session.compiled import kernels
costs = np.empty(2)
kernels.positional(np.array([[1, 2], [3, 4]], np.int32), np.array([[2, 1], [3, 5]], np.int32), costs)
assert costs.tolist() == [1, 2] and "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", without], check=True, timeout=120)


# --- what must not be asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_strangers_and_no_items_are_refused(compiled: bool) -> None:
    how = {"slate_size": 2, "quit_rule": "positional"}
    core = made(how, 2, 0, compiled)
    core.begin(np.arange(2), np.array([SERVED[0], 3]))
    with pytest.raises(IndexError):
        core.step(np.zeros((2, 2), np.int32))
    core.begin(np.arange(2), SERVED[:2])
    with pytest.raises(IndexError):
        core.step(np.full((2, 2), N_ITEMS * len(SERVED), np.int32))


# --- observations that are not copied ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_views_hold_until_the_next_step(
    compiled: bool, mode: AutoresetMode, small_arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "compiles", lambda: compiled)
    make = functools.partial(
        gym.make_vec, "rapport/KuaiRecItem-v0", num_envs=70, autoreset_mode=mode, **small_arguments("rapport/KuaiRec")
    )
    copying, viewing = make(), make(copy=False)
    same(copying.reset(seed=4), viewing.reset(seed=4))
    seen = []
    for action in np.random.default_rng(0).integers(60, size=(40, 70)):
        expected, found = copying.step(action), viewing.step(action)
        same(expected, found)
        assert viewing.single_observation_space.contains({name: value[0] for name, value in found[0].items()})
        seen.append(found[0])
        for ending in found[4].get("final_obs", []):
            assert ending is None or not any(np.shares_memory(value, found[0][name]) for name, value in ending.items())
    for earlier, later in pairwise(seen):
        assert np.shares_memory(earlier["step"], later["step"])
    assert not np.shares_memory(*(copying.step(np.zeros(70, int))[0]["history_items"] for _ in range(2)))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_last_observations_that_are_not_copied_hold_until_the_next_ones(
    compiled: bool, twin_of: Any, small_arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slot; and a copy of the environment has its own."""
    monkeypatch.setattr(engine, "compiles", lambda: compiled)
    make = functools.partial(
        gym.make_vec,
        "rapport/KuaiRecItem-v0",
        num_envs=9,
        autoreset_mode=AutoresetMode.SAME_STEP,
        **small_arguments("rapport/KuaiRec"),
    )
    copying, viewing = make(), make(copy=False)
    copying.reset(seed=4)
    viewing.reset(seed=4)
    kept: list[list[Any]] = [[] for _ in range(9)]
    for t, action in enumerate(np.random.default_rng(0).integers(60, size=(60, 9))):
        if t == 30:
            viewing = twin_of(viewing)
        expected, found = copying.step(action)[4], viewing.step(action)[4]
        same(expected, found)
        for slot, ending in enumerate(found.get("final_obs", [])):
            if ending is not None:
                kept[slot].append((t, ending, expected["final_obs"][slot]))
    for endings in kept:
        assert len(endings) > 2
        same(endings[-1][1], endings[-1][2])
        for (t, earlier, _), (u, later, _) in pairwise(endings):
            assert (earlier is later) == ((t < 30) == (u < 30))


def test_learned_environments_have_views_too(small_arguments: Any) -> None:
    env = gym.make_vec("rapport/KuaiRandSatiation-v0", num_envs=2, copy=False, **small_arguments("rapport/KuaiRand"))
    first, _ = env.reset(seed=0)
    second = env.step(np.zeros((2, 6), int))[0]
    assert np.shares_memory(first["user_features"], second["user_features"])
