from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("openai")

from rapport.agents.llm import Budget, Sampling, open_llm
from rapport.agents.llm.openai_api import OpenAILLM

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
Serve = Callable[..., Any]
Answer = Callable[..., tuple[int, Any]]


def connect(server: Any, **options: Any) -> OpenAILLM:
    return OpenAILLM(server.url, "tiny", **{"timeout": 2.0, "retries": 0, **options})


def last_words(request: dict[str, Any]) -> str:
    text: str = request["messages"][-1]["content"]
    return text


def test_a_batch_is_answered_in_order_and_metered(serve: Serve, answer: Answer) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.02 if last_words(request).endswith(("0", "5")) else 0)
        return answer(last_words(request).upper())

    server = serve(reply)
    llm = connect(server, sampling=Sampling(temperature=0.5, top_p=0.7, seed=3))
    answers = llm.complete([f"p{n}" for n in range(20)], None, 9)
    assert [a.text for a in answers] == [f"P{n}" for n in range(20)]
    assert llm.meter.calls == 20 and llm.meter.prompt_tokens == 140 and llm.meter.completion_tokens == 60
    sent = server.requests[0]
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["seed"], sent["max_tokens"]) == (
        "tiny",
        0.5,
        0.7,
        3,
        9,
    )
    assert "response_format" not in sent


def test_a_schema_is_sent_as_response_format(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: answer('{"a": 1}'))
    connect(server).complete(["p"], SCHEMA)
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA


def test_a_server_that_refuses_schemas_is_asked_without(serve: Serve, answer: Answer) -> None:
    server = serve(
        lambda request: (
            (400, {"error": {"message": "no json_schema"}}) if "response_format" in request else answer("{}")
        )
    )
    llm = connect(server)
    assert [a.text for a in llm.complete(["p", "q", "r"], SCHEMA)] == ["{}"] * 3
    llm.complete(["s"], SCHEMA)
    assert ["response_format" in r for r in server.requests] == [True, True, False, False, False, False]


def test_a_server_that_fails_on_one_form_is_asked_in_the_other(serve: Serve, answer: Answer) -> None:
    server = serve(
        lambda r: answer("{}") if r["response_format"] == {"type": "json_object", "schema": SCHEMA} else (500, {})
    )
    llm = connect(server)
    assert [a.text for a in llm.complete(["p", "q"], SCHEMA)] == ["{}"] * 2
    assert len(server.requests) == 3


def test_a_refused_prompt_is_an_error_of_its_own(serve: Serve, answer: Answer) -> None:
    server = serve(
        lambda r: (400, {"error": {"message": "context too long"}}) if "long" in last_words(r) else answer("ok")
    )
    llm = connect(server)
    bad, good = llm.complete(["long", "short"], SCHEMA)
    assert "refuses the request" in str(bad.error) and "context too long" in str(bad.error)
    assert good.text == "ok" and "response_format" in server.requests[-1]


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, [], None, "text", b"<html>", b"", {"choices": [{"message": None}]}],
    ids=repr,
)
def test_nonsense_is_an_error(serve: Serve, body: Any) -> None:
    llm = connect(serve(lambda request: (200, body)))
    assert llm.complete(["p"])[0].error is not None
    assert llm.meter.failures == 1


def test_missing_content_is_an_empty_answer_and_missing_usage_is_counted_in_bytes(serve: Serve) -> None:
    message = {"choices": [{"message": {"role": "assistant", "content": None}}]}
    answer = connect(serve(lambda request: (200, message))).complete(["p"])[0]
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.error) == ("", 1, 0, None)


def test_json_that_is_cut_off_is_an_error(serve: Serve, answer: Answer) -> None:
    llm = connect(serve(lambda request: answer('{"a"', "length")))
    assert "cut off after 3 tokens" in str(llm.complete(["p"], SCHEMA)[0].error)
    assert llm.complete(["p"])[0].error is None


def test_errors_are_retried_and_counted(serve: Serve, answer: Answer) -> None:
    failures = iter([True, False])
    server = serve(lambda request: (500, {}) if next(failures) else answer("fine"))
    llm = connect(server, retries=1)
    assert llm.complete(["p"])[0].text == "fine"
    assert llm.meter.retries == 1 and llm.meter.calls == 1 and len(server.requests) == 2


def test_a_hanging_server_times_out_and_is_left_alone(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda request: server.hang(request))
    llm = connect(server, timeout=0.15, parallel=2)
    start = time.monotonic()
    answers = llm.complete([f"p{n}" for n in range(40)])
    assert time.monotonic() - start < 3
    assert all(a.error for a in answers) and answers[0].error == "no complete answer within 0.15 s"
    assert answers[-1].error == "not sent: the server has not answered for some time"
    assert len(server.requests) <= 4 and llm.meter.calls == len(server.requests) == llm.meter.failures
    assert "no requests for 5 s" in caplog.text


