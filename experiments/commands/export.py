"""``rapport export minari``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rapport import __version__
from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.agents.lerl import act_on, sampled_actions, slate_policy
from rapport.datasets.custom.manifest import is_manifest
from rapport.envs.registration import CUSTOM_LOG
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.kuairand import Users
from rapport.experiments.commands.evaluate import trained_agent
from rapport.experiments.commands.options import DataDirectory, at_least_one
from rapport.experiments.core import Act
from rapport.experiments.export.minari import FLAT, Environment, Recorder, import_minari, record, write_minari
from rapport.experiments.lerl.agents import planner_of_agent, pool_of_agent
from rapport.experiments.lerl.config import planned
from rapport.experiments.lerl.environments import absolute, data_of, log_env, sessions_of, spec_of

BATCH = 256
"""Sessions played at once."""
CONTROLS = ("random", "popular")


@dataclass(frozen=True)
class Player:
    """A policy and the sessions it plays on."""

    name: str
    """The policy's part of a data set's id."""
    algorithm: str
    """The policy's description."""
    recorder: Recorder
    """Records the sessions."""
    env: Environment
    """The environment that the policy plays on: the recorder, or wrappers around it."""
    act: Act
    """The policy."""
    core: SessionCore
    """The sessions' engine."""
    env_id: str
    """Id of their environment."""
    arguments: dict[str, Any]
    """Arguments of ``gym.make`` that make the sessions again."""


