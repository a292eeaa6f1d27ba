"""JSON answers: parsed, validated, and requested again where they are invalid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rapport.agents.llm.base.interface import LLM, Schema, printable

T = TypeVar("T")

_DECODER = json.JSONDecoder(strict=False)  # because grammars of a schema allow control characters in strings
_OPENING = re.compile(r"[\[{]")
_EXTRA_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[\]}])', re.DOTALL)
"""A string, which stays, or a comma before a closing bracket."""
_SEARCHED, _ATTEMPTS = 100_000, 1_000
"""Characters searched for values, and brackets that begin none before the search ends."""

_RETRY = """

Your last answer was:
{answer}
It cannot be used: {reason}
Answer again, with nothing but JSON in the form asked for.
"""


def complete_json(
    llm: LLM,
    prompts: Sequence[str],
    schema: Schema,
    parse: Callable[[object], T],
    *,
    max_tokens: int = 256,
    retries: int = 2,
    system: str | None = None,
) -> list[T | None]:
    """Parsed answers to a batch of prompts; None where the model gave no usable one.

    Of several JSON values in an answer the last one that `parse` accepts counts. If there is none, the prompt is sent
    again with the answer and the reason, at most `retries` times. The new prompt starts with the old one, so that a
    backend can reuse its prefix. Failed calls (time limit, connection, budget) are not repeated here: backends repeat
    those that may succeed.

    Args:
        llm: the model; its meter counts the retries.
        prompts: N prompts.
        schema: JSON schema of an answer.
        parse: turns decoded JSON into a result, or raises ValueError with a reason that the model can act on.
        max_tokens: longest answer in tokens.
        retries: times a prompt is sent again.
        system: system message; None for none.

    Returns:
        N results, in the order of the prompts.
    """
    results: list[T | None] = [None] * len(prompts)
    pending = dict(enumerate(prompts))
    for attempt in range(retries + 1):
        if not pending:
            break
        if attempt:
            llm.meter.retries += len(pending)
        answers = llm.complete(list(pending.values()), schema, max_tokens, system=system)
        refused: dict[int, str] = {}
        for index, answer in zip(pending, answers, strict=True):
            if answer.error is not None:
                continue
            try:
                results[index] = parse_json(answer.text, parse)
            except ValueError as error:
                refused[index] = prompts[index] + _RETRY.format(answer=printable(answer.text)[:300], reason=error)
        pending = refused
    return results


def decode_json(text: str) -> object:
    """The last JSON value in an answer, which thinking, code fences or sentences may surround.

    Raises:
        ValueError: there is none; the message is addressed to the model.
    """
    return next(json_values(text))


def parse_json(text: str, parse: Callable[[object], T]) -> T:
    """The last JSON value in an answer that `parse` accepts: what precedes it may be a draft.

    Raises:
        ValueError: there is none; the message says why the last value is refused, and is addressed to the model.
    """
    refused: ValueError | None = None
    for value in json_values(text):
        try:
            return parse(value)
        except ValueError as error:
            refused = refused or error
    assert refused is not None  # json_values raises where there is no value
    raise refused


def json_values(text: str) -> Iterator[object]:
    """The JSON values in an answer, the last first; those before the end of a ``<think>`` part come after all others.

    A value inside another one does not count, nor does a comma before a closing bracket. Only the last 100,000
    characters of a part are searched.

    Raises:
        ValueError: there is none; the message is addressed to the model.
    """
    body = text.strip()
    try:
        values = [json.loads(body, strict=False)]
    except (ValueError, RecursionError):
        thinking, _, answer = body.rpartition("</think>")
        values = [*_values(answer)[::-1], *_values(thinking)[::-1]]
    if not values:
        raise ValueError("it is not valid JSON" if body else "it is empty")
    yield from values


def _values(text: str) -> list[object]:
    """The objects and lists in a text, in their order."""
    text = _EXTRA_COMMA.sub(lambda match: match.group(1) or match.group(2), text[-_SEARCHED:])
    values: list[object] = []
    place = failures = 0
    while failures < _ATTEMPTS and (opening := _OPENING.search(text, place)):
        place = opening.start()
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            place, failures = place + 1, failures + 1
        else:
            values.append(value)
    return values
