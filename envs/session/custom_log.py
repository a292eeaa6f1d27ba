"""A custom log as an environment id: ``rapport.register_log("shop.toml")``.

See ``docs/own_log.md``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Unpack

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from rapport.datasets.custom.manifest import from_manifest, read_manifest
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.common.arguments import SINGLE_ONLY, VECTOR_ONLY, check_arguments
from rapport.envs.common.preparation import Progress, prepared_by
from rapport.envs.session.arguments import CoreArguments, LogArguments
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_env, kuairand_vector_env, prepare_kuairand


def register_log(manifest: str | Path) -> str:
    """Register the environment over the log of a manifest; an earlier one of that name is replaced.

    Args:
        manifest: a TOML file, see ``docs/own_log.md``; its table ``[environment]`` holds the id's default arguments.

    Returns:
        The id, ``rapport/NAME-v0`` with the manifest's name.

    Raises:
        DataError: the manifest has an error, or an argument under ``[environment]`` is unknown.
    """
    log = read_manifest(manifest)
    arguments = {"profile", *CoreArguments.__annotations__} - {"among"}
    for key in log.environment:
        if key not in arguments:
            raise DataError(
                f"{log.file}: [environment]: {key!r} is no argument of an environment; choose among "
                f"{', '.join(sorted(arguments))}"
            )
    name = f"rapport/{log.name}-v0"
    if name in gym.registry:
        if "manifest" not in gym.spec(name).kwargs:
            raise DataError(f"{log.file}: name={log.name!r} is the name of a built-in environment; choose another")
        del gym.registry[name]
    gym.register(
        id=name,
        entry_point="rapport.envs.session.custom_log:custom_log_env",
        vector_entry_point="rapport.envs.session.custom_log:custom_log_vector_env",
        kwargs={"manifest": str(log.file.resolve()), **log.environment},
    )
    return name


def custom_log_env(render_mode: str | None = None, *, manifest: str, **arguments: Unpack[LogArguments]) -> SessionEnv:
    """One user at a time; arguments as of :class:`~rapport.envs.session.arguments.LogArguments`."""
    check_arguments(arguments, LogArguments, SINGLE_ONLY)
    return kuairand_env(render_mode, data=_data(manifest), **arguments)


def _prepare(progress: Progress | None, *, manifest: str, **arguments: Unpack[LogArguments]) -> None:
    check_arguments(arguments, LogArguments, VECTOR_ONLY)
    prepare_kuairand(progress, data=_data(manifest), **arguments)


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
    data = _data(manifest)
    return kuairand_vector_env(num_envs, autoreset_mode, render_mode, copy=copy, data=data, **arguments)


def _data(manifest: str) -> SessionData:
    log = read_manifest(manifest)
    return _loaded(manifest, tuple((str(f), f.stat().st_mtime_ns) for f in (log.file, *log.files)))


@functools.lru_cache(maxsize=4)
def _loaded(manifest: str, files: tuple[tuple[str, int], ...]) -> SessionData:
    """The data, read once for all environments as long as no file changes."""
    return from_manifest(manifest)
