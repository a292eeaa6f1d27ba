"""Reads a server's response, which may be anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rapport.agents.llm.base.interface import Completion, CompletionOptions, SampleRequest, printable
from rapport.agents.llm.http_client import COMPRESSED, LARGEST

_MOST_TOKENS = 10_000_000
"""More tokens than any answer or prompt has: a larger count is none."""
_NO_CHAT = "the server's response is no chat completion"


def read_completion(
    content: bytes, headers: Mapping[str, str], request: SampleRequest, options: CompletionOptions
) -> Completion:
    """The completion in a response.

    Tokens are those of ``usage``. Where it is missing or cannot be right, every byte of the prompt and the answer
    counts as a token, which no model exceeds, so that a budget of tokens holds.

    Raises:
        ValueError: it is no chat completion.
    """
    read = _bytes(request.prompt) + _bytes(options.system)
    if len(content) > LARGEST:
        long = f"the server's answer is longer than {LARGEST:,} bytes: give it fewer tokens, or use another server"
        return Completion("", read, options.max_tokens, error=long)
    choice, usage = _choice(_decoded(content, headers))
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise ValueError(f"{_NO_CHAT}: choices[0].message is {_shown(message)}")
    text, thinking = _text(message.get("content")), _thinking(message)
    prompt_tokens = _tokens(usage.get("prompt_tokens"), read)
    completion_tokens = _tokens(usage.get("completion_tokens"), _bytes(text) + _bytes(thinking))
    error = None
    if choice.get("finish_reason") == "length" and (options.schema is not None or not text):
        error = _cut_off(completion_tokens, text, thinking)
    logprobs = _logprobs(choice.get("logprobs")) if options.logprobs else None
    if options.logprobs and logprobs is None:
        error = error or "logprobs=True: the server gives no log-probabilities; use another server or a GGUF file"
    return Completion(printable(text or thinking), prompt_tokens, completion_tokens, error=error, logprobs=logprobs)


def decoded_json(content: bytes) -> Any:
    """The JSON value of a body; the body as text where it is none."""
    text = content[:LARGEST].decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _decoded(content: bytes, headers: Mapping[str, str]) -> Any:
    if encoding := headers.get(COMPRESSED):
        raise ValueError(f"the server's response is compressed ({encoding:.40}), which it was not asked for")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(f"{_NO_CHAT}: it is no JSON") from None


def _choice(body: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice and the usage, empty where there is none."""
    if not isinstance(body, Mapping):
        raise ValueError(f"{_NO_CHAT}: it is {_shown(body)}")
    choices, usage = body.get("choices"), body.get("usage")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise ValueError(f"{_NO_CHAT}: choices is {_shown(choices)}")
    return choices[0], usage if isinstance(usage, Mapping) else {}


def _text(content: Any) -> str:
    """The text of a message's content: a text, or a list of parts of which some are texts."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise ValueError(f"{_NO_CHAT}: choices[0].message.content is {_shown(content)}")
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _thinking(message: Mapping[str, Any]) -> str:
    """What a reasoning model thought, which some servers give apart from the answer, or in its place."""
    found = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text for text in found if isinstance(text, str)), "")


def _cut_off(tokens: int, text: str, thinking: str) -> str:
    inside = (thinking and not text) or ("<think>" in text and "</think>" not in text)
    where = ", while the model was still thinking" if inside else ""
    return f"the answer was cut off after {tokens} tokens{where}: allow more (--llm-answer-tokens)"


def _tokens(count: Any, most: int) -> int:
    """A count of tokens as the server gives it; `most` where it cannot be right."""
    fits = isinstance(count, int | float) and not isinstance(count, bool) and min(most, 1) <= count <= _MOST_TOKENS
    return int(count) if fits and count == int(count) else most


def _logprobs(given: Any) -> tuple[float, ...] | None:
    """Log-probabilities of the tokens of a choice; None where the server gives none."""
    content = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(content, list):
        return None
    values: list[Any] = [token.get("logprob") if isinstance(token, Mapping) else None for token in content]
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None


def _bytes(text: str | None) -> int:
    return len((text or "").encode("utf-8", "replace"))


def _shown(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "missing", int: "an int"}
    return ("an empty list" if value == [] else kinds.get(type(value))) or f"a {type(value).__name__}"
