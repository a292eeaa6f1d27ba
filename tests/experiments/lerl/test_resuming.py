"""A run's folder goes on wherever it is moved to, and what earlier versions left is played or named."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from rich.console import Console

from rapport.agents.checkpoint import read_checkpoint
from rapport.agents.llm import CachedLLM, ScriptedLLM
from rapport.agents.planning.build import TOP_K_PREFERENCE
from rapport.agents.planning.reflection import read_reflections
from rapport.datasets.files.tensors import load_arrays, save_arrays
from rapport.experiments.cli import main
from rapport.experiments.commands.run import tell_problems
from rapport.experiments.core import Experiment
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl import config
from rapport.experiments.lerl.config import LLM, PlannerConfig, planner_of_note
from rapport.experiments.lerl.environments import data_of
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import RowSettings, lerl_rows

ROWS = ("lerl", "lerl-best", "no-reflection", "lerl-click", "ppo", "no-rl", "random")
MODEL = ("--llm", "scripted.gguf")
"""A checkpoint does not choose whom to ask, so the command line does."""
TRANSITIONS = 480
"""Enough for sessions to be looked back on."""


@pytest.fixture
def asked(monkeypatch, twin_env):
    """Prompts that a scripted model was sent; what it answers depends on the prompt alone."""
    names, prompts = list(data_of(twin_env).catalog.category_names), []

    def answer(prompt):
        prompts.append(prompt)
        if "has ended" in prompt:
            return json.dumps({"reflection": f"taught by session {hashlib.md5(prompt.encode()).hexdigest()}"})
        chosen = np.random.default_rng(len(prompt)).permutation(len(names))[:8]
        return json.dumps({"categories": [names[place] for place in chosen]})

    def opened(source, *, sampling, budget, cache=None, **_):
        llm = ScriptedLLM(answer, sampling=sampling, budget=budget)
        return llm if cache is None else CachedLLM(llm, cache)

    monkeypatch.setattr(config, "open_llm", opened)
    return prompts


def experiment(env, small, folder, rows=ROWS):
    """As `rapport run` makes one, with a file of answers in its folder."""
    planner = PlannerConfig(LLM, "scripted.gguf", period=5, cache=str(folder / config.CACHE))
    return Experiment(lerl_rows(rows, env, RowSettings(planner, TRANSITIONS, small)), 1, HeldOutSessions(8), folder)


def run(done):
    done.folder.mkdir(parents=True, exist_ok=True)
    run_jobs(done.jobs(), 1, Console(file=io.StringIO()))
    return {name: group[0] for name, group in done.results().items()}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def never(what):
    return lambda *_, **__: pytest.fail(what)


@pytest.fixture
def no_training(monkeypatch):
    def forbid():
        for module, name in (("training", "learn"), ("training", "save_agent"), ("learners", "TrainingTask")):
            monkeypatch.setattr(f"rapport.experiments.lerl.{module}.{name}", never("trained again"))
        monkeypatch.setattr("rapport.agents.lerl.warm_start", never("pretrained again"))

    return forbid


def test_a_moved_run_folder_is_taken_as_it_is(twin_env, small, asked, tmp_path, no_training, monkeypatch):
    found = run(experiment(twin_env, small, tmp_path / "here"))
    assert set(found) == set(ROWS)
    pool = tmp_path / "here" / "reflections-lerl-seed0.sqlite"
    assert read_reflections(pool)
    moved = tmp_path / "deep" / "down" / "there"
    moved.parent.mkdir(parents=True)
    (tmp_path / "here").rename(moved)
    before, prompts = contents(moved), len(asked)
    no_training()
    monkeypatch.setattr("rapport.experiments.lerl.protocol.play", never("played again"))
    again = run(experiment(twin_env, small, moved))
    after = contents(moved)
    assert {path: after[path] for path in before} == before
    assert len(asked) == prompts and set(again) == set(ROWS)
    assert not (tmp_path / "here").exists()


def test_checkpoints_pools_and_answers_of_a_moved_folder_are_taken(twin_env, small, asked, tmp_path, no_training):
    """Its results are lost, and made again from what else is there."""
    rows = ("lerl", "lerl-best", "no-reflection", "ppo", "no-rl")
    found = run(experiment(twin_env, small, tmp_path / "here", rows))
    checkpoints = contents(tmp_path / "here" / "checkpoints")
    taught = read_reflections(tmp_path / "here" / "reflections-lerl-seed0.sqlite")
    moved = (tmp_path / "here").rename(tmp_path / "there")
    shutil.rmtree(moved / "results")
    no_training()
    prompts = len(asked)
    again = run(experiment(twin_env, small, moved, rows))
    assert len(asked) == prompts  # every answer was kept
    assert contents(moved / "checkpoints") == checkpoints
    assert read_reflections(moved / "reflections-lerl-seed0.sqlite") == taught
    for name in rows:
        for array, values in found[name].arrays.items():
            np.testing.assert_array_equal(again[name].arrays[array], values)
        assert (again[name].steps, again[name].curve, again[name].notes) == (
            found[name].steps,
            found[name].curve,
            found[name].notes,
        )
        assert again[name].train_seconds == found[name].train_seconds
    assert not (tmp_path / "here").exists()


# --- what an earlier version left -------------------------------------------------------------------------------------


def as_before(checkpoint, run_folder):
    """Rewrite a checkpoint's note as an earlier version wrote it; its planner."""
    arrays, note = load_arrays(checkpoint)
    planner = {k: v for k, v in note["planner"].items() if k not in ("type", "cooldown", "replan_threshold")}
    note["planner"] = {
        **planner,
        "llm_seconds": 300.0,
        "cache": f"{run_folder}/llm-cache.sqlite",
        "pool": f"{run_folder}/reflections-seed0.sqlite",
        "rest": note["planner"]["cooldown"],
        "surprise": note["planner"]["replan_threshold"],
        "record": None,
    }
    save_arrays(checkpoint, arrays, note)
    return note["planner"]


