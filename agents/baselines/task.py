"""The training task that every baseline is given, and the policy it returns: from observations to slates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from rapport._deprecation import renamed
from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData

Act = Callable[[dict[str, Any]], NDArray[Any]]
"""From observations of B sessions to slates of shape (B, K)."""
Settings = Mapping[str, Any]
"""Hyper-parameters by name."""


@dataclass(frozen=True)
class TrainingTask:
    """One agent's training, the same for all.

    Attributes:
        sessions: training users' sessions, each observation with its ``plan``; they take slates of shape (B, K), count
            transitions and record how sessions go.
        ctr_model: the pretrained CTR model of this seed; the agent may read and copy it but not change it.
        transitions: how many to learn from; an agent stops at the first whole step that reaches them.
        seed: of all the agent's random draws.
        settings: hyper-parameters; those left out have their defaults.
    """

    sessions: PlannedVectorEnv
    ctr_model: CTRModel
    transitions: int
    seed: int
    settings: Settings = field(default_factory=dict)

    @property
    def data(self) -> SessionData:
        """The data set."""
        return self.sessions.data


Baseline = Callable[[TrainingTask], Act]
"""Learns a task; returns the policy that then serves held-out users, any number of them at once."""


def settings_of(method: str, defaults: Settings, given: Settings) -> dict[str, Any]:
    """The defaults, each replaced by what was given for it.

    Raises:
        ValueError: the method has no such setting.
    """
    if unknown := [name for name in given if name not in defaults]:
        known = ", ".join(defaults) or "it has none"
        raise ValueError(f"{method}: there is no setting {unknown[0]!r}; choose of: {known}")
    return {**defaults, **given}


__getattr__ = renamed(__name__, {"Lesson": "TrainingTask"})
