"""The JSON in the answers of models that think aloud, draft, repeat themselves or misplace a comma."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.llm import ScriptedLLM, complete_json
from rapport.agents.llm.structured import decode_json, json_values, parse_json

FINAL = {"categories": ["Sport", "News"]}
TEXT = json.dumps(FINAL)


def plan(value: object) -> object:
    if not isinstance(value, dict) or not isinstance(value.get("categories"), list):
        raise ValueError(f"no plan: {value}")
    return value


@pytest.mark.parametrize(
    "text",
    [
        f'<think>Sets are {{a, b}} and [1] says so. Draft: {{"categories": ["Music"]}}</think>\n{TEXT}',
        f'{{"categories": ["Music"]}}\n\nNo, better:\n{TEXT}',
        f"{TEXT} [1] is my source, and {{x}} is none",
        '{"categories": ["Sport", "News",],}',
        '```json\n{"categories": ["Sport",\n "News",\n]}\n```',
        f'<think>never closed: [ { {"a"} } " {TEXT}',
        f"<think>{TEXT}</think> as I said",
        f'{TEXT} {{"note": "not a plan"}}',
        f'The 5" pipe, {TEXT}',
        "[" * 500 + TEXT,
    ],
    ids=lambda text: text[:24],
)
def test_the_last_value_that_fits_is_taken(text: str) -> None:
    assert parse_json(text, plan) == FINAL
    assert complete_json(ScriptedLLM([text]), ["p"], {}, plan, retries=0) == [FINAL]


def test_a_comma_in_a_string_stays() -> None:
    assert decode_json('so: {"a": ["x,]", "y, }",]}') == {"a": ["x,]", "y, }"]}


def test_the_reason_is_about_the_last_value() -> None:
    with pytest.raises(ValueError, match=r"^no plan: \{'b': 2\}$"):
        parse_json('{"a": 1} {"b": 2}', plan)
    for text in ("", "no", "{", "{" * 100_000, '["' * 50_000, '"' * 100_000, "\\" * 100_000):
        with pytest.raises(ValueError, match=r"^it is (empty|not valid JSON)$"):
            parse_json(text, plan)


CONTAINERS: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, list | dict))


@settings(max_examples=30, deadline=None)
@given(CONTAINERS, CONTAINERS, st.text("abc .:\n", max_size=20))
def test_values_are_found_last_first_whatever_stands_between(first: Any, second: Any, between: str) -> None:
    text = f"{json.dumps(first)} {between} {json.dumps(second)}"
    assert list(json_values(text)) == [second, first]
