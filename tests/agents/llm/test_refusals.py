"""A refusal for good costs one request: it is adapted to where a field is refused, else it ends the asking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from rapport.agents.llm import CachedLLM, RecordedLLM, ReplayLLM
from rapport.agents.llm.openai_api import OpenAILLM

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
Serve = Callable[..., Any]
Answer = Callable[..., tuple[int, Any]]


def connect(server: Any, **options: Any) -> OpenAILLM:
    return OpenAILLM(server.url, "tiny", **{"timeout": 5.0, **options})


def openai_error(message: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 410, 451])
def test_a_refusal_that_is_not_about_the_prompt_is_the_last_request(serve: Serve, status: int) -> None:
    server = serve(lambda request: (status, openai_error("Not with \x1b[31mthis key")))
    llm = connect(server)
    first, *rest = llm.complete([f"p{n}" for n in range(20)], SCHEMA)
    assert first.sent and "refuses the request" in str(first.error)
    assert llm.refusal is not None and f"({status}): Not with [31mthis key" in llm.refusal
    assert {answer.error for answer in rest} == {f"not sent: {llm.refusal}"} and not any(a.sent for a in rest)
    assert llm.complete(["later"])[0].error == f"not sent: {llm.refusal}"
    assert len(server.requests) == llm.meter.calls == llm.meter.failures == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_three_refused_prompts_of_three_are_enough(serve: Serve, status: int, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda request: (status, {"detail": "this model cannot chat"}))
    llm = connect(server)
    answers = llm.complete([f"p{n}" for n in range(20)], SCHEMA)
    assert len(server.requests) == llm.meter.calls == 3
    assert llm.refusal == f"the server refuses the request ({status}): this model cannot chat"
    assert str(answers[-1].error).endswith(llm.refusal) and caplog.text.count(llm.refusal) == 1


def test_refused_prompts_among_answered_ones_do_not_end_the_asking(serve: Serve, answer: Answer) -> None:
    server = serve(
        lambda r: (400, openai_error("too long")) if "bad" in r["messages"][-1]["content"] else answer("fine")
    )
    llm = connect(server)
    answers = llm.complete(["good", *["bad"] * 6, "good"])
    assert [a.error is None for a in answers] == [True, *[False] * 6, True]
    assert llm.refusal is None and len(server.requests) == 8


def test_a_spent_quota_ends_the_asking_and_too_many_requests_do_not(serve: Serve) -> None:
    spent = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    for body, ends in ((spent, True), ({"error": {"message": "slow down"}}, False)):
        llm = connect(serve(lambda request, body=body: (429, body)), retries=0)
        llm.complete(["p"])
        assert (llm.refusal is not None) == ends


REFUSABLE = [
    ("max_tokens", openai_error("Use 'max_completion_tokens' instead.", "max_tokens")),
    ("max_tokens", openai_error("Unsupported parameter: 'max_tokens': use 'max_completion_tokens'")),
    ("temperature", openai_error("'temperature' does not support 0.8 with this model.", "temperature")),
    ("seed", {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs", "input": 0}]}),
    ("top_p", {"message": "top_p: unknown field"}),
    ("response_format", {"error": "response_format is not supported"}),
    ("response_format", openai_error("Structured outputs are off: 'json_schema'")),
    ("top_logprobs", "logprobs may not be asked for, nor top_logprobs"),
]


@pytest.mark.parametrize(("field", "body"), REFUSABLE, ids=lambda value: str(value)[:20])
def test_a_refused_field_is_sent_otherwise_and_that_is_remembered(
    serve: Serve, answer: Answer, field: str, body: Any
) -> None:
    server = serve(lambda request: (400, body) if field in request else answer("{}"))
    llm = connect(server)
    logprobs = field == "top_logprobs"
    answers = llm.complete(["p", "q", "r"], SCHEMA, 9, logprobs=logprobs)
    sent = len(server.requests)
    if logprobs:  # without them there is no usable answer, and no reason to ask
        assert [a.sent for a in answers] == [True, False, False]
        assert all("logprobs=True: the server" in str(a.error) for a in answers)
    else:
        assert [(a.text, a.error) for a in answers] == [("{}", None)] * 3
        assert sum(field in request for request in server.requests) <= 2  # a schema has two forms
    assert llm.refusal is None
    llm.complete(["s"], SCHEMA, 9)
    assert len(server.requests) == sent + 1 and field not in server.requests[-1]
    if field == "max_tokens":
        assert server.requests[-1]["max_completion_tokens"] == 9


def test_several_refused_fields_are_left_out_one_after_the_other(serve: Serve, answer: Answer) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, Any]:
        wrong = [name for name in ("max_tokens", "temperature", "top_p", "seed") if name in request]
        return (400, openai_error(f"unsupported: {wrong[0]}", wrong[0])) if wrong else answer("ok")

    server = serve(reply)
    llm = connect(server)
    assert [a.text for a in llm.complete(["p", "q"])] == ["ok", "ok"] and len(server.requests) == 6
    assert set(server.requests[-1]) == {"model", "messages", "max_completion_tokens"}


def test_what_did_not_help_is_not_tried_again(serve: Serve, answer: Answer) -> None:
    """Words that name a field and mean another thing: the context is too short."""
    long = openai_error("max_tokens is too large for a context of 4096 tokens")
    server = serve(lambda r: (400, long) if "long" in r["messages"][-1]["content"] else answer("ok"))
    llm = connect(server)
    llm.complete(["short"])
    answers = llm.complete(["long", "long 2", "short"])
    assert [a.error is None for a in answers] == [False, False, True]
    assert [("max_tokens" in r) for r in server.requests].count(False) <= 2  # both were on their way
    sent = len(server.requests)
    llm.complete(["long 3"])
    assert len(server.requests) == sent + 1 and "max_tokens" in server.requests[-1]


def test_wrappers_and_replays_show_the_refusal(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda request: (404, {"error": {"message": "no model tiny"}}))
    llm = RecordedLLM(CachedLLM(connect(server), tmp_path / "cache.sqlite"), tmp_path / "t.sqlite")
    assert llm.refusal is None
    answers = llm.complete(["p", "q"])
    llm.close()
    replay = ReplayLLM(tmp_path / "t.sqlite")
    assert replay.refusal is None and replay.complete(["p", "q"]) == answers
    assert replay.refusal == llm.refusal is not None and "no model tiny" in json.dumps(replay.refusal)