def printed(capsys, *argv):
    assert main(["evaluate", *map(str, argv), "--data", "twin", "--sessions", "8", "--seeds", "1"]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("moved", [False, True])
def test_an_old_checkpoint_is_played_as_it_was_trained(twin_env, small, asked, tmp_path, capsys, moved):
    folder = tmp_path / "run"
    result = run(experiment(twin_env, small, folder, ("lerl",)))["lerl"]
    checkpoint = folder / "checkpoints" / "lerl-seed0.safetensors"
    told = printed(capsys, checkpoint, *MODEL)
    assert (
        f"{result.arrays['return'].mean():.3f}" in told and "LERL, 480 transitions; planner: LLM scripted.gguf" in told
    )
    as_before(checkpoint, folder)
    (folder / "reflections-lerl-seed0.sqlite").rename(folder / "reflections-seed0.sqlite")
    if moved:
        folder = folder.rename(tmp_path / "moved")
    prompts = len(asked)
    assert printed(capsys, folder / "checkpoints" / "lerl-seed0.safetensors", *MODEL) == told
    assert len(asked) == prompts  # the run's answers are taken, so the prompts are the same, reflections included
    assert not (folder / "reflections-lerl-seed0.sqlite").exists()  # they are read from the checkpoint, and not written
    # A copy of the checkpoint alone has all it needs, too.
    alone = tmp_path / "elsewhere" / "checkpoints" / "My Agent.safetensors"
    alone.parent.mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "lerl-seed0.safetensors", alone)
    assert printed(capsys, alone, *MODEL).partition("LLM of")[0] == told.partition("LLM of")[0]
    assert any("taught by session" in prompt for prompt in asked[prompts:])


def test_an_old_note_is_read_name_by_name():
    old = {
        "name": "lasting preference",
        "llm": None,
        "llm_seconds": 300.0,
        "period": 20,
        "cache": "/x/llm-cache.sqlite",
        "pool": "/x/reflections-seed0.sqlite",
        "rest": False,
        "surprise": 2.5,
        "llm_calls": 7,
        "llm_tokens": None,
        "most": 6,
        "reflections": 1,
        "record": "/x/t.sqlite",
    }
    expected = PlannerConfig(
        TOP_K_PREFERENCE,
        period=20,
        cooldown=False,
        replan_threshold=2.5,
        llm_calls=7,
        llm_seconds=300.0,
        most=6,
        reflections=1,
    )
    assert planner_of_note(old) == expected
    assert planner_of_note(json.loads(json.dumps({"type": "PlannerConfig", **asdict(expected)}))) == expected


