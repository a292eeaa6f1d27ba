"""`rapport/KuaiRand-v0` by name: which data it finds, what it shares, and what a plain script has to import."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest

import rapport
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.registration import register_environments
from rapport.envs.session.factory import user_pool
from rapport.envs.session.kuairand import find_data, kuairand_core
from rapport.envs.session.response.base import MatrixResponse

HEAVY = (
    "torch",
    "stable_baselines3",
    "pandas",
    "pyarrow",
    "llama_cpp",
    "openai",
    "plotly",
    "jinja2",
    "scipy",
    "sklearn",
)


def run(program: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_rapport_costs_next_to_nothing(tmp_path: Path) -> None:
    program = f"import sys, rapport\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert run(program, tmp_path).strip() == "[]"


def test_the_environment_needs_only_the_core(tmp_path: Path) -> None:
    """A plain script, where no extra can be imported and nothing warns."""
    program = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("llama_cpp", "openai", "plotly", "jinja2", "scipy", "sklearn", "hypothesis"):
            raise ModuleNotFoundError(f"{name} is an extra", name=name)
sys.meta_path.insert(0, Block())
import gymnasium as gym, rapport
from rapport.envs.session.response.base import MatrixResponse
import numpy as np
data = rapport.twin(n_users=50, n_items=80)
response = MatrixResponse(np.full((50, 80, 7), 0.5), data.log.behaviours)
env = gym.make("rapport/KuaiRand-v0", data=data, response=response)
env.reset(seed=0)
env.action_space.seed(0)
print(env.step(env.action_space.sample())[1] in np.arange(7) / 6)
envs = gym.make_vec("rapport/KuaiRand-v0", num_envs=4, data=data, response=response)
envs.reset(seed=0)
print(envs.step(envs.action_space.sample())[1].shape)
print([m for m in ("stable_baselines3", "tensorboard", "matplotlib", "tyro", "rich") if m in sys.modules])
"""
    assert run(program, tmp_path).split("\n")[:3] == ["True", "(4,)", "[]"]


@pytest.mark.slow
def test_the_twin_by_name_in_a_plain_script(tmp_path: Path) -> None:
    program = """
import gymnasium as gym
import rapport
env = gym.make("rapport/KuaiRand-v0", data="twin")
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
print(sorted(observation), 0 <= reward <= 1, terminated, truncated, sorted(info))
"""
    assert run(program, tmp_path).strip() == (
        "['history_feedback', 'history_items', 'step', 'user_features'] True False False "
        "['budget', 'categories', 'cost', 'feedback', 'user']"
    )


def test_registering_twice_changes_nothing() -> None:
    spec = gym.spec("rapport/KuaiRand-v0")
    register_environments()
    assert gym.spec("rapport/KuaiRand-v0") is spec
    assert spec.max_episode_steps is None and not spec.nondeterministic


def test_the_root_gives_load_and_twin() -> None:
    assert rapport.twin(n_users=20, n_items=40).name == "twin" and callable(rapport.load)
    with pytest.raises(AttributeError, match="module 'rapport' has no attribute 'lode'"):
        rapport.lode  # noqa: B018


# --- which data -------------------------------------------------------------------------------------------------------


def test_a_data_set_is_taken_as_it_is(small_data: SessionData) -> None:
    assert find_data(small_data) is small_data


def test_auto_takes_the_real_log_where_it_is(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path)
    assert find_data("auto", str(tmp_path)).name == "kuairand-pure"
    assert find_data("auto", str(tmp_path)) is find_data("auto", str(tmp_path))


def test_auto_says_so_where_it_takes_the_twin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rapport"):
        assert find_data("auto", str(tmp_path / "empty")).name == "twin"
    assert [r.message for r in caplog.records] == [
        f"KuaiRand-Pure is not in {tmp_path / 'empty'}: using its statistical twin "
        "(`rapport data fetch kuairand-pure` gets it)"
    ]


def test_the_real_log_by_name_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        find_data("kuairand-pure", str(tmp_path))


def test_pools(small_data: SessionData) -> None:
    train, held_out, everyone = (user_pool(small_data, users) for users in ("train", "held_out", "all"))
    assert not small_data.held_out[train].any() and small_data.held_out[held_out].all()
    assert sorted([*train, *held_out]) == everyone.tolist() == list(range(200))
    with pytest.raises(ValueError, match=r"^users='test' is unknown; choose one of train, held_out, all$"):
        user_pool(small_data, "test")  # type: ignore[arg-type]


def test_environments_of_one_data_set_share_its_histories(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    first, second = (kuairand_core(1, data=small_data, response=matrix_response) for _ in range(2))
    assert first.histories is second.histories
    shorter = kuairand_core(1, data=small_data, response=matrix_response, history=3)
    np.testing.assert_array_equal(shorter.histories.items, first.histories.items[:, -3:])


def test_the_simulator_is_the_default_response(small_data: SessionData, monkeypatch: pytest.MonkeyPatch) -> None:
    from rapport.envs.session import kuairand

    asked: list[str] = []

    def fitted(name: str) -> MatrixResponse:
        asked.append(name)
        return MatrixResponse(np.zeros((200, 150, 7)), small_data.log.behaviours)

    monkeypatch.setattr(kuairand, "load_simulator", lambda *_, **__: (fitted("corrected"), None))
    monkeypatch.setattr(kuairand, "load_official", lambda *_, **__: fitted("official"))
    monkeypatch.setattr(kuairand, "official_response", lambda data, fitted, faults: fitted)
    caches = (kuairand.fitted_response, kuairand.official_fitted)
    for cache in caches:
        cache.cache_clear()
    cores = [kuairand_core(1, data=small_data, profile=p) for p in ("corrected", "official", "official", "corrected")]
    for cache in caches:
        cache.cache_clear()
    assert asked == ["corrected", "official"]
    assert cores[1].response is cores[2].response is not cores[0].response is cores[3].response
