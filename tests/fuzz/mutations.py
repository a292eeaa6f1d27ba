"""Damage: to bytes, to texts, and to values as JSON and TOML hold them. All of it is drawn from a generator."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
from numpy.random import Generator

ESCAPES = "\x1b[2J\x1b]0;owned\x07"
TEXTS = (
    *("", " ", "0", "1", "01", "1.0", "-1", "1e400", "nan", "inf", "NULL", "\\N", "None", "true", "[/x]", "[red]z"),
    *(
        "../../outside",
        "/dev/full",
        "%s{x}{0}",
        "é😀",
        "\u202eevil",
        ESCAPES,
        "a\nb",
        "a,b",
        '"',
        "\x00",
        "A|B",
        "x" * 100_000,
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2.5, 2**31 - 1, 2**31, 2**63, 10**30, 1e30, -1e300, float("nan"), float("inf")),
    *([], {}, [[]], [1, "a", None], {"a": {"b": []}}),
)


def pick(rng: Generator, options: Any) -> Any:
    """One of a sequence."""
    return options[int(rng.integers(len(options)))]


def text(rng: Generator) -> str:
    """A text that is likely to be read wrongly."""
    return str(pick(rng, TEXTS))


def value(rng: Generator) -> Any:
    """A value that is likely to be of the wrong type or size."""
    return text(rng) if rng.random() < 0.3 else copy.deepcopy(pick(rng, VALUES))


DEEP = "@deep:{}@"
"""Stands in plain data for lists within lists, which only their spelling can have; see :func:`spelt`."""


def spelt(document: str) -> str:
    """A document in JSON or TOML with its deep lists in place of their marks."""
    return re.sub(r'"@deep:(\d+)@"', lambda mark: "[" * int(mark[1]) + "1" + "]" * int(mark[1]), document)


def damaged(rng: Generator, content: bytes) -> tuple[bytes, str]:
    """A file as it may come from a bad disk or a broken transfer, never equal to the file itself; what was done."""
    way = pick(rng, ("flip", "flip", "flip", "byte", "cut", "drop", "repeat", "zeros", "noise", "empty"))
    at = int(rng.integers(len(content)))
    size = int(rng.integers(1, max(2, min(64, len(content) - at))))
    if way == "flip":
        bit = 1 << int(rng.integers(8))
        return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :], f"bit {bit} of byte {at} flipped"
    if way == "byte":
        other = (content[at] + int(rng.integers(1, 256))) % 256
        return content[:at] + bytes([other]) + content[at + 1 :], f"byte {at} is {other}"
    if way == "cut":
        return content[:at], f"cut off after {at} bytes"
    if way == "drop":
        return content[:at] + content[at + size :], f"{size} bytes missing at {at}"
    if way == "repeat":
        return content[: at + size] + content[at:], f"{size} bytes twice at {at}"
    if way == "empty":
        return b"", "empty"
    new = bytes(size) if way == "zeros" else rng.bytes(size)
    done = content[:at] + new + content[at + size :]
    return (done, f"{size} bytes of {way} at {at}") if done != content else damaged(rng, content)


def altered(rng: Generator, tree: Any) -> tuple[Any, str]:
    """Plain data with one value replaced, missing, renamed or added; what was done."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree, ()))
    parent, key, path = pick(rng, places)
    way = pick(rng, ("replace", "replace", "replace", "remove", "rename", "add", "bury"))
    name = "/".join(map(str, path))
    if way == "remove":
        del parent[key]
        return tree, f"{name} removed"
    if way in ("rename", "add") and isinstance(parent, dict):
        new = value(rng) if way == "add" else parent.pop(key)
        parent[text(rng)[:50] or "unknown"] = new
        return tree, f"{name} renamed" if way == "rename" else f"a key added beside {name}"
    new = DEEP.format(pick(rng, (5, 2_000, 100_000))) if way == "bury" else value(rng)
    parent[key] = new
    return tree, f"{name} = {new!r:.60}"


def _places(tree: Any, path: tuple[Any, ...]) -> Any:
    """Every (container, key, path) in plain data, depth first."""
    keys: Any = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key, (*path, key)
        yield from _places(tree[key], (*path, key))


def array(rng: Generator, content: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], str]:
    """An array with values that are no numbers, of another shape, or of another type; what was done."""
    way = pick(rng, ("nan", "inf", "shape", "type", "none"))
    if way in ("nan", "inf") and content.dtype.kind == "f" and content.size:
        content = content.copy()
        content.reshape(-1)[int(rng.integers(content.size))] = np.nan if way == "nan" else np.inf
        return content, f"one {way}"
    if way == "shape":
        return content[..., None], f"shape {content[..., None].shape}"
    if way == "type":
        kind = pick(rng, (np.int64, np.float64, np.uint8))
        return np.nan_to_num(content).astype(kind), f"dtype {np.dtype(kind)}"
    return content[:0] if content.ndim else content.reshape(0), "no rows"
