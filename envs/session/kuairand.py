"""``rapport/KuaiRand-v0``: sessions of people who respond as in the KuaiRand-Pure log.

See ``docs/kuairand.md`` for spaces, reward, rules, arguments and sources.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, Literal

import numpy as np
from gymnasium.vector import AutoresetMode

from rapport.datasets.directory import data_directory
from rapport.datasets.schema import IntArray, SessionData
from rapport.datasets.store import available, load
from rapport.datasets.twin import twin
from rapport.envs.session.core import Histories, SessionCore
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.fit import FitSettings, Profile
from rapport.envs.session.quit import quit_rule as quit_rule_named
from rapport.envs.session.response import ResponseModel
from rapport.envs.session.simulator import load_simulator, simulator_path

LOGGER = logging.getLogger("rapport")

Users = Literal["train", "held_out", "all"]


def find_data(data: str | SessionData = "auto", root: str | None = None) -> SessionData:
    """The data an environment stands on.

    Args:
        data: ``"kuairand-pure"`` (an error where it is not there), ``"twin"`` (the statistical twin that ships with the
            package), ``"auto"`` (the first where it is there, else the second, with a word in the log), or a data set.
        root: the data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder.

    Raises:
        DataError: the data is missing or damaged.
    """
    if isinstance(data, SessionData):
        return data
    return _named_data(data, None if root is None else str(root), str(data_directory(root)))


@functools.lru_cache(maxsize=4)
def _named_data(name: str, root: str | None, directory: str) -> SessionData:
    if name == "auto":
        name = "kuairand-pure" if available("kuairand-pure", root) else "twin"
        if name == "twin":
            LOGGER.warning(
                "KuaiRand-Pure is not in %s: using its statistical twin (`rapport data fetch kuairand-pure` gets it)",
                directory,
            )
    return twin() if name == "twin" else load(name, root)


@functools.lru_cache(maxsize=4)
def _simulator(data: _ByFingerprint, settings: FitSettings) -> ResponseModel:
    """The simulator of a data set, with a bar on a terminal while it is fitted for the first time."""
    if not sys.stderr.isatty() or simulator_path(data.data, settings).exists():
        return load_simulator(data.data, settings)[0]
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("fitting the user model, once")
        return load_simulator(
            data.data, settings, lambda done, total, _: bars.update(bar, completed=done, total=total)
        )[0]


@functools.lru_cache(maxsize=4)
def _histories(data: _ByFingerprint, length: int) -> Histories:
    return Histories.before(data.data, data.data.test_from_ms, length)


class _ByFingerprint:
    """A data set that can be a cache's key."""

    def __init__(self, data: SessionData) -> None:
        self.data, self.fingerprint = data, data.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByFingerprint) and other.fingerprint == self.fingerprint


def pool(data: SessionData, users: Users) -> IntArray:
    """Indices of the users that sessions are drawn from.

    Raises:
        ValueError: there is no such pool.
    """
    pools = {"train": ~data.held_out, "held_out": data.held_out, "all": np.ones_like(data.held_out)}
    if users not in pools:
        raise ValueError(f"users={users!r} is unknown; choose one of {', '.join(pools)}")
    return np.flatnonzero(pools[users])


def kuairand_core(
    n_envs: int,
    *,
    data: str | SessionData = "auto",
    root: str | None = None,
    users: Users = "train",
    quit_rule: str = "positional",
    budget: float = 20,
    slate_size: int = 6,
    history: int = 50,
    max_steps: int = 50,
    profile: Profile = "corrected",
    response: ResponseModel | None = None,
) -> SessionCore:
    """The engine behind the environment; arguments as in :func:`kuairand_env`.

    Raises:
        ValueError: an argument is out of range or names what there is not, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    numbers = {"num_envs": n_envs, "budget": budget, "slate_size": slate_size, "history": history}
    for name, value in {**numbers, "max_steps": max_steps}.items():
        if not value >= 1:
            raise ValueError(f"{name}={value}; it must be at least 1")
    rule = quit_rule_named(quit_rule)
    found = find_data(data, root)
    users_drawn = pool(found, users)
    key, settings = _ByFingerprint(found), FitSettings(profile=profile)
    if response is None:
        response = _simulator(key, settings)
    return SessionCore(
        found, response, rule, _histories(key, history), users_drawn, n_envs, slate_size, budget, max_steps
    )


def kuairand_env(render_mode: None = None, **arguments: Any) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRand-v0", ...)``.

    Args:
        render_mode: there is none yet.
        **arguments: ``data`` and ``root`` as in :func:`find_data`; ``users``: ``"train"``, ``"held_out"`` or ``"all"``;
            ``quit_rule``: a name in :data:`rapport.envs.session.quit.QUIT_RULES`; ``budget`` at a session's start;
            ``slate_size`` K; ``history``: H, items an agent sees of the past; ``max_steps``: the time limit in slates;
            ``profile``: how the simulator is fitted; ``response``: another response model in its place.

    Raises:
        ValueError: as of :func:`kuairand_core`.
        DataError: the data is missing or damaged.
    """
    _refuse_render(render_mode)
    return SessionEnv(kuairand_core(1, **arguments))


def kuairand_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: None = None,
    **arguments: Any,
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRand-v0", num_envs=...)``; arguments as above."""
    _refuse_render(render_mode)
    return SessionVectorEnv(kuairand_core(num_envs, **arguments), autoreset_mode)


def _refuse_render(render_mode: object) -> None:
    if render_mode is not None:
        raise ValueError(f"render_mode={render_mode!r}: there is no rendering; leave it out")
