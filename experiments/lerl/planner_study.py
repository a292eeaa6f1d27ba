"""One low level under variants of one planner, the same people and chance: what calls buy, and what reflections do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.lerl import PPOConfig, act_on, sampled_actions, slate_policy
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.build import CONSTANT, RANDOM_HELD, TOP_K_PREFERENCE
from rapport.experiments.core import (
    LOCAL,
    EnvConfig,
    Experiment,
    Prerequisite,
    Row,
    ServingPolicy,
    Task,
    identity,
    play,
)
from rapport.experiments.core.row import Progress
from rapport.experiments.lerl.agents import file_digest, load_agent
from rapport.experiments.lerl.config import LLM, LLM_ONLY, SHUFFLED, WORST, PlannerConfig, planned
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.learners import PretrainedLearner, slates_of
from rapport.experiments.lerl.metrics import METRICS, R_CUM
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.training import pool_beside, pretrained_agent, segment_seed
from rapport.experiments.results.metrics import Metric
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import config_hash, write_atomically
from rapport.experiments.results.summary import Found, Summary, SummaryRow, compare, summarise

PERIODS = (1, 5, 10, 20)
"""Slates a plan of the language model holds in the study of costs."""
FILL_PERIOD = 5
"""Slates a plan holds while a pool is filled."""
WAVE = 40
"""Sessions played side by side while a pool is filled; each wave draws from what those before it have taught."""
POOL = "study"
"""Name of the pool that all rows of a seed read."""
CONTROLS = {
    RANDOM_HELD: "random plan of eight categories",
    CONSTANT: "the eight most-clicked categories for everybody",
}
"""Planner -> its label in both studies."""
TENTH = 0.1
"""Calls per slate shown at which a planner counts as one that asks a tenth as often as LERL's."""


