"""The header of a GGUF file, checked before llama.cpp reads it: with some numbers it aborts the process or hangs.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST_TEXT, _MOST_ENTRIES, _MOST_ITEMS = 2**24, 2**16, 2**24

_LIMITS = {
    "context_length": (64, 2**24),
    "block_count": (1, 2**9),
    "embedding_length": (1, 2**20),
    "feed_forward_length": (0, 2**24),
    "attention.head_count": (0, 2**16),
    "attention.head_count_kv": (0, 2**16),
    "attention.key_length": (1, 2**16),
    "attention.value_length": (1, 2**16),
    "rope.dimension_count": (0, 2**16),
    "expert_count": (0, 2**12),
    "expert_used_count": (0, 2**12),
    "vocab_size": (1, 2**24),
    "ssm.conv_kernel": (1, 2**16),
    "ssm.inner_size": (1, 2**24),
    "ssm.state_size": (1, 2**16),
    "ssm.time_step_rank": (1, 2**24),
}
"""Smallest and largest value of an architecture's numbers; far wider than those of any model."""


class _DamagedError(ValueError):
    """What is wrong with a header; the caller names the file."""


def check_header(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file, lists left out.

    Raises:
        ValueError: the file is no GGUF file, or damaged; the message names file, field and value.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != b"GGUF":
            raise ValueError(f"{path} is no GGUF file: it begins with {magic!r}, not b'GGUF'. Download it again")
        try:
            _check(metadata := _read(file, size))
        except _DamagedError as error:
            raise ValueError(
                f"{path} ({size:,} bytes) cannot be loaded: {error}. The file is damaged: download it again"
            ) from None
    return metadata


def _read(file: BinaryIO, size: int) -> dict[str, Any]:
    version = _number(file, 4)
    if version not in (2, 3):
        raise _DamagedError(f"its format has version {version}, not 2 or 3")
    n_tensors, n_entries = _number(file, 10), _number(file, 10)
    for what, count in (("tensors", n_tensors), ("entries of metadata", n_entries)):
        if not 1 <= count <= _MOST_ENTRIES:
            raise _DamagedError(f"it has {count:,} {what}")
    metadata = {}
    for _ in range(n_entries):
        name = _text(file, "the name of an entry")
        metadata[name] = _value(file, name, _number(file, 4))
    for _ in range(n_tensors):
        name = _text(file, "the name of a tensor")
        dimensions = _number(file, 4)
        if not 1 <= dimensions <= 4:
            raise _DamagedError(f"the tensor {name!r:.80} has {dimensions:,} dimensions")
        _bytes(file, 8 * dimensions + 12)  # shape, type and place
    if file.tell() >= size:
        raise _DamagedError("it ends after its header")
    return {name: value for name, value in metadata.items() if value is not None}


def _check(metadata: Mapping[str, Any]) -> None:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise _DamagedError(f"general.architecture is {_shown(architecture)}, not a name")
    for name, value in metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _DamagedError(f"{name} is {value}")
    for field, (least, most) in _LIMITS.items():
        name = f"{architecture}.{field}"
        value = metadata.get(name)
        if value is None and field not in ("block_count", "context_length"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _DamagedError(f"{name} is {_shown(value)}, not a number from {least} to {most:,}")


def _value(file: BinaryIO, name: str, kind: int) -> Any:
    """A value; None for a list, which is read over."""
    if kind in _SCALARS:
        return _number(file, kind)
    if kind == _STRING:
        return _text(file, name)
    if kind != _ARRAY:
        raise _DamagedError(f"{name!r:.80} has the unknown type {kind}")
    inner, count = _number(file, 4), _number(file, 10)
    if count > _MOST_ITEMS or (inner not in _SCALARS and inner != _STRING):
        raise _DamagedError(f"{name!r:.80} is a list of {count:,} values of type {inner}")
    if inner == _STRING:
        for _ in range(count):
            _bytes(file, _length(file, name))
    else:
        _bytes(file, count * struct.calcsize(_SCALARS[inner]))
    return None


def _text(file: BinaryIO, what: str) -> str:
    return _bytes(file, _length(file, what)).decode("utf-8", "replace")


def _length(file: BinaryIO, what: str) -> int:
    length = int(_number(file, 10))
    if length > _LONGEST_TEXT:
        raise _DamagedError(f"{what!r:.80} is {length:,} bytes long")
    return length


def _number(file: BinaryIO, kind: int) -> Any:
    form = _SCALARS[kind]
    return struct.unpack(form, _bytes(file, struct.calcsize(form)))[0]


def _bytes(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _DamagedError("it ends within its header")
    return data


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value:,}" if isinstance(value, int) else f"{value!r:.80}"
