"""The search: the defaults are tried first and stay where they are best, nobody held out is met, and it goes on."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from rapport.experiments.cli import main
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl import search as search_module
from rapport.experiments.lerl.environments import data_of
from rapport.experiments.lerl.learners import BaselineLearner, PPOLearner
from rapport.experiments.lerl.rows import DEFINITIONS
from rapport.experiments.lerl.search import SEED, SPACES, STAND_IN, Search, trial_value


@pytest.fixture
def search(twin_env, small, tmp_path):
    return Search(twin_env, 3, 64, 20, tmp_path, base=small)


def test_every_method_is_tried_with_its_settings_under_no_language_model(search, small):
    for method in SPACES:
        row = search.row(method, {"learning_rate": 0.5})
        assert row.planner.llm is None and search.task(row, search.folder).seed == SEED
        definition = DEFINITIONS[method]
        if definition.has_model:
            assert row.planner == STAND_IN
        else:
            assert row.planner.name == "none" and row.planner.cools_down == bool(definition.cooldown)
        if definition.baseline is None:
            assert isinstance(row.learner, PPOLearner) and row.learner.low_level.learning_rate == 0.5
        else:
            assert isinstance(row.learner, BaselineLearner) and dict(row.learner.settings) == {"learning_rate": 0.5}
            assert row.learner.low_level == small
        assert row.learner.transitions == 64


def test_trials_meet_training_users_only_and_depend_on_settings_alone(search, monkeypatch):
    served, plain = [], search_module.sessions_of
    held_out = data_of(search.env).held_out

    def sessions_of(env, n, users):
        served.append(plain(env, n, users))
        return served[-1]

    for module in ("search", "training", "learners"):
        monkeypatch.setattr(f"rapport.experiments.lerl.{module}.sessions_of", sessions_of)
    first = trial_value(search, "mmr", {})
    assert trial_value(search, "mmr", {}) == first
    assert trial_value(search, "lerl", {}) == trial_value(search, "lerl", {})
    assert len(served) > 4 and not any(held_out[sessions.core.users].any() for sessions in served)


def test_a_search_that_was_stopped_goes_on_and_keeps_the_better(search, monkeypatch):
    """The value is made up: the further the setting is from 0.5, the worse; the defaults are as good as 0.4."""
    tried = []

    def value(_, method, settings):
        tried.append(settings)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return -abs(settings.get("x", 0.4) - 0.5)

    monkeypatch.setattr(search_module, "trial_value", value)
    monkeypatch.setitem(SPACES, "mmr", lambda trial: {"x": trial.suggest_float("x", 0.0, 1.0)})
    one = search_module.SearchMethod(search, "mmr")
    with pytest.raises(KeyboardInterrupt):
        one(lambda _: None)
    assert search.result("mmr") is None
    one(lambda _: None)
    assert [bool(settings) for settings in tried] == [False, True, True, True]  # the defaults once
    found, best = search.result("mmr"), min(tried[1:2] + tried[3:], key=lambda s: abs(s["x"] - 0.5))
    assert found is not None and found["defaults"] == pytest.approx(-0.1)
    better = abs(best["x"] - 0.5) < 0.1
    assert found["settings"] == (best if better else {})
    assert found["value"] == (pytest.approx(-abs(best["x"] - 0.5)) if better else found["defaults"])
    done = len(tried)
    one(lambda _: None)
    assert len(tried) == done and search.result("mmr") == found


def test_where_the_defaults_are_best_they_stay(search, monkeypatch):
    monkeypatch.setattr(search_module, "trial_value", lambda _, method, settings: -float(bool(settings)))
    run_jobs(search.jobs(("mmr", "ucb-items")), 1, Console(file=io.StringIO()))
    for method in ("mmr", "ucb-items"):
        assert search.result(method) == {"settings": {}, "value": 0.0, "defaults": 0.0}
    assert (search.folder / "checkpoints" / f"pretrained-twin-seed{SEED}.safetensors").exists()


@pytest.mark.slow
def test_a_search_goes_on_and_keeps_defaults_that_are_best(capsys, tmp_path, twin_env):
    command = [
        "reproduce",
        "search",
        "--data",
        "twin",
        "--out",
        str(tmp_path),
        "--transitions",
        "128",
        "--workers",
        "1",
    ]
    command += ["--sessions", "20", "--methods", "mmr", "ucb-items"]
    assert main([*command, "--trials", "2", "--write", str(tmp_path / "tuned.json")]) == 0
    written = json.loads((tmp_path / "tuned.json").read_text("utf-8"))
    assert written["trials"] == 2 and set(written["R_cum"]) == {"mmr", "ucb-items"}
    for method, values in written["R_cum"].items():
        assert values["value"] >= values["defaults"]
        assert (method in written["settings"]) == (values["value"] > values["defaults"])
    again = ["--trials", "2", "--write", str(tmp_path / "tuned.json")]
    assert main([*command[:-2], "mmr", *again]) == 0  # what is not searched again stays
    assert json.loads((tmp_path / "tuned.json").read_text("utf-8")) == written
    assert main([*command, "--trials", "3", *again[2:]]) == 2
    assert "its search had trials 2, this one 3" in capsys.readouterr().err
    for text in ("no JSON", '{"settings": {}}', "[]"):
        (tmp_path / "other.json").write_text(text, "utf-8")
        assert main([*command, "--trials", "2", "--write", str(tmp_path / "other.json")]) == 2
        assert "other.json: it is there and no search's file" in capsys.readouterr().err
        assert (tmp_path / "other.json").read_text("utf-8") == text
    search = Search(twin_env, 2, 128, 20, tmp_path)
    before = {method: search.result(method) for method in ("mmr", "ucb-items")}
    assert all(before.values())
    assert main([*command, "--trials", "2"]) == 0
    assert {method: search.result(method) for method in ("mmr", "ucb-items")} == before


def test_settings_are_tried_as_they_are_written_down():
    rounded = search_module._rounded({"a": 0.123456, "n": 7, "name": "x"})
    assert rounded == {"a": 0.123, "n": 7, "name": "x"}
