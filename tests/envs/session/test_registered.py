"""What every registered id owes its users: checkers that find nothing, every argument, copies that go on as they were.

Runs over Gymnasium's registry, so that an id registered later is held to the same.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import rapport  # noqa: F401 - registers the environments
from rapport.envs.session import kuairand, kuairec
from rapport.envs.session.engine.quit_rules import QUIT_RULES, Never
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import KuaiRandArguments
from rapport.envs.session.kuairand_satiation import SatiationArguments
from rapport.envs.session.kuairec import KuaiRecArguments
from rapport.envs.session.satiation.parameters import shipped

pytestmark = pytest.mark.filterwarnings("error")

IDS = sorted(
    name for name, spec in gym.registry.items() if spec.namespace == "rapport" and "manifest" not in spec.kwargs
)
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
Arguments = dict[str, Any]


def mean_of_likes(users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> np.ndarray:
    return feedback[:, :, 0].mean(axis=1, dtype=np.float64) * 2


EVERYWHERE: list[Arguments] = [
    {},
    {"users": "held_out"},
    {"users": "all"},
    *({"quit_rule": name} for name in QUIT_RULES),
    {"quit_rule": Never(), "max_steps": 2},  # Gymnasium's checker wants at least two
    {"quit_rule": "windowed_count", "window": 5, "threshold": 2},
    {"quit_rule": "windowed_count", "window": 9, "early_window": "easyrl4rec", "slate_size": None},
    {"quit_rule": "satisfaction", "weights": "ratio"},
    {"budget": 1},
    {"budget": 3.5},
    {"slate_size": None},
    {"slate_size": 1},
    {"slate_size": 60, "history": 3},
    {"history": 1},
    {"repeats": False},
    {"start_at_log_rows": True},
    {"start_at_log_rows": "any_day"},
    {"render_mode": None},
    {"render_mode": "ansi"},
    {"render_mode": "rgb_array"},
]
"""Arguments that every id takes."""
OWN: dict[str, list[Arguments]] = {
    "rapport/KuaiRand": [
        {"profile": "corrected", "faults": "none"},
        {"quit_rule": "satisfaction", "weights": (1.0, 0.5, 2.0, 0.0, 0.0, 3.0, -1.0)},
        {"root": "/nowhere"},
        {"device": "cpu"},
        {"reward": mean_of_likes},
        {"labels": np.arange(60, dtype=np.int32)[:, None] % 9, "quit_rule": "windowed_count"},
        {"among": np.arange(30)},
    ],
    "rapport/KuaiRand-v0": [
        {"profile": "official"},
        {"profile": "official", "faults": "none"},
        {"profile": "official", "faults": ("lost_endings", "misaligned_categories")},
    ],
    "rapport/KuaiRandSatiation-v0": [
        {"quit_rule": "satiation", "tolerance": 0.1},
        {"strength": "high"},
        {"parameters": shipped("low")},
    ],
    "rapport/KuaiRec": [
        {"root": "/nowhere"},
        {"device": "cpu"},
        {"click_at": 0.5},
        {"response": "lookup"},
        {"reward": "click"},
        {"reward": "watch_ratio"},
    ],
}
"""Arguments of ids that begin so."""
ARGUMENTS: dict[str, type] = {
    "rapport/KuaiRandSatiation": SatiationArguments,
    "rapport/KuaiRand": KuaiRandArguments,
    "rapport/KuaiRec": KuaiRecArguments,
}
"""The arguments of ids that begin so; the first that fits."""
CASES = [
    pytest.param(env_id, arguments, id=f"{env_id}-{arguments}" if len(str(arguments)) < 90 else f"{env_id}-array")
    for env_id in IDS
    for arguments in EVERYWHERE + [case for start, cases in OWN.items() if env_id.startswith(start) for case in cases]
]


def same(a: Any, b: Any) -> None:
    """Assert that two observations, infos or results are equal, down to dtypes."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        same(tuple(a), tuple(b))
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def life(env: Any, seed: int, steps: int = 20) -> list[Any]:
    """All that one environment says over some sessions; it must have been reset."""
    env.action_space.seed(seed)
    said: list[Any] = []
    for _ in range(steps):
        said.append(env.step(env.action_space.sample()))
        if isinstance(env.unwrapped, SessionEnv) and (said[-1][2] or said[-1][3]):
            said.append(env.reset())
    return said


# --- checkers and arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "arguments"), CASES)
def test_every_argument_of_make(env_id: str, arguments: Arguments, small_arguments: Callable[[str], Arguments]) -> None:
    """The checkers find nothing, and nor does the passive one that ``gym.make`` wraps around."""
    env = gym.make(env_id, **{**small_arguments(env_id), **arguments})
    check_env(env.unwrapped, skip_render_check="render_mode" not in arguments)
    sb3_check_env(env.unwrapped, warn="render_mode" not in arguments)  # it cannot know that ansi is a mode
    env.reset(seed=0)
    life(env, 0)
    if arguments.get("render_mode"):
        picture = env.render()
        assert isinstance(picture, str if arguments["render_mode"] == "ansi" else np.ndarray)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(("env_id", "arguments"), CASES)
