"""Runs that a language model plans: whatever it does they end, what it cost is told, and they can be played again."""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rapport.experiments.commands.run as runs
import rapport.experiments.lerl.config as setups
from rapport.agents.llm import CachedLLM, Meter, ScriptedLLM
from rapport.agents.llm.base import backend
from rapport.agents.llm.transcript import read_batches
from rapport.experiments.cli import main
from rapport.experiments.lerl.config import PlannerChoice
from rapport.experiments.lerl.play import Evaluation, play_agent
from rapport.experiments.lerl.training import Training, first_agent, train
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
            return json.dumps({"reflection": f"TrainingTask {turn}: users like number {turn % 13}."})
        names = re.findall(r"^- (\w[^:\n]*?) \d+$", prompt, re.MULTILINE)
        return json.dumps({"categories": [names[turn % 5], names[5 + turn % 7], names[12]]})

    return answer


@pytest.fixture
def scripted(monkeypatch):
    """Lets a function answer wherever the name ``scripted.gguf`` is opened; other names open what they name."""

    def use(function: Any) -> None:
        really = setups.open_llm

        def opened(source, *, sampling, budget, cache, packaged=None):
            if source != "scripted.gguf":
                return really(source, sampling=sampling, budget=budget, cache=cache, packaged=packaged)
            llm = ScriptedLLM(function, sampling=sampling, budget=budget)
            return llm if cache is None else CachedLLM(llm, cache)

        monkeypatch.setattr(setups, "open_llm", opened)

    return use


@pytest.fixture
def quick_low_level(monkeypatch, small):
    monkeypatch.setattr(runs, "PPOConfig", lambda **_: small)


def train_and_play(twin_setup, small, folder, choice, progress=lambda _: None):
    """A small training in two segments and its evaluation: final weights, curve, meters and the result."""
    choice = replace(choice, pool=str(folder / "pool.sqlite"))
    task = Training(twin_setup, "lerl", 0, 600, str(folder / "run"), choice, small)
    trained = train(task, progress)
    result = play_agent(Evaluation(twin_setup, 0, 12), "lerl", trained.agent, choice, trained)
    return trained, result


def assert_the_same(first, second):
    (trained, result), (again, replayed) = first, second
    assert result.meter == replayed.meter
    assert (result.lengths == replayed.lengths).all()
    assert (result.returns == replayed.returns).all()
    assert result.notes == replayed.notes
    assert trained.curve == again.curve
    assert trained.meter == again.meter
    one, two = trained.agent.policy.state_dict(), again.agent.policy.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "limits", [{}, {"llm_calls": 100}, {"llm_tokens": 60_000}, {"llm_seconds": 10.0}], ids=lambda limits: str(limits)
)
def test_a_recorded_run_is_replayed_bit_for_bit_without_the_model(
    twin_setup, small, tmp_path, scripted, limits, monkeypatch
):
    scripted(moody())
    if "llm_seconds" in limits:  # a clock by which every batch takes one second
        monkeypatch.setattr(backend, "time", SimpleNamespace(monotonic=partial(next, itertools.count())))
    record = str(tmp_path / "t.sqlite")
    choice = PlannerChoice("llm", "scripted.gguf", period=3, **limits)
    cached = replace(choice, cache=str(tmp_path / "cache.sqlite"), record=record)
    recorded = train_and_play(twin_setup, small, tmp_path / "recorded", cached)
    meter = recorded[1].meter
    assert meter["calls"] > 0
    assert bool(limits) == bool(recorded[1].notes)
    assert meter["fallbacks"] > 0
    if not limits:
        assert meter["retries"] > 0
        assert meter["failures"] > 0

    scripted(lambda prompt: pytest.fail("the model was asked"))
    replay = PlannerChoice("llm", f"replay:{record}", period=3)
    assert_the_same(recorded, train_and_play(twin_setup, small, tmp_path / "replayed", replay))


