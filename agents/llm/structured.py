"""Answers that can be used: parsed, checked, and asked for again where they do not hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from rapport.agents.llm.base.interface import LLM, Schema, printable

T = TypeVar("T")

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
) -> list[T | None]:
    """Parsed answers to a batch of prompts; None where the model gave none that can be used.

    An answer that is not JSON, or that `parse` refuses, is sent back to the model together with the reason, `retries`
    times at most. The retried prompt begins with the first one, so that a backend can reuse what it has already read.
    A call that failed (time limit, connection, budget) is not repeated: backends retry what is worth retrying.

    Args:
        llm: the model; its meter counts the retries.
        prompts: N prompts.
        schema: JSON schema of an answer.
        parse: turns decoded JSON into a result, or raises ValueError with a reason the model can act on.
        max_tokens: longest answer.
        retries: times an answer is asked for again.

    Returns:
        N results, in the order of the prompts.
    """
    results: list[T | None] = [None] * len(prompts)
    asked = dict(enumerate(prompts))
    for attempt in range(retries + 1):
        if not asked:
            break
        if attempt:
            llm.meter.retries += len(asked)
        answers = llm.complete(list(asked.values()), schema, max_tokens)
        refused: dict[int, str] = {}
        for index, answer in zip(asked, answers, strict=True):
            if answer.error is not None:
                continue
            try:
                results[index] = parse(decode_json(answer.text))
            except ValueError as error:
                refused[index] = prompts[index] + _RETRY.format(answer=printable(answer.text)[:300], reason=error)
        asked = refused
    return results


def decode_json(text: str) -> object:
    """The JSON value in an answer, also where a fence or a sentence stands around it.

    Raises:
        ValueError: there is none; the message says so in words meant for the model.
    """
    body = text.strip()
    candidates = [body]
    for opening, closing in ("{}", "[]"):
        start, stop = body.find(opening), body.rfind(closing)
        if 0 <= start < stop:
            candidates.append(body[start : stop + 1])
    for candidate in candidates:
        try:
            # Not strict: grammars made from a schema let control characters into strings.
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    raise ValueError("it is not valid JSON" if body else "it is empty")