@dataclass
class Export(DataDirectory):
    """Play sessions and write them as a data set for offline reinforcement learning."""

    format: Annotated[Literal["minari"], tyro.conf.Positional]
    """Whose format: Minari's."""
    policy: str = "random"
    """Who plays: random, popular, or a checkpoint such as runs/lerl/checkpoints/lerl-seed0.safetensors, which brings
    its own environment and arguments."""
    env: str = "rapport/KuaiRand-v0"
    """Id of the environment; of a log of your own, --data names it."""
    data: str = "auto"
    """What the environment stands on, e.g. kuairand-pure, twin, auto: the first where it is there; or the manifest of a
    log of your own, shop.toml."""
    llm: str | None = None
    """Language model that plans for a checkpoint's agent; needed where the agent was trained with one of your own."""
    users: Users = "train"
    """Whose sessions. The environment to evaluate in has the held-out users in any case."""
    arguments: tuple[str, ...] = ()
    """Further arguments of gym.make as NAME=VALUE, e.g. quit_rule=set_overlap slate_size=4."""
    flat: bool = False
    """Observations as one array each, not as a Dict of arrays: for libraries such as d3rlpy."""
    sessions: int = 1_000
    """Complete sessions."""
    seed: int = 0
    """Session i is that of reset(seed=seed + i)."""
    dataset: str | None = None
    """Id of the data set; by default rapport/ENVIRONMENT/POLICY-v0."""
    author: str | None = None
    """Who made the data set."""
    author_email: str | None = None
    """How to reach them."""

    def run(self) -> int:
        """Play the sessions, write them and print where; 0."""
        at_least_one(sessions=self.sessions)
        import_minari()
        player = self._control() if self.policy in CONTROLS else self._trained()
        name = self.dataset or self._dataset(player)
        data = player.core.data.name
        about = {
            "algorithm_name": player.algorithm,
            "author": self.author or "made with Rapport",
            "author_email": self.author_email or "not given",
            "code_permalink": f"https://pypi.org/project/rapport-gym/{__version__}/",
            "description": f"{self.sessions:,} sessions of simulated people over {data}, {self.users} users, served by "
            f"{player.algorithm}; seeds {self.seed} to {self.seed + self.sessions - 1}.",
        }
        columns = (TextColumn("playing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task("", total=self.sessions)

            def report(done: int) -> None:
                bars.update(bar, completed=done)

            episodes = record(player.recorder, player.env, player.act, self.sessions, self.seed, report)
            longest = player.core.max_steps if self.flat else None
            played_in = _spec(player.env_id, {**player.arguments, "users": self.users}, longest)
            evaluated_in = _spec(player.env_id, {**player.arguments, "users": "held_out"}, longest)
            written = write_minari(name, episodes, played_in, evaluated_in, flat=self.flat, **about)
        Console().print(
            f"Wrote {name}: {written.total_episodes:,} sessions, {written.total_steps:,} steps, "
            f"{written.storage.get_size():g} MB, in {written.storage.data_path}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return 0

    @property
    def _batch(self) -> int:
        return min(BATCH, self.sessions)

    def _control(self) -> Player:
        env_id, where = self._environment()
        arguments: dict[str, Any] = {**where, **_parsed(self.arguments)}
        here: dict[str, Any] = {"users": self.users, "autoreset_mode": AutoresetMode.SAME_STEP}
        if self.root is not None and "data" in where:
            here["root"] = self.root
        made: Any = gym.make_vec(env_id, self._batch, vectorization_mode="vector_entry_point", **{**arguments, **here})
        core: SessionCore = made.unwrapped.core
        if self.data == "auto":
            arguments["data"] = core.data.name
        slates: Act = PopularSlates(core.data, core.slate_size)
        if self.policy == "random":
            slates = RandomSlates(core.data.catalog.n_items, core.slate_size, np.random.default_rng([self.seed, 2]))
        single = isinstance(made.single_action_space, spaces.Discrete)

        def act(observations: dict[str, Any]) -> Any:
            chosen = slates(observations)
            return chosen[:, 0] if single else chosen

        recorder = Recorder(made)
        return Player(self.policy, f"{self.policy} items", recorder, recorder, act, core, env_id, arguments)

    def _trained(self) -> Player:
        if self.arguments:
            raise ValueError(f"--arguments {' '.join(self.arguments)}: a checkpoint brings its own; leave them out")
        played_in, agent, note = trained_agent(Path(self.policy), self.data, self.data_dir)
        sessions, data = sessions_of(played_in, self._batch, self.users), data_of(played_in)
        recorder = Recorder(sessions)
        planner, pool = planner_of_agent(Path(self.policy), note, self.llm), pool_of_agent(Path(self.policy), note)
        rng = np.random.default_rng(self.seed)
        above = planned(recorder, data, planner, planner.open(self.seed), rng, pool)
        env = act_on(above, slate_policy(agent).encoder)
        arguments = {**played_in.kwargs, "data": data.name}
        if "manifest" in played_in.local:
            arguments = {**played_in.kwargs, "manifest": played_in.local["manifest"]}
        name, algorithm = str(note["method"]), f"{note['method']} after {note['transitions']:,} transitions"
        act = sampled_actions(agent, self.seed)
        return Player(name, algorithm, recorder, env, act, sessions.core, played_in.id, arguments)

    def _environment(self) -> tuple[str, dict[str, Any]]:
        """Id of the environment, and the arguments that say what it stands on."""
        env_id = log_env(self.env, self.data) or self.env
        spec_of(env_id)
        if env_id == CUSTOM_LOG and not is_manifest(self.data):
            raise ValueError(
                f"--data {self.data}: {CUSTOM_LOG} stands on a log of your own; give its manifest, shop.toml"
            )
        data = absolute(self.data) if is_manifest(self.data) else self.data
        return env_id, {"manifest" if env_id == CUSTOM_LOG else "data": data}

    def _dataset(self, player: Player) -> str:
        place = player.env_id.rpartition("/")[2].rpartition("-v")[0].lower()
        if player.env_id == CUSTOM_LOG:
            return f"rapport/{player.core.data.name.lower()}/{player.name}-v0"
        if player.core.data.name.startswith("twin"):
            place += "-twin"
        return f"rapport/{place}/{player.name}-v0"


def _spec(env: str, arguments: dict[str, Any], longest: int | None = None) -> EnvSpec:
    """A spec that makes the environment again on any machine; only a log of one's own is named by its path.

    Args:
        env: id of the environment.
        arguments: of ``gym.make``.
        longest: most steps of a session, where observations are to be flat.
    """
    spec = gym.spec(env)
    made = EnvSpec(id=spec.id, entry_point=spec.entry_point, kwargs={**spec.kwargs, **arguments})
    if longest is not None:
        # d3rlpy needs a limit in the spec; one beyond the environment's own leaves how sessions end to that.
        made.additional_wrappers, made.max_episode_steps = (FLAT,), longest + 1
    return made


def _parsed(arguments: tuple[str, ...]) -> dict[str, Any]:
    """The ``NAME=VALUE`` arguments by name. A value is JSON if it parses as such, else text."""
    parsed: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--arguments {argument}: write NAME=VALUE, e.g. quit_rule=set_overlap")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
