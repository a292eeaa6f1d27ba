"""An environment of an experiment: an id that Gymnasium knows, and what it is made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from rapport.experiments.core.identity import LOCAL, identity


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
