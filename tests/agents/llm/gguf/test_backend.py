from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp")

from rapport.agents.llm import Budget, Sampling, open_llm
from rapport.agents.llm.gguf.backend import LlamaCppLLM, file_fingerprint
from rapport.agents.llm.gguf.grammar import decode, schema_to_gbnf
from rapport.agents.planning.critic import REFLECTION_SCHEMA
from rapport.agents.planning.llm_planner import plan_schema

NAMES = ["Comedy", "Sport & news", 'so-called "art"', "back\\slash", "Küche", "喜剧", "🎵 music", "a\tb"]
PROMPTS = [f"Choose categories for user {n}: " for n in range(12)]


@pytest.fixture(scope="module")
def llm(tiny_gguf: Path) -> LlamaCppLLM:
    return LlamaCppLLM(tiny_gguf, n_ctx=512, n_threads=1)


def test_every_plan_follows_its_schema(llm: LlamaCppLLM) -> None:
    for answer in llm.complete(PROMPTS, plan_schema(NAMES, 2, 8), 400):
        assert answer.error is None
        plan = json.loads(answer.text)
        assert list(plan) == ["categories"] and 2 <= len(plan["categories"]) <= 8
        assert set(plan["categories"]) <= set(NAMES)
        assert answer.prompt_tokens > 20 and answer.completion_tokens > 20


def test_every_reflection_follows_its_schema(llm: LlamaCppLLM) -> None:
    for answer in llm.complete(PROMPTS, REFLECTION_SCHEMA, 480):
        if answer.error is None:
            assert len(json.loads(answer.text, strict=False)["reflection"]) >= 1
        else:
            assert "cut off" in answer.error


def test_a_seed_reproduces_answers_whatever_came_before(tiny_gguf: Path, llm: LlamaCppLLM) -> None:
    schema = plan_schema(NAMES, 2, 8)
    first = [a.text for a in llm.complete(PROMPTS, schema, 400)]
    assert first == [a.text for a in llm.complete(PROMPTS, schema, 400)]
    assert first[::-1] == [a.text for a in llm.complete(PROMPTS[::-1], schema, 400)]
    fresh = LlamaCppLLM(tiny_gguf, n_ctx=512, n_threads=1, alone=True)
    assert first == [a.text for a in fresh.complete(PROMPTS, schema, 400)]
    other = LlamaCppLLM(tiny_gguf, n_ctx=512, n_threads=1, sampling=Sampling(seed=1))
    assert first != [a.text for a in other.complete(PROMPTS, schema, 400)]
    greedy = LlamaCppLLM(tiny_gguf, n_ctx=512, n_threads=1, sampling=Sampling(temperature=0))
    assert len({a.text for a in greedy.complete(["same"] * 3, schema, 400)}) == 1


def test_a_shared_prefix_is_read_once(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LlamaCppLLM(tiny_gguf, n_ctx=2048)
    read: list[int] = []
    step = llm._context.decode

    def counted(chunks: dict[int, Sequence[int]]) -> NDArray[np.float32]:
        read.extend(map(len, chunks.values()))
        return step(chunks)

    monkeypatch.setattr(llm._context, "decode", counted)
    llm.complete([letter + "b" * 1000 for letter in "aaa"], None, 1)
    assert sum(read) < 1100


def test_the_deadline_is_kept_while_reading_and_while_writing(tiny_gguf: Path) -> None:
    llm = LlamaCppLLM(tiny_gguf, deadline=0.02)
    start = time.monotonic()
    endless = {"type": "array", "items": {"enum": ["ab"]}, "minItems": 500}
    answers = llm.complete(["x" * 4000, "short"], endless, 4000)
    assert time.monotonic() - start < 2
    assert {a.error for a in answers} == {"no complete answer within 0.02 s"}
    assert llm.meter.failures == 2 and answers[1].completion_tokens > 0


def test_the_budget_stops_a_batch_in_its_middle(tiny_gguf: Path) -> None:
    llm = LlamaCppLLM(tiny_gguf, budget=Budget(seconds=0.05))
    answers = llm.complete(["x" * 1000] * 200, None, 2000)
    assert answers[-1].error is not None and llm.meter.seconds < 2
    assert "budget of 0.05 seconds" in str(llm.complete(["x"])[0].error)


def test_a_prompt_that_is_too_long_is_an_error_of_its_own(llm: LlamaCppLLM) -> None:
    long, short = llm.complete(["x" * 600, "x"], None, 5)
    assert "602 tokens long, the context holds 512" in str(long.error)
    assert short.error is None and short.completion_tokens == 5


def test_json_that_is_cut_off_is_an_error(llm: LlamaCppLLM) -> None:
    assert "cut off after 10 tokens" in str(llm.complete(["x"], plan_schema(NAMES, 2, 8), 10)[0].error)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"enum": []},
        {"type": "object", "properties": {'a"b\\': {"type": "string"}}, "required": ['a"b\\']},
        {"$ref": "#/nowhere"},
    ],
)
def test_a_schema_that_makes_no_grammar_is_an_error_and_no_crash(llm: LlamaCppLLM, schema: dict[str, object]) -> None:
    answer = llm.complete(["x"], schema, 20)[0]
    assert answer.error is not None and "schema" in answer.error


