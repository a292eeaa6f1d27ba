"""One low level under variants of one planner, the same people and luck: what calls buy, and what reflections do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from stable_baselines3 import PPO

from rapport.agents.lerl import PPOConfig, act_on, sampled_actions, slate_policy
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.build import STORED_TOP_K
from rapport.experiments.commands.evaluate import load_agent
from rapport.experiments.jobs.local import Named
from rapport.experiments.lerl.config import SHUFFLED, WORST, PlannerChoice, Setup, planned
from rapport.experiments.lerl.evaluation import play
from rapport.experiments.lerl.play import Evaluation, play_agent
from rapport.experiments.lerl.training import Progress, Training, first_agent, segment_seed
from rapport.experiments.results.store import MethodResult, ResultStore, config_hash, write_atomically

PERIODS = (1, 5, 10, 20)
"""Slates a plan of the language model holds in the study of costs."""
FILL_PERIOD = 5
"""Slates a plan holds while a pool is filled."""
WAVE = 40
"""Sessions played side by side while a pool is filled; each wave draws from what those before it have taught."""


@dataclass(frozen=True)
class Variant:
    """A planner to be compared.

    Attributes:
        name: lower case, used in file names.
        label: shown.
        choice: the planner; the study gives it its pool.
    """

    name: str
    label: str
    choice: PlannerChoice


def cost_variants(llm: PlannerChoice, deviations: float) -> tuple[Variant, ...]:
    """The model with plans that hold longer and longer, also with surprises; beside them a planner without a model."""
    rows = [Variant(f"llm-{n}", f"LLM, {_every(n)}", replace(llm, period=n)) for n in PERIODS]
    longest = PERIODS[-1]
    label = f"LLM, {_every(longest)} or on surprise ({deviations:g} sd)"
    rows.append(Variant("llm-surprise", label, replace(llm, period=longest, surprise=deviations)))
    for n in (1, longest):
        rows.append(Variant(f"lasting-{n}", f"{STORED_TOP_K}, {_every(n)}", PlannerChoice(STORED_TOP_K, period=n)))
    return tuple(rows)


def reflection_variants(llm: PlannerChoice) -> tuple[Variant, ...]:
    """The model with reflections as LERL draws them, without any, and with two kinds that should not help."""
    names = {
        "llm": "LLM",
        "llm without reflection": "LLM without reflection",
        SHUFFLED: "LLM, shuffled reflections",
        WORST: "LLM, worst reflections",
    }
    return tuple(
        Variant(name.replace(",", "").replace(" ", "-"), label, replace(llm, name=name))
        for name, label in names.items()
    )


def _every(slates: int) -> str:
    return "every slate" if slates == 1 else f"every {slates} slates"


@dataclass(frozen=True)
class Study:
    """Variants of a planner, played by the same low level of each seed.

    Attributes:
        setup: data and environment.
        variants: what is compared, the reference among them.
        reference: name of the variant all others are compared with.
        seeds: trainings, and draws of users and luck.
        sessions: complete sessions of held-out users per variant and seed.
        pool_sessions: sessions of training users that fill each seed's pool of reflections.
        folder: keeps first policies, pools and results; a stopped study goes on from it.
        agents: folder of a run whose trained LERL agents play; None for first policies, without RL.
        low_level: of the first policies.
    """

    setup: Setup
    variants: tuple[Variant, ...]
    reference: str
    seeds: int
    sessions: int
    pool_sessions: int
    folder: str
    agents: str | None = None
    low_level: PPOConfig = field(default_factory=PPOConfig)

    def store(self) -> ResultStore:
        """Results of this very configuration."""
        return ResultStore(Path(self.folder) / "results", self.config())

    def results(self) -> list[MethodResult]:
        """What has been played so far, of this study's variants and seeds."""
        store, names = self.store(), [(v.name, seed) for v in self.variants for seed in range(self.seeds)]
        found = [store.load(name, seed) for name, seed in names]
        return [result for result in found if result is not None]

    def jobs(self) -> list[Named]:
        """Per seed: a low level and a pool, then all variants that have not been played."""
        done = {(result.method, result.seed) for result in self.results()}
        jobs = []
        for seed in range(self.seeds):
            missing = [variant for variant in self.variants if (variant.name, seed) not in done]
            later = tuple(Named(f"{v.name}, seed {seed}", PlayVariant(self, v, seed)) for v in missing)
            if missing:
                jobs.append(Named(f"preparing, seed {seed}", Prepare(self, seed), later))
        return jobs

    def agent(self, seed: int, progress: Progress = lambda _: None) -> PPO:
        """The low level of one seed."""
        if self.agents is not None:
            return load_agent(checkpoint_of(Path(self.agents), seed), self.setup.data, self._data_dir())[1]
        task = Training(self.setup, "first", seed, 0, self.folder, PlannerChoice("none"), self.low_level)
        return first_agent(task, progress)

    def choice(self, variant: Variant, seed: int) -> PlannerChoice:
        """The variant's planner, with this seed's pool where a language model plans."""
        return variant.choice if variant.choice.llm is None else replace(variant.choice, pool=str(self.pool(seed)))

    def pool(self, seed: int) -> Path:
        """Where the reflections of a seed are kept."""
        return Path(self.folder) / f"reflections-seed{seed}.sqlite"

    def config(self) -> str:
        """Changes with all that results and pools depend on, but not with the number of seeds."""
        numbers = [self.sessions, self.pool_sessions, self.agents]
        variants = {variant.name: asdict(variant.choice) for variant in self.variants}
        known = {"environment": self.setup.identity(), "low_level": asdict(self.low_level), "numbers": numbers}
        return config_hash({**known, "variants": variants})

    def _data_dir(self) -> Path | None:
        return None if self.setup.data_dir is None else Path(self.setup.data_dir)


