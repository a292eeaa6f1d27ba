"""Baselines that learn the same task as LERL, controls, and oracles that read the simulator."""

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.controls import PlannedSlates, PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import LookAhead, OracleGreedy, OracleSlates
from rapport.agents.baselines.task import Act, Baseline, Settings, TrainingTask

__all__ = [
    "Act",
    "Baseline",
    "CTRModel",
    "LookAhead",
    "OracleGreedy",
    "OracleSlates",
    "PlannedSlates",
    "PopularSlates",
    "RandomSlates",
    "Settings",
    "TrainingTask",
]
