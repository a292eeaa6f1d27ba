"""The environment ids, as a flat list. Importing :mod:`rapport` registers them."""

from __future__ import annotations

from typing import Any

_SESSION = "rapport.envs.session"
_ONE_TAG: dict[str, Any] = {
    "slate_size": None,
    "quit_rule": "windowed_count",
    "window": 1,
    "threshold": 0,
    "max_steps": 100,
}
_ONE_OF_TEN = {**_ONE_TAG, "window": 10, "max_steps": 30}
_TWO_OF_NINE = {**_ONE_TAG, "window": 9, "threshold": 1, "max_steps": 30}

ENVIRONMENTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("rapport/KuaiRand-v0", f"{_SESSION}.kuairand:kuairand", {}),
    # LERL (arXiv 2601.19585) as its authors released it, with its faults and without held-out users.
    (
        "rapport/KuaiRandLERL-v0",
        f"{_SESSION}.kuairand:kuairand",
        {"profile": "official", "faults": "all", "users": "all"},
    ),
    # KuaiSim (NeurIPS 2023): slates that are not clicked cost budget.
    ("rapport/KuaiRandKuaiSim-v0", f"{_SESSION}.kuairand:kuairand", {"quit_rule": "satisfaction", "history": 100}),
    # EasyRL4Rec (SIGIR 2024): single videos; the user leaves if a tag was among those of the last ten.
    ("rapport/KuaiRandItem-v0", f"{_SESSION}.kuairand:kuairand", _ONE_OF_TEN),
    # DORL (SIGIR 2023): the user leaves if the previous video had a tag in common.
    ("rapport/KuaiRandDORL-v0", f"{_SESSION}.kuairand:kuairand", _ONE_TAG),
    # User satiation as measured in the log: docs/satiation.md.
    ("rapport/KuaiRandSatiation-v0", f"{_SESSION}.kuairand_satiation:kuairand_satiation", {}),
    ("rapport/KuaiRec-v0", f"{_SESSION}.kuairec:kuairec", {}),
    # EasyRL4Rec on KuaiRec: the user leaves at the second repetition of a tag within nine.
    ("rapport/KuaiRecItem-v0", f"{_SESSION}.kuairec:kuairec", {**_TWO_OF_NINE, "reward": "watch_ratio"}),
    ("rapport/KuaiRecDORL-v0", f"{_SESSION}.kuairec:kuairec", {**_ONE_TAG, "reward": "watch_ratio"}),
)
"""Id, entry point (to be followed by ``_env`` or ``_vector_env``), and default arguments."""


CUSTOM_LOG = "rapport/Log-v0"
"""Id of the environment over a log of the user's own, which needs the argument ``manifest``."""


def register_environments() -> None:
    """Register every id with Gymnasium; calling it again changes nothing."""
    from gymnasium.envs.registration import register, registry  # which may be what imports this module

    for name, maker, arguments in ENVIRONMENTS:
        if name not in registry:
            register(
                id=name, entry_point=f"{maker}_env", vector_entry_point=f"{maker}_vector_env", kwargs=dict(arguments)
            )
    if CUSTOM_LOG not in registry:
        maker = f"{_SESSION}.custom_log:custom_log"
        register(CUSTOM_LOG, f"{maker}_env", vector_entry_point=f"{maker}_vector_env", kwargs={"manifest": ""})