def test_odd_prompts_are_answered(llm: LlamaCppLLM) -> None:
    assert all(a.error is None for a in llm.complete(["", "\x00", "\ud800", "</s><s>"], None, 3))


def test_the_models_chat_template_is_used(make_gguf: Callable[..., Path]) -> None:
    llm = LlamaCppLLM(make_gguf(chat=True), n_ctx=256)
    tokens = llm._tokenize("hello")
    assert llm._llama.detokenize(tokens, special=True).decode().replace(" ", "") == "<s><user>hello<assistant>"
    assert llm.complete(["hello"], None, 3)[0].error is None


def test_the_context_is_no_longer_than_the_model_was_trained_for(make_gguf: Callable[..., Path]) -> None:
    llm = LlamaCppLLM(make_gguf(n_ctx=128), n_ctx=512)
    assert "the context holds 128" in str(llm.complete(["x" * 200])[0].error)


def test_damaged_files_are_named(tiny_gguf: Path, make_gguf: Callable[..., Path], tmp_path: Path) -> None:
    data = tiny_gguf.read_bytes()
    path = tmp_path / "broken.gguf"
    with pytest.raises(FileNotFoundError, match=r"no model file .*broken\.gguf"):
        open_llm(path)
    for size in (20, 3000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=rf"broken\.gguf \({size:,} bytes\) cannot be loaded"):
            open_llm(path)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"no GGUF file: it begins with b'<htm'"):
        open_llm(path)
    with pytest.raises(ValueError, match="weights are damaged"):
        open_llm(make_gguf(scale=float("nan")))


def test_identity_is_the_content(tiny_gguf: Path, make_gguf: Callable[..., Path]) -> None:
    assert file_fingerprint(tiny_gguf) == file_fingerprint(make_gguf())
    assert file_fingerprint(tiny_gguf) != file_fingerprint(make_gguf(seed=1))


def test_large_files_are_known_by_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapport.agents.llm.gguf.backend._WHOLE_FILE", 100)
    monkeypatch.setattr("rapport.agents.llm.gguf.backend._END", 10)
    path = tmp_path / "f"
    prints = set()
    for data in (b"a" * 200, b"a" * 199 + b"b", b"b" + b"a" * 199, b"a" * 201):
        path.write_bytes(data)
        prints.add(file_fingerprint(path))
    assert len(prints) == 4


def test_names_go_into_grammars_unharmed() -> None:
    grammar = schema_to_gbnf({"enum": NAMES})
    assert r'"\"so-called \\\"art\\\"\""' in grammar
    assert r'"\"back\\\\slash\""' in grammar
    assert '"\\"🎵 music\\""' in grammar


def test_characters_in_more_bytes_than_needed_are_read() -> None:
    assert decode(b"K\xe0\x83\xbcche \xf0\x85\x96\x9c\xe5\x89\xa7") == "Küche 喜剧"
    assert decode("Küche 喜剧 🎵".encode()) == "Küche 喜剧 🎵"
    assert decode(b"a\xff\xe5b\xf7\xbf\xbf\xbf\xe5") == "a��b��"


def test_open_llm_with_a_cache(tiny_gguf: Path, tmp_path: Path) -> None:
    texts = []
    for _ in range(2):
        llm = open_llm(tiny_gguf, cache=tmp_path / "cache.sqlite", n_ctx=256)
        texts.append(llm.complete(["hello"], None, 8)[0].text)
    assert texts[0] == texts[1] and llm.meter.calls == 0 and llm.meter.cache_hits == 1
