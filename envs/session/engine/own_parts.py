"""Rewards, quit rules and response models of one's own: tried before the first session, and checked as they are used.

What is missing or has another shape is one sentence that names the part, when an environment is made. Parts of this
package are not tried: its tests do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int32Array, IntArray, SessionData
from rapport.envs.session.engine.quit_rules import QuitRule, Slate, initial_memory_of
from rapport.envs.session.engine.reward import OwnReward, Reward
from rapport.envs.session.response.base import ResponseModel

Result = TypeVar("Result")

_RULE = {"initial_memory": "initial_memory(users)", "cost": "cost(memory, slate)"}
_RESPONSE = {
    "initial_state": "initial_state(users)",
    "probabilities": "probabilities(state, users, slates)",
    "advance": "advance(state, users, slates, feedback)",
}


def is_own(part: object) -> bool:
    """Whether a part is of a class that this package does not have."""
    return type(part).__module__.partition(".")[0] != __name__.partition(".")[0]


# --- before the first session -----------------------------------------------------------------------------------------


def try_reward(reward: Reward | None, data: SessionData, users: IntArray, slate_size: int) -> None:
    """Call a reward of one's own for one user and for several, who do nothing and then everything.

    Args:
        reward: of the environment.
        data: its items and behaviours.
        users: shape (P,), those it serves.
        slate_size: K.

    Raises:
        ValueError: the function fails, or does not return a finite number for each user.
    """
    if not isinstance(reward, OwnReward):
        return
    for n in _sizes(slate_size):
        some, slates = _shown(data, users, n, slate_size)
        for did in (0, 1):
            feedback = np.full((*slates.shape, len(data.log.behaviours)), did, np.int8)
            told = f"it was called with users {some.shape}, items {slates.shape} and feedback {feedback.shape}"
            _called(f"reward={reward.name}", told, reward, some, slates, feedback)


def try_quit_rule(rule: QuitRule, data: SessionData, users: IntArray, slate_size: int, budget: float) -> None:
    """Let a quit rule of one's own judge two slates, for one user and for several.

    Arguments are those of :func:`try_reward`, and the budget at a session's start.

    Raises:
        ValueError: a method is missing or fails, or its result has another shape or value than
            :class:`~rapport.envs.session.engine.quit_rules.QuitRule` says.
    """
    if not is_own(rule):
        return
    told = f"quit_rule={_name(rule)}"
    _check_methods(told, rule, _RULE, {"initial_memory": "blank"})
    if not isinstance(getattr(rule, "name", None), str):
        raise ValueError(f"{told}: has no name; give it the attribute name, a text for tables and rendered sessions")
    begin = initial_memory_of(rule)
    for n in _sizes(slate_size):
        some, slates = _shown(data, users, n, slate_size)
        called = f"initial_memory was called with users {some.shape}"
        memory, other = (_called(told, called, begin, some) for _ in range(2))
        _check_rows(f"{told}: initial_memory", memory, other, n, "(B, ...)")
        for tick in range(2):
            feedback = np.full((*slates.shape, len(data.log.behaviours)), tick, np.int8)
            categories = data.catalog.category[slates]
            slate = Slate(some, slates, categories, feedback, np.full(n, float(tick)), np.full(n, budget), tick)
            called = f"cost was called with the memory {memory.shape} and a slate {slates.shape}"
            check_costs(rule, _called(told, called, rule.cost, memory, slate), n)


def try_response(response: ResponseModel, data: SessionData, users: IntArray, slate_size: int) -> None:
    """Let a response model of one's own respond to two slates, for one user and for several.

    Arguments are those of :func:`try_reward`.

    Raises:
        ValueError: a method is missing or fails, or its result has another shape or value than
            :class:`~rapport.envs.session.response.base.ResponseModel` says.
    """
    if not is_own(response):
        return
    told = f"response={_name(response)}"
    _check_methods(told, response, _RESPONSE, {})
    behaviours = getattr(response, "behaviours", None)
    if behaviours != data.log.behaviours:
        raise ValueError(
            f"{told}: its behaviours are {behaviours!r}; give it the attribute behaviours={data.log.behaviours!r}, "
            "those of the log"
        )
    for n in _sizes(slate_size):
        some, slates = _shown(data, users, n, slate_size)
        called = f"initial_state was called with users {some.shape}"
        state, other = (_called(told, called, response.initial_state, some) for _ in range(2))
        _check_rows(f"{told}: initial_state", state, other, n, "(B, D)")
        for did in range(2):
            feedback = np.full((*slates.shape, len(behaviours)), did, np.int8)
            called = f"it was called with state {state.shape}, users {some.shape} and slates {slates.shape}"
            chances = _called(told, called, response.probabilities, state, some, slates)
            check_chances(response, chances, feedback.shape)
            after = _called(told, called, response.advance, state, some, slates, feedback)
            if not isinstance(after, np.ndarray) or after.shape != state.shape:
                raise ValueError(
                    f"{told}: advance returned {_told(after)} for a state of shape {state.shape}; return an array of "
                    "this shape"
                )
            state = after


# --- while it is used -------------------------------------------------------------------------------------------------


def check_costs(rule: QuitRule, costs: Any, n: int) -> NDArray[np.float64]:
    """The costs of a slate, shape (n,), float64.

    Raises:
        ValueError: they are not n numbers of at least 0.
    """
    if not isinstance(costs, np.ndarray) or costs.shape != (n,) or costs.dtype.kind not in "fiub":
        raise ValueError(
            f"quit_rule={_name(rule)}: cost returned {_told(costs)} for {n} user(s); return an array of one number for "
            f"each, shape ({n},)"
        )
    if not (costs >= 0).all():
        raise ValueError(
            f"quit_rule={_name(rule)}: cost returned {costs[~(costs >= 0)][0]}; a slate costs at least 0, or inf where "
            "the user leaves at once"
        )
    return costs.astype(np.float64, copy=False)


def check_chances(response: ResponseModel, chances: Any, shape: tuple[int, ...]) -> None:
    """Check probabilities of behaviours, shape (B, K, F).

    Raises:
        ValueError: they have another shape, or one is not in [0, 1].
    """
    if not isinstance(chances, np.ndarray) or chances.shape != shape or chances.dtype.kind not in "fiub":
        raise ValueError(
            f"response={_name(response)}: probabilities returned {_told(chances)}; return one for each user, item and "
            f"behaviour, shape {shape}"
        )
    lowest, highest = chances.min(), chances.max()
    if not (lowest >= 0 and highest <= 1):  # NaN is neither
        bad = highest if lowest >= 0 else lowest
        raise ValueError(f"response={_name(response)}: probabilities returned {bad}; they must lie in [0, 1]")


# --- parts of the above -----------------------------------------------------------------------------------------------


def _sizes(slate_size: int) -> tuple[int, int]:
    """One user, and a number of users that is not that of places."""
    return 1, 3 if slate_size == 2 else 2


def _shown(data: SessionData, users: IntArray, n: int, slate_size: int) -> tuple[IntArray, Int32Array]:
    """Users (n,) and slates (n, K)."""
    slates = np.arange(n * slate_size).reshape(n, slate_size) % data.catalog.n_items
    return np.resize(users, n).astype(np.int64), slates.astype(np.int32)


def _check_methods(told: str, part: object, wanted: dict[str, str], old: dict[str, str]) -> None:
    if isinstance(part, type):
        raise ValueError(f"{told}: is a class; give an object of it, {part.__name__}(...)")
    for method, call in wanted.items():
        if not callable(getattr(part, method, None)) and not callable(getattr(part, old.get(method, method), None)):
            raise ValueError(f"{told}: has no method {call}; docs/kuairand.md shows all that it needs")


def _check_rows(told: str, rows: Any, other: Any, n: int, shape: str) -> None:
    """Check the rows of new sessions: memories or states."""
    if not isinstance(rows, np.ndarray) or rows.ndim < 1 or len(rows) != n or (shape == "(B, D)" and rows.ndim != 2):
        raise ValueError(f"{told} returned {_told(rows)} for {n} user(s); return an array {shape}, one row for each")
    if rows.dtype.kind not in "fiub":
        raise ValueError(f"{told} returned an array of {rows.dtype}; return numbers, which sessions can copy")
    if not rows.flags.writeable or np.may_share_memory(rows, other):
        raise ValueError(f"{told} returned the same memory again; return a new array, which the sessions write to")


def _called(told: str, called: str, function: Callable[..., Result], *arguments: Any) -> Result:
    try:
        return function(*arguments)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(told):
            raise
        raise ValueError(f"{told}: {called}, and raised {type(error).__name__}: {error}") from error


def _name(part: object) -> str:
    return getattr(part, "__name__", None) or type(part).__name__


def _told(value: Any) -> str:
    return f"shape {value.shape}, {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
