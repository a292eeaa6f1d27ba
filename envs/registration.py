"""The environment ids, as a flat list. Importing :mod:`rapport` registers them."""

from __future__ import annotations

import gymnasium as gym


def register_environments() -> None:
    """Register every id with Gymnasium; calling it again changes nothing."""
    if "rapport/KuaiRand-v0" in gym.registry:
        return
    gym.register(
        id="rapport/KuaiRand-v0",
        entry_point="rapport.envs.session.kuairand:kuairand_env",
        vector_entry_point="rapport.envs.session.kuairand:kuairand_vector_env",
    )
