"""The session environments of LERL's tables: an :class:`EnvConfig` by name, and the data behind one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from rapport.datasets.custom.manifest import is_manifest, manifest_data, read_manifest
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.registration import CUSTOM_LOG
from rapport.envs.session.arguments import Users
from rapport.envs.session.custom_log import default_arguments
from rapport.envs.session.engine.reward import parsed_reward, reward_of, weights_name
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import find_data
from rapport.envs.session.kuairec import find_kuairec
from rapport.envs.session.response.fit import Profile
from rapport.experiments.core import EnvConfig
from rapport.experiments.simulator.trust import Trust, simulator_trust

EnvironmentName = Literal["kuairand", "satiation", "kuairec", "log"]
IDS: dict[EnvironmentName, str] = {
    "kuairand": "rapport/KuaiRand-v0",
    "satiation": "rapport/KuaiRandSatiation-v0",
    "kuairec": "rapport/KuaiRec-v0",
    "log": CUSTOM_LOG,
}
"""``kuairand``; ``satiation``, whose users tire as measured; ``kuairec``, whose users' answers are known; ``log``, over
a log of the user's own."""
TITLES = {
    "kuairand": "KuaiRand, the paper's quit rule",
    "kuairand-official": "KuaiRand, official profile: the released code's environment",
    "satiation": "KuaiRandSatiation: users tire as measured",
    "kuairec": "KuaiRec, the paper's quit rule",
}


_KUAIREC = "rapport/KuaiRec"
"""Beginning of the ids that stand on KuaiRec."""


def session_env(
    environment: EnvironmentName | str = "kuairand",
    data: str | Path | SessionData | None = None,
    data_dir: Path | str | None = None,
    *,
    quit_rule: str | None = None,
    budget: float | None = None,
    slate_size: int | None = None,
    profile: Profile | None = None,
) -> EnvConfig:
    """An environment of LERL's tables, which any process can make from it.

    Args:
        environment: a name in :data:`IDS`, or any registered id of an environment of sessions.
        data: ``kuairand-pure``, ``twin`` or ``auto``, the first where it is there, which is the default, the path of a
            manifest of a log of one's own, or a data set; of ``kuairec``: ``kuairec``, ``synthetic`` or ``auto``. With
            a manifest ``kuairand`` is ``log``.
        data_dir: data directory; by default RAPPORT_DATA_DIR, then the user's cache folder.
        quit_rule: when users leave; this and the following by default as the manifest or the id says, else
            ``positional``, of ``satiation`` the rule of that name.
        budget: at a session's start; else 20.
        slate_size: items in a slate; else 6.
        profile: ``corrected``, or ``official``, that of LERL's released code with all its faults; ``kuairec`` has none.

    Raises:
        DataError: the data is missing or damaged, or a manifest has an error.
        ValueError: there is no such id, or the environment serves single items.
    """
    named = next((known for name, known in IDS.items() if name == environment), environment)
    env_id = log_env(environment, data) or named
    given = {"quit_rule": quit_rule, "budget": budget, "slate_size": slate_size, "profile": profile}
    local: dict[str, Any] = {"data": _absolute(data), "root": None if data_dir is None else str(data_dir)}
    own = {name: value for name, value in spec_of(env_id).kwargs.items() if name != "manifest"}
    if env_id == CUSTOM_LOG:
        if not is_manifest(data):
            raise DataError(
                f"--data {data}: {CUSTOM_LOG} stands on a log of your own; give its manifest, e.g. shop.toml"
            )
        local = {"manifest": str(local["data"])}
        own = default_arguments(read_manifest(local["manifest"]))
    rule = "satiation" if env_id == IDS["satiation"] else "positional"
    kwargs: dict[str, Any] = {"quit_rule": rule, "budget": 20.0, "slate_size": 6, "profile": "corrected", **own}
    kwargs |= {name: value for name, value in given.items() if value is not None}
    if env_id.startswith(_KUAIREC):
        del kwargs["profile"]
    if kwargs["slate_size"] is None:
        raise ValueError(f"--env {env_id}: it serves single items, and LERL slates; choose another id")
    kwargs["budget"] = float(kwargs["budget"])
    found = data_of(EnvConfig(env_id, kwargs, local))
    title = _title(environment, env_id, found.name, kwargs)
    return EnvConfig(env_id, kwargs, local, {"dataset": found.name, "fingerprint": found.fingerprint}, title)


def spec_of(env_id: str) -> EnvSpec:
    """A registered id's spec.

    Raises:
        ValueError: there is no such id.
    """
    try:
        return gym.spec(env_id)
    except gym.error.Error as error:
        raise ValueError(
            f"--env {env_id}: {error} Name the module that registers it, as in package.module:{env_id}, or the "
            "manifest of a log of your own: --data shop.toml"
        ) from error


def log_env(env_id: str, data: object) -> str | None:
    """Id that stands for an id and the data named beside it, where the data is a log of one's own; else None."""
    if not isinstance(data, str | Path) or not is_manifest(data):
        return None
    own = ("kuairand", "log", IDS["kuairand"], CUSTOM_LOG, f"rapport/{read_manifest(data).name}-v0")
    return CUSTOM_LOG if env_id in own else None


def _absolute(data: str | Path | SessionData | None) -> str | SessionData:
    """Data by name, or by a path that holds in any folder."""
    if isinstance(data, SessionData):
        return data
    return absolute(data) if data is not None and is_manifest(data) else str(data or "auto")


def absolute(path: str | Path) -> str:
    """A path that holds in whatever folder a process works."""
    return str(Path(path).expanduser().resolve())


def _title(environment: str, env_id: str, data: str, kwargs: dict[str, Any]) -> str:
    if environment in TITLES and env_id != CUSTOM_LOG:
        official = (environment, kwargs.get("profile")) == ("kuairand", "official")
        return TITLES["kuairand-official" if official else environment]
    return f"{data if env_id == CUSTOM_LOG else env_id}, quit rule {kwargs['quit_rule']}"


def data_of(env: EnvConfig) -> SessionData:
    """The data set that an environment of sessions stands on.

    Raises:
        DataError: the data is missing or damaged.
    """
    if "manifest" in env.local:
        return manifest_data(env.local["manifest"])
    if "data" not in env.local:  # an environment that says itself what it stands on
        return sessions_of(env, 1, "held_out").core.data
    data, root = env.local["data"], env.local.get("root")
    if env.id.startswith(_KUAIREC):
        return find_kuairec(data, root).data
    return find_data(data, root)


def trust(env: EnvConfig) -> Trust | None:
    """How far the environment's simulator can be trusted; None where no simulator of ours stands behind its responses.

    That is KuaiRec, whose responses are known, a response model of one's own, and the official profile, whose model
    has learned from every day.
    """
    responses = env.kwargs.get("response") or env.local.get("response")
    fitted = responses == "learned" if env.id.startswith(_KUAIREC) else responses is None
    if not fitted or not env.id.startswith("rapport/") or env.kwargs.get("profile") == "official":
        return None
    return simulator_trust(data_of(env))


def banner(*envs: EnvConfig) -> str:
    """What a page over these environments says before its results; empty where their simulators beat counting."""
    said = {} if not envs else {found.banner(): None for env in envs if (found := trust(env)) is not None}
    return " ".join(line for line in said if line)


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
        DataError: the data is missing or damaged; a log of one's own has to be named.
    """
    if note["environment"] == "log" and not is_manifest(data):
        raise DataError(
            f"the agent learned on a log of your own, {note['dataset']!r}; name its manifest: --data shop.toml"
        )
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
