"""The session engine: B people at once, each with a past, a budget and a slate before them, as plain arrays.

One step shows one slate to every user: the response model says how likely each behaviour is, luck decides, the quit
rule takes its price from the budget, and who has less than one left leaves. LERL's simulated environment (arXiv
2601.19585, section 4; KuaiSim's whole-session request before it), without its faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import UNKNOWN, FloatArray, Int8Array, Int32Array, IntArray, SessionData
from rapport.envs.session import noise
from rapport.envs.session.quit import QuitRule
from rapport.envs.session.response import ResponseModel

Observation = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class StepResult:
    """What one slate led to, for B users.

    Attributes:
        reward: shape (B,), float64, mean click over the slate, in [0, 1].
        terminated: shape (B,), bool, the user left.
        truncated: shape (B,), bool, the time limit came first.
        categories: shape (B, K), int32, categories of the items shown.
        feedback: shape (B, K, F), int8 in {0, 1}.
    """

    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    categories: Int32Array
    feedback: Int8Array


@dataclass(frozen=True)
class Histories:
    """The last H items each user had seen when sessions begin.

    Attributes:
        items: shape (U, H), int32, item index + 1, oldest first; 0 where there is none.
        feedback: shape (U, H, F), int8 in {-1, 0, 1}.
    """

    items: Int32Array
    feedback: Int8Array

    @classmethod
    def before(cls, data: SessionData, until_ms: int, length: int) -> Histories:
        """The last ``length`` rows of each user's log before ``until_ms``, right-aligned."""
        log, n_users = data.log, data.population.n_users
        rows = np.flatnonzero(log.time_ms < until_ms)
        end_of_user = np.cumsum(np.bincount(log.user[rows], minlength=n_users))
        age = end_of_user[log.user[rows]] - 1 - np.arange(len(rows))
        rows, age = rows[age < length], age[age < length]
        user = log.user[rows]
        items = np.zeros((n_users, length), np.int32)
        feedback = np.full((n_users, length, len(log.behaviours)), UNKNOWN, np.int8)
        items[user, length - 1 - age] = log.item[rows] + 1
        feedback[user, length - 1 - age] = log.feedback[rows]
        for array in (items, feedback):
            array.flags.writeable = False
        return cls(items, feedback)


class SessionCore:
    """State and dynamics of ``n_envs`` sessions.

    Args:
        data: catalogue and population.
        response: what users do.
        quit_rule: what a slate costs.
        histories: what users saw before the session; its width is the observed history length H.
        users: shape (P,), the users sessions are drawn from, uniformly.
        n_envs: number of sessions, B.
        slate_size: items in a slate, K.
        budget: budget at a session's start.
        max_steps: slates after which a session is cut off.

    Raises:
        ValueError: the parts do not fit together, or a session would need more random numbers than there are.
    """

    def __init__(
        self,
        data: SessionData,
        response: ResponseModel,
        quit_rule: QuitRule,
        histories: Histories,
        users: IntArray,
        n_envs: int,
        slate_size: int,
        budget: float,
        max_steps: int,
    ) -> None:
        _check(data, response, slate_size, max_steps)
        self.data, self.response, self.quit_rule = data, response, quit_rule
        self.histories, self.users = histories, users
        self.n_envs, self.slate_size, self.start_budget, self.max_steps = n_envs, slate_size, float(budget), max_steps
        length, n_behaviours = histories.feedback.shape[1:]
        self.key = np.zeros(n_envs, np.uint64)
        self.episode = np.zeros(n_envs, np.int64)
        self.user = np.zeros(n_envs, np.int64)
        self.steps = np.zeros(n_envs, np.int64)
        self.budget = np.zeros(n_envs)
        self.previous = np.full((n_envs, slate_size), -1, np.int32)
        self.history_items = np.zeros((n_envs, length), np.int32)
        self.history_feedback = np.zeros((n_envs, length, n_behaviours), np.int8)
        self.state: FloatArray = response.initial_state(np.zeros(n_envs, np.int64))

    def seed(self, rows: IntArray, keys: NDArray[np.uint64]) -> None:
        """Give the slots ``rows`` new seeds, shape (len(rows),), and start counting their sessions from zero."""
        self.key[rows] = keys
        self.episode[rows] = 0

    def begin(self, rows: IntArray, users: IntArray | None = None) -> None:
        """Begin new sessions in the slots ``rows``, with the given users or with users drawn from the pool."""
        self.episode[rows] += 1
        if users is None:
            draw = noise.uniform(self.key[rows], self.episode[rows], np.full(len(rows), noise.USER_DRAW), 1)[:, 0]
            users = self.users[(draw * len(self.users)).astype(np.int64)]
        self.user[rows] = users
        self.steps[rows] = 0
        self.budget[rows] = self.start_budget
        self.previous[rows] = -1
        self.history_items[rows] = self.histories.items[users]
        self.history_feedback[rows] = self.histories.feedback[users]
        self.state[rows] = self.response.initial_state(users)

    def step(self, slates: Int32Array) -> StepResult:
        """Show every user a slate, shape (B, K)."""
        chance = self.response.probabilities(self.state, self.user, slates)
        n_behaviours = chance.shape[2]
        luck = noise.uniform(self.key, self.episode, self.steps + 1, self.slate_size * n_behaviours)
        feedback = (luck.reshape(chance.shape) < chance).astype(np.int8)
        categories = self.data.catalog.category[slates]
        self.steps += 1
        self.budget -= self.quit_rule(categories, self.previous)
        self.state = self.response.advance(self.state, self.user, slates, feedback)
        self._remember(slates, feedback)
        self.previous = categories.copy()
        terminated = self.budget < 1
        truncated = ~terminated & (self.steps >= self.max_steps)
        reward = feedback[:, :, 0].mean(axis=1, dtype=np.float64)
        return StepResult(reward, terminated, truncated, categories, feedback)

    def observation(self, rows: IntArray | slice = slice(None)) -> Observation:
        """Copies of what an agent sees in the slots ``rows``; shapes as in the environment's observation space."""
        n = len(self.user[rows])
        return {
            "history_feedback": self.history_feedback[rows].reshape(n, -1).copy(),
            "history_items": self.history_items[rows].copy(),
            "step": self.steps[rows, None].astype(np.int32),
            "user_features": self.data.population.features.codes[self.user[rows]],
        }

    def _remember(self, slates: Int32Array, feedback: Int8Array) -> None:
        new = min(self.slate_size, self.history_items.shape[1])
        for buffer, latest in ((self.history_items, slates + 1), (self.history_feedback, feedback)):
            buffer[:, :-new] = buffer[:, new:]
            buffer[:, buffer.shape[1] - new :] = latest[:, self.slate_size - new :]


def _check(data: SessionData, response: ResponseModel, slate_size: int, max_steps: int) -> None:
    if response.behaviours != data.log.behaviours:
        raise ValueError(
            f"response.behaviours={response.behaviours} are not those of the log, {data.log.behaviours}; "
            "give a response model of exactly these"
        )
    if slate_size * len(response.behaviours) > noise.MAX_DRAWS:
        raise ValueError(
            f"slate_size={slate_size} times {len(response.behaviours)} behaviours is more than {noise.MAX_DRAWS}; "
            "take a smaller slate"
        )
    if max_steps > noise.MAX_STEPS:
        raise ValueError(f"max_steps={max_steps}; it must be at most {noise.MAX_STEPS}")
