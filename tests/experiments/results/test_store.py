"""A store that a crash cannot corrupt, and that says what it met."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rapport.experiments.results import store as results
from rapport.experiments.results.store import Result, ResultError, ResultStore, config_hash

KEY = "0123456789abcdef"
LENGTHS, RETURNS = np.array([11, 20, 14]), np.array([5.5, 1 / 3, 7.0])


def a_result(row: str = "lerl", seed: int = 0, **changes: object) -> Result:
    values: dict[str, object] = {
        "label": "LERL",
        "arrays": {"length": LENGTHS, "return": RETURNS, "coverage": np.array([0.1, 0.2, 1 / 7])},
        "units": {"length": "slates", "return": "summed click rate"},
        "ids": np.array([4, 1, 4]),
        "meter": {"calls": 3, "seconds": 0.25},
        "steps": 640,
        "train_seconds": 1.5,
        "notes": ("a note",),
        "curve": ((640, 12.5, 1 / 3),),
    }
    return Result(row, seed=seed, **{**values, **changes})  # type: ignore[arg-type]


def test_episodes_and_steps_are_counted() -> None:
    assert (a_result().episodes, a_result().served) == (3, 45)


def test_what_is_saved_is_loaded_exactly(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results")
    saved = a_result()
    path = store.save(saved, KEY)
    assert path.name == f"lerl-seed0-{KEY}.json"
    loaded = store.load("lerl", 0, KEY)
    assert loaded is not None
    assert list(loaded.arrays) == list(saved.arrays)
    for name, values in saved.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], values)
        assert loaded.arrays[name].dtype == values.dtype
    assert loaded.ids is not None and saved.ids is not None
    np.testing.assert_array_equal(loaded.ids, saved.ids)
    assert loaded.ids.dtype == saved.ids.dtype
    plain = ("row", "label", "seed", "units", "meter", "steps", "train_seconds", "eval_seconds", "notes", "curve")
    for name in plain:
        assert getattr(loaded, name) == getattr(saved, name)
    assert store.problems == []
    assert [p.name for p in store.folder.iterdir()] == [path.name]


def test_all_complete_results_come_in_order(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for row, seed in (("ppo-plain", 10), ("lerl", 2), ("ppo-plain", 9)):
        store.save(a_result(row, seed), KEY)
    (tmp_path / f"x-seedy-{KEY}.json").write_text("{}")
    assert [(r.row, r.seed) for r in store.load_all()] == [("lerl", 2), ("ppo-plain", 9), ("ppo-plain", 10)]
    assert store.problems == [] and (tmp_path / f"x-seedy-{KEY}.json").read_text() == "{}"


def test_results_of_another_configuration_are_not_mixed_in_and_not_lost(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(a_result(label="old"), "old")
    assert store.load("lerl", 0, "new") is None
    store.save(a_result(label="new"), "new")
    for key in ("old", "new"):
        loaded = store.load("lerl", 0, key)
        assert loaded is not None and loaded.label == key
    assert store.problems == []


def damaged(text: str) -> dict[str, str]:
    document = json.loads(text)
    result = document["result"]
    changed = {**document, "result": {**result, "arrays": {**result["arrays"], "return": [9.0, 9.0, 9.0]}}}
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
    path = store.save(a_result(), KEY)
    path.write_text(damaged(path.read_text())[kind])
    assert store.load("lerl", 0, KEY) is None
    assert not path.exists()
    assert (tmp_path / f"{path.name}.broken").exists()
    assert f"set aside as {path.name}.broken, run again" in store.problems[0]
    assert store.load_all() == []


@pytest.mark.parametrize(
    ("row", "seed", "key"), [("lerl", 2, KEY), ("ppo", 1, KEY), ("lerl", 1, "other")], ids=["seed", "row", "key"]
)
def test_a_renamed_file_is_set_aside(tmp_path: Path, row: str, seed: int, key: str) -> None:
    store = ResultStore(tmp_path)
    store.save(a_result(seed=1), KEY).rename(store.path(row, seed, key))
    assert store.load(row, seed, key) is None
    assert f"it holds row 'lerl', seed 1, key '{KEY}'" in store.problems[0]
    assert store.path(row, seed, key).with_name(f"{store.path(row, seed, key).name}.broken").exists()


def test_a_crash_while_writing_leaves_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    path = store.save(a_result(label="old"), KEY)

    def crash(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(results.os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        store.save(a_result(label="new"), KEY)
    loaded = store.load("lerl", 0, KEY)
    assert loaded is not None and loaded.label == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def of_format_two(method: str, seed: int) -> str:
    """A whole result as an earlier version wrote it."""
    body = {
        "method": method,
        "label": "LERL",
        "seed": seed,
        "lengths": [11, 20],
        "returns": [5.5, 7.0],
        "users": [4, 1],
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({"format": 2, "config": "0123456789abcdef", "sha256": digest, "result": body})


def test_results_of_an_earlier_format_are_named_and_left_alone(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    kept = store.save(a_result(), KEY)
    old = {f"{method}-seed{seed}.json": of_format_two(method, seed) for method, seed in (("lerl", 0), ("a-seed", 12))}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    assert [path.name for path in store.of_earlier_formats()] == sorted(old)
    assert [(r.row, r.seed) for r in store.load_all()] == [("lerl", 0)]
    store.save(a_result(seed=1), KEY)
    assert store.load("a-seed", 12, KEY) is None and store.problems == []
    assert {name: (tmp_path / name).read_text() for name in old} == old
    assert kept not in store.of_earlier_formats()
    assert ResultStore(tmp_path / "nowhere").of_earlier_formats() == []


def test_a_result_of_an_earlier_format_under_a_new_name_is_not_read_either(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.path("lerl", 0, KEY).write_text(of_format_two("lerl", 0))
    assert store.load("lerl", 0, KEY) is None
    assert "ResultError: format 2 is not 3; set aside as" in store.problems[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": "../x"}, "lower-case letters, digits"),
        ({"arrays": {"length": LENGTHS}}, "the array 'return' is missing"),
        ({"arrays": {"length": LENGTHS, "return": np.array([1.0])}}, r"return \(1,\) needs one .* as length \(3,\)"),
        ({"arrays": {"length": np.ones((2, 2)), "return": np.ones((2, 2))}}, r"length \(2, 2\) needs one"),
        ({"arrays": {"length": np.ones(0), "return": np.ones(0)}}, r"length \(0,\) needs one"),
        ({"arrays": {"length": np.array([0, 2, 3]), "return": RETURNS}}, "a length of at least 1"),
        ({"arrays": {"length": LENGTHS, "return": np.array([1.0, np.nan, 2.0])}}, "return .* one finite number"),
        (
            {"arrays": {"length": LENGTHS, "return": RETURNS, "coverage": np.array([np.inf, 0, 0])}},
            "coverage .* finite",
        ),
        ({"arrays": {"length": LENGTHS, "return": RETURNS, "coverage": np.ones(2)}}, r"coverage \(2,\) needs one"),
        ({"ids": np.array([1])}, r"ids \(1,\) need one number per episode"),
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
