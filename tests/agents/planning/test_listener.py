"""Why a model gave no plan, in its own words: the most frequent reason, on one printable line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rapport.agents.llm import Budget, Completion, ScriptedLLM
from rapport.agents.planning.build import llm_planner
from rapport.agents.planning.listener import LONGEST
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.planner import SessionViews
from rapport.datasets.schema import SessionData


def views(users: int) -> SessionViews:
    """Sessions of users who differ in what they saw, so that no two prompts are equal."""
    categories = np.array([[user % 7, user // 7 % 7] for user in range(users)])
    ones = np.ones((users, 2), np.int8)
    return SessionViews(np.arange(users), np.zeros(users, np.int64), categories, ones, 6)


def planner(data: SessionData, llm: ScriptedLLM) -> LLMPlanner:
    return llm_planner(llm, data, np.random.default_rng(0), None)


@pytest.fixture
def good(small_data: SessionData) -> str:
    return json.dumps({"categories": list(small_data.catalog.category_names[:4])})


def test_nothing_is_said_as_long_as_every_answer_can_be_used(small_data: SessionData, good: str) -> None:
    made = planner(small_data, ScriptedLLM(lambda prompt: good))
    made.plan(views(5))
    assert made.unanswered is None


def test_a_used_answer_beside_an_unusable_one_is_not_blamed(small_data: SessionData, good: str) -> None:
    """Three tries each; one of two succeeds at its last."""
    answers = ["no", "never", "no", "never", "never again", good]
    made = planner(small_data, ScriptedLLM(answers))
    made.plan(views(2))
    assert made.unanswered == "its answer cannot be used: 'never again'"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (["", "", ""], "its answer is empty"),
        ([ValueError("the server refuses: use max_completion_tokens")], "ValueError: the server refuses: use max_com"),
        ([Completion("", error="one\x1b[31m\n two\u202e")], "one [31m two"),
        ([Completion("", error="x" * 9_999)], "x" * LONGEST + " ..."),
        ([Completion("", error="it is elsewhere", sent=False)], "not sent: it is elsewhere"),
    ],
)
def test_the_reason_is_the_models_own_on_one_line(
    small_data: SessionData, script: list[str | Exception | Completion], reason: str
) -> None:
    made = planner(small_data, ScriptedLLM(script))
    made.plan(views(1))
    assert made.unanswered is not None and made.unanswered.startswith(reason)
    assert made.unanswered.isprintable() and len(made.unanswered) <= LONGEST + 4


def test_the_most_frequent_reason_counts_and_what_was_not_sent_follows_from_another(
    small_data: SessionData,
) -> None:
    script = [TimeoutError("late"), RuntimeError("gone"), RuntimeError("gone")]
    made = planner(small_data, ScriptedLLM(script, budget=Budget(calls=3)))
    made.plan(views(12))
    assert made.unanswered == "RuntimeError: gone"
    spent = planner(small_data, ScriptedLLM([], budget=Budget(calls=0)))
    spent.plan(views(3))
    assert spent.unanswered == "not sent: the budget of 0 calls is spent"


def test_a_refusal_for_good_comes_first(small_data: SessionData) -> None:
    llm = ScriptedLLM([RuntimeError("gone")] * 3)
    llm.refusal = "400: this model wants max_completion_tokens"  # type: ignore[attr-defined]
    made = planner(small_data, llm)
    assert made.unanswered is None  # nothing was asked yet
    made.plan(views(2))
    assert made.unanswered == "400: this model wants max_completion_tokens"