def test_a_run_that_was_stopped_while_recording_is_replayed_as_it_ended(twin_setup, small, tmp_path, scripted):
    """The reflections and costs of the part that was lost are lost, and the transcript holds what counted."""
    scripted(moody())
    record = str(tmp_path / "t.sqlite")
    choice = PlannerChoice("llm", "scripted.gguf", period=3, record=record)

    def stop(share):
        if share > 0.8:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_and_play(twin_setup, small, tmp_path / "recorded", choice, stop)
    recorded = train_and_play(twin_setup, small, tmp_path / "recorded", choice)
    replay = PlannerChoice("llm", f"replay:{record}", period=3)
    assert_the_same(recorded, train_and_play(twin_setup, small, tmp_path / "replayed", replay))


def test_a_budget_holds_over_an_interruption(twin_setup, small, tmp_path, scripted):
    prompts: list[str] = []
    scripted(moody(prompts))
    choice = PlannerChoice("llm without reflection", "scripted.gguf", period=3, llm_calls=100)
    task = Training(twin_setup, "lerl", 0, 600, str(tmp_path / "run"), choice, small)

    def stop(share):
        if share > 0.7:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(task, stop)
    trained = train(task, lambda _: None)
    assert len(prompts) == trained.meter["calls"] == 100
    assert trained.capped == "the budget of 100 calls is spent"
    assert trained.meter["fallbacks"] > 0


def refuse(request, answer):
    return answer("I am sorry, but I would rather not choose for other people.")


def name_nonsense(request, answer):
    return answer(json.dumps({"categories": ["Opera", "Whales"]}))


def say_nothing(request, answer):
    return answer("")


def answer_well(request, answer):
    return answer(LESSON if "has ended" in str(request) else GOOD)


