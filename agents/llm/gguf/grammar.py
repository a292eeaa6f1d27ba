"""llama.cpp grammars from JSON schemas, checked before llama.cpp uses them.

llama.cpp aborts the process when it cannot parse a grammar, or when the model has no token that the grammar allows.
This module detects both first and raises an exception.
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
_PLACEHOLDER = "literal-{}-literal"


def schema_to_gbnf(schema: Schema) -> str:
    """The grammar of a JSON schema, by llama-cpp-python's own converter.

    The converter does not escape quotes, backslashes and characters beyond U+FFFF of constant and enumerated strings.
    Such strings are therefore replaced by placeholders and inserted afterwards.

    Raises:
        ValueError: the converter does not support the schema.
    """
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    texts: list[str] = []

    def masked(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {
                key: [mask(item) for item in value]
                if key == "enum"
                else mask(value)
                if key == "const"
                else masked(value)
                for key, value in node.items()
            }
        return [masked(item) for item in node] if isinstance(node, list | tuple) else node

    def mask(value: Any) -> Any:
        if not isinstance(value, str) or set(value) <= _PLAIN:
            return value
        texts.append(value)
        return _PLACEHOLDER.format(len(texts) - 1)

    try:
        grammar: str = json_schema_to_gbnf(json.dumps(masked(schema)))
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the JSON schema cannot be made into a grammar: {error}; schema: {schema}") from error
    for number, text in enumerate(texts):
        grammar = grammar.replace(_PLACEHOLDER.format(number), _literal(text))
    return grammar


def _literal(text: str) -> str:
    """The content of a JSON string, escaped for a literal of a grammar."""
    inner = json.dumps(text, ensure_ascii=False)[1:-1]
    return inner.replace("\\", "\\\\").replace('"', '\\"')


class Grammar:
    """State of a grammar: the tokens that may follow in a completion."""

    def __init__(self, sampler: Any) -> None:
        """Own llama.cpp's sampler of a grammar, which is freed with this object."""
        import llama_cpp

        self._sampler = sampler
        self._one = np.zeros(1, _TOKEN_DATA)
        self._free = weakref.finalize(self, llama_cpp.llama_sampler_free, sampler)

    @classmethod
    def of(cls, llama: Llama, schema: Schema) -> Grammar:
        """The grammar of a schema for a model's vocabulary.

        Raises:
            ValueError: llama.cpp cannot parse the grammar, or the vocabulary cannot spell it.
        """
        import llama_cpp

        grammar = schema_to_gbnf(schema)
        vocab = llama_cpp.llama_model_get_vocab(llama.model)
        sampler = llama_cpp.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
        if not sampler:
            raise ValueError(f"llama.cpp refuses the grammar of the JSON schema {schema}")
        parsed = cls(sampler)
        for character in sorted(set(json.dumps(schema, ensure_ascii=False))):
            tokens = llama.tokenize(character.encode(), add_bos=False, special=False)
            if character.encode() not in llama.detokenize(tokens):
                raise ValueError(f"the model's vocabulary cannot spell {character!r}, which the answer may need")
        return parsed

    def copy(self) -> Grammar:
        """A copy of the state."""
        import llama_cpp

        return Grammar(llama_cpp.llama_sampler_clone(self._sampler))

    def allowed(self, tokens: IntArray) -> BoolArray:
        """Which of the tokens (N,) may follow, shape (N,)."""
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
        """Advance by a token, which must be allowed: otherwise llama.cpp aborts the process."""
        import llama_cpp

        llama_cpp.llama_sampler_accept(self._sampler, token)


def decode(data: bytes) -> str:
    """Text from the bytes of tokens, with overlong UTF-8 accepted.

    A grammar accepts overlong encodings of a character, which a model that generates single bytes may produce. They are
    not valid UTF-8, but they are the character that the grammar requires.
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
