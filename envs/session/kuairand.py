"""``rapport/KuaiRand-v0``: sessions of people who respond as in the KuaiRand-Pure log.

See ``docs/kuairand.md`` for spaces, reward, rules, arguments and sources.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gymnasium.vector import AutoresetMode

from rapport.datasets.files.directory import data_directory
from rapport.datasets.registry.load import available, load
from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import ByFingerprint, Users, pool, session_core
from rapport.envs.session.official.profile import (
    chosen_faults,
    misaligned,
    official_arguments,
    official_response,
    official_settings,
)
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.response.fit import FitSettings, Profile, Report
from rapport.envs.session.simulator_cache import load_official, load_simulator, simulator_path

LOGGER = logging.getLogger("rapport")
Loaded = TypeVar("Loaded")

__all__ = ["Users", "find_data", "kuairand_core", "kuairand_env", "kuairand_vector_env"]


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
def fitted_response(data: ByFingerprint, settings: FitSettings, device: str = "cpu") -> ResponseModel:
    """The simulator of a data set, with a bar on a terminal while it is fitted for the first time."""
    there = simulator_path(data.data, settings).exists()
    return _shown(there, lambda report: load_simulator(data.data, settings, report, device)[0])


@functools.lru_cache(maxsize=4)
def official_fitted(data: ByFingerprint, faults: frozenset[str]) -> ResponseModel:
    """LERL's response model with these faults, likewise."""
    settings, dropout = official_settings(faults), "dropout" in faults
    there = simulator_path(data.data, settings).exists()
    answers = _shown(there, lambda report: load_official(data.data, settings, dropout=dropout, report=report))
    return official_response(data.data, answers, faults)


def _shown(there: bool, load: Callable[[Report | None], Loaded]) -> Loaded:
    if there or not sys.stderr.isatty():
        return load(None)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("fitting the user model, once")
        return load(lambda done, total, _: bars.update(bar, completed=done, total=total))


@functools.lru_cache(maxsize=4)
def _misaligned(data: ByFingerprint) -> SessionData:
    return misaligned(data.data)


def kuairand_core(
    n_envs: int,
    *,
    data: str | SessionData = "auto",
    root: str | None = None,
    profile: Profile = "corrected",
    faults: str | Sequence[str] | None = None,
    response: ResponseModel | None = None,
    device: str = "cpu",
    **arguments: Any,
) -> SessionCore:
    """The engine behind the environment; arguments as in :func:`kuairand_env`.

    Raises:
        ValueError: an argument is out of range or names what there is not, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    chosen = chosen_faults(faults, profile)
    found = find_data(data, root)
    pool(found, arguments.get("users", "train"))  # a wrong word is refused before minutes of fitting, not after
    if profile == "corrected":
        response = response or fitted_response(ByFingerprint(found), FitSettings(), device)
        return session_core(found, response, n_envs, **arguments)
    response = response or official_fitted(ByFingerprint(found), chosen)
    world = _misaligned(ByFingerprint(found)) if "misaligned_categories" in chosen else found
    return session_core(world, response, n_envs, **{**official_arguments(chosen), **arguments})


def kuairand_env(render_mode: str | None = None, *, slate_size: int | None = 6, **arguments: Any) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRand-v0", ...)``.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        slate_size: K; None: one item at a time, a ``Discrete`` action.
        **arguments: ``data`` and ``root`` as in :func:`find_data`; ``profile``: ``"corrected"`` or ``"official"``, the
            environment of LERL's released code; ``faults``: which of its faults, as of
            :func:`~rapport.envs.session.official.profile.chosen_faults`; ``response``: a response model in the
            simulator's place; ``device``: where torch computes the corrected profile's responses; the others as of
            :func:`~rapport.envs.session.factory.session_core`.

    Raises:
        ValueError: as of :func:`kuairand_core`.
        DataError: the data is missing or damaged.
    """
    return SessionEnv(kuairand_core(1, slate_size=slate_size, **arguments), slate_size is None, render_mode)


def kuairand_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode | None = None,
    render_mode: str | None = None,
    *,
    slate_size: int | None = 6,
    profile: Profile = "corrected",
    faults: str | Sequence[str] | None = None,
    copy: bool = True,
    **arguments: Any,
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRand-v0", num_envs=...)``; arguments as above.

    An ended session begins anew on the next step, as is Gymnasium's habit; under the official profile within the step.
    ``copy`` as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
    """
    core = kuairand_core(num_envs, slate_size=slate_size, profile=profile, faults=faults, **arguments)
    if autoreset_mode is None:
        autoreset_mode = AutoresetMode.SAME_STEP if profile == "official" else AutoresetMode.NEXT_STEP
    lost_endings = "lost_endings" in chosen_faults(faults, profile)
    return SessionVectorEnv(core, autoreset_mode, slate_size is None, render_mode, lost_endings, copy)
