"""No text or file that comes of asking a server holds a key or a password, from whatever form it came."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("openai")

from rapport.agents.llm import CachedLLM, RecordedLLM, open_llm
from rapport.agents.llm.base.secrets import HIDDEN, scrub
from rapport.agents.llm.transcript import read_batches

KEY, PASSWORD = "sk-Zq81+/x\"y'7LmN", "p ss/w:rd9"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
FORMS = [
    KEY,
    json.dumps(KEY)[1:-1],
    repr(KEY)[1:-1],
    quote(KEY),
    quote(KEY, safe=""),
    base64.b64encode(KEY.encode()).decode(),
]


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_removed_in_every_form(form: str) -> None:
    text = scrub(f"got 'Bearer {form}'!", [KEY])
    assert form.rstrip("=") not in text and text.startswith(f"got 'Bearer {HIDDEN}")


def test_secrets_of_the_environment_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "MY_SECRET", "db_password"):
        monkeypatch.setenv(name, f"value-of-{name}")
        assert scrub(f"x value-of-{name} y") == f"x {HIDDEN} y"
    monkeypatch.setenv("MONKEY", "bananas-and-more")
    assert scrub("bananas-and-more") == "bananas-and-more"
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-word@proxy:3128")
    assert scrub("proxy-word, me:proxy-word") == f"{HIDDEN}, {HIDDEN}"


def test_what_is_in_an_address_is_removed_and_short_words_stay_whole() -> None:
    assert scrub("at http://me:pw@host/v1, http://host") == f"at http://{HIDDEN}@host/v1, http://host"
    assert scrub("wording word a", ["word", "a"]) == f"wording {HIDDEN} a"


def everything_written(folder: Path) -> str:
    found = "".join(path.read_bytes().decode("latin-1") for path in sorted(folder.iterdir()))
    for path in folder.glob("*.transcript"):
        found += "".join(repr(batch) for batch in read_batches(path))
    return found


def echoing(status: int, answer: Callable[..., Any], server: list[Any]) -> Callable[[dict[str, Any]], tuple[int, Any]]:
    """A server that says whatever it was told, in its answer or in a refusal."""

    def reply(request: dict[str, Any]) -> tuple[int, Any]:
        told = f"{server[0].paths[-1]} {server[0].headers[-1]['authorization']} {server[0].headers[-1]}"
        return answer(f"echo {told}") if status == 200 else (status, {"error": {"message": f"denied: {told}"}})

    return reply


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
@pytest.mark.parametrize("form", ["environment", "password", "query"])
def test_what_a_server_repeats_is_written_nowhere(
    serve: Callable[..., Any],
    answer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
    form: str,
) -> None:
    made: list[Any] = []
    made.append(server := serve(echoing(status, answer, made)))
    url = f"{server.url}#tiny"
    if form == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    elif form == "password":
        url = url.replace("://", f"://user:{quote(PASSWORD, safe='')}@")
    else:
        url = url.replace("#", f"?api_key={quote(KEY, safe='')}#")
    with caplog.at_level(logging.DEBUG):
        llm = RecordedLLM(CachedLLM(open_llm(url, timeout=5), tmp_path / "cache.sqlite"), tmp_path / "t.transcript")
        llm.llm.llm._client.max_retries = 0  # type: ignore[attr-defined]
        (found,) = llm.complete(["p"])
    llm.close()
    told = server.headers[-1]["authorization"] + server.paths[-1]
    assert {"environment": KEY, "password": BASIC, "query": quote(KEY, safe="")}[form] in told
    shown = f"{found!r} {llm.refusal} {llm.identity} {caplog.text} {everything_written(tmp_path)}"
    for secret in (*FORMS, PASSWORD, quote(PASSWORD, safe=""), BASIC):
        assert secret not in shown, secret
    assert HIDDEN in f"{found.text} {found.error}"
