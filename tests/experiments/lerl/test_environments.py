"""An environment of LERL's tables by name, by id, or over a log of one's own, made again wherever it is needed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.envs.registration import EnvSpec

import rapport
from rapport.datasets.schema import DataError
from rapport.experiments.lerl.environments import checkpoint_note, data_of, env_of_note, session_env

MANIFEST = """
name = "corner-shop"
licence = "MIT"
[interactions]
path = "log.csv"
[interactions.behaviours]
click = "click"
[items]
path = "items.csv"
category = { column = "category", separator = "|" }
[environment]
slate_size = 3
quit_rule = "set_overlap"
history = 7
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    rng, n = np.random.default_rng(0), 2_000
    log = pd.DataFrame({"user_id": rng.integers(0, 40, n), "item_id": rng.integers(0, 30, n)})
    log["time"], log["click"] = 1_700_000_000 + rng.integers(0, 20 * 86_400, n), rng.integers(0, 2, n)
    log.to_csv(tmp_path / "log.csv", index=False)
    genres = [f"aisle {i % 5}|aisle {(i + 1 + i % 2) % 5}" for i in range(30)]
    pd.DataFrame({"item_id": np.arange(30), "category": genres}).to_csv(tmp_path / "items.csv", index=False)
    (tmp_path / "shop.toml").write_text(MANIFEST)
    return tmp_path / "shop.toml"


def test_a_manifest_brings_its_arguments(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.parent)
    env = session_env("kuairand", "shop.toml")
    assert env.id == "rapport/Log-v0" and env.local == {"manifest": str(shop)}
    expected = {"quit_rule": "set_overlap", "budget": 20.0, "slate_size": 3, "profile": "corrected", "history": 7}
    assert env.kwargs == expected
    assert env.title == "corner-shop, quit rule set_overlap" and env.data["dataset"] == "corner-shop"
    other = session_env("rapport/corner-shop-v0", shop, quit_rule="never", budget=5)
    assert other.id == env.id and other.kwargs == {**expected, "quit_rule": "never", "budget": 5.0}
    assert data_of(pickle.loads(pickle.dumps(env))) is data_of(env)
    assert data_of(env).licence == "MIT" and data_of(env).catalog.labels.shape == (30, 2)


def test_a_log_needs_its_manifest(shop: Path) -> None:
    for data in (None, "twin"):
        with pytest.raises(DataError, match=r"stands on a log of your own; give its manifest, e\.g\. shop\.toml"):
            session_env("log", data)
    note = {**checkpoint_note(session_env("log", shop)), "method": "lerl"}
    assert note["environment"] == "log" and note["dataset"] == "corner-shop"
    assert env_of_note(note, str(shop), None).identity() == session_env("log", shop).identity()
    with pytest.raises(DataError, match=r"learned on a log of your own, 'corner-shop'; name its manifest: --data"):
        env_of_note(note, "auto", None)


def test_any_registered_id_of_slates(shop: Path) -> None:
    env = session_env("rapport/KuaiRandKuaiSim-v0", "twin")
    assert env.kwargs == {
        "quit_rule": "satisfaction",
        "budget": 20.0,
        "slate_size": 6,
        "profile": "corrected",
        "history": 100,
    }
    assert env.title == "rapport/KuaiRandKuaiSim-v0, quit rule satisfaction"
    assert session_env("rapport/KuaiRand-v0", "twin").identity() == session_env("kuairand", "twin").identity()
    assert "profile" not in session_env("rapport/KuaiRec-v0", "synthetic").kwargs
    tired = session_env("rapport/KuaiRandSatiation-v0", shop)
    assert tired.local["data"] == str(shop) and data_of(tired).name == "corner-shop"
    with pytest.raises(ValueError, match="KuaiRandItem-v0: it serves single items, and LERL slates"):
        session_env("rapport/KuaiRandItem-v0", "twin")
    with pytest.raises(ValueError, match=r"--env rapport/Nowhere-v0: .* Name the module that registers it"):
        session_env("rapport/Nowhere-v0", "twin")


_WORKER = """
import sys, gymnasium as gym, numpy as np
response = __import__("rapport.envs", fromlist=["MatrixResponse"]).MatrixResponse(np.ones((40, 30, 1)), ("click",))
env = gym.make("rapport:rapport/Log-v0", manifest=sys.argv[1], response=response)
env.reset(seed=0)
print(env.action_space.nvec.tolist(), env.step([0, 1, 2])[1])
"""


def test_another_process_makes_it_by_itself(shop: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WORKER, str(shop)], capture_output=True, text=True, check=True)
    assert done.stdout == "[30, 30, 30] 1.0\n"


def test_an_environment_by_its_manifest_can_be_shared_as_json(shop: Path) -> None:
    response = rapport.envs.MatrixResponse(np.ones((40, 30, 1)), ("click",))
    for name, data in (("rapport/Log-v0", {"manifest": str(shop)}), ("rapport/KuaiRand-v0", {"data": str(shop)})):
        spec = EnvSpec.from_json(replace(gym.spec(name), kwargs={**data, "slate_size": 2}).to_json())
        env = gym.make(spec, response=response)
        assert env.unwrapped.core.data.name == "corner-shop" and env.action_space.nvec.tolist() == [30, 30]
    with pytest.raises(DataError, match="rapport/Log-v0 needs manifest="):
        gym.make("rapport/Log-v0")