def test_every_argument_of_make_vec(
    env_id: str, arguments: Arguments, mode: AutoresetMode, small_arguments: Callable[[str], Arguments]
) -> None:
    env = gym.make_vec(env_id, num_envs=3, autoreset_mode=mode, **{**small_arguments(env_id), **arguments})
    assert env.metadata["autoreset_mode"] == mode and env.num_envs == 3 and env.spec.id == env_id
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(12):
        assert observation in env.observation_space
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, bool, bool)
    assert all({k: v[i] for k, v in observation.items()} in env.single_observation_space for i in range(3))
    if arguments.get("render_mode"):
        assert len(env.render()) == 3


@pytest.mark.parametrize("env_id", IDS)
def test_no_argument_is_left_out(env_id: str, small_arguments: Callable[[str], Arguments]) -> None:
    """Whatever the signatures behind an id name is made with above, for this id."""
    named = next(kind for start, kind in ARGUMENTS.items() if env_id.startswith(start)).__annotations__.keys()
    tried = {name for param in CASES if param.values[0] == env_id for name in param.values[1]}  # type: ignore[union-attr]
    tried |= small_arguments(env_id).keys() | gym.spec(env_id).kwargs.keys()
    assert named <= tried


@pytest.mark.parametrize("env_id", IDS)
def test_data_by_name(
    env_id: str, small_arguments: Callable[[str], Arguments], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The made-up data that ships with the package, here small ones in their place."""
    arguments = small_arguments(env_id)
    monkeypatch.setattr(kuairand, "twin", lambda: arguments["data"])
    monkeypatch.setattr(kuairec, "synthetic_kuairec", lambda: arguments["data"])
    named = kuairec if env_id.startswith("rapport/KuaiRec") else kuairand
    named._named_data.cache_clear()
    for data in ("auto", "synthetic" if named is kuairec else "twin"):
        made = gym.make(env_id, **{**arguments, "data": data, "root": str(tmp_path)})
        reference = gym.make(env_id, **arguments)
        same(made.reset(seed=3), reference.reset(seed=3))
        same(tuple(life(made, 3)), tuple(life(reference, 3)))
    named._named_data.cache_clear()


# --- copies -----------------------------------------------------------------------------------------------------------


def makers(env_id: str, arguments: Arguments) -> list[Any]:
    """One environment of each face, and those that remember most."""
    single = {**arguments, "repeats": False, "quit_rule": "windowed_count", "threshold": 3, "render_mode": "ansi"}
    return [
        gym.make(env_id, **arguments),
        gym.make(env_id, **single),
        *(gym.make_vec(env_id, num_envs=3, autoreset_mode=mode, **arguments) for mode in MODES),
        gym.make_vec(env_id, num_envs=3, **single),
    ]


def pickled(env: Any) -> Any:
    return pickle.loads(pickle.dumps(env))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("env_id", IDS)
def test_a_copy_in_the_middle_of_a_session_goes_on_identically(
    env_id: str, copied: Callable[[Any], Any], small_arguments: Callable[[str], Arguments]
) -> None:
    for env in makers(env_id, small_arguments(env_id)):
        env.reset(seed=1)
        life(env, 1, steps=3)
        twin = copied(env)
        assert twin.render() == env.render()
        same(tuple(life(env, 2)), tuple(life(twin, 2)))
        same(env.reset(), twin.reset())
        assert twin.render() == env.render()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("env_id", IDS)
def test_a_copy_and_its_original_do_not_touch_each_other(
    env_id: str, copied: Callable[[Any], Any], small_arguments: Callable[[str], Arguments]
) -> None:
    """Other actions in the copy change nothing in the original, and the copy's own way can be gone again."""
    for env, undisturbed in zip(*(makers(env_id, small_arguments(env_id)) for _ in range(2)), strict=True):
        for made in (env, undisturbed):
            made.reset(seed=1)
            life(made, 1, steps=3)
        twin, again = copied(env), copied(env)
        elsewhere = life(twin, 9)
        here = life(env, 2)
        same(tuple(here), tuple(life(undisturbed, 2)))
        seen = [[said[0]["history_items"].tolist() for said in lived] for lived in (here, elsewhere)]
        assert seen[0] != seen[1]
        same(tuple(elsewhere), tuple(life(again, 9)))


@pytest.mark.parametrize("env_id", IDS)
def test_deep_copies_share_what_no_session_changes(env_id: str, small_arguments: Callable[[str], Arguments]) -> None:
    for env in makers(env_id, small_arguments(env_id)):
        env.reset(seed=0)
        core, twin = env.unwrapped.core, copy.deepcopy(env.unwrapped).core
        for name in ("data", "response", "quit_rule", "histories", "log_rows", "_category"):
            assert getattr(twin, name) is getattr(core, name), name
        for name in ("budget", "steps", "user", "memory", "state", "stream", "_items", "_feedback"):
            assert not np.shares_memory(getattr(twin, name), getattr(core, name)), name


@pytest.mark.parametrize("env_id", IDS)
def test_a_spec_makes_the_same_environment_again(env_id: str, small_arguments: Callable[[str], Arguments]) -> None:
    env = gym.make(env_id, **small_arguments(env_id))
    again = gym.make(env.spec)
    same(env.reset(seed=4), again.reset(seed=4))
    same(tuple(life(env, 4)), tuple(life(again, 4)))
    batch = gym.make_vec(env_id, num_envs=2, **small_arguments(env_id))
    assert isinstance(batch.unwrapped, SessionVectorEnv)