def test_an_old_checkpoint_without_a_model_is_played(twin_env, small, tmp_path, capsys):
    settings = RowSettings(PlannerConfig(period=5), 80, small)
    done = Experiment(lerl_rows(["lerl"], twin_env, settings), 1, HeldOutSessions(8), tmp_path)
    run(done)
    checkpoint = tmp_path / "checkpoints" / "lerl-seed0.safetensors"
    told = printed(capsys, checkpoint)
    arrays, note = load_arrays(checkpoint)
    save_arrays(
        checkpoint, arrays, {**note, "planner": {**as_before(checkpoint, tmp_path), "name": "lasting preference"}}
    )
    assert printed(capsys, checkpoint) == told
    assert not list(tmp_path.glob("reflections*"))
    for name in ("lasting preference", "top-k preference"):
        assert printed(capsys, checkpoint, "--planner", name) == told


def test_a_pretrained_policy_is_played_as_what_it_is(twin_env, small, asked, tmp_path, capsys):
    run(experiment(twin_env, small, tmp_path, ("lerl", "no-rl")))
    told = printed(capsys, tmp_path / "checkpoints" / "pretrained-twin-seed0.safetensors")
    assert "no planner, no RL, 0 transitions; planner: none (no LLM given)" in told


def of_format_two(method, seed):
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


def test_old_results_are_named_left_alone_and_their_rows_run_anew(twin_env, small, asked, tmp_path):
    done = experiment(twin_env, small, tmp_path, ("no-rl", "random"))
    (tmp_path / "results").mkdir()
    old = {tmp_path / "results" / f"{row}-seed0.json": of_format_two(row, 0) for row in ("no-rl", "random")}
    for path, text in old.items():
        path.write_text(text)
    out = io.StringIO()
    tell_problems(done, Console(file=out, width=80), tmp_path / "elsewhere")
    assert out.getvalue().strip() == (
        f"2 results of an earlier version of Rapport are in {tmp_path / 'results'}, e.g. no-rl-seed0.json: they are "
        "left alone and not read; their rows are run anew."
    )
    assert done.results() == {}
    found = run(done)
    assert {name: result.episodes for name, result in found.items()} == {"no-rl": 8, "random": 8}
    assert {path: path.read_text() for path in old} == old


def test_damaged_results_are_told_before_they_are_run_again(twin_env, small, tmp_path):
    done = experiment(twin_env, small, tmp_path, ("random",))
    first = run(done)["random"]
    path = done.store.path("random", 0, done.key(done.rows[0]))
    path.write_text("{")
    fresh, out = experiment(twin_env, small, tmp_path, ("random",)), io.StringIO()
    tell_problems(fresh, Console(file=out, width=80))
    assert out.getvalue().startswith(f"A damaged result was set aside: {path}: JSONDecodeError")
    assert path.with_name(f"{path.name}.broken").exists() and not path.exists()
    np.testing.assert_array_equal(run(fresh)["random"].arrays["return"], first.arrays["return"])


def test_a_training_that_an_earlier_version_began_is_set_aside(twin_env, small, asked, tmp_path, caplog):
    """Its planner may have cooled down in another way: it is kept, said, and not gone on from."""
    run(experiment(twin_env, small, tmp_path, ("lerl",)))
    checkpoint = tmp_path / "checkpoints" / "lerl-seed0.safetensors"
    shutil.rmtree(tmp_path / "results")
    as_before(checkpoint, tmp_path)
    before = read_checkpoint(checkpoint)[1]
    again = run(experiment(twin_env, small, tmp_path, ("lerl",)))["lerl"]
    assert "training starts anew" in caplog.text and again.steps == TRANSITIONS
    assert read_checkpoint(checkpoint.with_suffix(".set-aside"))[1] == before
