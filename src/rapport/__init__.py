"""Rapport: Gymnasium environments of people who come, react, get bored and leave, and agents that learn to serve them.

>>> import gymnasium as gym, rapport
>>> env = gym.make("rapport/KuaiRand-v0")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import rapport._moved  # noqa: F401 - old module paths keep working for one version
from rapport.envs.registration import register_environments

if TYPE_CHECKING:
    from rapport.datasets.custom.frames import from_frames as from_frames
    from rapport.datasets.custom.manifest import from_description as from_description
    from rapport.datasets.registry.load import load as load
    from rapport.datasets.twin import twin as twin
    from rapport.envs.session.custom_log import register_log as register_log

__version__ = "0.1.0"
__all__ = ["__version__", "from_description", "from_frames", "load", "register_log", "twin"]

register_environments()


_LATER = {
    "from_description": "rapport.datasets.custom.manifest",
    "from_frames": "rapport.datasets.custom.frames",
    "load": "rapport.datasets.registry.load",
    "register_log": "rapport.envs.session.custom_log",
    "twin": "rapport.datasets.twin",
}
"""Where each public name is imported from when it is first asked for: registering ids should cost nothing."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'rapport' has no attribute {name!r}")
