"""Anybody's log as an environment id: ``rapport.register_log("shop.toml")``.

See ``docs/own_log.md``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Unpack

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from rapport.datasets.custom.manifest import describe, from_description
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.preparation import Progress, prepared_by
from rapport.envs.session.arguments import SINGLE_ONLY, VECTOR_ONLY, CoreArguments, LogArguments, check_arguments
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_env, kuairand_vector_env, prepare_kuairand


def register_log(description: str | Path) -> str:
    """Register the environment over the log that a description describes; a registered one is replaced.

    Args:
        description: a TOML file; what ``[environment]`` says become the id's default arguments.

    Returns:
        The id, ``rapport/NAME-v0`` with the description's name.

    Raises:
        DataError: the description is at fault, or an argument under ``[environment]`` is unknown.
    """
    described = describe(description)
    arguments = {"profile", *CoreArguments.__annotations__} - {"among"}
    for key in described.environment:
        if key not in arguments:
            raise DataError(
                f"{described.file}: [environment]: {key!r} is no argument of an environment; choose among "
                f"{', '.join(sorted(arguments))}"
            )
    name = f"rapport/{described.name}-v0"
    if name in gym.registry:
        if "description" not in gym.spec(name).kwargs:
            raise DataError(f"{described.file}: name={described.name!r} is one of ours; choose another")
        del gym.registry[name]
    gym.register(
        id=name,
        entry_point="rapport.envs.session.custom_log:own_log_env",
        vector_entry_point="rapport.envs.session.custom_log:own_log_vector_env",
        kwargs={"description": str(described.file.resolve()), **described.environment},
    )
    return name


def own_log_env(render_mode: str | None = None, *, description: str, **arguments: Unpack[LogArguments]) -> SessionEnv:
    """One user at a time; arguments as of :class:`~rapport.envs.session.arguments.LogArguments`."""
    check_arguments(arguments, LogArguments, SINGLE_ONLY)
    return kuairand_env(render_mode, data=_data(description), **arguments)


def _prepare(progress: Progress | None, *, description: str, **arguments: Unpack[LogArguments]) -> None:
    check_arguments(arguments, LogArguments, VECTOR_ONLY)
    prepare_kuairand(progress, data=_data(description), **arguments)


@prepared_by(_prepare)
def own_log_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    *,
    copy: bool = True,
    description: str,
    **arguments: Unpack[LogArguments],
) -> SessionVectorEnv:
    """``num_envs`` users at a time; arguments as above."""
    check_arguments(arguments, LogArguments, VECTOR_ONLY)
    data = _data(description)
    return kuairand_vector_env(num_envs, autoreset_mode, render_mode, copy=copy, data=data, **arguments)


def _data(description: str) -> SessionData:
    described = describe(description)
    return _loaded(description, tuple((str(f), f.stat().st_mtime_ns) for f in (described.file, *described.files)))


@functools.lru_cache(maxsize=4)
def _loaded(description: str, files: tuple[tuple[str, int], ...]) -> SessionData:
    """The data, read once for all environments while no file changes."""
    return from_description(description)
