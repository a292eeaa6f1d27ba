"""What every experiment of a run shares: the data, the people and their rule, and sessions planned for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rapport.agents.llm.base.interface import LLM, Budget, Sampling
from rapport.agents.llm.load import REPLAY, open_llm
from rapport.agents.llm.transcript import RecordedLLM
from rapport.agents.planning.build import STORED_TOP_K, TOP_K_PREFERENCE, control_planner, llm_planner, planner_name
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.lm.embedded import PACKAGED
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import Users, find_data, kuairand_vector_env
from rapport.envs.session.kuairand_satiation import kuairand_satiation_vector_env
from rapport.envs.session.kuairec import find_kuairec, kuairec_vector_env
from rapport.envs.session.response.fit import Profile

Environment = Literal["kuairand", "satiation", "kuairec"]
SHUFFLED, WORST = "llm, shuffled reflections", "llm, worst reflections"
SIMILAR = "llm, reflections of similar users"
LLM_PLANNERS = ("llm", "llm without reflection", SHUFFLED, WORST, SIMILAR)
LEARNING_PLANNERS = ("llm", SIMILAR)
"""Those whose critic looks back on sessions while an agent learns."""
ALPHA = 0.1
"""Of LERL's Eq. 4."""


@dataclass(frozen=True)
class Setup:
    """Data and environment of a run."""

    data: str = "auto"
    """``kuairand-pure``, ``twin``, or ``auto``: the first where it is there."""
    data_dir: str | None = None
    """Data directory."""
    quit_rule: str = "positional"
    """When users leave."""
    budget: float = 20.0
    """Budget at a session's start."""
    slate_size: int = 6
    """Items in a slate."""
    profile: Profile = "corrected"
    """The environment's: ``corrected``, or ``official``, LERL's released one with all its faults."""
    environment: Environment = "kuairand"
    """``kuairand``; ``satiation``, where people tire as measured, and the quit rule is ``satiation``; or ``kuairec``,
    whose ``data`` is ``kuairec``, ``synthetic`` or ``auto``."""

    def session_data(self) -> SessionData:
        """The data set."""
        if self.environment == "kuairec":
            return find_kuairec(self.data, self.data_dir).data
        return find_data(self.data, self.data_dir)

    def sessions(self, n_envs: int, users: Users) -> SessionVectorEnv:
        """Sessions of users of one side of the split."""
        arguments: dict[str, Any] = {
            "users": users,
            "quit_rule": self.quit_rule,
            "budget": self.budget,
            "slate_size": self.slate_size,
        }
        if self.environment == "kuairec":
            found = find_kuairec(self.data, self.data_dir)
            return kuairec_vector_env(n_envs, AutoresetMode.SAME_STEP, data=found, **arguments)
        arguments |= {"data": self.session_data(), "profile": self.profile}
        if self.environment == "satiation":
            return kuairand_satiation_vector_env(n_envs, AutoresetMode.SAME_STEP, **arguments)
        return kuairand_vector_env(n_envs, AutoresetMode.SAME_STEP, **arguments)

    def identity(self) -> dict[str, Any]:
        """What an agent trained here must find again to be of use."""
        settings = asdict(self)
        del settings["data"], settings["data_dir"]
        data = self.session_data()
        return {"dataset": data.name, "fingerprint": data.fingerprint, **settings}


