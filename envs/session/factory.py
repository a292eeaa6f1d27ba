"""The factory of session environments, whatever log they use.

An environment is defined by a function that makes its engine
(:class:`~rapport.envs.session.engine.core.SessionCore`) for B sessions. :func:`single_env` and :func:`vector_env` make
Gymnasium's single and vector environment of it, and :func:`session_core` makes the engine of data, response model and
settings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rapport.datasets.schema import Int32Array, IntArray, SessionData
from rapport.envs.common.arguments import SINGLE_ONLY, VECTOR_ONLY, check_arguments
from rapport.envs.session.arguments import Users, Weights
from rapport.envs.session.compiled.select import engine_for
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.initial_histories import Histories, LogRows
from rapport.envs.session.engine.own_parts import try_quit_rule, try_response, try_reward
from rapport.envs.session.engine.quit_rules import (
    QUIT_RULES,
    EarlyWindow,
    Never,
    Positional,
    QuitRule,
    Satisfaction,
    SetOverlap,
    WindowedCount,
)
from rapport.envs.session.engine.reward import RewardChoice, finite_weights, reward_of
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.response.base import MatrixResponse, ResponseModel


def single_env(
    core: Callable[..., SessionCore], kind: type, render_mode: str | None, arguments: Mapping[str, Any]
) -> SessionEnv:
    """One user at a time: the result of ``gym.make``.

    Args:
        core: makes an engine from ``(n_envs, **arguments)``.
        kind: the TypedDict of its arguments.
        render_mode: of :class:`~rapport.envs.session.env.SessionEnv`.
        arguments: as given to ``gym.make``.

    Raises:
        TypeError: an argument is unknown; the message names the right one.
    """
    check_arguments(arguments, kind, SINGLE_ONLY)
    return SessionEnv(core(1, **arguments), _single_item(arguments), render_mode)


def vector_env(
    core: Callable[..., SessionCore],
    kind: type,
    num_envs: int,
    autoreset_mode: AutoresetMode,
    render_mode: str | None,
    copy: bool,
    arguments: Mapping[str, Any],
    lost_endings: bool = False,
) -> SessionVectorEnv:
    """B users at a time: the result of ``gym.make_vec``.

    Arguments are those of :func:`single_env` and :class:`~rapport.envs.session.env.SessionVectorEnv`.

    Raises:
        TypeError: an argument is unknown; the message names the right one.
    """
    check_arguments(arguments, kind, VECTOR_ONLY)
    engine = core(num_envs, **arguments)
    return SessionVectorEnv(engine, autoreset_mode, _single_item(arguments), render_mode, lost_endings, copy)


def _single_item(arguments: Mapping[str, Any]) -> bool:
    return "slate_size" in arguments and arguments["slate_size"] is None


class DataKey:
    """A data set as the key of a cache in memory."""

    def __init__(self, data: SessionData) -> None:
        self.data, self.fingerprint = data, data.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataKey) and other.fingerprint == self.fingerprint


@functools.lru_cache(maxsize=4)
def histories(data: DataKey, length: int) -> Histories:
    """Initial histories of all users, before the test days; made once for all environments over a data set."""
    return Histories.before(data.data, data.data.test_from_ms, length)


def user_pool(data: SessionData, users: Users, among: IntArray | None = None) -> IntArray:
    """Indices of the users that sessions are drawn from, shape (P,).

    Args:
        data: the data, with its held-out users.
        users: which part of the users.
        among: the users that can be served; all by default.

    Raises:
        ValueError: ``users`` is unknown, or none of them can be served.
    """
    pools = {"train": ~data.held_out, "held_out": data.held_out, "all": np.ones_like(data.held_out)}
    if users not in pools:
        raise ValueError(f"users={users!r} is unknown; choose one of {', '.join(get_args(Users))}")
    servable = np.ones_like(data.held_out)
    if among is not None:
        servable[:] = False
        servable[among] = True
    found = np.flatnonzero(pools[users] & servable)
    if not len(found):
        raise ValueError(f"users={users!r}: none of them can be served; choose another of {', '.join(get_args(Users))}")
    return found


def labels_of(data: SessionData) -> Int32Array:
    """Labels of each item for a counting rule, shape (N, L): its categories and, if the log has one, its second tag.

    -1 where an item has fewer.
    """
    labels, features = data.catalog.labels, data.catalog.features
    if "second_tag" not in features.names:
        return labels
    column = features.names.index("second_tag")
    codes = features.codes[:, column]
    missing = np.array([value in ("none", "") for value in features.values[column]])
    second = np.where(missing[codes], -1, codes + data.catalog.n_categories)
    return np.concatenate([labels, second[:, None]], axis=1).astype(np.int32)


def behaviour_weights(data: SessionData, weights: Weights) -> NDArray[np.float64]:
    """Weight of each behaviour in a user's satisfaction, shape (F,).

    Args:
        data: the data whose log ``"ratio"`` is counted in.
        weights: ``"first"``, the first behaviour alone (KuaiSim's and LERL's ``single_response``); ``"ratio"``,
            KuaiSim's default: (#did / #did not) of each in the log, negative for ``hate``; or F numbers.

    Raises:
        ValueError: none of these.
    """
    behaviours = data.log.behaviours
    if isinstance(weights, str) and weights == "first":
        return np.array([1.0] + [0.0] * (len(behaviours) - 1))
    if isinstance(weights, str) and weights == "ratio":
        feedback = data.log.feedback
        ratio: NDArray[np.float64] = (feedback == 1).sum(axis=0) / np.maximum((feedback == 0).sum(axis=0), 1)
        return ratio * np.where(np.array(behaviours) == "hate", -1.0, 1.0)
    return finite_weights("weights", weights, behaviours, "'first', 'ratio'")


def quit_rule_of(
    rule: str | QuitRule,
    data: SessionData,
    slate_size: int,
    *,
    window: int,
    threshold: int,
    early_window: EarlyWindow,
    weights: Weights,
    labels: Int32Array | None = None,
) -> QuitRule:
    """A rule by its name, or the rule itself.

    Args:
        rule: a name in :data:`~rapport.envs.session.engine.quit_rules.QUIT_RULES`, or a rule.
        data: the data that the rule refers to.
        slate_size: K.
        window: of ``windowed_count``.
        threshold: of ``windowed_count``.
        early_window: of ``windowed_count``.
        weights: of ``satisfaction``, as of :func:`behaviour_weights`.
        labels: of ``windowed_count``, shape (N, L); by default those of :func:`labels_of`.

    Raises:
        ValueError: the rule is unknown; the message lists the known ones.
    """
    if not isinstance(rule, str):
        return rule
    several = None if data.catalog.further is None else data.catalog.labels
    if rule == "positional":
        return Positional(slate_size, several)
    if rule == "set_overlap":
        return SetOverlap(slate_size, several)
    if rule == "windowed_count":
        return WindowedCount(labels_of(data) if labels is None else labels, window, threshold, early_window)
    if rule == "satisfaction":
        return Satisfaction(behaviour_weights(data, weights))
    if rule == "never":
        return Never()
    raise ValueError(f"quit_rule={rule!r} is unknown; choose one of {', '.join(QUIT_RULES)}, or give a rule")


def check_choices(data: SessionData, users: Users, reward: RewardChoice, quit_rule: str | QuitRule) -> None:
    """See that what is chosen by name is there, before minutes of fitting.

    Raises:
        ValueError: users, reward or rule are unknown; the message lists the known ones.
    """
    user_pool(data, users)
    reward_of(reward, data.log.behaviours)
    if isinstance(quit_rule, str) and quit_rule not in QUIT_RULES:
        raise ValueError(f"quit_rule={quit_rule!r} is unknown; choose one of {', '.join(QUIT_RULES)}, or give a rule")


def session_core(
    data: SessionData,
    response: ResponseModel,
    n_envs: int,
    *,
    users: Users = "train",
    among: IntArray | None = None,
    quit_rule: str | QuitRule = "positional",
    window: int = 10,
    threshold: int = 0,
    early_window: EarlyWindow = "exact",
    weights: Weights = "first",
    labels: Int32Array | None = None,
    budget: float = 20,
    slate_size: int | None = 6,
    history: int = 50,
    max_steps: int = 50,
    repeats: bool = True,
    reward: RewardChoice = None,
    start_at_log_rows: bool | Literal["any_day"] = False,
) -> SessionCore:
    """An engine for ``n_envs`` sessions of a data set's users, with a response model.

    The keyword arguments are those of :class:`~rapport.envs.session.arguments.CoreArguments`.

    A reward, quit rule or response model of one's own is tried before the first session.

    Raises:
        ValueError: an argument is out of range or unknown, or the parts do not fit together.
    """
    places = 1 if slate_size is None else slate_size
    numbers = {"num_envs": n_envs, "budget": budget, "slate_size": places, "history": history, "max_steps": max_steps}
    for name, value in numbers.items():
        if not value >= 1:
            raise ValueError(f"{name}={value}; it must be at least 1")
    if budget == np.inf:
        raise ValueError("budget=inf; no user would ever leave: give a number, or quit_rule='never'")
    rule = quit_rule_of(
        quit_rule,
        data,
        places,
        window=window,
        threshold=threshold,
        early_window=early_window,
        weights=weights,
        labels=labels,
    )
    drawn = user_pool(data, users, among)
    worth = reward_of(reward, data.log.behaviours)
    _check_matrix(response, data, drawn)
    try_response(response, data, drawn, places)
    try_quit_rule(rule, data, drawn, places, budget)
    try_reward(worth, data, drawn, places)
    log_rows = _log_rows(data, drawn, history, start_at_log_rows == "any_day") if start_at_log_rows else None
    engine = engine_for(response, rule, repeats, log_rows)
    return engine(
        data,
        response,
        rule,
        histories(DataKey(data), history),
        drawn,
        n_envs,
        places,
        budget,
        max_steps,
        repeats=repeats,
        reward=worth,
        served=among,
        log_rows=log_rows,
    )


def _check_matrix(response: ResponseModel, data: SessionData, users: IntArray) -> None:
    """Check that a table of responses has every item and the users that sessions are drawn from."""
    if not isinstance(response, MatrixResponse):
        return
    n_rows, n_items = response.matrix.shape[:2]
    if n_items != data.catalog.n_items:
        raise ValueError(
            f"response: a matrix of {n_items} items where the data has {data.catalog.n_items}; give one column for each"
        )
    missing = np.setdiff1d(users, np.arange(n_rows) if response.users is None else response.users)
    if len(missing):
        raise ValueError(
            f"response: the matrix has no row for {len(missing)} users that sessions are drawn from, e.g. user "
            f"{missing[0]}; say with among=... who is served"
        )


def _log_rows(data: SessionData, users: IntArray, length: int, any_day: bool) -> LogRows:
    wanted = np.zeros(data.population.n_users, bool)
    wanted[users] = True
    rows = np.flatnonzero(wanted[data.log.user] & (any_day | (data.log.time_ms < data.test_from_ms)))
    if not len(rows):
        raise ValueError("start_at_log_rows=True: these users have no row before the test days; leave it out")
    return LogRows(data.log, rows, length)
