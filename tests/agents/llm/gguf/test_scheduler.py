"""Answers written side by side, against llama.cpp's own samplers and its own one-by-one completion."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("llama_cpp")

import llama_cpp

from rapport.agents.llm import Budget, Sampling
from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.llm.gguf.context import common_length
from rapport.agents.llm.gguf.grammar import decode, schema_to_gbnf
from rapport.agents.llm.gguf.sampling import nucleus, sample
from rapport.agents.planning.llm_planner import plan_schema

NAMES = ["Comedy", "Sport & news", 'so-called "art"', "Küche"]
SCHEMA = plan_schema(NAMES, 1, 3)
PROMPTS = [f"Choose categories for user {n}: " for n in range(12)]

Logits = NDArray[np.float32]


def sampled_by_llama_cpp(logits: Logits, sampling: Sampling) -> Logits:
    """Probabilities that llama.cpp's samplers leave to each token."""
    data = (llama_cpp.llama_token_data * len(logits))()
    for token, logit in enumerate(logits):
        data[token] = llama_cpp.llama_token_data(token, logit, 0.0)
    array = llama_cpp.llama_token_data_array(data, len(logits), -1, False)
    for sampler in (
        llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
        llama_cpp.llama_sampler_init_temp(sampling.temperature),
        llama_cpp.llama_sampler_init_dist(0),
    ):
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        llama_cpp.llama_sampler_free(sampler)
    found = np.zeros(len(logits), np.float32)
    for place in range(array.size):
        found[array.data[place].id] = array.data[place].p
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 300),
    spread=st.floats(0.1, 8),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
    temperature=st.sampled_from([0.0, 0.3, 0.8, 2.0]),
)
def test_the_nucleus_is_llama_cpps(seed: int, size: int, spread: float, top_p: float, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, top_p=top_p)
    logits = np.random.default_rng(seed).normal(0, spread, (3, size)).astype(np.float32)
    tokens, weights = nucleus(logits, sampling)
    assert (np.diff(np.take_along_axis(logits, tokens, 1)) <= 0).all()
    shares = -np.sort(-np.exp(logits.astype(np.float64)))
    held = (shares / shares.sum(1, keepdims=True)).cumsum(1)
    assume(top_p == 1 or np.abs(held - top_p).min() > 1e-5)  # where rounding decides, it may decide either way
    for row in range(3):
        ours = np.zeros(size)
        ours[tokens[row]] = weights[row]
        np.testing.assert_allclose(ours, sampled_by_llama_cpp(logits[row], sampling), atol=2e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drawing_first_and_asking_then_leaves_the_proportions(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, top_p=0.95)
    logits = np.log(np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02], np.float32))
    (tokens,), (weights,) = nucleus(logits[None], sampling)
    fits = np.array([False, True, False, True, True, True, True])
    rng = np.random.default_rng(1)
    drawn = [sample(logits, tokens, weights, lambda some: fits[some], sampling, rng) for _ in range(20_000)]
    wanted = np.zeros(7)
    wanted[tokens] = weights
    wanted *= fits
    if temperature == 0:
        wanted[1] = 1  # the likeliest of those that are allowed
    np.testing.assert_allclose(np.bincount(drawn, minlength=7) / 20_000, wanted / wanted.sum(), atol=0.012)


def test_where_the_nucleus_holds_nothing_allowed_the_rest_is_drawn_from() -> None:
    sampling = Sampling(temperature=1.0, top_p=0.5)
    logits = np.log(np.array([0.9, 0.05, 0.03, 0.02], np.float32))
    (tokens,), (weights,) = nucleus(logits[None], sampling)
    rng = np.random.default_rng(1)
    for fits, wanted in (([0, 1, 1, 1], {1}), ([0, 0, 1, 1], {2}), ([0, 0, 0, 0], {None})):
        allowed = np.array(fits, np.bool_)
        found = {sample(logits, tokens, weights, lambda some, a=allowed: a[some], sampling, rng) for _ in range(50)}
        assert found == wanted


def test_a_batch_says_what_llama_cpp_says_one_by_one(tiny_gguf: Path) -> None:
    from llama_cpp.llama_grammar import LlamaGrammar

    ours = LlamaCppLLM(tiny_gguf, n_ctx=2048, sampling=Sampling(temperature=0), parallel=5)
    reference = llama_cpp.Llama(str(tiny_gguf), n_ctx=256, n_threads=1, verbose=False)
    for schema in (SCHEMA, None):
        grammar = None if schema is None else LlamaGrammar.from_string(schema_to_gbnf(schema), verbose=False)
        for prompt, answer in zip(PROMPTS[:6], ours.complete(PROMPTS[:6], schema, 25), strict=True):
            reference.reset()
            prompted = reference.tokenize(prompt.encode())
            written = list(islice(reference.generate(prompted, temp=0, grammar=grammar), 25))
            assert answer.text == decode(reference.detokenize([reference.token_bos(), *written]))
            assert answer.prompt_tokens == len(prompted) and answer.completion_tokens == 25


