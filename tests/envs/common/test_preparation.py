"""What is made ahead of time is what making the environment would have made, once; others need nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rapport
from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.datasets.twin import twin
from rapport.envs.common.preparation import prepare, prepared_by
from rapport.envs.session import kuairand
from rapport.envs.session.response.base import MatrixResponse

DATA = twin(n_users=30, n_items=40, seed=4)


@pytest.fixture(autouse=True)
def own_simulators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and nothing remembered in memory."""
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path))
    kuairand.fitted_response.cache_clear()
    kuairand.official_fitted.cache_clear()
    yield tmp_path / "simulators"
    kuairand.fitted_response.cache_clear()
    kuairand.official_fitted.cache_clear()


@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("rapport/KuaiRand-v0", {}),
        ("rapport/KuaiRandSatiation-v0", {"strength": "low", "users": "all"}),
        ("rapport/KuaiRec-v0", {"response": "learned"}),
    ],
)
def test_a_simulator_is_fitted_once_and_then_found(
    env_id: str, arguments: dict[str, Any], own_simulators: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data: Any = DATA
    if env_id == "rapport/KuaiRec-v0":
        data = synthetic_kuairec(n_users=30, n_truth_users=10, n_items=20)
    seen: list[tuple[int, int]] = []
    prepare(env_id, lambda done, total: seen.append((done, total)), data=data, num_envs=3, **arguments)
    total = seen[0][1]
    assert seen == [(done, total) for done in range(1, total + 1)]
    (kept,) = own_simulators.iterdir()
    written = kept.stat().st_mtime_ns

    again: list[int] = []
    prepare(env_id, lambda done, _: again.append(done), data=data, **arguments)
    with caplog.at_level(logging.WARNING, "rapport"):
        env = gym.make_vec(env_id, num_envs=3, data=data, **arguments)
    env.reset(seed=0)
    assert not again and not [record for record in caplog.records if "user model" in record.message]
    assert [path.stat().st_mtime_ns for path in own_simulators.iterdir()] == [written]


@pytest.mark.slow
def test_the_official_model_of_the_chosen_faults_is_fitted(own_simulators: Path) -> None:
    prepare("rapport/KuaiRandLERL-v0", data=DATA, faults=["dropout"])
    (kept,) = own_simulators.iterdir()
    gym.make("rapport/KuaiRandLERL-v0", data=DATA, faults="none").reset(seed=0)  # dropout is not of the fit
    assert [*own_simulators.iterdir()] == [kept]


@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("rapport/KuaiRand-v0", {"data": DATA, "response": MatrixResponse(np.ones((30, 40, 7)), DATA.log.behaviours)}),
        ("rapport/KuaiRec-v0", {"data": "synthetic"}),
        ("CartPole-v1", {}),
    ],
)
def test_nothing_is_made_where_nothing_is_needed(env_id: str, arguments: dict[str, Any], own_simulators: Path) -> None:
    prepare(env_id, lambda *_: pytest.fail("nothing to make"), **arguments)
    assert not own_simulators.exists()


def test_an_environment_of_ones_own_takes_part_by_an_attribute() -> None:
    asked: list[dict[str, Any]] = []

    def own_preparation(progress: Any, **arguments: Any) -> None:
        asked.append(arguments)
        progress(1, 1)

    @prepared_by(own_preparation)
    def own_vector_env(num_envs: int = 1, **arguments: Any) -> Any:
        raise AssertionError("nothing is made")

    gym.register("Own-v0", vector_entry_point=own_vector_env, kwargs={"size": 3, "colour": "red"})
    try:
        told: list[tuple[int, int]] = []
        prepare("Own-v0", lambda *steps: told.append(steps), colour="blue")
    finally:
        del gym.registry["Own-v0"]
    assert asked == [{"size": 3, "colour": "blue"}] and told == [(1, 1)]


def test_a_log_of_ones_own_is_prepared_under_its_id(own_simulators: Path, tmp_path: Path) -> None:
    rows = "".join(f"{u},{i % 12},{1_700_000_000 + 43_200 * i},{i % 2}\n" for u in range(10) for i in range(40))
    (tmp_path / "log.csv").write_text("user_id,item_id,time,click\n" + rows)
    (tmp_path / "items.csv").write_text("item_id,category\n" + "".join(f"{i},c{i % 3}\n" for i in range(12)))
    text = 'name = "small-shop"\n[interactions]\npath = "log.csv"\n[interactions.behaviours]\nclick = "click"\n'
    (tmp_path / "shop.toml").write_text(text + '[items]\npath = "items.csv"\n')
    env_id = rapport.register_log(tmp_path / "shop.toml")
    try:
        prepare(env_id, lambda *_: None)
        assert len([*own_simulators.iterdir()]) == 1
        with pytest.raises(TypeError, match="unknown argument 'data'"):
            prepare(env_id, data="twin")
    finally:
        del gym.registry[env_id]


def test_wrong_arguments_are_refused_before_anything_is_fitted(own_simulators: Path) -> None:
    with pytest.raises(TypeError, match="unknown argument 'max_episode_steps'; use max_steps"):
        prepare("rapport/KuaiRand-v0", data=DATA, max_episode_steps=5)
    with pytest.raises(ValueError, match="faults: there is no 'nonsense'"):
        prepare("rapport/KuaiRand-v0", data=DATA, profile="official", faults="nonsense")
    with pytest.raises(gym.error.NameNotFound):
        prepare("rapport/KuaiRant-v0")
    assert not own_simulators.exists()