@dataclass(frozen=True)
class StudyLearner:
    """A policy that all rows of a seed share, and a pool of reflections that is filled before any of them is played.

    The policy is the pretrained one, without RL, or LERL's as a run has trained it.
    """

    filler: PlannerConfig
    """Plans, and looks back on, the sessions that fill the pool."""
    pool_sessions: int
    """Sessions of training users that fill it."""
    low_level: PPOConfig = field(default_factory=PPOConfig)
    """Of the pretrained policy."""
    digests: tuple[str, ...] = ()
    """Of all trained agents' files, so that the number of seeds played changes nothing."""
    agents: Path | None = field(default=None, metadata=LOCAL)
    """Folder of the run that trained them."""

    def prerequisite(self, task: Task) -> Prerequisite:
        """Makes a seed's policy and fills its pool."""
        return Prerequisite(f"preparing, seed {task.seed}", str(pool_of(task)), _Prepare(self, task))

    def agent(self, task: Task, progress: Progress = lambda _: None) -> PPO:
        """The policy of one seed."""
        if self.agents is not None:
            return load_agent(checkpoint_of(self.agents, task.seed), task.row.env)[0]
        return pretrained_agent(PretrainedLearner(self.low_level).training(task), progress)

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Read it."""
        return ServingPolicy(slates_of(self.agent(task), task))


@dataclass(frozen=True)
class _Prepare:
    learner: StudyLearner
    task: Task

    def __call__(self, progress: Progress) -> None:
        agent = self.learner.agent(self.task, lambda share: progress(0.5 * share))
        fill_pool(self.task, self.learner, agent, lambda share: progress(0.5 + 0.5 * share))


def pool_of(task: Task) -> Path:
    """Where the reflections of a seed are kept."""
    return pool_beside(task.folder / "checkpoints" / f"{POOL}-seed{task.seed}")


def checkpoint_of(folder: Path, seed: int) -> Path:
    """Where `rapport run` keeps the trained LERL agent of a seed."""
    return folder / "checkpoints" / f"lerl-seed{seed}.safetensors"


def cost_rows(env: EnvConfig, llm: PlannerConfig, learner: StudyLearner, deviations: float) -> tuple[Row, ...]:
    """The model with plans that hold longer and longer, also with a replan trigger; beside it a planner without one."""
    planners = {f"llm-{n}": (f"LLM, {_every(n)}", replace(llm, period=n)) for n in PERIODS}
    longest = PERIODS[-1]
    label = f"LLM, {_every(longest)} or when triggered ({deviations:g} sd)"
    planners["llm-trigger"] = (label, replace(llm, period=longest, replan_threshold=deviations))
    for n in (1, longest):
        planners[f"top-k-{n}"] = (f"{TOP_K_PREFERENCE}, {_every(n)}", PlannerConfig(TOP_K_PREFERENCE, period=n))
    rows = tuple(Row(name, label, env, learner, planner=planner) for name, (label, planner) in planners.items())
    return rows + control_rows(env, learner, longest)


def reflection_rows(env: EnvConfig, llm: PlannerConfig, learner: StudyLearner) -> tuple[Row, ...]:
    """The model with reflections as LERL draws them, without any, and with two kinds that should not help."""
    labels = {
        LLM: "LLM",
        LLM_ONLY: "LLM without reflection",
        SHUFFLED: "LLM, shuffled reflections",
        WORST: "LLM, worst reflections",
    }
    rows = tuple(
        Row(name.replace(",", "").replace(" ", "-"), label, env, learner, planner=replace(llm, name=name))
        for name, label in labels.items()
    )
    return rows + control_rows(env, learner, llm.period)


def control_rows(env: EnvConfig, learner: StudyLearner, period: int) -> tuple[Row, ...]:
    """What every planner has to beat before its plans mean anything: random plans, and one plan for everybody."""
    return tuple(
        Row(name, f"{CONTROLS[name]}, {_every(period)}", env, learner, planner=PlannerConfig(name, period=period))
        for name in CONTROLS
    )


def _every(slates: int) -> str:
    return "every slate" if slates == 1 else f"every {slates} slates"


def study_learner(llm: PlannerConfig, pool_sessions: int, agents: Path | None, seeds: int) -> StudyLearner:
    """The learner of a study.

    Args:
        llm: the language model.
        pool_sessions: that fill a seed's pool.
        agents: folder of a run whose trained LERL agents play; None for pretrained policies.
        seeds: of the study.

    Raises:
        CheckpointError: the run has no agent of a seed.
    """
    digests: dict[Path, str] = {}
    if agents is not None:
        there = sorted(agents.glob("checkpoints/lerl-seed*.safetensors"))
        digests = {path: file_digest(path) for path in [*(checkpoint_of(agents, s) for s in range(seeds)), *there]}
    filler = replace(llm, name=LLM, period=FILL_PERIOD, replan_threshold=None)
    return StudyLearner(filler, pool_sessions, digests=tuple(sorted(digests.values())), agents=agents)


def planner_study(rows: tuple[Row, ...], seeds: int, sessions: int, folder: Path) -> Experiment:
    """A study as an experiment."""
    return Experiment(rows, seeds, HeldOutSessions(sessions, shared_pool=POOL), folder)


def fill_pool(task: Task, learner: StudyLearner, agent: PPO, progress: Progress = lambda _: None) -> None:
    """Let a model plan sessions of training users, look back on each and keep what it writes in the seed's pool.

    A file beside the pool, written last, says with what configuration it was filled and what that cost. A pool that has
    it is left as it is; any other is filled anew.
    """
    path, env = pool_of(task), task.row.env
    done = path.with_suffix(".json")
    config = config_hash({"learner": identity(learner), "env": env.identity()})
    if path.exists() and done.exists() and json.loads(done.read_text("utf-8")).get("config") == config:
        return
    for stale in (done, path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        stale.unlink(missing_ok=True)
    llm, data, sessions = learner.filler.open(task.seed), data_of(env), learner.pool_sessions
    assert llm is not None
    rng = np.random.default_rng([task.seed, 4])
    people = np.flatnonzero(~data.held_out)
    users = rng.choice(people, sessions, replace=sessions > len(people))
    act = sampled_actions(agent, task.seed)
    with conversation(llm, f"filling the pool, seed {task.seed}"):
        for first in range(0, sessions, WAVE):
            wave = users[first : first + WAVE]
            served = sessions_of(env, len(wave), "train")
            plans = planned(served, data, learner.filler, llm, rng, path, learning=True, once=True)
            encoder = slate_policy(agent).encoder
            play(act_on(plans, encoder), act, segment_seed(task.seed, first), {"user": wave})
            progress((first + len(wave)) / sessions)
    note = {"config": config, "sessions": sessions, "meter": llm.meter.to_dict()}
    write_atomically(done, json.dumps(note, indent=1) + "\n")


def study_summary(labels: Mapping[str, str], found: Found, reference: str) -> Summary:
    """Estimates of every row, by name and label, compared with the reference in R_cum."""
    return summarise(found, labels, METRICS, reference, main=R_CUM)


def per_slate(row: SummaryRow, name: str) -> float:
    """What a meter counted for each slate shown while measuring and training; LERL makes one call per slate."""
    return row.meter.get(name, 0.0) / row.served if row.served else 0.0


def against(found: Found, name: str, reference: str, metric: Metric = R_CUM) -> Estimate | None:
    """A row minus the reference; None for the reference itself and for rows that were not run."""
    return None if name == reference else compare(found.get(name, ()), found.get(reference, ()), metric)


def cost_finding(summary: Summary, found: Found) -> str:
    """Whether a tenth of the calls gives the same return, in one sentence."""
    few: list[tuple[SummaryRow, Estimate]] = []
    for row in summary.rows:
        difference = against(found, row.name, summary.reference)
        if difference is not None and row.name.startswith("llm") and per_slate(row, "calls") < TENTH * 1.05:
            few.append((row, difference))
    if not few:
        return "No planner was asked as rarely as once in ten slates."
    row, difference = max(few, key=lambda pair: per_slate(pair[0], "calls"))
    share = f"{row.label}, makes {100 * per_slate(row, 'calls'):.0f} % of LERL's calls"
    found_ = R_CUM.shown(difference, signed=True)
    if difference.high < 0:
        return f"A tenth of the calls does not give the same return: {share} and loses {found_} in R_cum."
    if difference.low > 0:
        return f"A tenth of the calls gives more: {share} and gains {found_} in R_cum."
    return f"A tenth of the calls gives the same return within the interval: {share}; R_cum differs by {found_}."


def study_notes(study: Experiment, pool_sessions: int, trained: str) -> dict[str, str]:
    """What the tables rest on, and how to read them."""
    env, data = study.rows[0].env, data_of(study.rows[0].env)
    assert isinstance(study.protocol, HeldOutSessions)
    return {
        "data": f"{data.name}, quit rule {env.kwargs['quit_rule']}; {study.seeds} seeds of {study.protocol.sessions:,} "
        f"sessions of {int(data.held_out.sum()):,} held-out users",
        "low level": f"{trained}; every plan is under the one-slate cooldown",
        "reflections": f"per seed a pool filled beforehand on {pool_sessions:,} sessions of training users",
        "figures": "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]; differences "
        "paired by seed and session",
        "calls": "prompts sent, equal ones of a batch once, repeated ones again; LERL makes one per slate",
    }
