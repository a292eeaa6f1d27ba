"""What every baseline is given to learn from, and what it becomes: a function from observations to slates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from rapport.agents.baselines.click_prior import LogModel
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData

Act = Callable[[dict[str, Any]], NDArray[Any]]
"""From observations of B sessions to slates of shape (B, K)."""
Settings = Mapping[str, Any]
"""Hyper-parameters by name."""


@dataclass(frozen=True)
class Lesson:
    """One agent's chance to learn, the same for all.

    Attributes:
        sessions: training users' sessions, each observation with its ``plan``; they take slates of shape (B, K), count
            transitions and write down how sessions go.
        log_model: what the log alone teaches, of this seed; the agent may read and copy it but not change it.
        transitions: how many to learn from; an agent stops at the first whole step that reaches them.
        seed: of all the agent's luck.
        settings: hyper-parameters; those left out have their defaults.
    """

    sessions: PlannedVectorEnv
    log_model: LogModel
    transitions: int
    seed: int
    settings: Settings = field(default_factory=dict)

    @property
    def data(self) -> SessionData:
        """The data set."""
        return self.sessions.data


Baseline = Callable[[Lesson], Act]
"""Learns from a lesson; returns how it then serves held-out users, who may be any number at once."""


def settings_of(method: str, defaults: Settings, given: Settings) -> dict[str, Any]:
    """Defaults with what was given in their place.

    Raises:
        ValueError: the method has no such setting.
    """
    if unknown := [name for name in given if name not in defaults]:
        known = ", ".join(defaults) or "it has none"
        raise ValueError(f"{method}: there is no setting {unknown[0]!r}; choose of: {known}")
    return {**defaults, **given}