@dataclass(frozen=True)
class PlannerChoice:
    """Which planner, and the language model behind it where it has one."""

    name: str = STORED_TOP_K
    """A control's name or one of :data:`LLM_PLANNERS`."""
    llm: str | None = None
    """GGUF file, address of a server, or ``replay:FILE``: a transcript to play again without the model."""
    llm_seconds: float | None = 300.0
    """Seconds the language model may take, training and evaluation each; beyond them the heuristic plans."""
    period: int = 1
    """Slates a plan holds."""
    cache: str | None = None
    """File that keeps answers."""
    pool: str | None = None
    """File that keeps reflections."""
    rest: bool | None = None
    """Leave out the categories of the slate just shown; None: only under planners whose plans are meant to hold."""
    surprise: float | None = None
    """Standard deviations from the clicks expected beyond which a session is planned anew; None for never."""
    llm_calls: int | None = None
    """Prompts the language model may be sent, training and evaluation each."""
    llm_tokens: int | None = None
    """Tokens it may read and write, training and evaluation each."""
    most: int = 8
    """Most categories in a language model's plan."""
    reflections: int = 3
    """Reflections that a language model is shown."""
    record: str | None = None
    """Transcript in which everything it is asked and answers is kept."""

    @property
    def rests(self) -> bool:
        """Whether categories just shown are left out: not under controls, which stay what they are called."""
        holding = (*LLM_PLANNERS, TOP_K_PREFERENCE)
        return planner_name(self.name) in holding if self.rest is None else self.rest

    def limits(self) -> dict[str, str]:
        """What the language model may cost, for the report; nothing where there is none, or none is asked."""
        if self.llm is None or self.llm.startswith(REPLAY):
            return {}
        limits = {"calls": self.llm_calls, "tokens": self.llm_tokens, "seconds": self.llm_seconds}
        given = ", ".join(f"{limit:,g} {unit}" for unit, limit in limits.items() if limit is not None)
        return {"language model may take": f"{given} in each training and each evaluation"}

    def open(self, seed: int) -> LLM | None:
        """The language model, or None for a control."""
        if self.name not in LLM_PLANNERS or self.llm is None:
            return None
        budget = Budget(self.llm_calls, self.llm_tokens, self.llm_seconds)
        llm = open_llm(self.llm, sampling=Sampling(seed=seed), budget=budget, cache=self.cache, packaged=PACKAGED)
        return llm if self.record is None else RecordedLLM(llm, self.record)


def with_language_model(choice: PlannerChoice, llm: str, budget: Budget, record: Path | None) -> PlannerChoice:
    """The choice with what a command line says of the language model.

    Raises:
        ValueError: what is replayed would be recorded.
    """
    if record is not None and llm.startswith(REPLAY):
        raise ValueError(f"--llm-record {record}: a replay has nothing new to record; copy the transcript instead")
    kept = None if record is None else str(record.resolve())
    limits = {f"llm_{unit}": limit for unit, limit in asdict(budget).items()}
    return replace(choice, llm=llm, record=kept, **limits)


def model_label(llm: str) -> str:
    """How a language model is named in tables: by its file, the server's name for it, or else the server's address."""
    if llm.startswith(REPLAY):
        return f"LLM replayed from {Path(llm.removeprefix(REPLAY)).name}"
    if "://" in llm:
        address, _, model = llm.partition("#")
        return f"LLM {model or urlsplit(address).netloc.rpartition('@')[2]}"
    return f"LLM {Path(llm).name}"


def planned(
    sessions: VectorEnv[Any, Any, Any],
    data: SessionData,
    choice: PlannerChoice,
    llm: LLM | None,
    rng: np.random.Generator,
    learning: bool = False,
    once: bool = False,
    look_back_every: int = 1,
) -> PlannedVectorEnv:
    """Sessions with a planner over them; while learning, a critic fills the pool that the planner reads from.

    Two ablations read a pool without adding to it: under :data:`SHUFFLED` its scores are dealt to its texts at random,
    once, so that some are drawn as much more often than others but for no reason; under :data:`WORST` Eq. 4 has -alpha
    for alpha, so that the worst sessions' are drawn most. Under :data:`SIMILAR` similar users' are recalled. With
    ``once`` every place serves one session that counts. The critic looks back on one in ``look_back_every`` sessions.
    """
    pool, critic = None, None
    if llm is None:
        planner = control_planner(choice.name, data, rng)
    else:
        pool = None if choice.name == "llm without reflection" else ReflectionPool(choice.pool)
        if choice.name in LEARNING_PLANNERS and pool is not None and learning:
            critic = LLMCritic(llm, pool, data.catalog.category_names, every=look_back_every)
        if choice.name == SHUFFLED and pool is not None:
            pool = pool.shuffled(rng)
        alpha = -ALPHA if choice.name == WORST else ALPHA
        alike = choice.name == SIMILAR
        planner = llm_planner(llm, data, rng, pool, alpha, choice.most, choice.reflections, alike)
    return PlannedVectorEnv(sessions, data, planner, critic, choice.period, choice.rests, choice.surprise, once)
