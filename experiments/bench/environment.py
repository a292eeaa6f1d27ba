"""How many slates per second ``rapport/KuaiRand-v0`` serves, beside the bare loop that bounds what NumPy can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.performance import benchmark_step
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response import MatrixResponse, ResponseModel
from rapport.experiments.bench.timing import Speed, Work, compare, torch_threads

ENVIRONMENT = "rapport/KuaiRand-v0"
REFERENCE = "bare NumPy loop"
SLATE, BUDGET = 6, 20.0
LOOKUP_USERS, LOOKUP_ITEMS = 1_411, 3_327
"""Size of the looked-up matrix: KuaiRec's small matrix."""
_DRAWN = 64


@dataclass(frozen=True)
class EnvironmentSpeed:
    """One subject at one batch size.

    Attributes:
        subject: what was stepped.
        response: ``"lookup"`` or ``"learned"``.
        batch: users served at once, B.
        threads: of torch.
        speed: user-steps per second; one user-step is one slate shown to one user.
        ratio: median speed as a share of the bare loop's of the same B.
    """

    subject: str
    response: str
    batch: int
    threads: int
    speed: Speed
    ratio: float


def measure_environment(
    data: SessionData,
    response: ResponseModel,
    batch_sizes: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
    rounds: int,
    report: Callable[[str], None] = lambda _: None,
) -> list[EnvironmentSpeed]:
    """Time the bare loop, the vector environment and, for B = 1, ``gym.make``.

    Slates are drawn beforehand. The lookup subjects share one random matrix of KuaiRec's size; the learned ones stand
    on ``data``.

    Args:
        data: of the learned response.
        response: learned from ``data``.
        batch_sizes: numbers of users served at once.
        threads: torch threads to time the learned response with.
        seconds: of each subject in each round.
        rounds: whose median is taken.
        report: told what is being timed.
    """
    table = _clicks_alone(twin(n_users=LOOKUP_USERS, n_items=LOOKUP_ITEMS))
    matrix = np.random.default_rng(0).random((LOOKUP_USERS, LOOKUP_ITEMS), dtype=np.float32)
    lookup = MatrixResponse(matrix, table.log.behaviours)
    result = []
    for batch in batch_sizes:
        report(f"B = {batch:,}: lookup")
        subjects = {REFERENCE: bare_loop(matrix, table.catalog.category, batch)}
        subjects |= dict(_subjects(table, lookup, batch))
        found = compare(subjects, seconds, rounds)
        limit = found[REFERENCE].median
        result += [EnvironmentSpeed(n, "lookup", batch, 1, s, s.median / limit) for n, s in found.items()]
        for n_threads in threads:
            report(f"B = {batch:,}: learned response, torch on {n_threads} thread(s)")
            with torch_threads(n_threads):
                found = compare(dict(_subjects(data, response, batch)), seconds, rounds)
            result += [EnvironmentSpeed(n, "learned", batch, n_threads, s, s.median / limit) for n, s in found.items()]
    return result


def gymnasium_benchmark(data: SessionData, response: ResponseModel, seconds: float) -> float:
    """Steps per second by Gymnasium's own benchmark, torch on one thread; it draws its slates as it goes."""
    env = gym.make(ENVIRONMENT, data=data, response=response)
    with torch_threads(1):
        return float(benchmark_step(env, seconds, seed=0))  # type: ignore[arg-type]  # it only compares the duration


def bare_loop(matrix: NDArray[np.float32], category: NDArray[np.int32], batch: int) -> Work:
    """The least that such an environment must do: look up, draw, pay the positional rule's price, begin anew.

    It keeps no history, makes no observation and no info.

    Args:
        matrix: shape (U, N), click probabilities.
        category: shape (N,).
        batch: B.
    """
    rng = np.random.default_rng(1)
    n_users, n_items = matrix.shape
    slates = rng.integers(n_items, size=(_DRAWN, batch, SLATE))
    user = rng.integers(n_users, size=batch)
    budget = np.full(batch, BUDGET)
    previous = np.full((batch, SLATE), -1, np.int32)

    def work() -> int:
        nonlocal previous
        for slate in slates:
            click = rng.random((batch, SLATE)) < matrix[user[:, None], slate]
            click.mean(axis=1)
            shown = category[slate]
            budget[:] -= 1.0 + (shown == previous).any(axis=1)
            ended = budget < 1
            if ended.any():
                user[ended] = rng.integers(n_users, size=int(ended.sum()))
                budget[ended] = BUDGET
                shown[ended] = -1
            previous = shown
        return _DRAWN * batch

    return work


def _clicks_alone(data: SessionData) -> SessionData:
    """The same data with its first behaviour only."""
    log = data.log
    return replace(data, log=replace(log, feedback=log.feedback[:, :1].copy(), behaviours=log.behaviours[:1]))


def _subjects(data: SessionData, response: ResponseModel, batch: int) -> Iterator[tuple[str, Work]]:
    yield "vector environment", _vector_work(data, response, batch)
    if batch == 1:
        yield "gym.make", _single_work(data, response)


def _vector_work(data: SessionData, response: ResponseModel, batch: int) -> Work:
    core = kuairand_core(batch, data=data, response=response, slate_size=SLATE, budget=BUDGET)
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    slates = np.random.default_rng(1).integers(data.catalog.n_items, size=(_DRAWN, batch, SLATE))
    env.reset(seed=0)

    def work() -> int:
        for slate in slates:
            env.step(slate)
        return _DRAWN * batch

    return work


def _single_work(data: SessionData, response: ResponseModel) -> Work:
    env: gym.Env[Any, Any] = gym.make(ENVIRONMENT, data=data, response=response, slate_size=SLATE, budget=BUDGET)
    slates = np.random.default_rng(1).integers(data.catalog.n_items, size=(_DRAWN, SLATE))
    env.reset(seed=0)

    def work() -> int:
        for slate in slates:
            _, _, terminated, truncated, _ = env.step(slate)
            if terminated or truncated:
                env.reset()
        return _DRAWN

    return work
