"""``rapport/KuaiRand-v0``: sessions of users who respond as in the KuaiRand-Pure log.

See ``docs/kuairand.md`` for spaces, reward, rules, arguments and sources.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar, Unpack

from gymnasium.vector import AutoresetMode

from rapport.datasets.custom.manifest import is_manifest, manifest_data
from rapport.datasets.files.directory import data_directory
from rapport.datasets.registry.load import available, load
from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.common.arguments import VECTOR_ONLY, check_arguments
from rapport.envs.common.preparation import Progress, prepared_by
from rapport.envs.session.arguments import CoreArguments, LogArguments, Users
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import DataKey, check_choices, session_core, single_env, vector_env
from rapport.envs.session.official.profile import (
    chosen_faults,
    misaligned,
    official_arguments,
    official_response,
    official_settings,
)
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.response.fit import FitSettings, Profile, Report
from rapport.envs.session.simulator_cache import load_official, load_simulator, prepare_simulator, simulator_path

LOGGER = logging.getLogger("rapport")
Loaded = TypeVar("Loaded")

__all__ = ["KuaiRandArguments", "Users", "find_data", "kuairand_core", "kuairand_env", "kuairand_vector_env"]


class KuaiRandArguments(LogArguments, total=False):
    """What ``gym.make("rapport/KuaiRand-v0", ...)`` takes."""

    data: str | SessionData
    """As of :func:`find_data`; default ``"auto"``."""
    root: str | None
    """The data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder."""


def find_data(data: str | SessionData = "auto", root: str | None = None) -> SessionData:
    """The data of an environment.

    Args:
        data: ``"kuairand-pure"`` (an error if it is missing), ``"twin"`` (the statistical twin that ships with the
            package), ``"auto"`` (the first if it is available, else the second with a warning in the log), another name
            that :func:`~rapport.datasets.registry.load.load` knows, the path of a manifest of a log of your own, which
            ends in ``.toml``, or a data set.
        root: the data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder.

    Raises:
        DataError: the data is missing or damaged.
    """
    if isinstance(data, SessionData):
        return data
    if is_manifest(data):
        return manifest_data(data)
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
def fitted_response(data: DataKey, settings: FitSettings, device: str = "cpu") -> ResponseModel:
    """The simulator of a data set, with a progress bar on a terminal while it is fitted for the first time."""
    cached = simulator_path(data.data, settings).exists()
    return _with_bar(cached, lambda report: load_simulator(data.data, settings, report, device)[0])


@functools.lru_cache(maxsize=4)
def official_fitted(data: DataKey, faults: frozenset[str]) -> ResponseModel:
    """LERL's response model with these faults, in the same way."""
    settings, dropout = official_settings(faults), "dropout" in faults
    cached = simulator_path(data.data, settings).exists()
    fitted = _with_bar(cached, lambda report: load_official(data.data, settings, dropout=dropout, report=report))
    return official_response(data.data, fitted, faults)


def _with_bar(cached: bool, load: Callable[[Report | None], Loaded]) -> Loaded:
    if cached or not sys.stderr.isatty():
        return load(None)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("fitting the user model, once")
        return load(lambda done, total, _: bars.update(bar, completed=done, total=total))


@functools.lru_cache(maxsize=4)
def _misaligned(data: DataKey) -> SessionData:
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
    **arguments: Unpack[CoreArguments],
) -> SessionCore:
    """The engine behind the environment; arguments as of :class:`KuaiRandArguments`.

    Raises:
        ValueError: an argument is out of range or unknown, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    chosen = chosen_faults(faults, profile)
    found = find_data(data, root)
    check_choices(
        found, arguments.get("users", "train"), arguments.get("reward"), arguments.get("quit_rule", "positional")
    )
    if profile == "corrected":
        if response is None:
            response = fitted_response(DataKey(found), FitSettings(), device)
        return session_core(found, response, n_envs, **arguments)
    if response is None:
        response = official_fitted(DataKey(found), chosen)
    served = _misaligned(DataKey(found)) if "misaligned_categories" in chosen else found
    both: CoreArguments = {**official_arguments(chosen), **arguments}
    return session_core(served, response, n_envs, **both)


def kuairand_env(render_mode: str | None = None, **arguments: Unpack[KuaiRandArguments]) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRand-v0", ...)``.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        **arguments: see :class:`KuaiRandArguments`.

    Raises:
        TypeError: an argument is unknown.
        ValueError: as of :func:`kuairand_core`.
        DataError: the data is missing or damaged.
    """
    return single_env(kuairand_core, KuaiRandArguments, render_mode, arguments)


def prepare_kuairand(progress: Progress | None, **arguments: Unpack[KuaiRandArguments]) -> None:
    """Fit the simulator that ``gym.make_vec`` would fit with these arguments, unless it is in the cache.

    Raises:
        TypeError: an argument is unknown.
        ValueError: there is no such profile or fault.
        DataError: the data is missing or damaged.
    """
    check_arguments(arguments, KuaiRandArguments, VECTOR_ONLY)
    profile = arguments.get("profile", "corrected")
    chosen = chosen_faults(arguments.get("faults"), profile)
    if arguments.get("response") is None:
        settings = FitSettings() if profile == "corrected" else official_settings(chosen)
        prepare_simulator(find_data(arguments.get("data", "auto"), arguments.get("root")), settings, progress)


@prepared_by(prepare_kuairand)
def kuairand_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode | None = None,
    render_mode: str | None = None,
    *,
    copy: bool = True,
    **arguments: Unpack[KuaiRandArguments],
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRand-v0", num_envs=...)``; arguments as above.

    An ended session begins anew on the next step, Gymnasium's default; under the official profile within the step.
    ``copy`` as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
    """
    profile = arguments.get("profile", "corrected")
    if autoreset_mode is None:
        autoreset_mode = AutoresetMode.SAME_STEP if profile == "official" else AutoresetMode.NEXT_STEP
    lost_endings = "lost_endings" in chosen_faults(arguments.get("faults"), profile)
    return vector_env(
        kuairand_core, KuaiRandArguments, num_envs, autoreset_mode, render_mode, copy, arguments, lost_endings
    )
