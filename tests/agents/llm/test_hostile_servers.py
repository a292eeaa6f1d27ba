"""Servers whose answers are malformed, endless or slow: every prompt ends in time, in a completion that is counted."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("openai")

from rapport.agents.llm import Budget
from rapport.agents.llm.http_client import LARGEST
from rapport.agents.llm.openai_api import OpenAILLM

SCHEMA = {"type": "object"}
PROMPT, TEXT = "four", "answer!"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def body(content: Any = TEXT, usage: Any = None, **choice: Any) -> dict[str, Any]:
    choices = [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}]
    return {"choices": choices, "usage": usage}


def ask(serve: Callable[..., Any], reply: Any, **arguments: Any) -> Any:
    return OpenAILLM(serve(lambda request: (200, reply)).url, "m", retries=0).complete([PROMPT], **arguments)[0]


WRONG_COUNTS = ["7", 1e30, -7, -1e30, float("nan"), float("inf"), 10**400, True, 2.5, None, [], {}, 0]


@pytest.mark.parametrize("count", WRONG_COUNTS, ids=lambda count: str(count)[:8])
def test_a_count_that_cannot_be_right_is_counted_in_bytes(serve: Callable[..., Any], count: Any) -> None:
    answer = ask(serve, body(usage={"prompt_tokens": count, "completion_tokens": count}))
    assert (answer.text, answer.error) == (TEXT, None)
    assert (answer.prompt_tokens, answer.completion_tokens) == (len(PROMPT), len(TEXT))


@pytest.mark.parametrize("usage", ["seven", [], 7, {"total_tokens": 3}, None], ids=str)
def test_no_usage_does_not_defeat_a_budget_of_tokens(serve: Callable[..., Any], usage: Any) -> None:
    server = serve(lambda request: (200, body(usage=usage)))
    llm = OpenAILLM(server.url, "m", budget=Budget(tokens=100), retries=0)
    llm.complete([PROMPT] * 50, max_tokens=10)
    assert len(server.requests) == 10 and llm.meter.tokens == 110  # the last one may exceed it


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ([], "it is an empty list"),
        ("text", "it is a text"),
        (None, "it is missing"),
        (b"{" * 100_000, "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        ({"choices": {"0": {"message": {"content": "x"}}}}, "choices is an object"),
        ({"choices": "x"}, "choices is a text"),
        ({"choices": ["x"]}, "choices is a list"),
        ({"choices": [{"message": ["x"]}]}, "choices[0].message is a list"),
        (body({"text": "x"}), "content is an object"),
        (body(7), "content is an int"),
    ],
    ids=str,
)
def test_what_is_no_chat_completion_is_said(serve: Callable[..., Any], reply: Any, reason: str) -> None:
    answer = ask(serve, reply)
    assert reason in str(answer.error) and answer.text == "" and answer.sent


def test_a_list_of_parts_is_one_text(serve: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}, {"text": 3}, "c", 4]
    assert ask(serve, body(parts)).text == "abc"


def test_what_a_model_only_thought_is_read_unless_it_was_cut_off(serve: Callable[..., Any]) -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": 'so it is {"a": 1}'}
    assert ask(serve, body(message=message), schema=SCHEMA).text == 'so it is {"a": 1}'
    cut = ask(serve, body(message=message, finish_reason="length", usage={"completion_tokens": 9}), schema=SCHEMA)
    assert cut.error == (
        "the answer was cut off after 9 tokens, while the model was still thinking: allow more (--llm-answer-tokens)"
    )
    cut = ask(serve, body("<think>hm, {", finish_reason="length"), schema=SCHEMA)
    assert "while the model was still thinking" in str(cut.error)
    assert ask(serve, body("a text", finish_reason="length")).error is None


def test_an_answer_that_is_too_long_is_refused_and_counted_in_full(raw_server: Callable[..., Any]) -> None:
    endless = itertools.chain([b'{"choices":[{"message":{"content":"'], itertools.repeat(b"x" * 2**16))
    with raw_server(OK + b"Connection: close\r\n\r\n", endless) as (url, asked):
        llm = OpenAILLM(url, "m", timeout=20, retries=2)
        answer = llm.complete([PROMPT], max_tokens=50)[0]
    assert f"longer than {LARGEST:,} bytes" in str(answer.error) and len(asked) == 1
    assert (answer.prompt_tokens, answer.completion_tokens) == (len(PROMPT), 50)


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
def test_a_compressed_bomb_stays_compressed(raw_server: Callable[..., Any], status: bytes) -> None:
    bomb = gzip.compress(json.dumps(body("x" * 5_000_000)).encode())
    head = b"HTTP/1.1 " + status + b"\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with raw_server(head, [bomb]) as (url, asked):
        answer = OpenAILLM(url, "m", timeout=20, retries=2).complete([PROMPT])[0]
    assert answer.error is not None and len(answer.error) < 500 and len(asked) == 1
    assert "compressed (gzip)" in answer.error or "refuses the request (400)" in answer.error
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.parametrize("slow", ["head", "body"])
def test_the_time_limit_is_for_the_whole_answer(raw_server: Callable[..., Any], slow: str) -> None:
    """At one byte in 50 ms there is never a long silence, and the answer would be whole after some seconds."""
    whole = json.dumps(body()).encode()
    head = OK + b"Content-Length: %d\r\n\r\n" % len(whole)
    parts = [head, *(bytes([byte]) for byte in whole)]
    with raw_server(*((head, [whole]) if slow == "head" else (b"", parts)), pause=0.05) as (url, _):
        answer = OpenAILLM(url, "m", timeout=0.4, retries=5).complete([PROMPT])[0]
    assert answer.error == "no complete answer within 0.4 s" and answer.sent


def test_repeated_requests_have_one_time_limit_together(serve: Callable[..., Any]) -> None:
    server = serve(lambda request: server.hang(request))
    assert OpenAILLM(server.url, "m", timeout=0.3, retries=5).complete([PROMPT])[0].error is not None
    assert len(server.requests) == 1


def test_after_late_answers_half_as_many_requests_run_at_a_time(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(lambda request: server.hang(request))
    OpenAILLM(server.url, "m", timeout=0.2, retries=0, parallel=8).complete(["p"] * 8)
    assert "answers too late: 4 requests at a time from now on" in caplog.text
