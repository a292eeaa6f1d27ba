"""User-steps per second of the session environments, beside bare NumPy loops, which are an upper bound."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.performance import benchmark_step
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rapport.datasets.kuairec.load import KuaiRec, synthetic_kuairec
from rapport.datasets.schema import SessionData
from rapport.envs.registration import register_environments
from rapport.envs.session.response.base import ResponseModel
from rapport.experiments.bench.timing import Speed, Work, compare, peak_mb, torch_threads

LEARNED, SLATES, ITEMS = "rapport/KuaiRand-v0", "rapport/KuaiRec-v0", "rapport/KuaiRecItem-v0"
REFERENCE = "bare NumPy loop"
SLATE, BUDGET = 6, 20.0
WINDOW, THRESHOLD, MAX_STEPS = 9, 1, 30
LOOKUP_USERS, LOOKUP_ITEMS = 1_411, 3_327
"""Size of the looked-up matrix: KuaiRec's small matrix."""
_DRAWN = 64


@dataclass(frozen=True)
class EnvironmentSpeed:
    """One subject at one batch size.

    Attributes:
        subject: what was timed.
        environment: its id.
        batch: users served at once, B.
        threads: of torch; 0 where torch has no part.
        speed: user-steps per second; one user-step is one slate or item shown to one user.
        ratio: median speed as a share of the bare loop's of the same B and environment; None where there is none.
    """

    subject: str
    environment: str
    batch: int
    threads: int
    speed: Speed
    ratio: float | None


def measure_environment(
    data: SessionData,
    response: ResponseModel,
    batch_sizes: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
    rounds: int,
    report: Callable[[str], None] = lambda _: None,
) -> list[EnvironmentSpeed]:
    """Time the bare loops, the vector environments and, for B = 1, ``gym.make``.

    Actions are drawn beforehand, uniformly. The lookup environments share a synthetic matrix of KuaiRec's size with one
    label per item; the learned response is that of ``data``.

    Args:
        data: the log that the response was learned from.
        response: the learned response.
        batch_sizes: users served at once, B.
        threads: numbers of torch threads to time the learned response with.
        seconds: time for each subject in each round [s].
        rounds: number of rounds, of which the median is taken.
        report: called with the name of what is being timed.
    """
    kuairec = synthetic_kuairec(max(LOOKUP_USERS, 10), LOOKUP_USERS, LOOKUP_ITEMS)
    kuairec = replace(kuairec, tags=kuairec.data.catalog.category[:, None])
    bare = {SLATES: bare_slates, ITEMS: bare_items}
    result = []
    for batch in batch_sizes:
        for name, loop in bare.items():
            report(f"B = {batch:,}: {name}")
            found = compare(
                {REFERENCE: loop(kuairec, batch), **dict(_subjects(name, batch, data=kuairec))}, seconds, rounds
            )
            limit = found[REFERENCE].median
            result += [EnvironmentSpeed(n, name, batch, 0, s, s.median / limit) for n, s in found.items()]
        for n_threads in threads:
            report(f"B = {batch:,}: {LEARNED}, torch on {n_threads} thread(s)")
            with torch_threads(n_threads):
                found = compare(dict(_subjects(LEARNED, batch, data=data, response=response)), seconds, rounds)
            result += [EnvironmentSpeed(n, LEARNED, batch, n_threads, s, None) for n, s in found.items()]
    return result


def peak_memory(name: str, batch: int, **arguments: Any) -> float:
    """Peak memory [GB] of a new process that makes an environment for ``batch`` users and steps it 20 times."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
        return one.submit(_peak_memory, name, batch, arguments).result()


def _peak_memory(name: str, batch: int, arguments: dict[str, Any]) -> float:
    register_environments()
    env = gym.make_vec(name, num_envs=batch, **arguments)
    env.reset(seed=0)
    for action in _actions(env.single_action_space, (batch,))[:20]:
        env.step(action)
    return peak_mb() / 1e3


def gymnasium_benchmark(data: SessionData, response: ResponseModel, seconds: float) -> float:
    """Steps per second by Gymnasium's own benchmark, which draws slates between steps; torch on one thread."""
    env = gym.make(LEARNED, data=data, response=response)
    with torch_threads(1):
        return float(benchmark_step(env, seconds, seed=0))  # type: ignore[arg-type]  # it only compares the duration


