"""What LERL's paper reports (arXiv 2601.19585), as far as its figures are known to us: T_int, R_cum, R_sin.

The whole text was not available; these cells come from its abstract and from notes on its main table. A cell that they
do not quote is None. DNaIR's T_int on KuaiRand is quoted as "the best baseline's"; 9.824 / 0.720 makes it DNaIR's.
"""

from __future__ import annotations

PaperRow = tuple[float | None, float | None, float | None]

PAPER: dict[str, dict[str, PaperRow]] = {
    "kuairand": {
        "lerl": (17.238, 12.284, 0.719),
        "ppo": (14.352, None, None),
        "dnair": (13.50, 9.824, 0.720),
        "a2c": (None, None, None),
        "td3": (None, None, None),
        "ddpg": (None, None, None),
        "reinforce": (None, None, None),
        "hac": (None, None, None),
        "sac4ir": (None, None, None),
    },
    "kuairec": {
        "lerl": (16.400, 10.507, 0.637),
        "ppo": (None, None, None),
        "dnair": (None, 9.235, None),
        "a2c": (13.305, None, None),
        "td3": (None, None, 0.800),
        "ddpg": (None, None, None),
        "reinforce": (None, None, None),
        "hac": (None, None, None),
        "sac4ir": (None, None, None),
    },
}
"""Data set -> method -> what the paper has."""
CASE = {"LERL": "0 over three rounds", "PPO": "5 and 3"}
"""Its case study (KuaiRec, user 5): categories that a round's slate shares with the one before."""
CLAIM = 0.25
"""How far it says LERL is above the best baseline in R_cum."""
