"""Which fields of a chat request a server takes: found out from its refusals, and remembered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rapport.agents.llm.base.interface import CompletionOptions, SampleRequest, Sampling, printable, sample_seed

FORMS = ("json_schema", "json_object", "text")
"""Response formats in order of preference: OpenAI's, llama-cpp-python's (json_object with a schema), and none."""

_FIELDS = {
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "response_format": "response_format",
    "json_schema": "response_format",
    "json_object": "response_format",
    "json schema": "response_format",
    "structured output": "response_format",
    "structured outputs": "response_format",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "top_logprobs": "top_logprobs",
    "logprobs": "logprobs",
}
"""What a refusal may name, and the field that can be left out or sent in another form."""
_NAMED = re.compile(rf"(?<![a-z0-9_])({'|'.join(sorted(_FIELDS, key=len, reverse=True))})(?![a-z0-9_])")


@dataclass(frozen=True)
class Dialect:
    """Fields of a request.

    Attributes:
        form: response format of a schema, an index into `FORMS`.
        length: name of the field with the longest answer in tokens.
        left_out: optional fields that are not sent.
    """

    form: int = 0
    length: str = "max_tokens"
    left_out: frozenset[str] = frozenset()

    def fields(
        self, model: str, request: SampleRequest, options: CompletionOptions, sampling: Sampling
    ) -> dict[str, Any]:
        """The fields of one request."""
        messages = [{"role": "user", "content": printable(request.prompt)}]
        if options.system is not None:
            messages.insert(0, {"role": "system", "content": printable(options.system)})
        fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sample_seed(sampling.seed, request.number),
        }
        if options.logprobs:
            fields |= {"logprobs": True, "top_logprobs": 1}  # llama-cpp-python gives none without top_logprobs
        if options.schema is not None and FORMS[self.form] != "text":
            fields["response_format"] = _response_format(FORMS[self.form], dict(options.schema))
        kept = {name: value for name, value in fields.items() if name not in self.left_out}
        return {"model": model, "messages": messages, self.length: options.max_tokens, **kept}

    def without(self, field: str) -> Dialect | None:
        """The dialect that sends a refused field in another form or not at all; None where there is none."""
        if field == "response_format":
            return replace(self, form=self.form + 1) if self.form + 1 < len(FORMS) else None
        if field == "max_tokens":
            return replace(self, length="max_completion_tokens") if self.length == "max_tokens" else None
        more = {field, "top_logprobs"} if field == "logprobs" else {field}
        return None if more <= self.left_out else replace(self, left_out=self.left_out | more)


def refused_fields(body: object, sent: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a request that the body of a refusal names and that could be sent otherwise, likeliest first.

    Args:
        body: decoded JSON, or a text.
        sent: the fields of the request.
    """
    for name in _named(body):
        field = _FIELDS[name]
        if field in sent or field == "max_tokens":
            yield field


def words_of(body: object) -> str:
    """What the body of a refusal says to people, as the server sent it."""
    return next(_messages(body), "") or (str(body) if body else "")


def _response_format(form: str, schema: dict[str, Any]) -> dict[str, Any]:
    if form == "json_schema":
        return {"type": form, form: {"name": "answer", "schema": schema, "strict": True}}
    return {"type": form, "schema": schema}


def _named(body: object) -> Iterator[str]:
    parts = [body.get("error"), body] if isinstance(body, Mapping) else []
    for part in parts:
        if isinstance(part, Mapping) and isinstance(part.get("param"), str):
            yield from _NAMED.findall(part["param"].lower())
    for message in _messages(body):
        yield from _NAMED.findall(message.lower()[:2_000])


def _messages(body: object) -> Iterator[str]:
    """Texts in the places where servers put them; FastAPI lists places in the request."""
    if isinstance(body, str):
        yield body
    elif isinstance(body, list):
        for item in body[:10]:
            yield from _messages(item)
    elif isinstance(body, Mapping):
        if isinstance(place := body.get("loc"), list):
            yield f"{'.'.join(map(str, place))[:200]}: {str(body.get('msg', 'refused'))[:200]}"
            return
        for name in ("message", "detail", "error", "msg"):
            if isinstance(body.get(name), str | list | Mapping):
                yield from _messages(body[name])
