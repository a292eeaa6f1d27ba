"""Rewards by name, as weights and as functions, against means that are taken one by one; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse

K = 3


def first_items(users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> np.ndarray:
    """An own reward: numbers that are not float64."""
    return slates[:, 0]


class Named:
    """An own reward with a name, and a list in place of an array."""

    name = "clicks of even users"

    def __call__(self, users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> Any:
        return [int(f[:, 0].sum()) if u % 2 == 0 else 0 for u, f in zip(users, feedback, strict=True)]


CHOICES: list[tuple[Any, str, Callable[[int, list[int], list[list[int]]], float]]] = [
    (None, "click", lambda user, items, did: sum(d[0] for d in did) / K),
    ("click", "click", lambda user, items, did: sum(d[0] for d in did) / K),
    ("long_view", "long_view", lambda user, items, did: sum(d[1] for d in did) / K),
    ("hate", "hate", lambda user, items, did: sum(d[6] for d in did) / K),
    (
        {"hate": -1, "click": 1, "like": 0.5},
        "click + 0.5 like - hate",
        lambda user, items, did: sum(d[0] + 0.5 * d[2] - d[6] for d in did) / K,
    ),
    (
        [0, -0.1, 0, 0, 0, 2, 0],
        "-0.1 long_view + 2 follow",
        lambda user, items, did: sum(2 * d[5] - 0.1 * d[1] for d in did) / K,
    ),
    (np.zeros(7, int), "0", lambda user, items, did: 0.0),
    (first_items, "first_items", lambda user, items, did: items[0]),
    (Named(), "clicks of even users", lambda user, items, did: sum(d[0] for d in did) * (user % 2 == 0)),
]


@pytest.mark.parametrize(("reward", "name", "worth"), CHOICES)
@pytest.mark.parametrize("env_id", ["rapport/KuaiRand-v0", "rapport/KuaiRandSatiation-v0", "rapport/KuaiRandLERL-v0"])
def test_rewards_are_what_they_say(
    env_id: str, reward: Any, name: str, worth: Callable[..., float], small_arguments: Callable[[str], dict[str, Any]]
) -> None:
    arguments = {**small_arguments(env_id), "reward": reward, "slate_size": K}
    one, many = gym.make(env_id, **arguments), gym.make_vec(env_id, num_envs=4, **arguments)
    assert one.unwrapped.reward_name == many.unwrapped.reward_name == name  # type: ignore[attr-defined]
    one.reset(seed=0)
    many.reset(seed=0)
    for slates in np.random.default_rng(0).integers(60, size=(8, 4, K)):
        rewards, info = many.step(slates)[1::3]
        told = zip(info["user"], slates.tolist(), info["feedback"].tolist(), strict=True)
        assert rewards.dtype == np.float64
        assert rewards.tolist() == pytest.approx([worth(*seen) for seen in told])
        assert one.step(slates[0])[1] == rewards[0]  # to the last bit


def test_a_reward_is_named_on_kuairec_too(small_arguments: Callable[[str], dict[str, Any]]) -> None:
    arguments = small_arguments("rapport/KuaiRec")
    for reward, name in (("watch_ratio", "watch_ratio"), ("click", "click"), ({"click": 2}, "2 click")):
        env = gym.make("rapport/KuaiRecItem-v0", reward=reward, **arguments)
        assert env.unwrapped.reward_name == name  # type: ignore[attr-defined]
    assert gym.make("rapport/KuaiRecItem-v0", **arguments).unwrapped.reward_name == "watch_ratio"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"^reward='stars' is unknown; choose one of click, watch_ratio, or give w"):
        gym.make("rapport/KuaiRec-v0", reward="stars", **arguments)


def writes(users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> np.ndarray:
    feedback[...] = 1
    return feedback.mean(axis=(1, 2))


KNOWN = "click, long_view, like, comment, forward, follow, hate"
REFUSED: list[tuple[Any, str]] = [
    ("stars", rf"^reward='stars' is unknown; choose one of {KNOWN}, or give weights or a function$"),
    ("", r"^reward='' is unknown; choose one of "),
    ({"click": 1, "stars": 2}, rf"^reward: 'stars' is no behaviour of this log; weigh some of {KNOWN}$"),
    ({}, r"^reward={}: nothing is weighted; weigh some of "),
    ({"click": float("nan")}, r"^reward: the weight of click is nan; weights must be finite$"),
    (
        {"click": "much"},
        r"^reward=\['much', 0.0, .*; give a behaviour's name, weights by name, a function or 7 numbers",
    ),
    ([1, 2], rf"^reward=\[1, 2\]; give a behaviour's name, weights by name, a function or 7 numbers, for {KNOWN}$"),
    ([1, 2, 3, 4, 5, 6, float("inf")], r"^reward: the weight of hate is inf; weights must be finite$"),
    ([[1], [2, 3]], r"^reward=\[\[1\], \[2, 3\]\]; give "),
    (np.ones((7, 7)), r"^reward=array.*; give "),
    (5, r"^reward=5; give "),
    (True, r"^reward=True; give "),
    (
        lambda users: users,
        r"^reward=<lambda>: it was called with users \(1,\), items \(1, 6\) and feedback \(1, 6, 7",
    ),
    (
        lambda users, slates, feedback: 1.0,
        r"^reward=<lambda>: returned shape \(\), float64, for 1 user\(s\); retur",
    ),
    (lambda users, slates, feedback: feedback[:, :, 0], r"^reward=<lambda>: returned shape \(1, 6\), int8, for 1 user"),
    (lambda users, slates, feedback: feedback[0, 0, :1], r"^reward=<lambda>: returned shape \(1,\), int8, for 2 user"),
    (lambda users, slates, feedback: None, r"^reward=<lambda>: returned shape \(\), object, for 1 user"),
    (lambda users, slates, feedback: ["a"] * len(users), r"^reward=<lambda>: returned shape \(1,\), <U1, for 1 user"),
    (
        lambda users, slates, feedback: np.log(feedback[:, :, 0].mean(axis=1)),
        r"^reward=<lambda>: returned -inf for user \d+ and items \[0, 1, 2, 3, 4, 5\]; rewards must be finite$",
    ),
    (writes, r"^reward=writes: it was called with .*, and raised ValueError: assignment destination is read-only$"),
    (Named, r"^reward=clicks of even users: it was called with .*, and raised TypeError: "),
]


@pytest.mark.parametrize(("reward", "message"), REFUSED)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_no_reward_is_refused_when_the_environment_is_made(
    reward: Any, message: str, small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    for maker in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            maker("rapport/KuaiRand-v0", data=small_data, response=matrix_response, reward=reward)


def test_a_wrong_name_is_refused_before_anything_is_fitted(small_data: SessionData) -> None:
    for env_id in ("rapport/KuaiRand-v0", "rapport/KuaiRandSatiation-v0", "rapport/KuaiRandLERL-v0"):
        for argument in ("reward", "quit_rule", "users"):
            with pytest.raises(ValueError, match=rf"^{argument}='stars' is unknown; choose one of "):
                gym.make(env_id, data=small_data, **{argument: "stars"})


def test_a_reward_that_fails_later_is_named_then(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    late = {"now": False}
    env = gym.make_vec(
        "rapport/KuaiRand-v0",
        num_envs=3,
        data=small_data,
        response=matrix_response,
        reward=lambda users, slates, feedback: np.full(len(users), np.nan if late["now"] else 1.0),
    )
    env.reset(seed=0)
    env.step(np.zeros((3, 6), int))
    late["now"] = True
    with pytest.raises(ValueError, match=r"^reward=<lambda>: returned nan for user \d+ and items \[0, 0, 0, 0, 0, 0"):
        env.step(np.zeros((3, 6), int))
