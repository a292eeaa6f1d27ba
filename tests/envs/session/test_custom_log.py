"""A manifest of a log becomes an environment id."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

import rapport
from rapport.datasets.schema import DataError
from rapport.envs.session.response.base import MatrixResponse

MANIFEST = """
name = "corner-shop"
[interactions]
path = "log.csv"
time = "when"
[interactions.behaviours]
click = "clicked"
[items]
path = "items.csv"
[environment]
slate_size = 3
quit_rule = "set_overlap"
budget = 7
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 4_000
    log = pd.DataFrame({"user_id": rng.integers(0, 40, n), "item_id": rng.integers(0, 30, n)})
    log["when"], log["clicked"] = 1_700_000_000 + rng.integers(0, 20 * 86_400, n), rng.integers(0, 2, n)
    log.to_csv(tmp_path / "log.csv", index=False)
    items = pd.DataFrame({"item_id": np.arange(30), "category": [f"aisle {i % 5}" for i in range(30)]})
    items.to_csv(tmp_path / "items.csv", index=False)
    (tmp_path / "shop.toml").write_text(MANIFEST)
    return tmp_path / "shop.toml"


@pytest.fixture(autouse=True)
def _unregister() -> object:
    yield
    gym.registry.pop("rapport/corner-shop-v0", None)


def test_a_manifest_becomes_an_id_with_its_arguments(shop: Path) -> None:
    name = rapport.register_log(shop)
    assert name == "rapport/corner-shop-v0"
    response = MatrixResponse(np.ones((40, 30)))
    env = gym.make(name, response=response)
    assert env.action_space == gym.spaces.MultiDiscrete([30, 30, 30])
    _, info = env.reset(seed=1)
    assert info["budget"] == 7
    slate = np.zeros(3, np.int64)
    assert [env.step(slate)[4]["cost"] for _ in range(2)] == [1.0, 2.0]
    envs = gym.make_vec(name, num_envs=4, response=response, slate_size=None)
    assert envs.action_space.shape == (4,)


def test_registering_again_takes_the_new_manifest(shop: Path) -> None:
    rapport.register_log(shop)
    shop.write_text(MANIFEST.replace("budget = 7", "budget = 9"))
    assert gym.spec(rapport.register_log(shop)).kwargs["budget"] == 9


def test_an_unknown_argument_is_named(shop: Path) -> None:
    shop.write_text(MANIFEST.replace("budget", "bugdet"))
    with pytest.raises(DataError, match=r"\[environment\]: 'bugdet' is no argument .* budget, "):
        rapport.register_log(shop)


def test_the_name_of_a_built_in_environment_is_refused(shop: Path) -> None:
    shop.write_text(MANIFEST.replace("corner-shop", "KuaiRand"))
    with pytest.raises(DataError, match="is the name of a built-in environment"):
        rapport.register_log(shop)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slate_size = 3", "slate_size = 2.5", r"slate_size = 2\.5; give a whole number up to 100,000"),
        ("slate_size = 3", "slate_size = true", r"slate_size = True; give a whole number"),
        ("slate_size = 3", "history = 1000000000", r"history = 1000000000; give a whole number up to 100,000"),
        ("budget = 7", "budget = nan", r"budget = nan; give a number from 1 on"),
        ("budget = 7", 'budget = "7"', r"budget = '7'; give a number from 1 on"),
        ("budget = 7", "profile = 1", r"profile = 1; give text"),
    ],
)
def test_arguments_out_of_range_are_one_sentence(shop: Path, old: str, new: str, message: str) -> None:
    shop.write_text(MANIFEST.replace(old, new))
    with pytest.raises(DataError, match=rf"shop\.toml: \[environment\]: {message}"):
        rapport.register_log(shop)


def test_the_general_id_takes_the_manifest(shop: Path) -> None:
    response = MatrixResponse(np.ones((40, 30)))
    env = gym.make("rapport/Log-v0", manifest=str(shop), response=response, budget=9)
    assert env.action_space == gym.spaces.MultiDiscrete([30, 30, 30]) and env.reset(seed=1)[1]["budget"] == 9
    named = gym.make("rapport/KuaiRandKuaiSim-v0", data=str(shop), response=response)
    assert named.unwrapped.core.data is env.unwrapped.core.data  # read once
