"""Runs that a language model plans: whatever it does they end, what it cost is told, and they can be played again."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import zlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rapport.experiments.commands.run as runs
import rapport.experiments.lerl.config as setups
from rapport.agents.checkpoint import read_checkpoint
from rapport.agents.llm import CachedLLM, Meter, ScriptedLLM
from rapport.agents.llm.base import backend
from rapport.agents.llm.transcript import read_batches
from rapport.agents.planning.build import TOP_K_PREFERENCE
from rapport.experiments.cli import main
from rapport.experiments.core import Experiment, Row
from rapport.experiments.core.experiment import RunRow
from rapport.experiments.lerl.config import LLM_ONLY, PlannerConfig
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.learners import PPOLearner, PretrainedLearner
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS, RUN_ROWS
from rapport.experiments.lerl.training import Training, train
from rapport.experiments.results.store import ResultStore

GOOD = json.dumps({"categories": ["Dance", "Music", "Gaming"]})
LESSON = json.dumps({"reflection": "Variety kept this user."})


class Interrupted(Exception):
    pass


def moody(prompts=None):
    """A model whose answers depend on all that was asked before: plans, lessons, nonsense, silence, failures."""
    turns = itertools.count(1)

    def answer(prompt: str) -> str:
        turn = next(turns)
        if prompts is not None:
            prompts.append(prompt)
        if turn % 11 == 0:
            raise TimeoutError(f"turn {turn}")
        if turn % 7 == 0:
            return ("", "I would rather not say.", '{"categories": ["Opera", "Whales"]}')[turn % 3]
        if "has ended" in prompt:
            return json.dumps({"reflection": f"Lesson {turn}: users like number {turn % 13}."})
        names = re.findall(r"^- (\w[^:\n]*?) \d+$", prompt, re.MULTILINE)
        return json.dumps({"categories": [names[turn % 5], names[5 + turn % 7], names[12]]})

    return answer


@pytest.fixture
def scripted(monkeypatch):
    """Lets a function answer wherever the name ``scripted.gguf`` is opened; other names open what they name."""

    def use(function: Any) -> None:
        really = setups.open_llm

        def opened(source, *, sampling, budget, cache, **more):
            if source != "scripted.gguf":
                return really(source, sampling=sampling, budget=budget, cache=cache, **more)
            llm = ScriptedLLM(function, sampling=sampling, budget=budget)
            return llm if cache is None else CachedLLM(llm, cache)

        monkeypatch.setattr(setups, "open_llm", opened)

    return use


@pytest.fixture
def quick_low_level(monkeypatch, small, twin_env):
    sessions_of(twin_env, 1, "train")  # the simulator is fitted beforehand, on one thread
    monkeypatch.setattr(runs, "PPOConfig", lambda: small)


def serve_row(env, learner, folder, planner, sessions, seed=0, progress=lambda _: None):
    """The result of a row called LERL, under a planner."""
    row, protocol = Row("lerl", "LERL", env, learner, "plan", planner), HeldOutSessions(sessions)
    done = Experiment((row,), seed + 1, protocol, folder)
    RunRow(done, row, seed)(progress)
    return done.results()["lerl"][-1]


def train_and_play(env, small, folder, planner, progress=lambda _: None):
    """A small training in two segments and its evaluation: its final checkpoint, and the result."""
    result = serve_row(env, PPOLearner(small, 600), folder, planner, 12, progress=progress)
    return read_checkpoint(folder / "checkpoints" / "lerl-seed0.safetensors"), result


def assert_the_same(first, second):
    ((weights, trained), result), ((same, again), replayed) = first, second
    assert result.meter == replayed.meter
    for name in result.arrays:
        assert (result.arrays[name] == replayed.arrays[name]).all()
    assert result.notes == replayed.notes
    assert result.curve == replayed.curve
    for name in ("curve", "meter", "reflections", "transitions", "capped"):
        assert trained[name] == again[name]
    assert weights.keys() == same.keys()
    assert all(np.array_equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize(
    "limits", [{}, {"llm_calls": 100}, {"llm_tokens": 60_000}, {"llm_seconds": 10.0}], ids=lambda limits: str(limits)
)
def test_a_recorded_run_is_replayed_bit_for_bit_without_the_model(
    twin_env, small, tmp_path, scripted, limits, monkeypatch
):
    scripted(moody())
    if "llm_seconds" in limits:  # a clock by which every batch takes one second
        monkeypatch.setattr(backend, "time", SimpleNamespace(monotonic=partial(next, itertools.count())))
    record = str(tmp_path / "t.sqlite")
    choice = PlannerConfig("llm", "scripted.gguf", period=3, **limits)
    cached = replace(choice, cache=str(tmp_path / "cache.sqlite"), record=record)
    recorded = train_and_play(twin_env, small, tmp_path / "recorded", cached)
    meter = recorded[1].meter
    assert meter["calls"] > 0
    assert bool(limits) == any("the budget of" in note for note in recorded[1].notes)
    assert meter["fallbacks"] > 0
    assert recorded[1].notes  # they say why the fallback planned
    if not limits:
        assert meter["retries"] > 0
        assert meter["failures"] > 0

    scripted(lambda prompt: pytest.fail("the model was asked"))
    replay = PlannerConfig("llm", f"replay:{record}", period=3)
    assert_the_same(recorded, train_and_play(twin_env, small, tmp_path / "replayed", replay))


def test_a_run_that_was_stopped_while_recording_is_replayed_as_it_ended(twin_env, small, tmp_path, scripted):
    """The reflections and costs of the part that was lost are lost, and the transcript holds what counted."""
    scripted(moody())
    record = str(tmp_path / "t.sqlite")
    choice = PlannerConfig("llm", "scripted.gguf", period=3, record=record)

    def stop(share):
        if share > 0.9 * 0.8:  # a tenth is left for playing
            raise Interrupted

    with pytest.raises(Interrupted):
        train_and_play(twin_env, small, tmp_path / "recorded", choice, stop)
    recorded = train_and_play(twin_env, small, tmp_path / "recorded", choice)
    replay = PlannerConfig("llm", f"replay:{record}", period=3)
    assert_the_same(recorded, train_and_play(twin_env, small, tmp_path / "replayed", replay))


def test_a_budget_holds_over_an_interruption(twin_env, small, tmp_path, scripted, caplog):
    prompts: list[str] = []
    scripted(moody(prompts))
    choice = PlannerConfig(LLM_ONLY, "scripted.gguf", period=3, llm_calls=100)
    task = Training(twin_env, "lerl", 0, 600, tmp_path / "run", choice, small)

    def stop(share):
        if share > 0.7:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(task, stop)
    trained = train(task)
    assert "LLM scripted.gguf: the budget of 100 calls is spent; the run continues without the model" in caplog.text
    assert len(prompts) == trained.meter["calls"] == 100
    assert trained.capped == "the budget of 100 calls is spent"
    assert trained.meter["fallbacks"] > 0


def steady(names, prompts, stop_at=None, stop=None):
    """A model whose answers depend on the prompt alone: mostly plans, now and then nonsense; stopped at a prompt."""

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        if len(prompts) == stop_at:
            stop()
        if "has ended" in prompt:
            return json.dumps({"reflection": f"Lesson {zlib.crc32(prompt.encode()) % 97}."})
        if zlib.crc32(prompt.encode()) % 9 == 0:
            return "I would rather not say."
        chosen = np.random.default_rng(zlib.crc32(prompt.encode())).permutation(len(names))[:8]
        return json.dumps({"categories": [names[place] for place in chosen]})

    return answer


def spent(meter):
    """All counts but the clock's."""
    return {name: count for name, count in meter.items() if name != "seconds"}


