"""A log of one's own as an environment: ``gym.make("rapport/Log-v0", manifest="shop.toml")``.

``rapport.register_log("shop.toml")`` gives it an id of its own. See ``docs/own_log.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from rapport.datasets.custom.manifest import Manifest, manifest_data, read_manifest
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.common.arguments import SINGLE_ONLY, VECTOR_ONLY, check_arguments
from rapport.envs.common.preparation import Progress, prepared_by
from rapport.envs.session.arguments import CoreArguments, LogArguments
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_env, kuairand_vector_env, prepare_kuairand

MOST = 100_000
"""Largest whole number under ``[environment]``: more would not fit into memory."""
_NUMBERS = ("window", "threshold", "slate_size", "history", "max_steps")


def register_log(manifest: str | Path) -> str:
    """Register the environment over the log of a manifest; an earlier one of that name is replaced.

    The id is known in this process alone. Others make the same environment by ``rapport/Log-v0`` and ``manifest=``.

    Args:
        manifest: a TOML file, see ``docs/own_log.md``; its table ``[environment]`` holds the id's default arguments.

    Returns:
        The id, ``rapport/NAME-v0`` with the manifest's name.

    Raises:
        DataError: the manifest has an error, or an argument under ``[environment]`` is unknown or out of range.
    """
    log = read_manifest(manifest)
    arguments = default_arguments(log)
    name = f"rapport/{log.name}-v0"
    if name in gym.registry:
        if not gym.spec(name).kwargs.get("manifest"):
            raise DataError(f"{log.file}: name={log.name!r} is the name of a built-in environment; choose another")
        del gym.registry[name]
    gym.register(
        id=name,
        entry_point="rapport.envs.session.custom_log:custom_log_env",
        vector_entry_point="rapport.envs.session.custom_log:custom_log_vector_env",
        kwargs={"manifest": str(log.file.resolve()), **arguments},
    )
    return name


def default_arguments(log: Manifest) -> dict[str, Any]:
    """The table ``[environment]`` of a manifest, checked.

    Raises:
        DataError: an argument is unknown or out of range.
    """
    known = {"profile", *CoreArguments.__annotations__} - {"among", "labels"}
    for key, value in log.environment.items():
        where = f"{log.file}: [environment]: "
        if key not in known:
            raise DataError(f"{where}{key!r} is no argument of an environment; choose among {', '.join(sorted(known))}")
        whole = isinstance(value, int) and not isinstance(value, bool)
        if key in _NUMBERS and not (whole and 0 <= value <= MOST):
            raise DataError(f"{where}{key} = {value!r}; give a whole number up to {MOST:,}")
        if key == "budget" and (isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e9):
            raise DataError(f"{where}budget = {value!r}; give a number from 1 on")
        if key in ("users", "quit_rule", "early_window", "profile") and not isinstance(value, str):
            raise DataError(f"{where}{key} = {value!r}; give text")
    return dict(log.environment)


def custom_log_env(render_mode: str | None = None, *, manifest: str, **arguments: Unpack[LogArguments]) -> SessionEnv:
    """One user at a time; arguments as of :class:`~rapport.envs.session.arguments.LogArguments`.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        manifest: path of the log's manifest, whose table ``[environment]`` holds defaults of the other arguments.
        **arguments: see there.

    Raises:
        TypeError: an argument is unknown.
        ValueError: an argument is out of range.
        DataError: the manifest or the data has an error.
    """
    check_arguments(arguments, LogArguments, SINGLE_ONLY)
    data, merged = _with_defaults(manifest, arguments)
    return kuairand_env(render_mode, data=data, **merged)


def _prepare(progress: Progress | None, *, manifest: str, **arguments: Unpack[LogArguments]) -> None:
    check_arguments(arguments, LogArguments, VECTOR_ONLY)
    data, merged = _with_defaults(manifest, arguments)
    prepare_kuairand(progress, data=data, **merged)


@prepared_by(_prepare)
def custom_log_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    *,
    copy: bool = True,
    manifest: str,
    **arguments: Unpack[LogArguments],
) -> SessionVectorEnv:
    """``num_envs`` users at a time; arguments as above."""
    check_arguments(arguments, LogArguments, VECTOR_ONLY)
    data, merged = _with_defaults(manifest, arguments)
    return kuairand_vector_env(num_envs, autoreset_mode, render_mode, copy=copy, data=data, **merged)


def _with_defaults(manifest: str, arguments: LogArguments) -> tuple[SessionData, LogArguments]:
    """The data, and the arguments with the manifest's defaults where they are not given."""
    if not manifest:
        raise DataError("rapport/Log-v0 needs manifest=..., the path of a log's manifest; see docs/own_log.md")
    defaults: Any = default_arguments(read_manifest(manifest))
    return manifest_data(manifest), {**defaults, **arguments}
