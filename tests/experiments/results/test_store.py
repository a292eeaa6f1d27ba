"""A store that a crash cannot corrupt, and that says what it met."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rapport.experiments.results import store as results
from rapport.experiments.results.store import MethodResult, ResultError, ResultStore, config_hash


def a_result(method: str = "lerl", seed: int = 0, **changes: object) -> MethodResult:
    values: dict[str, object] = {
        "label": "LERL",
        "lengths": np.array([11, 20, 14]),
        "returns": np.array([5.5, 1 / 3, 7.0]),
        "users": np.array([4, 1, 4]),
        "meter": {"calls": 3, "seconds": 0.25},
        "train_transitions": 640,
        "train_seconds": 1.5,
        "notes": ("a note",),
    }
    return MethodResult(method=method, seed=seed, **{**values, **changes})  # type: ignore[arg-type]


def test_metrics() -> None:
    result = a_result()
    assert result.t_int == 15.0
    assert result.r_cum == pytest.approx((5.5 + 1 / 3 + 7) / 3)
    assert result.r_sin == pytest.approx((5.5 + 1 / 3 + 7) / 45)
    assert (result.sessions, result.steps_total) == (3, 45)


def test_what_is_saved_is_loaded_exactly(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results", "abc")
    saved = a_result()
    path = store.save(saved)
    assert path.name == "lerl-seed0.json"
    loaded = store.load("lerl", 0)
    assert loaded is not None
    for name in ("lengths", "returns", "users"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    for name in ("method", "label", "seed", "meter", "train_transitions", "train_seconds", "eval_seconds", "notes"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert store.problems == []
    assert [p.name for p in store.folder.iterdir()] == ["lerl-seed0.json"]


def test_all_complete_results_come_in_order(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for method, seed in (("ppo-plain", 10), ("lerl", 2), ("ppo-plain", 9)):
        store.save(a_result(method, seed))
    (tmp_path / "x-seedy.json").write_text("{}")
    assert [(r.method, r.seed) for r in store.load_all()] == [("lerl", 2), ("ppo-plain", 9), ("ppo-plain", 10)]


def test_results_of_another_configuration_are_not_mixed_in(tmp_path: Path) -> None:
    ResultStore(tmp_path, "old").save(a_result())
    store = ResultStore(tmp_path, "new")
    assert store.load("lerl", 0) is None
    assert "of another configuration; it is run again" in store.problems[0]
    assert ResultStore(tmp_path).load("lerl", 0) is not None


def damaged(text: str) -> dict[str, str]:
    document = json.loads(text)
    changed = {**document, "result": {**document["result"], "returns": [9.0, 9.0, 9.0]}}
    short = {k: v for k, v in document.items() if k != "result"}
    return {
        "empty": "",
        "cut": text[: len(text) // 2],
        "changed": json.dumps(changed),
        "no result": json.dumps(short),
        "format": json.dumps({**document, "format": 99}),
        "a list": "[1, 2]",
    }


@pytest.mark.parametrize("kind", ["empty", "cut", "changed", "no result", "format", "a list"])
def test_a_broken_file_is_set_aside_and_reported(tmp_path: Path, kind: str) -> None:
    store = ResultStore(tmp_path)
    path = store.save(a_result())
    path.write_text(damaged(path.read_text())[kind])
    assert store.load("lerl", 0) is None
    assert not path.exists()
    assert (tmp_path / "lerl-seed0.json.broken").exists()
    assert "set aside as lerl-seed0.json.broken, run again" in store.problems[0]
    assert store.load_all() == []


def test_a_renamed_file_is_set_aside(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(a_result(seed=1)).rename(store.path("lerl", 2))
    assert store.load("lerl", 2) is None
    assert "holds 'lerl', seed 1" in store.problems[0]


def test_a_crash_while_writing_leaves_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    store.save(a_result(label="old"))

    def crash(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(results.os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        store.save(a_result(label="new"))
    loaded = store.load("lerl", 0)
    assert loaded is not None and loaded.label == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["lerl-seed0.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "../x"}, "lower-case letters, digits"),
        ({"returns": np.array([1.0])}, r"lengths \(3,\) and returns \(1,\) need one number per session"),
        ({"lengths": np.array([0, 2, 3])}, "a length of at least 1"),
        ({"returns": np.array([1.0, np.nan, 2.0])}, "a finite return"),
        ({"users": np.array([1])}, r"users \(1,\) need one index per session"),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        a_result(**changes)  # type: ignore[arg-type]


@dataclass
class Config:
    seeds: int = 5
    folder: Path = Path("runs")


def test_the_hash_follows_every_value() -> None:
    assert config_hash(Config()) == config_hash({"folder": Path("runs"), "seeds": 5})
    assert config_hash(Config()) != config_hash(Config(seeds=6))
    assert len(config_hash(Config())) == 16
