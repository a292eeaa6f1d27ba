"""The backends against llama-cpp-python's own server, started for real on loopback."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("openai")

from rapport.agents.llm import Sampling, open_llm
from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.llm.openai_api import OpenAILLM
from rapport.agents.planning.controls import GreedyRotationPlanner
from rapport.agents.planning.critic import REFLECTION_SCHEMA, LLMCritic
from rapport.agents.planning.llm_planner import LLMPlanner, plan_schema
from rapport.agents.planning.planner import FinishedSession, SessionViews
from rapport.agents.planning.reflection import ReflectionPool

NAMES = ["Comedy", "Sport", "News", "Music", "Cooking"]
RATES = np.full(5, 0.5)
NEEDS = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")

serves = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDS), reason="needs llama-cpp-python[server]"
)


class Server:
    """A process that serves one model; it reads the chat template in the file, as `LlamaCppLLM` does."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port)]
        command += ["--n_ctx", "4096", "--n_threads", "1", "--n_threads_batch", "1", "--logits_all", "true"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}/v1"

    def connect(self, **options: Any) -> OpenAILLM:
        """Wait for the server, and ask it for its model."""
        for _ in range(300):
            try:
                model = OpenAILLM.connect(self.url).model
            except ConnectionError:
                time.sleep(0.1)
            else:
                return OpenAILLM(self.url, model, **{"timeout": 20.0, "retries": 0, **options})
        raise AssertionError("the server does not come up")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture(scope="module")
def chat_gguf(make_gguf: Callable[..., Path]) -> Path:
    return make_gguf(chat=True)


@pytest.fixture(scope="module")
def server(chat_gguf: Path) -> Iterator[Server]:
    started = Server(chat_gguf)
    yield started
    started.kill()


def views_of(n: int, step: int) -> SessionViews:
    categories = np.tile(np.arange(12) % 4, (n, 1))
    categories[:, 0] = np.arange(n) % 5
    clicks = np.arange(n)[:, None] >> np.arange(12) & 1
    return SessionViews(np.arange(n), np.full(n, step), categories, clicks.astype(np.int8), slate_size=4)


def planner(llm: Any) -> LLMPlanner:
    return LLMPlanner(llm, NAMES, RATES, GreedyRotationPlanner(np.full(5, 20), RATES, n=2), fewest=1, retries=0)


@serves
@pytest.mark.slow
def test_plans_and_reflections_follow_their_schemas(server: Server) -> None:
    llm = server.connect()
    for text in (answer.text for answer in llm.complete(["one", "two"], plan_schema(NAMES, 1, 3), 300)):
        assert set(json.loads(text)["categories"]) <= set(NAMES)
    assert planner(llm).plan(views_of(3, 1)).any(1).all()
    assert llm.meter.failures == llm.meter.fallbacks == 0 and llm.meter.prompt_tokens > 1000
    pool = ReflectionPool()
    LLMCritic(llm, pool, NAMES).reflect(
        [FinishedSession(n, np.arange(12).reshape(3, 4) % 5, np.ones((3, 4), np.int8)) for n in range(2)]
    )
    for answer in llm.complete(["reflect"], REFLECTION_SCHEMA, 640):
        assert answer.error is not None or json.loads(answer.text, strict=False)["reflection"]


@serves
@pytest.mark.slow
def test_both_ways_to_a_model_give_the_same_answers(server: Server, chat_gguf: Path) -> None:
    greedy = Sampling(temperature=0)
    here, there = LlamaCppLLM(chat_gguf, sampling=greedy), server.connect(sampling=greedy)
    prompts = [f"Choose for user {n}: " for n in range(4)]
    for ours, theirs in zip(
        *(llm.complete(prompts, plan_schema(NAMES, 1, 3), 300) for llm in (here, there)), strict=True
    ):
        assert (ours.text, ours.prompt_tokens, ours.error) == (theirs.text, theirs.prompt_tokens, theirs.error)


@serves
@pytest.mark.slow
def test_both_ways_give_the_same_log_probabilities(server: Server, chat_gguf: Path) -> None:
    greedy = Sampling(temperature=0)
    here, there = LlamaCppLLM(chat_gguf, sampling=greedy), server.connect(sampling=greedy)
    options: dict[str, Any] = {"max_tokens": 200, "system": "Be brief.", "logprobs": True}
    for ours, theirs in zip(
        *(llm.complete(["one", "two"], plan_schema(NAMES, 1, 3), **options) for llm in (here, there)), strict=True
    ):
        assert (ours.text, ours.prompt_tokens, ours.error) == (theirs.text, theirs.prompt_tokens, theirs.error)
        assert ours.logprobs is not None and theirs.logprobs is not None
        np.testing.assert_allclose(theirs.logprobs[: len(ours.logprobs)], ours.logprobs, atol=1e-3)


def test_the_template_makes_the_tokens_that_the_server_reads(chat_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers a chat by `create_chat_completion`, which hands the tokens on to `create_completion`."""
    from llama_cpp import Llama

    read: list[list[int]] = []
    model = Llama(str(chat_gguf), n_ctx=512, verbose=False)
    complete = model.create_completion

    def noted(prompt: list[int], **options: Any) -> Any:
        read.append(prompt)
        return complete(prompt, **options)

    monkeypatch.setattr(model, "create_completion", noted)
    ours = LlamaCppLLM(chat_gguf)
    for prompt in ("hello", "  two\nlines ", "</s><s>[INST]", "Küche 🎵", ""):
        model.create_chat_completion([{"role": "user", "content": prompt}], max_tokens=1)
        assert ours._tokenize(prompt) == read[-1]


@serves
@pytest.mark.slow
def test_a_server_killed_in_mid_run_costs_its_answers_and_no_more(tiny_gguf: Path) -> None:
    server = Server(tiny_gguf)
    llm = server.connect(parallel=4, timeout=10)
    used, fallback = planner(llm), planner(llm)._fallback
    assert used.plan(views_of(2, 1)).any(1).all() and llm.meter.failures == 0
    views = views_of(200, 2)
    killer = threading.Timer(0.4, server.kill)
    killer.start()
    plans = used.plan(views)
    killer.join()
    lost = llm.meter.fallbacks
    assert plans.any(1).all() and 0 < llm.meter.failures <= lost <= 200
    begun = time.monotonic()
    for _ in range(20):
        np.testing.assert_array_equal(used.plan(views), fallback.plan(views))
    assert llm.meter.fallbacks == lost + 20 * 200
    assert time.monotonic() - begun < 30  # the server is left alone


@serves
@pytest.mark.slow
def test_open_llm_finds_the_servers_model(server: Server) -> None:
    server.connect()
    assert open_llm(server.url).complete(["one"], None, 8)[0].error is None
