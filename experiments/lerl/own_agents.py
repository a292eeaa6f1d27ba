"""Agents of a user's own as rows: a class or function in a file, a zip of Stable-Baselines3, or an object in memory.

``docs/your_agent.md`` says what such an agent has to have. What it returns is checked before an environment sees it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed

from rapport.agents.sb3 import algorithm_class, algorithm_of
from rapport.experiments.core import LOCAL, Act, EnvConfig, EpisodeStatistics, Row, ServingPolicy, Task
from rapport.experiments.core.checked_slates import REPEATS, CheckedSlates
from rapport.experiments.core.own_code import OwnCode, OwnCodeError, called
from rapport.experiments.core.row import Progress
from rapport.experiments.lerl.config import PlannerConfig, planned, planner_by_name
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.learners import CURVE_EVERY
from rapport.experiments.lerl.rows import RowSettings, lerl_row

OWN = "own"
"""Family of the rows."""
TRAINED_AT_ONCE = 64
"""Sessions side by side in an agent's training: as many as LERL's PPO has."""


@dataclass(frozen=True)
class OwnAgent:
    """A class or a function of a user's own, by its file: what is edited is trained and played anew."""

    code: OwnCode
    """Where it is."""
    transitions: int
    """To learn from, where it has a ``train``."""

    @property
    def shown(self) -> str:
        """How tables name it."""
        return self.code.shown

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Make it, let it learn, and have it ready to serve."""
        return served(self.code.load(), self.shown, task, self.transitions, progress, self.code.path)

    def try_out(self, env: EnvConfig) -> None:
        """Make it, and serve two training users one slate where it needs no training; nothing is kept.

        Raises:
            OwnCodeError: it cannot be made, or returns what cannot be shown.
        """
        try_out(self.code.load(), self.shown, env, self.code.path)


@dataclass(frozen=True)
class SB3Agent:
    """An agent that Stable-Baselines3 has saved; it serves what it does without exploring.

    Loading such a zip can execute code that is in it, as Stable-Baselines3 says.
    """

    algorithm: str
    """Name of its class, e.g. ``PPO``."""
    digest: str
    """Of the file."""
    path: Path = field(metadata=LOCAL)
    """The file."""

    @classmethod
    def of(cls, given: str) -> SB3Agent:
        """What a command line names, ``model.zip`` or ``PPO:model.zip``.

        Raises:
            OwnCodeError: there is no such file, it is no such zip, or there is no such algorithm.
        """
        named, _, place = given.rpartition(":")
        path = Path(place).expanduser().resolve()
        try:
            content = path.read_bytes()
            with zipfile.ZipFile(path) as archive:
                about = json.loads(archive.read("data"))
        except OSError as error:
            raise OwnCodeError(f"{given}: {path} cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, NotImplementedError) as error:
            raise OwnCodeError(
                f"{given}: {path} is no agent of Stable-Baselines3 ({error}); give a zip that model.save(...) wrote"
            ) from error
        found = named or algorithm_of(about if isinstance(about, dict) else {})
        if found is None:
            raise OwnCodeError(f"{given}: its algorithm cannot be told from the file; give it as PPO:{place}")
        try:
            algorithm_class(found)
        except ValueError as error:
            raise OwnCodeError(f"{given}: {error}") from error
        return cls(found, hashlib.sha256(content).hexdigest()[:16], path)

    @property
    def shown(self) -> str:
        """How tables name it."""
        return f"{self.path.name} ({self.algorithm})"

    def load(self) -> BaseAlgorithm:
        """Read it.

        Raises:
            OwnCodeError: Stable-Baselines3 cannot.
        """
        kind = algorithm_class(self.algorithm)
        return called(self.shown, f"{self.algorithm}.load({self.path})", lambda: kind.load(self.path, device="cpu"))

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Read it, ready to serve."""
        return served(self.load(), self.shown, task, 0, progress)

    def try_out(self, env: EnvConfig) -> None:
        """Serve two training users one slate; nothing is kept.

        Raises:
            OwnCodeError: it cannot be read, or is of another environment.
        """
        try_out(self.load(), self.shown, env)


