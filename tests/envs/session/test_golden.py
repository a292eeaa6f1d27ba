"""Dynamics never change under an id: what happens with small data is compared with what happened when it was new.

``golden.json`` holds one trace for every registered id. An id without one fails; record it, once, with

    RAPPORT_RECORD_TRACES=1 python -m pytest tests/envs/session/test_golden.py

which adds what is missing and never replaces what is there. If a trace that was published no longer fits, the dynamics
have changed: take the change back, or register the new dynamics under the next version and keep the old.

The small data (``conftest.py``) are whole numbers and the responses are a table, so a trace is the same on every
machine. Numbers are told to six decimals.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rapport  # noqa: F401 - registers the environments

FILE = Path(__file__).with_name("golden.json")
# Custom logs have no trace.
IDS = sorted(
    name for name, spec in gym.registry.items() if spec.namespace == "rapport" and "manifest" not in spec.kwargs
)
N_ENVS, SEED, STEPS = 3, 7, 50
Words = dict[str, Any]


def six_decimals(value: Any) -> Any:
    """Lists and texts only, so that every machine writes the same."""
    if isinstance(value, dict):
        return {name: six_decimals(value[name]) for name in sorted(value)}
    array = np.asarray(value)
    return np.char.mod("%.6f", array).tolist() if array.dtype.kind == "f" else array.tolist()


def digest(words: Any) -> str:
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def actions(env: Any, n_items: int) -> np.ndarray:
    """Shape (STEPS, *action), of few items so that categories repeat."""
    shape = env.action_space.shape
    return (np.arange(STEPS * int(np.prod(shape))) * 7919 // 13 % n_items).reshape(STEPS, *shape)


def line(action: Any, reward: Any, terminated: Any, truncated: Any, info: Words) -> Words:
    """What one slate came to, for one user."""
    told = {name: info[name] for name in ("user", "budget", "cost", "categories", "feedback")}
    return six_decimals(
        {**told, "action": action, "reward": float(reward), "left": bool(terminated), "cut": bool(truncated)}
    )


def trace(env_id: str, arguments: Words) -> Words:
    """50 slates for each of three users at once, sessions beginning anew within the step."""
    env = gym.make_vec(env_id, num_envs=N_ENVS, autoreset_mode=AutoresetMode.SAME_STEP, **arguments)
    observations, info = env.reset(seed=SEED)
    spaces = {name: f"{space.shape} {space.dtype}" for name, space in env.single_observation_space.items()}
    lines: list[list[Words]] = [[] for _ in range(N_ENVS)]
    seen, endings = [six_decimals(observations)], []
    for action in actions(env, env.unwrapped.core.data.catalog.n_items):
        observations, reward, terminated, truncated, info = env.step(action)
        for i in range(N_ENVS):
            own = {name: info[name][i] for name in ("user", "budget", "cost", "categories", "feedback")}
            if terminated[i] or truncated[i]:
                own |= {name: info["final_info"][name][i] for name in ("user", "budget")}
                endings.append(six_decimals(info["final_obs"][i]))
            lines[i].append(line(action[i], reward[i], terminated[i], truncated[i], own))
        seen.append(six_decimals(observations))
    told = [entry for slot in lines for entry in slot]
    return {
        "spaces": {"action": f"{type(env.single_action_space).__name__} {env.single_action_space.shape}", **spaces},
        "users": " ".join(str(slot[0]["user"]) for slot in lines),
        "first rewards": " ".join(entry["reward"] for entry in lines[0][:8]),
        "sessions left": sum(entry["left"] for entry in told),
        "sessions cut off": sum(entry["cut"] for entry in told),
        "rewards in all": f"{sum(float(entry['reward']) for entry in told):.4f}",
        "slates": digest(lines),
        "observations": digest(seen),
        "last observations": digest(endings),
    }


def trace_one_by_one(env_id: str, arguments: Words) -> str:
    """Digest of the slates where each user has an environment of their own."""
    lines = []
    batch = gym.make_vec(env_id, num_envs=N_ENVS, **arguments)
    fed = actions(batch, batch.unwrapped.core.data.catalog.n_items)
    for i in range(N_ENVS):
        env = gym.make(env_id, **arguments)
        env.reset(seed=SEED + i)
        lines.append([])
        for action in fed[:, i]:
            _, reward, terminated, truncated, info = env.step(action)
            lines[i].append(line(action, reward, terminated, truncated, info))
            if terminated or truncated:
                env.reset()
    return digest(lines)


def recorded() -> dict[str, Words]:
    return json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}


@pytest.fixture(scope="module", autouse=True)
def _record(small_arguments: Callable[[str], Words]) -> None:
    if "RAPPORT_RECORD_TRACES" not in os.environ:
        return
    golden = recorded()
    golden |= {env_id: trace(env_id, small_arguments(env_id)) for env_id in IDS if env_id not in golden}
    FILE.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", "utf-8")


@pytest.mark.parametrize("env_id", IDS)
def test_what_happens_is_what_happened(env_id: str, small_arguments: Callable[[str], Words]) -> None:
    golden = recorded()
    assert env_id in golden, f"{env_id} has no golden trace: record one, as the head of {__file__} says"
    assert trace(env_id, small_arguments(env_id)) == golden[env_id]


@pytest.mark.parametrize("env_id", IDS)
def test_it_happens_one_by_one_as_well(env_id: str, small_arguments: Callable[[str], Words]) -> None:
    assert trace_one_by_one(env_id, small_arguments(env_id)) == recorded()[env_id]["slates"]


def test_traces_tell_the_ids_apart_and_show_endings() -> None:
    golden = recorded()
    assert sorted(golden) == IDS, "golden.json keeps a trace of every id, and of no other"
    assert len({entry["slates"] for entry in golden.values()}) == len(golden)
    assert all(entry["sessions left"] + entry["sessions cut off"] > 0 for entry in golden.values())
