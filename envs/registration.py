"""The environment ids, as a flat list. Importing :mod:`rapport` registers them."""

from __future__ import annotations

import gymnasium as gym

_KUAIRAND = "rapport.envs.session.kuairand:kuairand"
_KUAIREC = "rapport.envs.session.kuairec:kuairec"


def register_environments() -> None:
    """Register every id with Gymnasium; calling it again changes nothing."""
    if "rapport/KuaiRand-v0" in gym.registry:
        return
    gym.register(
        id="rapport/KuaiRand-v0",
        entry_point="rapport.envs.session.kuairand:kuairand_env",
        vector_entry_point="rapport.envs.session.kuairand:kuairand_vector_env",
    )
    # LERL (arXiv 2601.19585) as its authors released it, with its faults; there is no split of users.
    gym.register(
        id="rapport/KuaiRandLERL-v0",
        entry_point=f"{_KUAIRAND}_env",
        vector_entry_point=f"{_KUAIRAND}_vector_env",
        kwargs={"profile": "official", "faults": "all", "users": "all"},
    )
    # KuaiSim (NeurIPS 2023): patience is lost over slates that are not clicked.
    gym.register(
        id="rapport/KuaiRandKuaiSim-v0",
        entry_point=f"{_KUAIRAND}_env",
        vector_entry_point=f"{_KUAIRAND}_vector_env",
        kwargs={"quit_rule": "satisfaction", "history": 100},
    )
    # EasyRL4Rec (SIGIR 2024): one video after another, leave when a tag was among those of the ten before.
    gym.register(
        id="rapport/KuaiRandItem-v0",
        entry_point=f"{_KUAIRAND}_env",
        vector_entry_point=f"{_KUAIRAND}_vector_env",
        kwargs={"slate_size": None, "quit_rule": "windowed_count", "window": 10, "threshold": 0, "max_steps": 30},
    )
    # DORL (SIGIR 2023): leave at once when the video before had a tag in common.
    gym.register(
        id="rapport/KuaiRandDORL-v0",
        entry_point=f"{_KUAIRAND}_env",
        vector_entry_point=f"{_KUAIRAND}_vector_env",
        kwargs={"slate_size": None, "quit_rule": "windowed_count", "window": 1, "threshold": 0, "max_steps": 100},
    )
    # People who tire as measured in the log: docs/satiation.md.
    gym.register(
        id="rapport/KuaiRandSatiation-v0",
        entry_point="rapport.envs.session.kuairand_satiation:kuairand_satiation_env",
        vector_entry_point="rapport.envs.session.kuairand_satiation:kuairand_satiation_vector_env",
    )
    gym.register(id="rapport/KuaiRec-v0", entry_point=f"{_KUAIREC}_env", vector_entry_point=f"{_KUAIREC}_vector_env")
    # EasyRL4Rec (SIGIR 2024): one video after another, leave at the second repetition of a tag within nine.
    gym.register(
        id="rapport/KuaiRecItem-v0",
        entry_point=f"{_KUAIREC}_env",
        vector_entry_point=f"{_KUAIREC}_vector_env",
        kwargs={
            "slate_size": None,
            "quit_rule": "windowed_count",
            "window": 9,
            "threshold": 1,
            "max_steps": 30,
            "reward": "watch_ratio",
        },
    )
    # DORL (SIGIR 2023): leave at once when the video before had a tag in common.
    gym.register(
        id="rapport/KuaiRecDORL-v0",
        entry_point=f"{_KUAIREC}_env",
        vector_entry_point=f"{_KUAIREC}_vector_env",
        kwargs={
            "slate_size": None,
            "quit_rule": "windowed_count",
            "window": 1,
            "threshold": 0,
            "max_steps": 100,
            "reward": "watch_ratio",
        },
    )