@dataclass(frozen=True, eq=False)
class AgentInMemory:
    """An agent that a program holds: a class, a function, an object that is called, or an algorithm of SB3."""

    agent: Any
    """The agent."""
    shown: str
    """How tables name it."""
    transitions: int
    """To learn from, where it is a class with a ``train``."""

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Ready to serve; a class is made and learns first."""
        return served(self.agent, self.shown, task, self.transitions, progress)

    def try_out(self, env: EnvConfig) -> None:
        """Serve two training users one slate, where it needs no training.

        Raises:
            OwnCodeError: it cannot be made, or returns what cannot be shown.
        """
        try_out(self.agent, self.shown, env)


OwnLearner = OwnAgent | SB3Agent | AgentInMemory


def own_learner(given: str, transitions: int) -> OwnAgent | SB3Agent:
    """The agent that a command line names.

    Args:
        given: ``FILE.py:NAME``, ``package.module:NAME``, ``model.zip`` or ``PPO:model.zip``.
        transitions: to learn from, where it learns.

    Raises:
        OwnCodeError: there is none, or it cannot be loaded.
    """
    if given.endswith(".zip"):
        return SB3Agent.of(given)
    code = OwnCode.of(given)
    _checked_agent(code.load(), code.shown)
    return OwnAgent(code, transitions)


def served(
    agent: Any, who: str, task: Task, transitions: int, progress: Progress, file: Path | None = None
) -> ServingPolicy:
    """An agent of a user's own, made and trained where it is a class, ready to serve.

    Python's, NumPy's and torch's own generators are seeded before it is made and before it serves, so that chance that
    an agent draws there is the seed's, too.

    Args:
        agent: a class, a function, an object that is called, or an algorithm of Stable-Baselines3.
        who: how tables and messages name it.
        task: its row and seed.
        transitions: to learn from, where it is a class with a ``train``.
        progress: told the share of its training that is done.
        file: where its code is.

    Raises:
        OwnCodeError: it raises an error, or is no agent.
    """
    _checked_agent(agent, who)
    if not inspect.isclass(agent):
        learned = agent.num_timesteps if isinstance(agent, BaseAlgorithm) else 0
        return ServingPolicy(lambda env: _serving(agent, who, env, task.seed, file), learned)
    sessions = EpisodeStatistics(
        sessions_of(task.trained.env, TRAINED_AT_ONCE, "train"),
        CURVE_EVERY,
        lambda done: progress(min(done / transitions, 1.0)),
    )
    begun = time.monotonic()
    made = _made(agent, who, sessions, task.seed, file)
    train = getattr(made, "train", None)
    if train is not None:
        called(who, "train(env, transitions, seed)", train, sessions, transitions, task.seed, file=file)
    more = sessions.steps > transitions + TRAINED_AT_ONCE
    return ServingPolicy(
        lambda env: _serving(made, who, env, task.seed, file),
        sessions.steps,
        time.monotonic() - begun if sessions.steps else 0.0,
        notes=(f"took {sessions.steps:,} transitions to learn from, of {transitions:,}",) if more else (),
        curve=tuple(sessions.curve),
    )


def try_out(agent: Any, who: str, env: EnvConfig, file: Path | None = None) -> None:
    """Make an agent and serve two training users one slate, unless it has to be trained first; nothing is kept.

    Raises:
        OwnCodeError: it cannot be made, or returns what cannot be shown.
    """
    _checked_agent(agent, who)
    sessions = sessions_of(env, 2, "train")
    made = _made(agent, who, sessions, 0, file) if inspect.isclass(agent) else agent
    if not (inspect.isclass(agent) and hasattr(made, "train")):
        observations, _ = sessions.reset(seed=0)
        _serving(made, who, sessions, 0, file)(observations)


def _checked_agent(agent: Any, who: str) -> None:
    if inspect.isclass(agent):  # every class can be called; what counts is whether its objects can
        serves = any("__call__" in vars(kind) for kind in agent.__mro__)
    else:
        serves = callable(agent) or isinstance(agent, BaseAlgorithm)
    if not serves:
        what = "class" if inspect.isclass(agent) else type(agent).__name__
        raise OwnCodeError(
            f"{who}: this {what} has no __call__(observations); an agent is called with the observations of B sessions "
            "and returns their slates, shape (B, K)"
        )


def _made(agent: Any, who: str, sessions: VectorEnv[Any, Any, Any], seed: int, file: Path | None) -> Any:
    """An object of a user's class, for one seed."""
    core = sessions.unwrapped.core  # type: ignore[attr-defined]
    set_random_seed(seed)
    return called(who, "making it as NAME(env, data, seed)", agent, sessions, core.data, seed, file=file)


