"""Every way in which a model can fail ends in completions and counts, and in a plan all the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")

from rapport.agents.llm import CachedLLM
from rapport.agents.llm.openai_api import OpenAILLM
from rapport.agents.planning.controls import GreedyRotationPlanner
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.planner import SessionViews

NAMES = ["Comedy", "Sport", "News"]
RATES = np.full(3, 0.5)
GOOD = '{"categories": ["Comedy", "News"]}'
N = 4


def planned(llm: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Plans for sessions that differ in their first item, the last two of which differ in nothing."""
    categories = np.tile(np.arange(8) % 3, (N, 1))
    categories[:, 0] = np.minimum(np.arange(N), 2)
    views = SessionViews(np.arange(N), np.zeros(N, int), categories, np.ones((N, 8), np.int8), slate_size=4)
    planner = LLMPlanner(llm, NAMES, RATES, GreedyRotationPlanner(np.full(3, 20), RATES, n=2), retries=1)
    return planner.plan(views)


def wordless(answer: Callable[..., Any]) -> tuple[int, Any]:
    status, body = answer("")
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    return status, body


@pytest.mark.parametrize(
    ("reply", "failed", "asked_again"),
    [
        (lambda answer: answer("I am sorry, I cannot choose for people."), 0, 3),
        (wordless, 0, 3),
        (lambda answer: answer(""), 0, 3),
        (lambda answer: answer("{}"), 0, 3),
        (lambda answer: answer('{"categories": ["Comedy", '), 0, 3),
        (lambda answer: answer('{"categories": ["Comedy", "Opera"]}'), 0, 3),
        (lambda answer: answer('{"categories": ["Com', "length"), 3, 0),
        (lambda answer: (429, {"error": {"message": "slow down"}}), 3, 0),
        (lambda answer: (400, {"error": {"message": "refused by the content filter"}}), 3, 0),
        (lambda answer: (200, {"choices": [{"message": "?"}]}), 3, 0),
    ],
    ids=[
        "refusal",
        "no-words",
        "empty",
        "no-plan",
        "bad-json",
        "unknown-category",
        "cut-off",
        "limit",
        "filter",
        "nonsense",
    ],
)
def test_whatever_a_server_says(
    serve: Callable[..., Any], answer: Callable[..., Any], reply: Callable[..., Any], failed: int, asked_again: int
) -> None:
    llm = OpenAILLM(serve(lambda request: reply(answer)).url, "m", timeout=5, retries=0)
    assert planned(llm).any(1).all()
    assert (llm.meter.failures, llm.meter.retries, llm.meter.fallbacks) == (failed, asked_again, N)
    assert llm.meter.calls == 3 + asked_again  # of equal questions one is asked


def test_no_answer_in_time(serve: Callable[..., Any]) -> None:
    server = serve(lambda request: server.hang(request))
    llm = OpenAILLM(server.url, "m", timeout=0.1, retries=0)
    assert planned(llm).any(1).all()
    assert (llm.meter.failures, llm.meter.fallbacks) == (3, N)


def test_a_server_that_is_gone(serve: Callable[..., Any], answer: Callable[..., Any]) -> None:
    server = serve(lambda request: answer(GOOD))
    llm = OpenAILLM(server.url, "m", timeout=1, retries=0)
    assert (planned(llm) == [True, False, True]).all() and llm.meter.fallbacks == 0
    server.stop()
    assert planned(llm).any(1).all()
    assert (llm.meter.failures, llm.meter.fallbacks) == (3, N)


def test_a_cache_that_is_damaged_between_two_batches(
    serve: Callable[..., Any], answer: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.sqlite"
    llm = CachedLLM(OpenAILLM(serve(lambda request: answer(GOOD)).url, "m", timeout=5, retries=0), path)
    planned(llm)
    llm.close()
    path.write_bytes(b"no database at all " * 300)
    with caplog.at_level(logging.WARNING):
        assert (planned(llm) == [True, False, True]).all()
    assert (llm.meter.calls, llm.meter.failures, llm.meter.fallbacks) == (6, 0, 0)
    assert "replaced by an empty file" in caplog.text and (tmp_path / "cache.sqlite.corrupt-1").exists()
    planned(llm)
    assert llm.meter.calls == 6
