"""How a language model runs: from the command line into the model, and which of it a row's key and files know."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rapport.agents.llm import Budget, Sampling
from rapport.experiments.commands.options import LanguageModelLimits
from rapport.experiments.core import identity
from rapport.experiments.lerl import config
from rapport.experiments.lerl.config import LLM, PlannerConfig, planner_of_note, with_language_model

GIVEN = {
    "llm_temperature": 0.0,
    "llm_answer_tokens": 4_000,
    "llm_context": 8_192,
    "llm_threads": 3,
    "llm_gpu_layers": -1,
    "llm_parallel": 2,
    "llm_timeout": 30.0,
}


def test_settings_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, object]] = []
    monkeypatch.setattr(config, "open_llm", lambda source, **settings: opened.append({"source": source, **settings}))
    settings = LanguageModelLimits(**GIVEN).model_settings()
    assert settings == GIVEN and LanguageModelLimits().model_settings() == {}
    with_language_model(PlannerConfig(LLM), "smollm2", Budget(), None, settings).open(7)
    PlannerConfig(LLM, "m.gguf").open(7)
    given, default = opened
    assert given["sampling"] == Sampling(0.0, seed=7, answer_tokens=4_000) and given["source"] == "smollm2"
    names = ("timeout", "parallel", "n_ctx", "n_threads", "n_gpu_layers")
    assert [given[name] for name in names] == [30.0, 2, 8_192, 3, -1]
    assert default["sampling"] == Sampling(seed=7)
    assert [default[name] for name in names] == [None, None, 4_096, None, 0]


def test_a_key_holds_what_results_depend_on() -> None:
    plain = PlannerConfig(LLM, "m.gguf")
    for name, value in GIVEN.items():
        differs = identity(replace(plain, **{name: value})) != identity(plain)
        assert differs == (name != "llm_threads"), name


def test_an_agents_settings_stay_unless_others_are_given() -> None:
    note = json.loads(json.dumps(identity(PlannerConfig(LLM, "m.gguf", llm_temperature=0.0, llm_answer_tokens=9))))
    trained = planner_of_note(note)
    kept = with_language_model(trained, "other.gguf", Budget(), None, {"llm_answer_tokens": 5})
    assert (kept.llm_temperature, kept.llm_answer_tokens) == (0.0, 5)


SECRET = "http://me:s3cret-word@host:8080/v1?api_key=s3cret-word#m"


def test_credentials_of_an_address_are_used_and_written_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(config, "open_llm", lambda source, **settings: opened.append(source))
    for given in (PlannerConfig(LLM, SECRET), with_language_model(PlannerConfig(LLM), SECRET, Budget(), None)):
        assert given.llm == "http://host:8080/v1#m"
        assert "s3cret" not in f"{given!r} {identity(given)} {given.limits()} {config.model_label(given.llm)}"
        replace(given, period=3).open(0)
        replace(given, llm="http://other/v1#m").open(0)
        planner_of_note(identity(given)).open(0)
    assert opened == [SECRET, "http://other/v1#m", "http://host:8080/v1#m"] * 2
    assert PlannerConfig(LLM, "http://me:s3cret-word@host:x/v1").llm == "http://***@host:x/v1"
