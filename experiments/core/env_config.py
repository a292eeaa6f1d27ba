"""An environment of an experiment: an id that Gymnasium knows, what it is made with, and what results depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv
from rich.console import Console

from rapport.envs.common.preparation import prepare as prepare_env
from rapport.experiments.jobs.local import ProgressDisplay
from rapport.experiments.results.store import config_hash

LOCAL = {"local": True}
"""Metadata of a dataclass's field that says where something is kept or shown, which no result depends on."""


def identity(value: object) -> Any:
    """What a value is made of, ready for JSON.

    A dataclass is its class's name and its fields, less those marked :data:`LOCAL`; a function or a class is its name.

    Raises:
        TypeError: the value holds something that has no such form; the message names it.
    """
    if is_dataclass(value) and not isinstance(value, type):
        shown = [f for f in fields(value) if not f.metadata.get("local")]
        return {"type": type(value).__name__, **{f.name: identity(getattr(value, f.name)) for f in shown}}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): identity(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    if isinstance(value, partial):
        return {"type": value.func.__name__, "args": identity(value.args), **identity(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    raise TypeError(
        f"{value!r} ({type(value).__name__}) cannot be part of a row's identity: give a dataclass, a named function, "
        "or numbers, texts, lists and mappings of them"
    )


@dataclass(frozen=True)
class EnvConfig:
    """An environment by its id.

    Attributes:
        id: as given to ``gym.make_vec``, e.g. ``"rapport/KuaiRand-v0"``.
        kwargs: arguments of ``gym.make_vec`` that results depend on.
        local: further arguments that only say where files are, such as a data directory.
        data: what tells the data set apart from others, e.g. its name and fingerprint; empty where there is none.
        title: shown name.
        entry_point: of an environment that no package registers, e.g. its class: it is registered under the id in
            whatever process makes it.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict, metadata=LOCAL)
    data: Mapping[str, str] = field(default_factory=dict)
    title: str = field(default="", metadata=LOCAL)
    entry_point: Callable[..., gym.Env[Any, Any]] | str | None = field(default=None, metadata=LOCAL)

    def make_vec(self, num_envs: int, **more: Any) -> VectorEnv[Any, Any, Any]:
        """``num_envs`` episodes side by side, each begun anew within the step that ends the one before.

        Args:
            num_envs: B.
            **more: arguments beside :attr:`kwargs`, or in their place.

        Raises:
            gymnasium.error.NameNotFound: no environment of that id is registered.
        """
        if self.entry_point is not None and self.id not in gym.registry:
            gym.register(self.id, self.entry_point)
        arguments = {**self.kwargs, **self.local, **more}
        if gym.spec(self.id).vector_entry_point is None:
            same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
            return gym.make_vec(self.id, num_envs, "sync", vector_kwargs=same_step, **arguments)
        arguments["autoreset_mode"] = AutoresetMode.SAME_STEP
        return gym.make_vec(self.id, num_envs, "vector_entry_point", **arguments)

    def changed(self, **kwargs: Any) -> EnvConfig:
        """The same environment with other arguments."""
        return replace(self, kwargs={**self.kwargs, **kwargs})

    def identity(self) -> dict[str, Any]:
        """What results depend on."""
        return {"id": self.id, "kwargs": identity(self.kwargs), "data": identity(self.data)}


def prepare(envs: Iterable[EnvConfig], console: Console) -> None:
    """Prepare environments, those that need the same once; what is ready is passed over quickly."""
    for env in {config_hash(env.identity()): env for env in envs}.values():
        with ProgressDisplay(console, 1) as display:
            name = f"preparing {env.title or env.id}"
            prepare_env(env.id, partial(_show, display, name), **env.kwargs, **env.local)
            display.finish(name)


def _show(display: ProgressDisplay, name: str, done: int, total: int) -> None:
    display.show(name, done / total)
