"""What every experiment of a run shares: the data, the people and their rule, and sessions planned for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rapport.agents.llm.base import LLM, Budget, Sampling
from rapport.agents.llm.open import open_llm
from rapport.agents.planning.build import HEURISTIC, control_planner, llm_planner
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.fit import Profile
from rapport.envs.session.kuairand import Users, find_data, kuairand_vector_env

LLM_PLANNERS = ("llm", "llm without reflection")


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

    def session_data(self) -> SessionData:
        """The data set."""
        return find_data(self.data, self.data_dir)

    def sessions(self, n_envs: int, users: Users) -> SessionVectorEnv:
        """Sessions of users of one side of the split."""
        return kuairand_vector_env(
            n_envs,
            AutoresetMode.SAME_STEP,
            data=self.session_data(),
            users=users,
            quit_rule=self.quit_rule,
            budget=self.budget,
            slate_size=self.slate_size,
            profile=self.profile,
        )

    def identity(self) -> dict[str, Any]:
        """What an agent trained here must find again to be of use."""
        settings = asdict(self)
        del settings["data"], settings["data_dir"]
        data = self.session_data()
        return {"dataset": data.name, "fingerprint": data.fingerprint, **settings}


@dataclass(frozen=True)
class PlannerChoice:
    """Which planner, and the language model behind it where it has one."""

    name: str = HEURISTIC
    """A control's name, ``llm``, or ``llm without reflection``."""
    llm: str | None = None
    """GGUF file or address of a server."""
    llm_seconds: float = 300.0
    """Seconds the language model may take, training and evaluation each; beyond them the heuristic plans."""
    period: int = 1
    """Slates a plan holds."""
    cache: str | None = None
    """File that keeps answers."""
    pool: str | None = None
    """File that keeps reflections."""

    def open(self, seed: int) -> LLM | None:
        """The language model, or None for a control."""
        if self.name not in LLM_PLANNERS or self.llm is None:
            return None
        budget = Budget(seconds=self.llm_seconds)
        return open_llm(self.llm, sampling=Sampling(seed=seed), budget=budget, cache=self.cache)


def planned(
    sessions: VectorEnv[Any, Any, Any],
    data: SessionData,
    choice: PlannerChoice,
    llm: LLM | None,
    rng: np.random.Generator,
    learning: bool = False,
) -> PlannedVectorEnv:
    """Sessions with a planner over them; while learning, a critic fills the pool that the planner reads from."""
    if llm is None:
        return PlannedVectorEnv(sessions, data, control_planner(choice.name, data, rng), period=choice.period)
    pool = ReflectionPool(choice.pool) if choice.name == "llm" else None
    critic = None if pool is None or not learning else LLMCritic(llm, pool, data.catalog.category_names)
    return PlannedVectorEnv(sessions, data, llm_planner(llm, data, rng, pool), critic, choice.period)
