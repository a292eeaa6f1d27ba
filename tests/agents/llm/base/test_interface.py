from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.agents.llm import Budget, Completion, Meter, Sampling, ScriptedLLM, complete_json, open_llm
from rapport.agents.llm.base.interface import sample_seed
from rapport.agents.llm.circuit_breaker import CircuitBreaker
from rapport.agents.llm.structured import decode_json

SCHEMA = {"type": "object"}


def even(value: object) -> int:
    if not isinstance(value, int) or value % 2:
        raise ValueError("it must be an even number")
    return value


def test_scripted_answers_come_in_order_and_are_metered() -> None:
    llm = ScriptedLLM(["one", TimeoutError("too slow"), "three words here"])
    answers = llm.complete(["a b", "c", "d", "e"])
    assert [a.text for a in answers] == ["one", "", "three words here", ""]
    assert answers[1].error == "TimeoutError: too slow"
    assert "no more answers" in str(answers[3].error)
    meter = llm.meter
    assert (meter.calls, meter.prompt_tokens, meter.completion_tokens, meter.failures) == (4, 5, 4, 2)


def test_meters_add_subtract_and_travel() -> None:
    first, second = Meter(calls=3, seconds=1.5, fallbacks=1), Meter(calls=1, cache_hits=2)
    assert first + second == Meter(calls=4, seconds=1.5, cache_hits=2, fallbacks=1)
    assert (first + second) - first == second
    assert Meter.from_dict(first.to_dict()) == first
    capped = Meter(calls=3, seconds=1.5, fallbacks=1, budget=Budget(calls=4))
    capped.add(second)
    assert capped == first + second and capped.exhausted == "the budget of 4 calls is spent"
    with pytest.raises(ValueError, match="no count named 'cals'"):
        Meter.from_dict({"cals": 1})


def test_a_spent_budget_stops_calls_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    llm = ScriptedLLM(lambda prompt: prompt.upper(), budget=Budget(calls=3))
    with caplog.at_level(logging.WARNING):
        first = llm.complete(["a", "b"])
        second = llm.complete(["c", "d", "e"])
        third = llm.complete(["f"])
    assert [a.text for a in first + second + third] == ["A", "B", "C", "", "", ""]
    assert {a.error for a in [*second[1:], *third]} == {"not sent: the budget of 3 calls is spent"}
    assert llm.meter.calls == 3 and llm.meter.failures == 0 and llm.prompts == ["a", "b", "c"]
    assert caplog.text.count("the run continues without the model") == 1


@pytest.mark.parametrize("budget", [Budget(tokens=2), Budget(seconds=0.0)])
def test_tokens_and_seconds_are_budgets_too(budget: Budget) -> None:
    llm = ScriptedLLM(lambda prompt: prompt, budget=budget)
    llm.complete(["a"])
    assert llm.complete(["b"])[0].error is not None


@given(
    st.lists(st.text("ab ", max_size=30), max_size=20),
    st.integers(0, 150),
    st.integers(0, 25) | st.none(),
    st.integers(1, 20),
)
def test_no_more_than_the_last_prompt_goes_beyond_the_budget(
    prompts: list[str], tokens: int, calls: int | None, max_tokens: int
) -> None:
    def repeat(prompt: str) -> str:  # as many words as are allowed, at most
        return " ".join(prompt.split()[:max_tokens])

    llm = ScriptedLLM(repeat, budget=Budget(calls, tokens))
    answers = llm.complete(prompts, None, max_tokens)
    assert len(answers) == len(prompts)
    sent = [answer for answer in answers if answer.sent]
    assert answers[: len(sent)] == sent and len(sent) == llm.meter.calls  # the first ones, in order
    assert [answer.text for answer in sent] == [repeat(prompt) for prompt in prompts[: len(sent)]]
    costs = [answer.prompt_tokens + answer.completion_tokens for answer in sent]
    assert sum(costs[:-1]) < tokens or not sent
    assert calls is None or len(sent) <= calls
    if len(sent) < len(prompts):  # nothing that could be paid for is left out
        assert llm.meter.exhausted


def test_a_batch_far_from_its_budget_is_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = ScriptedLLM(str.upper, budget=Budget(tokens=10_000))
    sizes: list[int] = []
    answer = llm._complete
    monkeypatch.setattr(llm, "_complete", lambda prompts, *rest: sizes.append(len(prompts)) or answer(prompts, *rest))
    llm.complete(["a b"] * 64, None, 8)
    assert sizes == [64]
    llm.meter.prompt_tokens, llm.meter.completion_tokens = 9_700, 0
    llm.complete(["a b"] * 64, None, 8)
    assert sizes[1] == 300 // (3 + 8)  # as many as are sure to fit: bytes of the longest, and the longest answer
    assert sum(sizes[1:]) == 64  # they cost less, so that all are sent in the end


@pytest.mark.parametrize("wrong", [{"calls": -1}, {"tokens": -5}, {"seconds": float("nan")}])
def test_budgets_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is below 0"):
        Budget(**wrong)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"temperature": 3}, {"top_p": 0}, {"seed": -1}])