FAILURES = {
    "timeout": None,
    "refusal": refuse,
    "empty answer": say_nothing,
    "invalid names": name_nonsense,
    "server gone": answer_well,
    "damaged cache": answer_well,
    "damaged transcript": answer_well,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_ends_in_counted_fallbacks_and_a_finished_evaluation(
    twin_setup, small, tmp_path, serve, answer, failure, caplog
):
    reply = FAILURES[failure]
    server = serve(lambda request: server.hang(request) if reply is None else reply(request, answer))
    if failure == "server gone":
        server.reply = lambda request: answer(GOOD) if len(server.requests) < 9 else server.stop() or (500, {})
    cache, record = tmp_path / "cache.sqlite", tmp_path / "t.sqlite"
    for damaged in {"damaged cache": [cache], "damaged transcript": [record]}.get(failure, []):
        damaged.write_bytes(b"no database at all" * 500)
    seconds = 0.3 if failure in ("timeout", "server gone") else 60
    choice = PlannerChoice(
        "llm without reflection", server.url, seconds, period=5, cache=str(cache), record=str(record)
    )
    agent = first_agent(Training(twin_setup, "lerl", 0, 0, str(tmp_path / "run"), choice, small), lambda _: None)
    result = play_agent(Evaluation(twin_setup, 0, 10), "lerl", agent, choice)
    meter = result.meter
    assert result.sessions == 10
    assert meter["decisions"] >= 30
    if failure.startswith("damaged"):
        assert meter["fallbacks"] == meter["failures"] == 0
        assert "is damaged" in caplog.text
        assert cache.exists() and record.exists()
    elif failure == "server gone":
        assert 0 < meter["fallbacks"] < meter["decisions"]
    else:
        assert meter["fallbacks"] == meter["decisions"]
        assert meter["failures" if failure == "timeout" else "retries"] > 0
    replayed = play_agent(
        Evaluation(twin_setup, 0, 10), "lerl", agent, replace(choice, llm=f"replay:{record}", record=None)
    )
    assert replayed.meter == meter
    assert (replayed.returns == result.returns).all()


@pytest.mark.slow
def test_what_a_real_gguf_model_planned_is_replayed_without_its_file(
    twin_setup, small, tmp_path, make_gguf, monkeypatch
):
    model = make_gguf(seed=1)
    record = str(tmp_path / "t.sqlite")
    choice = PlannerChoice("llm without reflection", str(model), 60, period=20, record=record)
    agent = first_agent(Training(twin_setup, "lerl", 0, 0, str(tmp_path / "run"), choice, small), lambda _: None)
    result = play_agent(Evaluation(twin_setup, 0, 4), "lerl", agent, choice)
    assert result.meter["completion_tokens"] > 0
    model.unlink()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    other = replace(choice, llm=f"replay:{record}", record=None)
    replayed = play_agent(Evaluation(twin_setup, 0, 4), "lerl", agent, other)
    assert replayed.meter == result.meter
    assert (replayed.returns == result.returns).all()


def test_a_replay_of_a_transcript_that_holds_something_else_falls_back(twin_setup, small, tmp_path, scripted, caplog):
    scripted(moody())
    record = str(tmp_path / "t.sqlite")
    choice = PlannerChoice("llm without reflection", "scripted.gguf", period=5, record=record)
    agent = first_agent(Training(twin_setup, "lerl", 0, 0, str(tmp_path / "run"), choice, small), lambda _: None)
    play_agent(Evaluation(twin_setup, 0, 5), "lerl", agent, choice)
    other = replace(choice, llm=f"replay:{record}", record=None)
    meter = play_agent(Evaluation(twin_setup, 1, 5), "lerl", agent, other).meter
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
    assert "LERL: per seed the language model made " in printed
    assert "LERL: in training the budget of 20 calls is spent, then lasting preference planned" in printed
    assert "per 1 k slates" in printed
    folder = tmp_path / "run"
    for page in ("table.md", "report.html"):
        text = (folder / page).read_text("utf-8")
        assert "in evaluation the budget of 20 calls is spent" in text, page
        assert "per 1 k slates" in text, page
    assert "20 calls, 120 seconds in each training and each evaluation" in (folder / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.glob("t.sqlite*")] == ["t.sqlite"]
    recorded = {r.method: r for r in ResultStore(folder / "results", None).load_all()}
    assert recorded["lerl"].meter["calls"] <= 40

    server.stop()
    assert run(tmp_path, "--llm", f"replay:{record}", "--plan-period", "5") == 0
    assert "planner: LLM replayed from t.sqlite" in capsys.readouterr().out
    for result in ResultStore(folder / "results", None).load_all():
        assert (result.returns == recorded[result.method].returns).all(), result.method
        assert result.meter == recorded[result.method].meter
        assert result.notes == recorded[result.method].notes

    assert main(["transcript", "show", str(record), "--last", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" prompt ---") == 2
    newest = list(read_batches(record))[-1]
    assert newest.prompts[-1].rstrip() in printed
    assert f"conversations with openai:{server.url}#tiny" in printed
    assert "temperature 0.8, top_p 0.9, seed 0" in printed

    checkpoint = str(folder / "checkpoints" / "lerl-seed0.safetensors")
    argv = ["evaluate", checkpoint, "--data", "twin", "--sessions", "10", "--seeds", "1"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "LLM replayed from t.sqlite" in printed
    assert "per 1 k slates" in printed
    assert f"{recorded['lerl'].r_cum:.3f}" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--llm", "none", "--llm-record", "t.sqlite"],
            "--llm-record t.sqlite: there is nothing to record where no model plans",
        ),
        (["--llm", "replay:nothing.sqlite"], "there is no transcript nothing.sqlite"),
        (["--llm", "replay:a.sqlite", "--llm-record", "t.sqlite"], "a replay has nothing new to record"),
        (["--llm", "m.gguf", "--llm-calls", "-1"], "a budget of -1 calls is below 0"),
        (["--llm", "m.gguf", "--llm-tokens", "-1"], "a budget of -1 tokens is below 0"),
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


def test_equal_prompts_of_a_batch_are_counted_as_known(twin_setup, small, tmp_path, scripted):
    """Calls, answers known, failures and refusals account for every plan."""
    scripted(lambda prompt: GOOD)
    choice = PlannerChoice("llm without reflection", "scripted.gguf", period=5)
    agent = first_agent(Training(twin_setup, "lerl", 0, 0, str(tmp_path / "run"), choice, small), lambda _: None)
    meter = Meter.from_dict(
        {
            k: v
            for k, v in play_agent(Evaluation(twin_setup, 0, 10), "lerl", agent, choice).meter.items()
            if k in Meter().to_dict()
        }
    )
    assert meter.calls + meter.cache_hits == meter.decisions
