"""The session environments of LERL's tables: an :class:`EnvConfig` by name, and the data behind one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rapport.datasets.schema import SessionData
from rapport.envs.session.arguments import Users
from rapport.envs.session.engine.reward import parsed_reward, reward_of, weights_name
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import find_data
from rapport.envs.session.kuairec import find_kuairec
from rapport.envs.session.response.fit import Profile
from rapport.experiments.core import EnvConfig

EnvironmentName = Literal["kuairand", "satiation", "kuairec"]
IDS: dict[EnvironmentName, str] = {
    "kuairand": "rapport/KuaiRand-v0",
    "satiation": "rapport/KuaiRandSatiation-v0",
    "kuairec": "rapport/KuaiRec-v0",
}
"""``kuairand``; ``satiation``, whose users tire as measured; ``kuairec``, whose users' answers are known."""
TITLES = {
    "kuairand": "KuaiRand, the paper's quit rule",
    "kuairand-official": "KuaiRand, official profile: the released code's environment",
    "satiation": "KuaiRandSatiation: users tire as measured",
    "kuairec": "KuaiRec, the paper's quit rule",
}


def session_env(
    environment: EnvironmentName = "kuairand",
    data: str | SessionData | None = None,
    data_dir: Path | str | None = None,
    *,
    quit_rule: str | None = None,
    budget: float = 20.0,
    slate_size: int = 6,
    profile: Profile = "corrected",
) -> EnvConfig:
    """An environment of LERL's tables.

    Args:
        environment: a name in :data:`IDS`.
        data: ``kuairand-pure``, ``twin`` or ``auto``, the first where it is there, which is the default, or a data set;
            of ``kuairec``: ``kuairec``, ``synthetic`` or ``auto``.
        data_dir: data directory; by default RAPPORT_DATA_DIR, then the user's cache folder.
        quit_rule: when users leave; by default ``positional``, of ``satiation`` the rule of that name.
        budget: at a session's start.
        slate_size: items in a slate.
        profile: ``corrected``, or ``official``, that of LERL's released code with all its faults; ``kuairec`` has none.

    Raises:
        DataError: the data is missing or damaged.
    """
    rule = quit_rule or ("satiation" if environment == "satiation" else "positional")
    kwargs: dict[str, Any] = {"quit_rule": rule, "budget": float(budget), "slate_size": slate_size}
    if environment != "kuairec":
        kwargs["profile"] = profile
    local = {"data": data or "auto", "root": None if data_dir is None else str(data_dir)}
    title = TITLES["kuairand-official" if (environment, profile) == ("kuairand", "official") else environment]
    env = EnvConfig(IDS[environment], kwargs, local, title=title)
    found = data_of(env)
    return EnvConfig(env.id, kwargs, local, {"dataset": found.name, "fingerprint": found.fingerprint}, title)


def data_of(env: EnvConfig) -> SessionData:
    """The data set that an environment of sessions stands on.

    Raises:
        DataError: the data is missing or damaged.
    """
    if env.id not in IDS.values() or "data" not in env.local:
        return sessions_of(env, 1, "held_out").core.data
    data, root = env.local["data"], env.local.get("root")
    if env.id == IDS["kuairec"]:
        return find_kuairec(data, root).data
    return find_data(data, root)


def sessions_of(env: EnvConfig, num_envs: int, users: Users) -> SessionVectorEnv:
    """Sessions of users of one side of the split, side by side."""
    sessions = env.make_vec(num_envs, users=users)
    assert isinstance(sessions, SessionVectorEnv)
    return sessions


def checkpoint_note(env: EnvConfig) -> dict[str, Any]:
    """What an agent trained here must find again to be of use, as it stands in a checkpoint."""
    name = next((name for name, known in IDS.items() if known == env.id), env.id)
    profile = env.kwargs.get("profile", "corrected")
    return {**env.data, **env.kwargs, "profile": profile, "environment": name}


def env_of_note(note: dict[str, Any], data: str | None, data_dir: Path | None) -> EnvConfig:
    """Where the agent of a checkpoint was trained, over data that is named anew.

    Raises:
        DataError: the data is missing or damaged.
    """
    env = session_env(
        note["environment"],
        data,
        data_dir,
        quit_rule=note["quit_rule"],
        budget=note["budget"],
        slate_size=note["slate_size"],
        profile=note["profile"],
    )
    return with_reward(env, note.get("reward"))


def with_reward(env: EnvConfig, reward: str | Mapping[str, float] | None) -> EnvConfig:
    """The environment with another reward; the same where it is None.

    Args:
        env: an environment of sessions.
        reward: a behaviour's name, weights as of :func:`~rapport.envs.session.engine.reward.parsed_reward`, or weights
            by name.

    Raises:
        ValueError: there is no such behaviour, or a weight is not a finite number.
    """
    if reward is None:
        return env
    choice = parsed_reward(reward) if isinstance(reward, str) else dict(reward)
    if not env.id.startswith("rapport/KuaiRec"):  # which knows watch ratios, too
        reward_of(choice, data_of(env).log.behaviours)
    changed = env.changed(reward=choice)
    return replace(changed, title=f"{env.title}, reward {reward_label(changed)}")


def reward_label(env: EnvConfig) -> str:
    """What captions call the reward of a slate."""
    choice = env.kwargs.get("reward")
    if isinstance(choice, Mapping):
        return weights_name(np.array(list(choice.values()), np.float64), tuple(choice))
    return "click" if choice is None else str(choice)


def worth_of_a_slate(env: EnvConfig) -> str:
    """The reward of a slate in words, as in "the reward of a slate is ..."."""
    if env.kwargs.get("reward") in (None, "click"):
        return "the share of its items that were clicked"
    return f"the mean of {reward_label(env)} over its items"
