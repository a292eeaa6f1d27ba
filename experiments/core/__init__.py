"""The one experiment mechanism: rows of a table, how each is learned and measured, and the jobs that fill them."""

from rapport.experiments.core.env_config import LOCAL, EnvConfig, identity, prepare
from rapport.experiments.core.experiment import Experiment, jobs_of, measure
from rapport.experiments.core.rollout import Act, Counter, CurvePoint, Episodes, EpisodeStatistics, play
from rapport.experiments.core.row import Learner, Prerequisite, Protocol, Row, ServingPolicy, Task

__all__ = [
    "LOCAL",
    "Act",
    "Counter",
    "CurvePoint",
    "EnvConfig",
    "EpisodeStatistics",
    "Episodes",
    "Experiment",
    "Learner",
    "Prerequisite",
    "Protocol",
    "Row",
    "ServingPolicy",
    "Task",
    "identity",
    "jobs_of",
    "measure",
    "play",
    "prepare",
]
