"""What is not an action, an option or a seed: one sentence each, and the session goes on as if nothing was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

ACTIONS: list[tuple[Any, str]] = [
    (None, r"^action: shape \(\) where \(6,\) item indices are needed$"),
    (3, r"^action: shape \(\) where \(6,\) item indices are needed$"),
    ([1, 2, 3], r"^action: shape \(3,\) where \(6,\) "),
    (np.zeros((1, 6), int), r"^action: shape \(1, 6\) where \(6,\) "),
    ([[1], [2, 3]], r"^action: \[\[1\], \[2, 3\]\] is no array; give \(6,\) item indices$"),
    (np.zeros(6), r"^action: dtype float64; a slate holds item indices, whole numbers$"),
    (np.full(6, np.nan), r"^action: dtype float64; "),
    (np.zeros(6, bool), r"^action: dtype bool; "),
    (np.zeros(6, complex), r"^action: dtype complex128; "),
    (["a"] * 6, r"^action: dtype <U1; "),
    ([None] * 6, r"^action: dtype object; "),
    ([2**70] * 6, r"^action: dtype object; "),
    (np.zeros(6, "datetime64[s]"), r"^action: dtype datetime64\[s\]; "),
    ({"slate": [1] * 6}, r"^action: shape \(\) where "),
    ([0, 0, 0, 0, 0, -1], r"^action: item -1 is outside \[0, 60\); a slate holds item indices$"),
    ([0, 0, 0, 0, 0, 60], r"^action: item 60 is outside \[0, 60\); "),
    (np.full(6, 2**32, np.int64), r"^action: item 4294967296 is outside \[0, 60\); "),
    (np.full(6, -(2**63), np.int64), r"^action: item -9223372036854775808 is outside \[0, 60\); "),
    (np.full(6, 2**64 - 1, np.uint64), r"^action: item 18446744073709551615 is outside \[0, 60\); "),
]


@pytest.mark.parametrize("env_id", ["rapport/KuaiRand-v0", "rapport/KuaiRec-v0"])
@pytest.mark.parametrize(("action", "message"), ACTIONS)
def test_what_is_no_slate_is_refused(
    env_id: str, action: Any, message: str, small_arguments: Callable[[str], dict[str, Any]]
) -> None:
    env, other = (gym.make(env_id, disable_env_checker=True, **small_arguments(env_id)) for _ in range(2))
    env.reset(seed=0)
    other.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)
    np.testing.assert_equal(env.step(np.zeros(6, np.uint8)), other.step([0] * 6))  # any integers


@pytest.mark.parametrize("env_id", ["rapport/KuaiRand-v0", "rapport/KuaiRec-v0"])
@pytest.mark.parametrize("n", [2, 30])  # more than 64 items take another path
def test_what_is_no_batch_of_slates_is_refused(
    env_id: str, n: int, small_arguments: Callable[[str], dict[str, Any]]
) -> None:
    env = gym.make_vec(env_id, num_envs=n, **small_arguments(env_id))
    env.reset(seed=0)
    right = np.zeros((n, 6), np.int64)
    for action, message in (
        (right[:, :5], rf"^action: shape \({n}, 5\) where \({n}, 6\) item indices are needed$"),
        (right[:1], rf"^action: shape \(1, 6\) where \({n}, 6\) "),
        (right * np.nan, r"^action: dtype float64; a slate holds item indices, whole numbers$"),
        (right.astype(np.uint64) + np.uint64(2**63), r"^action: item 9223372036854775808 is outside \[0, 60\); "),
        (right - 1, r"^action: item -1 is outside \[0, 60\); "),
        (right + 60, r"^action: item 60 is outside \[0, 60\); "),
        ([*right.tolist()[:-1], [0]], r"^action: .* is no array; give "),
    ):
        with pytest.raises(ValueError, match=message):
            env.step(action)
    env.step(right)


OPTIONS: list[tuple[Any, str]] = [
    ({"users": 3}, r"^options: 'users' is unknown; the only option is \"user\"$"),
    ({"user": 3, "reset_mask": np.ones(1, bool)}, r"^options: 'reset_mask' is unknown; "),
    ({3: 3}, r"^options: 3 is unknown; "),
    ("user", r"^options='user'; give a dict, {\"user\": index}, or None$"),
    ([("user", 3)], r"^options=\[\('user', 3\)\]; give a dict"),
    ({"user": "3"}, r"^options\['user'\]: '3'; give the index of a user, or 1 of them$"),
    ({"user": True}, r"^options\['user'\]: True; give the index of a user"),
    ({"user": float("nan")}, r"^options\['user'\]: nan; give the index of a user"),
    ({"user": [[1], [2, 3]]}, r"^options\['user'\]: \[\[1\], \[2, 3\]\]; give the index of a user"),
    ({"user": 2**70}, r"^options\['user'\]: 1180591620717411303424; give the index of a user"),
    ({"user": 40}, r"^options\['user'\]: 40 is outside \[0, 40\); give indices of users$"),
    ({"user": -1}, r"^options\['user'\]: -1 is outside \[0, 40\); "),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_what_is_no_option_is_refused(
    options: Any, message: str, small_arguments: Callable[[str], dict[str, Any]]
) -> None:
    arguments = small_arguments("rapport/KuaiRand")
    for env in (gym.make("rapport/KuaiRand-v0", **arguments), gym.make_vec("rapport/KuaiRand-v0", 1, **arguments)):
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)
        for nothing in (None, {}, {"user": None}):
            env.reset(options=nothing)


def test_a_user_whose_answers_are_not_known_is_refused(small_arguments: Callable[[str], dict[str, Any]]) -> None:
    """KuaiRec's small matrix has some of the users only."""
    arguments = small_arguments("rapport/KuaiRec")
    for reward in ("click", "watch_ratio"):
        env = gym.make("rapport/KuaiRec-v0", reward=reward, disable_env_checker=True, **arguments)
        envs = gym.make_vec("rapport/KuaiRec-v0", num_envs=2, reward=reward, **arguments)
        for user in (0, 2, 28, 39):
            message = rf"^options\['user'\]: the responses of user {user} are not known; choose one of 25 in env\.unwra"
            with pytest.raises(ValueError, match=message):
                env.reset(options={"user": user})
            with pytest.raises(ValueError, match=message):
                envs.reset(options={"user": [3, user]})
        for user in (3, 27):
            env.reset(options={"user": user})
            assert env.step(np.zeros(6, int))[4]["user"] == user


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([1], r"^seed: 1 seeds for 2 environments; give one each$"),
        ((1, 2, 3), r"^seed: 3 seeds for 2 environments; "),
        ("1", r"^seed='1'; give an int, a list of 2, or None$"),
        (1.5, r"^seed=1\.5; give an int"),
        (np.arange(2), r"^seed=array\(\[0, 1\]\); give an int"),
    ],
)
def test_what_is_no_seed_is_refused(seed: Any, message: str, small_arguments: Callable[[str], dict[str, Any]]) -> None:
    env = gym.make_vec("rapport/KuaiRand-v0", num_envs=2, **small_arguments("rapport/KuaiRand"))
    with pytest.raises(ValueError, match=message):
        env.reset(seed=seed)
    for bad in (-1, [0, -1], [0, 1.5]):
        with pytest.raises(gym.error.Error, match=r"^Seed must be "):
            env.reset(seed=bad)  # type: ignore[arg-type]
    first, second = env.reset(seed=[5, 6])[1], env.reset(seed=(5, 6))[1]  # type: ignore[arg-type]
    np.testing.assert_equal(first, second)
