"""Rapport: Gymnasium environments of people who come, react, get bored and leave, and agents that learn to serve them.

>>> import gymnasium as gym, rapport
>>> env = gym.make("rapport/KuaiRand-v0")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rapport.envs.registration import register_environments

if TYPE_CHECKING:
    from rapport.datasets.store import load as load
    from rapport.datasets.twin import twin as twin

__version__ = "0.1.0"
__all__ = ["__version__", "load", "twin"]

register_environments()


def __getattr__(name: str) -> Any:
    """Import ``load`` and ``twin`` when they are first asked for: registering ids should cost nothing."""
    if name == "load":
        from rapport.datasets.store import load

        return load
    if name == "twin":
        from rapport.datasets.twin import twin

        return twin
    raise AttributeError(f"module 'rapport' has no attribute {name!r}")
