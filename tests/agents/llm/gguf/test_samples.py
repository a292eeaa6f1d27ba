"""Log-probabilities, samples and system messages of a GGUF model, against llama.cpp's own logits and chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp")

import llama_cpp

from rapport.agents.llm import Budget, Sampling
from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.llm.gguf.scheduler import Request
from rapport.agents.planning.llm_planner import plan_schema

SCHEMA = plan_schema(["Comedy", "Sport & news"], 1, 2)
PROMPTS = [f"Choose categories for user {n}: " for n in range(5)]
REFUSES = "{{ raise_exception('no system role') if messages[0].role == 'system' }}{{ messages[-1].content }}"
DROPS = "{{ bos_token }}{{ messages[-1].content }}"


def reference_logprobs(model: Any, tokens: list[int], n_prompt: int) -> NDArray[np.float64]:
    """Log-probabilities of the tokens after the prompt, from all logits of llama-cpp-python's own evaluation."""
    model.reset()
    model.eval(tokens)
    logits = np.array(model.scores[n_prompt - 1 : len(tokens) - 1], np.float64)
    every = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return every[np.arange(len(logits)), tokens[n_prompt:]]


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_log_probabilities_are_those_of_llama_cpps_logits(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, schema: dict[str, object] | None
) -> None:
    finished: list[Request] = []
    completion = LlamaCppLLM._completion
    monkeypatch.setattr(
        LlamaCppLLM, "_completion", lambda self, request: finished.append(request) or completion(self, request)
    )
    llm = LlamaCppLLM(tiny_gguf, n_ctx=300, parallel=4, sampling=Sampling(temperature=1.3, top_p=0.95))
    plain = llm.complete(PROMPTS, schema, 60)
    assert all(answer.logprobs is None for answer in plain)
    finished.clear()
    answers = llm.complete(PROMPTS, schema, 60, logprobs=True)  # the narrow context preempts some of them
    assert [answer.text for answer in answers] == [answer.text for answer in plain]
    reference = llama_cpp.Llama(str(tiny_gguf), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    for answer, request in zip(answers, finished, strict=True):
        assert answer.logprobs is not None and len(answer.logprobs) == answer.completion_tokens > 10
        wanted = reference_logprobs(reference, request.prompt + request.generated, len(request.prompt))
        np.testing.assert_allclose(answer.logprobs, wanted, atol=2e-4)


def test_the_first_sample_is_the_same_for_any_number_of_samples(tiny_gguf: Path) -> None:
    llm = LlamaCppLLM(tiny_gguf, n_ctx=2048, parallel=6)
    single = llm.complete(PROMPTS, SCHEMA, 80)
    three = llm.complete(PROMPTS, SCHEMA, 80, n=3)
    assert three[::3] == single and len(three) == 15
    assert llm.complete(PROMPTS[::-1], SCHEMA, 80, n=2) == [a for k in (12, 9, 6, 3, 0) for a in three[k : k + 2]]
    assert len({answer.text for answer in three}) > 10
    other = LlamaCppLLM(tiny_gguf, n_ctx=2048, sampling=Sampling(seed=1)).complete(PROMPTS, SCHEMA, 80, n=3)
    assert not {answer.text for answer in other[1::3]} & {answer.text for answer in three[1::3]}
    greedy = LlamaCppLLM(tiny_gguf, n_ctx=2048, sampling=Sampling(temperature=0)).complete(PROMPTS[:1], None, 20, n=3)
    assert len({answer.text for answer in greedy}) == 1


def test_samples_have_the_models_probabilities(tiny_gguf: Path) -> None:
    llm = LlamaCppLLM(tiny_gguf, sampling=Sampling(temperature=1, top_p=1), parallel=32)
    answers = llm.complete(["Once"], None, 1, n=1_000, logprobs=True)
    drawn = np.array([answer.logprobs[0] for answer in answers if answer.logprobs])
    reference = llama_cpp.Llama(str(tiny_gguf), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    reference.eval(prompt := reference.tokenize(b"Once"))
    logits = np.array(reference.scores[len(prompt) - 1], np.float64)
    logprobs = logits - np.log(np.exp(logits).sum())
    entropy, spread = -(np.exp(logprobs) * logprobs).sum(), np.sqrt((np.exp(logprobs) * logprobs**2).sum())
    assert abs(-drawn.mean() - entropy) < 4 * spread / np.sqrt(len(drawn))
    top = logprobs.max()
    share = np.isclose(drawn, top, atol=1e-3).mean()
    assert abs(share - np.exp(top)) < 4 * np.sqrt(np.exp(top) / len(drawn))


def test_samples_count_as_calls_of_the_budget(tiny_gguf: Path) -> None:
    llm = LlamaCppLLM(tiny_gguf, budget=Budget(calls=3))
    answers = llm.complete(["a", "b"], None, 3, n=2)
    assert [answer.sent for answer in answers] == [True, True, True, False] and llm.meter.calls == 3


def test_a_system_message_is_put_where_the_chat_template_says(make_gguf: Callable[..., Path]) -> None:
    path = make_gguf(chat=True)
    read: list[list[int]] = []
    model = llama_cpp.Llama(str(path), n_ctx=512, verbose=False)
    complete = model.create_completion
    model.create_completion = lambda prompt, **options: read.append(prompt) or complete(prompt, **options)
    llm = LlamaCppLLM(path)
    for system in ("Be brief.", " two\nlines 🎵", "</s>"):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "hello"}]
        model.create_chat_completion(messages, max_tokens=1)
        assert llm._tokenize("hello", system) == read[-1]
        assert llm.complete(["hello"], None, 3, system=system)[0].prompt_tokens == len(read[-1])


@pytest.mark.parametrize(
    ("template", "reason"), [(None, "no chat template"), (REFUSES, "no system role"), (DROPS, "it drops the message")]
)
def test_a_model_without_system_messages_says_so(
    make_gguf: Callable[..., Path], template: str | None, reason: str
) -> None:
    llm = LlamaCppLLM(make_gguf(chat_template=template))
    with pytest.raises(ValueError, match=rf"system='Be brief\.'.*{reason}.*into the prompts"):
        llm.complete(["hello"], None, 3, system="Be brief.")
    assert llm.complete(["hello"], None, 3)[0].error is None
