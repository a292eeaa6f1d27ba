"""The session engine: B users at once, each with a history and a budget, as plain arrays.

One step shows one slate to every user. The response model gives the probability of each behaviour, random numbers
decide, the quit rule takes the slate's cost from the budget, and a user with less than 1 left leaves. This is LERL's
simulated environment (arXiv 2601.19585, section 4; KuaiSim's whole-session request before it) without its faults.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import UNKNOWN, FloatArray, Int8Array, Int32Array, IntArray, SessionData
from rapport.envs.session.engine import counter_rng
from rapport.envs.session.engine.initial_histories import Histories, LogRows
from rapport.envs.session.engine.own_parts import check_chances, check_costs, is_own
from rapport.envs.session.engine.quit_rules import QuitRule, Slate, initial_memory_of
from rapport.envs.session.engine.reward import Reward, reward_name
from rapport.envs.session.response.base import MatrixResponse, ReadsHistories, ResponseModel

Observation = dict[str, NDArray[np.generic]]

_SPARE = 16
"""Slates that the history buffers take before their content is moved back to the beginning."""


class StepResult(NamedTuple):
    """The outcome of one slate, for B users.

    Attributes:
        reward: shape (B,), float64, mean click over the slate, in [0, 1], unless another reward was chosen.
        terminated: shape (B,), bool, the user left.
        truncated: shape (B,), bool, the user had not left at the time limit.
        categories: shape (B, K), int32, categories of the items shown.
        feedback: shape (B, K, F), int8 in {0, 1}.
        cost: shape (B,), float64, budget the slate cost.
    """

    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    categories: Int32Array
    feedback: Int8Array
    cost: NDArray[np.float64]


class Shown(NamedTuple):
    """Whom a slate was shown to, where new sessions began at once.

    Attributes:
        ended: shape (B,), bool, whose session ended.
        user: shape (B,), of the sessions that were shown the slate.
        budget: shape (B,), what they had left.
    """

    ended: NDArray[np.bool_]
    user: IntArray
    budget: NDArray[np.float64]


class SessionCore:
    """State and dynamics of ``n_envs`` sessions.

    Args:
        data: catalogue and population.
        response: how users respond.
        quit_rule: what a slate costs.
        histories: initial histories; their width is the observed history length H.
        users: shape (P,), the users sessions are drawn from, uniformly.
        n_envs: number of sessions, B.
        slate_size: items in a slate, K.
        budget: budget at a session's start.
        max_steps: slates after which a session is truncated.
        repeats: whether an item can be responded to again in a session; otherwise it is ignored.
        reward: reward of a slate; by default the mean of the first behaviour over its items. ``reward_name`` is its
            name for tables.
        served: the users that the response model can serve; all by default.
        log_rows: draw rows of the log to start from instead of users.

    Raises:
        ValueError: the parts do not fit together, or a session would need more random numbers than its stream has.
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
        *,
        repeats: bool = True,
        reward: Reward | None = None,
        served: IntArray | None = None,
        log_rows: LogRows | None = None,
    ) -> None:
        _check(data, response, slate_size, max_steps)
        if log_rows is not None and not hasattr(response, "state_after"):
            raise ValueError(
                f"log_rows: {type(response).__name__} cannot start from a row of the log (it has no state_after); "
                "start from users, or give another response model"
            )
        self.data, self.response, self.quit_rule = data, response, quit_rule
        self.histories, self.log_rows, self.users = histories, log_rows, users
        self.n_envs, self.slate_size, self.start_budget, self.max_steps = n_envs, slate_size, float(budget), max_steps
        self.reward, self.served = reward, served
        self.reward_name = response.behaviours[0] if reward is None else reward_name(reward)
        self._own_rule, self._looked_up = is_own(quit_rule), type(response) is MatrixResponse
        self.n_items = data.catalog.n_items
        self.length, self._n_behaviours = histories.feedback.shape[1:]
        # Certain responses need no random numbers.
        self._certain = response.responses if isinstance(response, MatrixResponse) and response.certain else None
        self._initial_memory = initial_memory_of(quit_rule)
        self._ones = np.ones(slate_size)
        self._category = data.catalog.category
        nobody = np.zeros(n_envs, np.int64)
        self.tick = 0
        self.key = np.zeros(n_envs, np.uint64)
        self.stream = np.zeros(n_envs, np.uint64)
        self.episode = np.zeros(n_envs, np.int64)
        self.user = np.zeros(n_envs, np.int64)
        self.steps = np.zeros(n_envs, np.int32)
        self.budget = np.zeros(n_envs)
        self.memory: NDArray[Any] = self._initial_memory(nobody)
        self.state: FloatArray = response.initial_state(nobody)
        self.seen = None if repeats else np.zeros((n_envs, data.catalog.n_items), bool)
        self._features = data.population.features.codes[nobody]
        # The history is the window of H items that ends at the cursor; a slate is written behind it, so nothing moves.
        width = self._width = self.length + _SPARE * slate_size
        self._cursor: int = max(self.length, slate_size)
        self._items = np.zeros((n_envs, width), np.int32)
        self._feedback = np.full((n_envs, width * self._n_behaviours), UNKNOWN, np.int8)

    def seed(self, rows: IntArray, keys: NDArray[np.uint64]) -> None:
        """Give the slots ``rows`` new seeds, shape (len(rows),), and count their sessions from zero."""
        self.key[rows] = keys
        self.episode[rows] = 0

    def begin(self, rows: IntArray, users: IntArray | None = None) -> None:
        """Begin new sessions in the slots ``rows``, of the given users or of users drawn at random."""
        self.episode[rows] += 1
        stream = counter_rng.new_stream(self.key[rows], self.episode[rows])
        self.stream[rows] = stream
        users, items, feedback, state = self._initial_states(counter_rng.uniform(stream, 1)[:, 0], users)
        start, end = self._cursor - self.length, self._cursor
        self._items[rows, start:end] = items
        flat = feedback.reshape(len(rows), -1)
        self._feedback[rows, start * self._n_behaviours : end * self._n_behaviours] = flat
        self.user[rows] = users
        self._features[rows] = self.data.population.features.codes[users]
        self.steps[rows] = 0
        self.budget[rows] = self.start_budget
        self.memory[rows] = self._initial_memory(users)
        if state.shape[1]:
            self.state[rows] = state
        if self.seen is not None:
            self.seen[rows] = False

    def _initial_states(
        self, draw: NDArray[np.float64], users: IntArray | None
    ) -> tuple[IntArray, Int32Array, Int8Array, FloatArray]:
        """Users (n,), items (n, H), feedback (n, H, F) and response states (n, D) of new sessions."""
        if users is None and self.log_rows is not None:
            rows = self.log_rows.rows[(draw * len(self.log_rows.rows)).astype(np.int64)]
            users, items, feedback = self.log_rows.at(rows)
            reader = cast(ReadsHistories, self.response)
            return users, items, feedback, reader.state_after(users, items, feedback)
        if users is None:
            users = self.users[(draw * len(self.users)).astype(np.int64)]
        return users, self.histories.items[users], self.histories.feedback[users], self.response.initial_state(users)

    def step(self, slates: Int32Array) -> StepResult:
        """Show every user a slate, shape (B, K)."""
        feedback = self._respond(slates)
        categories = self._category.take(slates)
        reward = self._mean_of_first(feedback) if self.reward is None else self.reward(self.user, slates, feedback)
        shown = Slate(self.user, slates, categories, feedback, reward, self.budget, self.tick)
        cost = self.quit_rule.cost(self.memory, shown)
        if self._own_rule:
            cost = check_costs(self.quit_rule, cost, self.n_envs)
        self.tick += 1
        self.budget -= cost
        np.maximum(self.budget, 0.0, out=self.budget)
        self.state = self.response.advance(self.state, self.user, slates, feedback)
        self._remember(slates, feedback)
        self.steps += 1
        terminated = self.budget < 1
        truncated = (self.steps >= self.max_steps) > terminated
        return StepResult(reward, terminated, truncated, categories, feedback, cost)

    def narrowed(self, items: NDArray[np.integer]) -> tuple[Int32Array, int, int]:
        """Slates (B, K), int32, from B * K item indices of any integer type; with the lowest and the highest index."""
        return items.reshape(self.n_envs, -1).astype(np.int32), items.min(), items.max()

    def step_or_begin(self, slates: Int32Array, ended: NDArray[np.bool_]) -> StepResult:
        """Show every user a slate; where ``ended``, shape (B,), the slate is ignored and a new session begins."""
        result = self.step(slates)
        rows = ended.nonzero()[0]
        if not len(rows):
            return result
        reward = result.reward.copy()  # it may be an array of the reward function
        reward[rows], result.cost[rows], result.terminated[rows], result.truncated[rows] = 0.0, 0.0, False, False
        result.categories[rows], result.feedback[rows] = -1, 0
        self.begin(rows)
        return result._replace(reward=reward)

    def step_and_begin(self, slates: Int32Array, last: Observation) -> tuple[StepResult, Shown]:
        """Show every user a slate; where a session ends, a new one begins at once.

        Args:
            slates: shape (B, K).
            last: observations of all slots; the last ones of the ended sessions are written to their rows.
        """
        result = self.step(slates)
        shown = Shown(result.terminated | result.truncated, self.user.copy(), self.budget.copy())
        rows = shown.ended.nonzero()[0]
        if len(rows):
            for name, values in self.observation(rows).items():
                last[name][rows] = values
            self.begin(rows)
        return result, shown

    def observation(self, rows: IntArray | slice | int = slice(None)) -> Observation:
        """Copies of the observations of the slots ``rows``, shaped as in the environment's observation space.

        The number of a single slot gives its observation without the leading axis.
        """
        start, end = self._cursor - self.length, self._cursor
        return {
            "history_feedback": self._feedback[rows, start * self._n_behaviours : end * self._n_behaviours].copy(),
            "history_items": self._items[rows, start:end].copy(),
            "step": self.steps[rows, None].copy(),
            "user_features": self._features[rows].copy(),
        }

    def views(self) -> Observation:
        """Observations of all slots without copying: the engine's own arrays, which the next step changes."""
        start, end = self._cursor - self.length, self._cursor
        return {
            "history_feedback": self._feedback[:, start * self._n_behaviours : end * self._n_behaviours],
            "history_items": self._items[:, start:end],
            "step": self.steps[:, None],
            "user_features": self._features,
        }

    @property
    def previous(self) -> Int32Array:
        """Categories of the last slate of each session, shape (B, K); -1 where no slate was shown yet.

        Where items have up to L categories each, shape (B, K * L), -1 also for those that an item lacks.
        """
        items = self._items[:, self._cursor - self.slate_size : self._cursor] - 1
        labels = self.data.catalog.labels[items].reshape(self.n_envs, -1)
        return np.where(self.steps[:, None] > 0, labels, np.int32(-1))

    def __deepcopy__(self, memo: dict[int, Any]) -> SessionCore:
        """An independent copy that shares what sessions do not change: data, response model, rule, histories."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                setattr(twin, name, value.copy(order="K"))
        memo[id(self)] = twin
        return twin

    def _mean_of_first(self, feedback: Int8Array) -> NDArray[np.float64]:
        if self.n_envs == 1:  # Python sums a few numbers faster
            return np.array([sum(feedback[0, :, 0].tolist()) / self.slate_size])
        hits = feedback[:, :, 0].astype(np.float64)
        # A matrix product is many times faster here than a mean of short rows.
        share: NDArray[np.float64] = hits[:, 0] if self.slate_size == 1 else hits @ self._ones / self.slate_size
        return share

    def _respond(self, slates: Int32Array) -> Int8Array:
        """Feedback of the users on the slates, shape (B, K, F)."""
        if self._certain is not None:
            feedback = self._certain(self.user, slates)
        else:
            chance = self.response.probabilities(self.state, self.user, slates)
            if not self._looked_up:
                check_chances(self.response, chance, (*slates.shape, self._n_behaviours))
            self.stream += counter_rng.STEP
            draws = counter_rng.uniform(self.stream, chance.shape[1] * chance.shape[2])
            feedback = (draws.reshape(chance.shape) < chance).view(np.int8)
        if self.seen is not None:
            feedback[self._shown_before(self.seen, slates)] = 0
        return feedback

    def _shown_before(self, seen: NDArray[np.bool_], slates: Int32Array) -> NDArray[np.bool_]:
        """Which places hold an item shown before in the session or the slate, shape (B, K); marks all as seen."""
        rows = np.arange(self.n_envs)
        before = seen[rows[:, None], slates]
        for place in range(1, self.slate_size):
            before[:, place] |= (slates[:, :place] == slates[:, place, None]).any(axis=1)
        seen[rows[:, None], slates] = True
        return before

    def _remember(self, slates: Int32Array, feedback: Int8Array) -> None:
        if self._cursor + self.slate_size > self._width:
            self._make_room()
        n, start, end = self._n_behaviours, self._cursor, self._cursor + self.slate_size
        np.add(slates, 1, out=self._items[:, start:end])
        self._feedback[:, start * n : end * n] = feedback.reshape(self.n_envs, -1)
        self._cursor = end

    def _make_room(self) -> None:
        """Move the history back to the beginning of its buffers, which have no room for another slate."""
        n, length = self._n_behaviours, self.length
        self._items[:, :length] = self._items[:, self._cursor - length : self._cursor].copy()
        past = self._feedback[:, (self._cursor - length) * n : self._cursor * n].copy()
        self._feedback[:, : length * n] = past
        self._cursor = length


def _check(data: SessionData, response: ResponseModel, slate_size: int, max_steps: int) -> None:
    if response.behaviours != data.log.behaviours:
        raise ValueError(
            f"response.behaviours={response.behaviours} are not those of the log, {data.log.behaviours}; "
            "give a response model of exactly these"
        )
    if slate_size * len(response.behaviours) > counter_rng.MAX_DRAWS:
        raise ValueError(
            f"slate_size={slate_size} times {len(response.behaviours)} behaviours is more than "
            f"{counter_rng.MAX_DRAWS}; take a smaller slate"
        )
    if max_steps > counter_rng.MAX_STEPS:
        raise ValueError(f"max_steps={max_steps}; it must be at most {counter_rng.MAX_STEPS}")