def test_sampling_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure! ```json\n{"a": [1]}\n``` Hope it helps', {"a": [1]}),
        ("[1, 2]", [1, 2]),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ("I choose [3]", [3]),
    ],
)
def test_json_is_found(text: str, value: object) -> None:
    assert decode_json(text) == value


@pytest.mark.parametrize("text", ["", "no", "{", "[" * 100_000 + "]" * 100_000, '{"a": 1'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="it is"):
        decode_json(text)


def test_refused_answers_are_asked_again_with_the_reason() -> None:
    script = {"p": "3", "q": "4"}
    llm = ScriptedLLM(lambda prompt: "6" if "even number" in prompt else script[prompt])
    assert complete_json(llm, ["p", "q"], SCHEMA, even) == [6, 4]
    assert llm.meter.retries == 1 and llm.meter.calls == 3
    assert llm.prompts[2].startswith("p") and "Your last answer was:\n3" in llm.prompts[2]


def test_retries_are_bounded() -> None:
    llm = ScriptedLLM(lambda prompt: "nonsense")
    assert complete_json(llm, ["p", "q"], SCHEMA, even, retries=2) == [None, None]
    assert llm.meter.calls == 6 and llm.meter.retries == 4


def test_failed_calls_are_not_repeated() -> None:
    llm = ScriptedLLM([TimeoutError("late"), "2"])
    assert complete_json(llm, ["p", "q"], SCHEMA, even) == [None, 2]
    assert llm.meter.calls == 2 and llm.meter.retries == 0


def test_the_circuit_opens_waits_longer_each_time_and_closes() -> None:
    now = [0.0]
    circuit = CircuitBreaker(tolerance=2, pause=5.0, clock=lambda: now[0])
    assert circuit.failed() is None and not circuit.is_open
    assert circuit.failed() == 5.0 and circuit.is_open
    assert circuit.failed() is None  # one of the same wave
    now[0] = 6.0
    assert not circuit.is_open and circuit.is_half_open
    assert circuit.failed() == 10.0
    now[0] = 20.0
    circuit.succeeded()
    assert not circuit.is_open and not circuit.is_half_open


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot tell what language model 'llama3' is.*\.gguf.*http"):
        open_llm("llama3")


@pytest.mark.parametrize(("package", "source"), [("llama_cpp", "m.gguf"), ("openai", "http://localhost:1/v1#m")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, source: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"rapport-gym\[llm\]"):
        open_llm(source)


@pytest.mark.parametrize(("wrong", "name"), [({"max_tokens": 0}, "max_tokens"), ({"n": 0}, "n")])
def test_numbers_below_one_are_refused(wrong: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be at least 1; got 0"):
        ScriptedLLM(str.upper).complete(["a"], **wrong)  # type: ignore[arg-type]


def test_scripts_are_asked_once_for_each_sample() -> None:
    llm = ScriptedLLM(["one", "two", Completion("three", logprobs=(-0.5,)), TimeoutError("late")])
    assert [a.text for a in llm.complete(["a", "b"], n=2, system="be brief")] == ["one", "two", "three", ""]
    assert llm.prompts == ["a", "a", "b", "b"] and llm.systems == ["be brief"] * 4
    assert llm.meter.calls == 4 and llm.meter.prompt_tokens == 3 * 3


def test_a_script_gives_the_log_probabilities_it_has() -> None:
    answer = Completion("three", 1, 1, logprobs=(-0.5,))
    llm = ScriptedLLM([answer, TimeoutError("late"), answer, "text"])
    assert [a.logprobs for a in llm.complete(["a", "b"], logprobs=True)] == [(-0.5,), None]
    assert llm.complete(["a"])[0].logprobs is None
    with pytest.raises(ValueError, match=r"logprobs=True: the script of 'scripted'.*a Completion that has logprobs"):
        llm.complete(["a"], logprobs=True)


def test_a_system_message_counts_for_the_budget_and_goes_with_every_retry() -> None:
    llm = ScriptedLLM(["3", "4"], budget=Budget(tokens=1_000))
    assert complete_json(llm, ["p"], SCHEMA, even, system="numbers") == [4]
    assert llm.systems == ["numbers"] * 2
    sizes: list[int] = []
    long = ScriptedLLM(str.upper, budget=Budget(tokens=1_000))
    complete = long._complete
    long._complete = lambda some, *rest: sizes.append(len(some)) or complete(some, *rest)  # type: ignore[assignment]
    long.complete(["p"] * 50, None, 9, system="x" * 190)
    assert sizes[0] == 1_000 // (190 + 1 + 9)


def test_seeds_of_samples_are_independent_and_the_first_is_the_seed() -> None:
    seeds = {(seed, number): sample_seed(seed, number) for seed in range(40) for number in range(40)}
    assert all(seeds[seed, 0] == seed for seed in range(40))
    later = [value for (_, number), value in seeds.items() if number]
    assert len(set(later)) == len(later) and all(0 <= value < 2**32 for value in later)