@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_answers_do_not_depend_on_what_is_asked_beside(tiny_gguf: Path, schema: dict[str, object] | None) -> None:
    one = LlamaCppLLM(tiny_gguf, n_ctx=2048, parallel=1)
    wanted = {prompt: one.complete([prompt], schema, 100)[0] for prompt in PROMPTS}
    rng = np.random.default_rng(4)
    for parallel in (2, 7, 64):
        many = LlamaCppLLM(tiny_gguf, n_ctx=4096, parallel=parallel)
        asked = [PROMPTS[n] for n in rng.integers(len(PROMPTS), size=20)]
        assert many.complete(asked, schema, 100) == [wanted[prompt] for prompt in asked]


def test_a_full_context_puts_answers_back(tiny_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wide = LlamaCppLLM(tiny_gguf, n_ctx=4096, parallel=8)
    narrow = LlamaCppLLM(tiny_gguf, n_ctx=256, parallel=8)
    wanted = wide.complete(PROMPTS, None, 150)
    assert narrow.complete(PROMPTS, None, 150) == wanted
    assert narrow.meter.calls == len(PROMPTS) and sum(a.completion_tokens for a in wanted) > 512
    assert capfd.readouterr().err == ""


def test_alone_means_the_same_bits_whatever_came_before(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LlamaCppLLM(tiny_gguf, alone=True)
    seen: list[bytes] = []
    read = llm._context.decode

    def noted(chunks: dict[int, Any]) -> Logits:
        logits = read(chunks)
        seen.append(logits.tobytes())
        return logits

    monkeypatch.setattr(llm._context, "decode", noted)
    llm.complete(["b" * 300], None, 20)
    first = list(seen)
    llm.complete(["b" * 290 + "a", "b" * 300, "c"], None, 20)
    assert any(seen[start : start + len(first)] == first for start in range(len(first), len(seen)))


def test_a_model_whose_memory_cannot_be_shared(make_gguf: Callable[..., Path]) -> None:
    path = make_gguf(recurrent=True)
    batch = LlamaCppLLM(path, n_ctx=1024, parallel=5)
    assert not batch._context._can_share
    answers = batch.complete(PROMPTS, SCHEMA, 200)
    assert all(answer.error is None for answer in answers)
    assert LlamaCppLLM(path, n_ctx=1024, alone=True).complete(PROMPTS, SCHEMA, 200) == answers
    assert batch.complete(PROMPTS, SCHEMA, 200) == answers


@pytest.mark.parametrize("status", [1, 2, -1, -3])
def test_a_failure_of_llama_cpp_costs_the_answers_under_way(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    llm = LlamaCppLLM(tiny_gguf, n_ctx=1024, parallel=4)
    wanted = llm.complete(PROMPTS, SCHEMA, 200)
    decode, steps = llama_cpp.llama_decode, iter(range(10**6))

    def failing(context: Any, batch: Any) -> int:
        return status if 30 <= next(steps) < 32 else int(decode(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", failing)
    answers = llm.complete(PROMPTS, SCHEMA, 200)
    failed = [answer for answer in answers if answer.error is not None]
    assert [answer for answer in answers if answer.error is None] == [
        good for good, answer in zip(wanted, answers, strict=True) if answer.error is None
    ]
    if status == 1:  # only a lack of room: nothing is lost
        assert not failed
    else:
        assert 1 <= len(failed) <= 8 and f"llama.cpp failed: llama_decode returned {status}" in str(failed[0].error)
    assert llm.meter.failures == len(failed)
    assert llm.complete(PROMPTS, SCHEMA, 200) == wanted


def test_what_is_not_begun_when_the_budget_ends_is_not_sent(tiny_gguf: Path) -> None:
    llm = LlamaCppLLM(tiny_gguf, budget=Budget(seconds=0.2), parallel=2)
    answers = llm.complete([f"{n} " + "x" * 100 for n in range(300)], None, 2000)
    begun = [answer for answer in answers if answer.sent]
    assert 0 < len(begun) < 300 and llm.meter.calls == len(begun)
    assert {a.error for a in answers if not a.sent} == {"not sent: the budget's seconds are spent"}


@pytest.mark.parametrize("parallel", [0, 65])
def test_parallel_is_checked(tiny_gguf: Path, parallel: int) -> None:
    with pytest.raises(ValueError, match=f"parallel must be between 1 and 64 prompts; got {parallel}"):
        LlamaCppLLM(tiny_gguf, parallel=parallel)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_length_against_a_loop(first: list[int], second: list[int]) -> None:
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    assert common_length(first, second) == length
