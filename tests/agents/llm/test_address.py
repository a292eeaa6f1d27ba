"""Addresses, keys and proxies: each mistake is one sentence that names it, and this machine is asked directly."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("openai")

from rapport.agents.llm import open_llm
from rapport.agents.llm.address import is_loopback, parse_address, proxy_variable, split_credentials
from rapport.agents.llm.openai_api import OpenAILLM

WRONG = [
    "http://127.0.0.1:abc/v1",
    "http://127.0.0.1:99999/v1",
    "http://127.0.0.1:0/v1",
    "http://[::1/v1",
    "http:///v1",
    "http://",
    "http://host name/v1",
    "http://h\u00f6st/v1",
    "http://host/\x1b[31m",
    "http://host/" + "x" * 3_000,
    "https://me:secret-word@host:port/v1?api_key=secret-word",
]


@pytest.mark.parametrize("address", WRONG, ids=lambda address: address[:30])
@pytest.mark.parametrize("opened", [open_llm, lambda address: OpenAILLM(address, "m")])
def test_a_wrong_address_is_one_clear_error(address: str, opened: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="must be an address such as http://localhost:8080/v1#model; got '") as error:
        opened(address)
    assert "secret-word" not in str(error.value) and str(error.value).isprintable()


def test_an_address_is_shown_without_its_credentials() -> None:
    whole = "https://me:p%40ss@host:8080/v1?api_key=k1#my/model"
    address = parse_address(whole)
    assert address.public == "https://host:8080/v1#my/model" and "p%40ss" not in repr(address)
    assert {"me:p%40ss", "me:p@ss", "p@ss", "k1"} <= set(address.secrets())
    assert split_credentials(whole) == (address.public, whole)
    assert split_credentials("http://host/v1#m") == ("http://host/v1#m", None)
    assert split_credentials("model.gguf") == ("model.gguf", None)
    assert OpenAILLM(whole, "m").identity == "openai:https://host:8080/v1#m"


@pytest.mark.parametrize("key", ["schl\u00fcssel-1", "two words", "line\nbreak", "\u202esecret"])
def test_a_key_that_no_header_can_hold_is_named_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match=r"OPENAI_API_KEY has a character at position .*copy the key again") as error:
        open_llm("http://localhost:9/v1#m")
    assert key not in str(error.value)


def test_spaces_around_a_key_are_no_part_of_it(
    serve: Callable[..., Any], answer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1234\r\n")
    server = serve(lambda request: answer("ok"))
    assert open_llm(server.url).complete(["p"])[0].text == "ok"
    assert server.headers[-1]["authorization"] == "Bearer sk-1234"


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


PROXIES = [("ALL_PROXY", "socks://localhost:1"), ("HTTP_PROXY", "http://127.0.0.1:1"), ("http_proxy", "nonsense://x")]


@pytest.mark.parametrize(("name", "proxy"), PROXIES)
def test_this_machine_is_asked_directly(
    serve: Callable[..., Any], answer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    server = serve(lambda request: answer("direct"))
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        assert open_llm(url).complete(["p"])[0].text == "direct"


@pytest.mark.parametrize(("name", "proxy"), [PROXIES[0], PROXIES[2]])
def test_a_proxy_that_cannot_be_used_is_named(
    no_proxy: None, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy.replace("://", "://me:secret-word@"))
    with pytest.raises(ValueError, match=rf"a proxy of the environment cannot be used \({name}=") as error:
        open_llm("http://192.0.2.1/v1#m")
    assert "secret-word" not in str(error.value)


def test_a_proxy_that_is_dead_is_named(no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match=r"no language model server answers .*the proxy that HTTP_PROXY names"):
        open_llm("http://192.0.2.1/v1#m", timeout=5)
    llm = OpenAILLM("http://192.0.2.1/v1", "m", retries=0)
    assert "the proxy that HTTP_PROXY names" in str(llm.complete(["p"])[0].error)


def test_the_proxy_on_the_way(no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://a:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://b:1")
    assert proxy_variable("https://host/v1") == "HTTPS_PROXY" and proxy_variable("http://host/v1") == "all_proxy"
    assert proxy_variable("http://127.0.0.1:8080/v1") is None
    monkeypatch.setenv("no_proxy", "host")
    assert proxy_variable("https://host/v1") is None


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0")))
    assert not any(map(is_loopback, ("example.com", "10.0.0.1", "localhost.example.com", "")))