@pytest.mark.parametrize("share", [0.3, 0.7, 0.96], ids=["first segment", "second segment", "evaluation"])
def test_a_row_whose_process_was_killed_is_metered_whole(twin_env, small, tmp_path, scripted, share):
    """SIGKILL in the middle of a call; what was paid before counts as paid, and is not asked again."""
    names, whole, rest = list(data_of(twin_env).catalog.category_names), [], []
    choice = PlannerConfig("llm", "scripted.gguf", period=3)

    def kept(folder):
        folder.mkdir()
        return replace(choice, cache=str(folder / "llm-cache.sqlite"))

    scripted(steady(names, whole))
    expected = train_and_play(twin_env, small, tmp_path / "whole", kept(tmp_path / "whole"))
    assert expected[1].meter["retries"] > 0 and expected[1].meter["cache_hits"] > 0

    stop_at, cut = round(share * len(whole)), kept(tmp_path / "cut")
    scripted(steady(names, [], stop_at, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    run = multiprocessing.get_context("fork").Process(
        target=train_and_play, args=(twin_env, small, tmp_path / "cut", cut)
    )
    run.start()
    run.join(120)
    assert run.exitcode == -signal.SIGKILL
    scripted(steady(names, rest))
    resumed = train_and_play(twin_env, small, tmp_path / "cut", cut)
    assert spent(resumed[1].meter) == spent(expected[1].meter)
    assert spent(resumed[0][1]["meter"]) == spent(expected[0][1]["meter"])
    assert resumed[1].meter["calls"] > len(rest)  # a whole batch of them was answered before
    assert (resumed[1].arrays["return"] == expected[1].arrays["return"]).all()


def test_a_budget_counts_what_was_paid_before_a_stop_within_a_segment(twin_env, small, tmp_path, scripted):
    names, prompts = list(data_of(twin_env).catalog.category_names), []
    choice = PlannerConfig(LLM_ONLY, "scripted.gguf", period=3, llm_calls=60, cache=str(tmp_path / "cache.sqlite"))
    task = Training(twin_env, "lerl", 0, 600, tmp_path / "run", choice, small)

    def stop():
        raise KeyboardInterrupt

    scripted(steady(names, prompts, 50, stop))
    with pytest.raises(KeyboardInterrupt):
        train(task)
    answered = len(prompts)
    scripted(steady(names, prompts))
    trained = train(task)
    assert trained.meter["calls"] == 60 and trained.capped == "the budget of 60 calls is spent"
    assert len(prompts) - answered < 60  # the others came from the file, and were charged all the same


WORDS = "Unsupported parameter: 'top_k' is not known to this model."


def refuse(request, answer):
    return answer("I am sorry, but I would rather not choose for other people.")


def name_nonsense(request, answer):
    return answer(json.dumps({"categories": ["Opera", "Whales"]}))


def say_nothing(request, answer):
    return answer("")


def refuse_for_good(request, answer):
    return 400, {"error": {"message": f"{WORDS} \x1b[31m\u202e", "type": "invalid_request_error"}}


def answer_well(request, answer):
    return answer(LESSON if "has ended" in str(request) else GOOD)


FAILURES = {
    "timeout": None,
    "refusal": refuse,
    "refused for good": refuse_for_good,
    "empty answer": say_nothing,
    "invalid names": name_nonsense,
    "server gone": answer_well,
    "damaged cache": answer_well,
    "damaged transcript": answer_well,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_ends_in_counted_fallbacks_and_a_finished_evaluation(
    twin_env, small, tmp_path, serve, answer, failure, caplog
):
    reply = FAILURES[failure]
    server = serve(lambda request: server.hang(request) if reply is None else reply(request, answer))
    if failure == "server gone":
        server.reply = lambda request: answer(GOOD) if len(server.requests) < 9 else server.stop() or (500, {})
    cache, record = tmp_path / "cache.sqlite", tmp_path / "t.sqlite"
    for damaged in {"damaged cache": [cache], "damaged transcript": [record]}.get(failure, []):
        damaged.write_bytes(b"no database at all" * 500)
    seconds = 0.3 if failure in ("timeout", "server gone") else 60
    choice = PlannerConfig(LLM_ONLY, server.url, period=5, llm_seconds=seconds, cache=str(cache), record=str(record))
    result = serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", choice, 10)
    meter = result.meter
    assert result.episodes == 10
    assert meter["decisions"] >= 30
    if failure.startswith("damaged"):
        assert meter["fallbacks"] == meter["failures"] == 0
        assert "is damaged" in caplog.text
        assert cache.exists() and record.exists()
    elif failure == "server gone":
        assert 0 < meter["fallbacks"] < meter["decisions"]
    else:
        assert meter["fallbacks"] == meter["decisions"] == meter["evaluation_fallbacks"]
        assert meter["failures" if failure in ("timeout", "refused for good") else "retries"] > 0
    words = {
        "refusal": "its answer cannot be used: 'I am sorry, but I would rather not",
        "refused for good": WORDS,
        "empty answer": "its answer is empty",
        "invalid names": "Whales",
    }.get(failure, "in evaluation the")
    assert bool(result.notes) == (meter["fallbacks"] > 0)
    for note in result.notes:
        assert note.isprintable() and len(note) < 400
    assert not result.notes or words in " ".join(result.notes)
    other = replace(choice, llm=f"replay:{record}", record=None)
    replayed = serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", other, 10)
    assert replayed.meter == meter
    assert (replayed.arrays["return"] == result.arrays["return"]).all()


@pytest.mark.slow
def test_what_a_real_gguf_model_planned_is_replayed_without_its_file(twin_env, small, tmp_path, make_gguf, monkeypatch):
    model = make_gguf(seed=1)
    record = str(tmp_path / "t.sqlite")
    choice = PlannerConfig(LLM_ONLY, str(model), period=20, llm_seconds=60, record=record)
    result = serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", choice, 4)
    assert result.meter["completion_tokens"] > 0
    model.unlink()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    other = replace(choice, llm=f"replay:{record}", record=None)
    replayed = serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", other, 4)
    assert replayed.meter == result.meter
    assert (replayed.arrays["return"] == result.arrays["return"]).all()


def test_a_replay_of_a_transcript_that_holds_something_else_falls_back(twin_env, small, tmp_path, scripted, caplog):
    scripted(moody())
    record = str(tmp_path / "t.sqlite")
    choice = PlannerConfig(LLM_ONLY, "scripted.gguf", period=5, record=record)
    serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", choice, 5)
    other = replace(choice, llm=f"replay:{record}", record=None)
    meter = serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", other, 5, seed=1).meter
    assert meter["fallbacks"] == meter["decisions"] == meter["failures"] > 0
    assert caplog.text.count("a prompt is not in the transcript") == 1


def run(tmp_path, *more):
    argv = ["run", "--data", "twin", "--seeds", "1", "--transitions", "80", "--sessions", "10", "--workers", "1"]
    return main([*argv, "--out", str(tmp_path / "run"), *more])


@pytest.mark.slow
def test_a_whole_run_is_capped_recorded_shown_and_replayed_in_the_same_folder(
    tmp_path, quick_low_level, serve, answer, capsys
):
    server = serve(lambda request: answer_well(request, answer))
    record = tmp_path / "t.sqlite"
    assert (
        run(tmp_path, "--llm", server.url, "--plan-period", "5", "--llm-calls", "20", "--llm-record", str(record)) == 0
    )
    printed = capsys.readouterr().out
    said = " ".join(printed.split())
    assert f"{TOP_K_PREFERENCE} planner in place of LLM" in said and "Not measured" in said
    assert "per seed the language model made " in said
    assert f"in training the budget of 20 calls is spent, then {TOP_K_PREFERENCE} planned" in said
    assert "per 1 k slates" in printed
    folder = tmp_path / "run"
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text("utf-8")
        assert "in evaluation the budget of 20 calls is spent" in text, page
        assert "per 1 k slates" in text, page
    assert "20 calls in each training and each evaluation" in (folder / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.glob("t.sqlite*")] == ["t.sqlite"]
    recorded = {r.row: r for r in ResultStore(folder / "results").load_all()}
    made = set((folder / "results").iterdir())
    assert recorded["lerl"].meter["calls"] <= 40

    server.stop()
    assert run(tmp_path, "--llm", f"replay:{record}", "--plan-period", "5") == 0
    assert "planner: LLM replayed from t.sqlite" in capsys.readouterr().out
    for path in made:  # what was recorded is out of the way
        path.unlink()
    replayed = {r.row: r for r in ResultStore(folder / "results").load_all()}
    # What the model plans, and what is played over the policy that was trained under it.
    assert set(replayed) == {n for n in RUN_ROWS if DEFINITIONS[n].has_model or DEFINITIONS[n].trained_as == "lerl"}
    for name, result in replayed.items():
        assert (result.arrays["return"] == recorded[name].arrays["return"]).all(), name
        assert result.meter == recorded[name].meter
        assert result.notes == recorded[name].notes

    assert main(["transcript", "show", str(record), "--last", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" prompt ---") == 2
    newest = list(read_batches(record))[-1]
    assert newest.prompts[-1].rstrip() in printed
    assert f"conversations with openai:{server.url}#tiny" in printed
    assert "temperature 0.8, top_p 0.9, seed 0" in printed

    checkpoint = str(folder / "checkpoints" / "lerl-seed0.safetensors")
    argv = ["evaluate", checkpoint, "--data", "twin", "--sessions", "10", "--seeds", "1"]
    assert main(argv) == 2
    assert "name the model with --llm" in capsys.readouterr().err
    assert main([*argv, "--llm", f"replay:{record}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "LLM replayed from t.sqlite" in printed
    assert "per 1 k slates" in printed
    assert f"{recorded['lerl'].arrays['return'].mean():.3f}" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--llm", "none", "--llm-record", "t.sqlite"],
            "--llm-record t.sqlite: there is nothing to record where no model plans",
        ),
        (["--llm", "replay:nothing.sqlite"], "there is no transcript nothing.sqlite"),
        (["--llm", "replay:a.sqlite", "--llm-record", "t.sqlite"], "a replay has nothing new to record"),
        (["--llm", "m.gguf", "--llm-calls", "-1"], "--llm-calls -1: it must be at least 0"),
        (["--llm", "m.gguf", "--llm-tokens", "-1"], "--llm-tokens -1: it must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_one_clear_line(tmp_path, more, message, capsys, quick_low_level):
    assert run(tmp_path, *more) == 2
    assert message in capsys.readouterr().err


def test_transcript_show_says_what_is_wrong(tmp_path, capsys):
    assert main(["transcript", "show", str(tmp_path / "t.sqlite")]) == 2
    assert "there is no transcript" in capsys.readouterr().err
    assert main(["transcript", "show", str(tmp_path / "t.sqlite"), "--last", "0"]) == 2
    assert "--last 0: it must be at least 1" in capsys.readouterr().err


def test_equal_prompts_of_a_batch_are_counted_as_known(twin_env, small, tmp_path, scripted):
    """Calls, answers known, failures and refusals account for every plan."""
    scripted(lambda prompt: GOOD)
    choice = PlannerConfig(LLM_ONLY, "scripted.gguf", period=5)
    found = serve_row(twin_env, PretrainedLearner(small), tmp_path / "run", choice, 10).meter
    meter = Meter.from_dict({k: v for k, v in found.items() if k in Meter().to_dict()})
    assert meter.calls + meter.cache_hits == meter.decisions
