"""Rapport: Gymnasium environments of simulated users with satiation and patience, and agents for long-term engagement.

>>> import gymnasium as gym, rapport
>>> env = gym.make("rapport/KuaiRand-v0")

The public names are imported from their modules when they are first used, and the ids are registered when Gymnasium
is: importing Rapport costs nothing.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import rapport._moved  # noqa: F401 - old module paths keep working for one version
from rapport._registration import register_when_imported

if TYPE_CHECKING:
    from rapport.datasets.custom.frames import from_frames as from_frames
    from rapport.datasets.custom.manifest import from_manifest as from_manifest
    from rapport.datasets.registry.load import load as load
    from rapport.datasets.schema import DataError as DataError
    from rapport.datasets.schema import SessionData as SessionData
    from rapport.datasets.twin import twin as twin
    from rapport.envs.common.preparation import prepare as prepare
    from rapport.envs.session.custom_log import register_log as register_log

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "SessionData",
    "__version__",
    "check_results",
    "compare",
    "evaluate",
    "from_frames",
    "from_manifest",
    "load",
    "prepare",
    "register_log",
    "sb3_env",
    "twin",
]

register_when_imported()

_HOME = {
    "DataError": "rapport.datasets.schema",
    "SessionData": "rapport.datasets.schema",
    "check_results": "rapport.experiments.results_file",
    "compare": "rapport.experiments.compare",
    "evaluate": "rapport.experiments.compare",
    "from_frames": "rapport.datasets.custom.frames",
    "from_manifest": "rapport.datasets.custom.manifest",
    "load": "rapport.datasets.registry.load",
    "prepare": "rapport.envs.common.preparation",
    "register_log": "rapport.envs.session.custom_log",
    "sb3_env": "rapport.agents.sb3",
    "twin": "rapport.datasets.twin",
}
_RENAMED = {"from_description": "from_manifest"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"rapport.{name} is called {new} now; the old name goes with version 0.2", DeprecationWarning, stacklevel=2
        )
        name = new
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rapport' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