def checkpoint_of(folder: Path, seed: int) -> Path:
    """Where `rapport run` keeps the trained LERL agent of a seed."""
    return folder / "checkpoints" / f"lerl-seed{seed}.safetensors"


@dataclass(frozen=True)
class Prepare:
    """Makes a seed's low level and fills its pool."""

    study: Study
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Do what is not done yet."""
        study = self.study
        agent = study.agent(self.seed, lambda share: progress(0.5 * share))
        models = [variant.choice for variant in study.variants if variant.choice.llm is not None]
        if models:
            choice = replace(models[0], name="llm", period=FILL_PERIOD, surprise=None, pool=str(study.pool(self.seed)))
            task = Evaluation(study.setup, self.seed, study.pool_sessions)
            fill_pool(task, choice, agent, study.config(), lambda share: progress(0.5 + 0.5 * share))


@dataclass(frozen=True)
class PlayVariant:
    """Plays one variant with one seed."""

    study: Study
    variant: Variant
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Play and keep the result."""
        study = self.study
        task = Evaluation(study.setup, self.seed, study.sessions)
        agent = study.agent(self.seed)
        result = play_agent(task, self.variant.name, agent, study.choice(self.variant, self.seed))
        study.store().save(replace(result, label=self.variant.label))


def fill_pool(
    task: Evaluation, choice: PlannerChoice, agent: PPO, config: str, progress: Progress = lambda _: None
) -> None:
    """Let a model plan sessions of training users, look back on each and keep what it writes in ``choice.pool``.

    A file beside the pool, written last, says with what configuration it was filled and what that cost. A pool that has
    it is left as it is; any other is filled anew.

    Args:
        task: environment, seed and number of sessions.
        choice: the planner, its model and its pool.
        agent: the low level.
        config: changes with whatever the pool depends on.
        progress: told the share done.
    """
    assert choice.pool is not None
    path = Path(choice.pool)
    done = path.with_suffix(".json")
    if path.exists() and done.exists() and json.loads(done.read_text("utf-8")).get("config") == config:
        return
    for stale in (done, path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        stale.unlink(missing_ok=True)
    llm, data = choice.open(task.seed), task.setup.session_data()
    assert llm is not None
    rng = np.random.default_rng([task.seed, 4])
    people = np.flatnonzero(~data.held_out)
    users = rng.choice(people, task.sessions, replace=task.sessions > len(people))
    act = sampled_actions(agent, task.seed)
    with conversation(llm, f"filling the pool, seed {task.seed}"):
        for first in range(0, task.sessions, WAVE):
            wave = users[first : first + WAVE]
            sessions = task.setup.sessions(len(wave), "train")
            env = planned(sessions, data, choice, llm, rng, learning=True, once=True)
            play(act_on(env, slate_policy(agent).encoder), act, wave, segment_seed(task.seed, first))
            progress((first + len(wave)) / task.sessions)
    note = {"config": config, "sessions": task.sessions, "meter": llm.meter.to_dict()}
    write_atomically(done, json.dumps(note, indent=1) + "\n")