def test_a_server_that_comes_back_is_used_again(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: (503, {}))
    llm = connect(server, parallel=1, pause=0.05)
    assert llm.complete(["p"])[0].error is not None
    assert not llm.complete(["p"])[0].sent
    server.reply = lambda request: answer("back")
    time.sleep(0.06)
    assert [a.text for a in llm.complete(["p", "q"])] == ["back", "back"]


def test_a_server_that_is_gone_is_an_error_and_no_exception(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: answer("here"))
    llm = connect(server, parallel=2)
    assert llm.complete(["p"])[0].text == "here"
    server.stop()
    assert all(a.error for a in llm.complete(["p"] * 10))


def test_the_budget_of_seconds_shortens_the_time_limit(serve: Serve) -> None:
    server = serve(lambda request: server.hang(request))
    llm = connect(server, timeout=20, budget=Budget(seconds=0.2))
    start = time.monotonic()
    assert llm.complete(["p"])[0].error
    assert time.monotonic() - start < 3


def test_open_llm_asks_the_server_for_its_model(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: answer("ok"))
    bare = server.url.removesuffix("/v1")
    for url in (server.url, bare, bare + "/"):
        llm = open_llm(url)
        assert llm.identity == f"openai:{server.url}#tiny"
    assert open_llm(server.url + "#other").identity.endswith("#other")
    server.models = []
    with pytest.raises(ValueError, match=r"lists no models: name one, as in http.*#model"):
        open_llm(server.url)


def test_open_llm_says_that_nobody_answers() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ConnectionError, match=rf"no language model server answers at http://127.0.0.1:{port}/v1"):
        open_llm(f"http://127.0.0.1:{port}/v1#tiny", timeout=1)


def test_keys_and_passwords_stay_out_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    llm = OpenAILLM("http://user:word@localhost:9/v1", "m")
    assert llm.identity == "openai:http://localhost:9/v1#m"


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"retries": -1}, {"parallel": 0}])
def test_limits_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        OpenAILLM("http://localhost:9/v1", "m", **wrong)


def test_addresses_are_checked() -> None:
    with pytest.raises(ValueError, match="base_url must be an address"):
        OpenAILLM("localhost:8080", "m")


def test_a_system_message_comes_before_the_prompt(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: answer("ok"))
    connect(server).complete(["p"], system="Be brief.\ud800")
    assert server.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief.?"},
        {"role": "user", "content": "p"},
    ]


def test_samples_are_requests_with_seeds_of_their_own(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: answer(f"{last_words(request)} {request['seed']}"))
    llm = connect(server, sampling=Sampling(seed=5), budget=Budget(calls=5))
    answers = llm.complete(["p", "q"], n=3)
    words = [a.text.split() for a in answers]
    assert [word for word, *_ in words[:5]] == ["p", "p", "p", "q", "q"] and not answers[5].sent
    seeds = [int(seed) for _, seed in words[:5]]
    assert seeds[0] == seeds[3] == 5 and seeds[1] == seeds[4] and len(set(seeds)) == 3
    assert all(0 <= seed < 2**32 for seed in seeds) and llm.meter.calls == 5
    again = connect(server, sampling=Sampling(seed=6)).complete(["p"], n=3)
    assert not {int(a.text.split()[1]) for a in again} & set(seeds)


def test_log_probabilities_are_read_from_the_response(serve: Serve, answer: Answer) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, Any]:
        status, body = answer("yes no")
        if request.get("logprobs"):
            tokens = [
                {"token": t, "logprob": v, "bytes": None, "top_logprobs": []} for t, v in (("yes", -0.5), ("no", -2))
            ]
            body["choices"][0]["logprobs"] = {"content": tokens}
        return status, body

    server = serve(reply)
    llm = connect(server)
    assert llm.complete(["p"], logprobs=True)[0].logprobs == (-0.5, -2.0)
    assert llm.complete(["p"])[0].logprobs is None
    assert [request.get("logprobs") for request in server.requests] == [True, None]


@pytest.mark.parametrize("given", [None, {}, {"content": None}, {"content": [{"token": "a"}]}, "?"], ids=repr)
def test_a_server_without_log_probabilities_is_an_error(serve: Serve, answer: Answer, given: Any) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, Any]:
        status, body = answer("yes")
        body["choices"][0]["logprobs"] = given
        return status, body

    llm = connect(serve(reply), parallel=1)
    got = llm.complete(["p", "q"], logprobs=True)
    assert all("logprobs=True: the server gives no log-probabilities" in str(a.error) and a.sent for a in got)
    assert llm.complete(["p"])[0].error is None and llm.meter.failures == 2