def bare_items(kuairec: KuaiRec, batch: int) -> Work:
    """A lower bound of the work in EasyRL4Rec's environment: look up, apply the windowed quit rule, reset.

    The loop keeps no history, makes no observation and no info, and checks nothing.

    Args:
        kuairec: the matrix that is looked up.
        batch: users served at once, B.
    """
    rng = np.random.default_rng(1)
    matrix, label = kuairec.watch_ratio, kuairec.tags[:, 0]
    n_users, n_items = matrix.shape
    items = rng.integers(n_items, size=(_DRAWN, batch))
    user, steps = rng.integers(n_users, size=batch), np.zeros(batch, np.int32)
    flat, first = np.ascontiguousarray(matrix).reshape(-1), np.arange(n_users) * n_items
    window = np.full((WINDOW, batch), -1, np.int32)
    turn = 0

    def work() -> int:
        nonlocal turn
        for item in items:
            flat.take(first.take(user) + item)
            shown = label.take(item)
            ended = np.add.reduce((window == shown).view(np.int8), axis=0, dtype=np.int8) > THRESHOLD
            window[turn % WINDOW] = shown
            turn += 1
            steps[:] += 1
            ended |= steps >= MAX_STEPS
            if ended.any():
                rows = np.flatnonzero(ended)
                user[rows] = rng.integers(n_users, size=len(rows))
                steps[rows] = 0
                window[:, rows] = -1
        return _DRAWN * batch

    return work


def bare_slates(kuairec: KuaiRec, batch: int) -> Work:
    """A lower bound of the work in LERL's environment over a matrix: look up, apply the positional quit rule, reset.

    The loop keeps no history, makes no observation and no info, and checks nothing.

    Args:
        kuairec: the matrix that is looked up.
        batch: users served at once, B.
    """
    rng = np.random.default_rng(1)
    clicks, category = (kuairec.watch_ratio >= 1).astype(np.int8), kuairec.data.catalog.category
    n_users, n_items = clicks.shape
    slates = rng.integers(n_items, size=(_DRAWN, batch, SLATE))
    user = rng.integers(n_users, size=batch)
    budget = np.full(batch, BUDGET)
    previous = np.full((batch, SLATE), -1, np.int32)
    ones = np.ones(SLATE, np.float32)
    flat, first = clicks.reshape(-1), np.arange(n_users) * n_items

    def work() -> int:
        nonlocal previous
        for slate in slates:
            (flat.take(first.take(user)[:, None] + slate).astype(np.float32) @ ones) / SLATE
            shown = category.take(slate)
            budget[:] -= 1.0 + ((shown == previous).astype(np.float32) @ ones > 0)
            ended = budget < 1
            if ended.any():
                rows = np.flatnonzero(ended)
                user[rows] = rng.integers(n_users, size=len(rows))
                budget[rows] = BUDGET
                shown[rows] = -1
            previous = shown
        return _DRAWN * batch

    return work


def _subjects(name: str, batch: int, **arguments: Any) -> Iterator[tuple[str, Work]]:
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        yield f"vector, {mode.value}", _vector_work(name, batch, mode, arguments)
        if name != LEARNED:  # the copies count where a step takes little else
            yield f"vector, {mode.value}, copy=False", _vector_work(name, batch, mode, {**arguments, "copy": False})
    if batch == 1:
        yield "gym.make", _single_work(name, arguments)


def _vector_work(name: str, batch: int, mode: AutoresetMode, arguments: dict[str, Any]) -> Work:
    env = gym.make_vec(name, num_envs=batch, autoreset_mode=mode, **arguments)
    actions = _actions(env.single_action_space, (batch,))
    env.reset(seed=0)

    def work() -> int:
        shown = 0
        for action in actions:
            *_, info = env.step(action)
            # A step that only resets shows nobody a slate.
            shown += batch if mode == AutoresetMode.SAME_STEP else int(np.count_nonzero(info["_feedback"]))
        return shown

    return work


def _single_work(name: str, arguments: dict[str, Any]) -> Work:
    env: gym.Env[Any, Any] = gym.make(name, **arguments)
    actions = list(_actions(env.action_space, ()))
    env.reset(seed=0)

    def work() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return _DRAWN

    return work


def _actions(space: gym.Space[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
    rng = np.random.default_rng(1)
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=(_DRAWN, *shape))
    assert isinstance(space, gym.spaces.MultiDiscrete)
    return rng.integers(space.nvec, size=(_DRAWN, *shape, len(space.nvec)))
