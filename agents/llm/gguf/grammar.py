"""Grammars for llama.cpp, made from JSON schemas and checked before llama.cpp sees them.

llama.cpp aborts the whole process when a grammar it is given cannot be parsed, or when the model has no token that the
grammar allows. Both are found here first, and become errors that can be handled.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import string
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import Schema

if TYPE_CHECKING:
    from llama_cpp import Llama

IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.cpp's ``llama_token_data``."""

_PLAIN = set(string.ascii_letters + string.digits + " _-")
_MARK = "literal-{}-literal"


def schema_to_gbnf(schema: Schema) -> str:
    """The grammar of a JSON schema, by llama-cpp-python's own converter.

    The converter writes quotes, backslashes and characters beyond U+FFFF of a constant or enumerated string into the
    grammar unescaped, so such strings go through it as plain marks and are put in afterwards.

    Raises:
        ValueError: the schema uses something the converter does not know.
    """
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    texts: list[str] = []

    def marked(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {
                key: [mark(item) for item in value]
                if key == "enum"
                else mark(value)
                if key == "const"
                else marked(value)
                for key, value in node.items()
            }
        return [marked(item) for item in node] if isinstance(node, list | tuple) else node

    def mark(value: Any) -> Any:
        if not isinstance(value, str) or set(value) <= _PLAIN:
            return value
        texts.append(value)
        return _MARK.format(len(texts) - 1)

    try:
        grammar: str = json_schema_to_gbnf(json.dumps(marked(schema)))
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the JSON schema cannot be made into a grammar: {error}; schema: {schema}") from error
    for number, text in enumerate(texts):
        grammar = grammar.replace(_MARK.format(number), _literal(text))
    return grammar


def _literal(text: str) -> str:
    """A string as it stands between the quotes of a JSON string, escaped for a grammar's literal."""
    inner = json.dumps(text, ensure_ascii=False)[1:-1]
    return inner.replace("\\", "\\\\").replace('"', '\\"')


class Grammar:
    """Which tokens may come next in an answer that follows a schema."""

    def __init__(self, sampler: Any) -> None:
        """Take over llama.cpp's sampler of a grammar; it is freed together with this object."""
        import llama_cpp

        self._sampler = sampler
        self._one = np.zeros(1, _TOKEN_DATA)
        self._free = weakref.finalize(self, llama_cpp.llama_sampler_free, sampler)

    @classmethod
    def of(cls, llama: Llama, schema: Schema) -> Grammar:
        """The grammar of a schema, for one model's vocabulary.

        Raises:
            ValueError: llama.cpp cannot parse it, or the vocabulary cannot spell it; with the reason.
        """
        import llama_cpp

        grammar = schema_to_gbnf(schema)
        vocab = llama_cpp.llama_model_get_vocab(llama.model)
        sampler = llama_cpp.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
        if not sampler:
            raise ValueError(f"llama.cpp refuses the grammar made from the JSON schema {schema}")
        parsed = cls(sampler)
        for character in sorted(set(json.dumps(schema, ensure_ascii=False))):
            tokens = llama.tokenize(character.encode(), add_bos=False, special=False)
            if character.encode() not in llama.detokenize(tokens):
                raise ValueError(f"the model's vocabulary cannot spell {character!r}, which the answer may need")
        return parsed

    def copy(self) -> Grammar:
        """Another answer that stands where this one does."""
        import llama_cpp

        return Grammar(llama_cpp.llama_sampler_clone(self._sampler))

    def allowed(self, tokens: IntArray) -> BoolArray:
        """Which of some tokens may come next, shape (N,) as `tokens`."""
        import llama_cpp

        data = self._one if len(tokens) == 1 else np.zeros(len(tokens), _TOKEN_DATA)
        data["id"], data["logit"] = tokens, 0
        candidates = llama_cpp.llama_token_data_array(
            ctypes.cast(data.ctypes.data, llama_cpp.llama_token_data_p), len(data), -1, False
        )
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(candidates))
        fits: BoolArray = np.isfinite(data["logit"])
        return fits

    def accept(self, token: int) -> None:
        """Go on by a token, which must be allowed: llama.cpp ends the process otherwise."""
        import llama_cpp

        llama_cpp.llama_sampler_accept(self._sampler, token)


def decode(data: bytes) -> str:
    """Text from the bytes of tokens.

    A grammar accepts a character in more bytes than it needs, as a model that writes byte by byte may spell it. That is
    no valid UTF-8, yet it is the character that the grammar asked for.
    """
    return data.decode("utf-8", "rapport-overlong")


def _decode_overlong(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    lead, start = error.object[error.start], error.start
    length = 2 if lead >> 5 == 0b110 else 3 if lead >> 4 == 0b1110 else 4 if lead >> 3 == 0b11110 else 1
    rest = error.object[start + 1 : start + length]
    if length == 1 or len(rest) < length - 1 or any(byte >> 6 != 0b10 for byte in rest):
        return "\ufffd", error.end
    code = lead & (0x7F >> length)
    for byte in rest:
        code = code << 6 | byte & 0x3F
    return (chr(code) if code <= 0x10FFFF else "\ufffd"), start + length


codecs.register_error("rapport-overlong", _decode_overlong)