def _serving(agent: Any, who: str, env: VectorEnv[Any, Any, Any], seed: int, file: Path | None) -> Act:
    """An agent that begins to serve B sessions, its slates checked."""
    set_random_seed(seed)
    if isinstance(agent, BaseAlgorithm):
        return CheckedSlates(_predicting(agent, who, env), who, env, repeats=True, file=file)
    begin = called(who, "its attribute begin", getattr, agent, "begin", None, file=file)
    if begin is not None:
        called(who, "begin(num_sessions, seed)", begin, env.num_envs, seed, file=file)
    repeats = called(who, f"its attribute {REPEATS}", getattr, agent, REPEATS, False, file=file)
    if not isinstance(repeats, bool):
        raise OwnCodeError(f"{who}: {REPEATS} = {repeats!r}; True or False is expected")
    return CheckedSlates(agent, who, env, repeats=repeats, file=file)


def _predicting(model: BaseAlgorithm, who: str, env: VectorEnv[Any, Any, Any]) -> Act:
    """What a model of Stable-Baselines3 does without exploring.

    Raises:
        OwnCodeError: it was trained on other spaces.
    """
    for name in ("observation_space", "action_space"):
        given, wanted = _different(getattr(model, name), getattr(env, f"single_{name}"))
        if given != wanted:
            raise OwnCodeError(
                f"{who}: its {name.replace('_', ' ')} has {given}, and that of this environment {wanted}; train it on "
                "this environment, with this data, slate size and history"
            )
    return lambda observations: model.predict(observations, deterministic=True)[0]


def _different(given: Any, wanted: Any) -> tuple[Any, Any]:
    """Two spaces, or the parts in which two Dict spaces differ."""
    if not (isinstance(given, spaces.Dict) and isinstance(wanted, spaces.Dict)):
        return given, wanted
    names = sorted({*given, *wanted})
    differing = [name for name in names if given.spaces.get(name) != wanted.spaces.get(name)]
    parts = [{name: space.spaces[name] for name in differing if name in space.spaces} for space in (given, wanted)]
    return parts[0], parts[1]


def own_rows(agents: Iterable[str], planners: Iterable[str], env: EnvConfig, settings: RowSettings) -> tuple[Row, ...]:
    """The rows of what a command line names: each agent serves by itself, each planner plans over LERL's policy.

    Args:
        agents: as of :func:`~rapport.experiments.lerl.own_agents.own_learner`.
        planners: ``FILE.py:NAME`` or ``package.module:NAME``.
        env: where they serve.
        settings: of the table.

    Raises:
        OwnCodeError: one cannot be loaded.
    """
    rows = [own_row(own_learner(given, settings.transitions), env) for given in dict.fromkeys(agents)]
    low_level = lerl_row("lerl", env, settings).learner
    for given in dict.fromkeys(planners):
        planner = planner_by_name(given, settings.planner.period)
        if planner.own is None:
            raise ValueError(f"--planner {given}: give FILE.py:NAME; the controls' rows are in the table already")
        label = f"{planner.own.shown} over LERL's policy"
        rows.append(Row(own_name(planner.own.shown), label, env, low_level, OWN, planner, "lerl"))
    return distinct(rows)


def own_row(learner: OwnLearner, env: EnvConfig) -> Row:
    """The row of an agent that serves by itself."""
    return Row(own_name(learner.shown), learner.shown, env, learner, OWN)


def own_name(shown: str) -> str:
    """Short name of a row, e.g. ``own-my-py-agent``."""
    return f"own-{re.sub('[^a-z0-9]+', '-', shown.lower()).strip('-')}"


def distinct(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, those whose name is taken with a number behind it."""
    found: dict[str, Row] = {}
    for row in rows:
        name, number = row.name, 1
        while name in found:
            number += 1
            name = f"{row.name}-{number}"
        label = row.label if number == 1 else f"{row.label} ({number})"
        found[name] = Row(name, label, row.env, row.learner, row.family, row.planner, row.trained_as)
    return tuple(found.values())


def try_out_row(row: Row) -> None:
    """See that what a row has of a user's own can serve one slate to two training users; nothing is kept.

    Raises:
        OwnCodeError: it cannot.
    """
    if isinstance(row.learner, OwnLearner):
        row.learner.try_out(row.env)
    planner = row.planner
    if isinstance(planner, PlannerConfig) and planner.own is not None:
        sessions = sessions_of(row.env, 2, "train")
        planned(sessions, data_of(row.env), planner, None, np.random.default_rng(0)).reset(seed=0)
