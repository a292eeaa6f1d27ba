"""JSON answers: parsed, validated, and requested again where they are invalid."""

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
    system: str | None = None,
) -> list[T | None]:
    """Parsed answers to a batch of prompts; None where the model gave no usable one.

    If an answer is not JSON, or `parse` refuses it, the prompt is sent again with the answer and the reason, at most
    `retries` times. The new prompt starts with the old one, so that a backend can reuse its prefix. Failed calls (time
    limit, connection, budget) are not repeated here: backends repeat those that may succeed.

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
                results[index] = parse(decode_json(answer.text))
            except ValueError as error:
                refused[index] = prompts[index] + _RETRY.format(answer=printable(answer.text)[:300], reason=error)
        pending = refused
    return results


def decode_json(text: str) -> object:
    """The JSON value in an answer, which a code fence or a sentence may surround.

    Raises:
        ValueError: there is none; the message is addressed to the model.
    """
    body = text.strip()
    candidates = [body]
    for opening, closing in ("{}", "[]"):
        start, stop = body.find(opening), body.rfind(closing)
        if 0 <= start < stop:
            candidates.append(body[start : stop + 1])
    for candidate in candidates:
        try:
            # Not strict, because grammars of a schema allow control characters in strings.
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    raise ValueError("it is not valid JSON" if body else "it is empty")
