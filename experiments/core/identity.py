"""What a result depends on, as plain data: equal settings have equal identities, wherever their files are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

LOCAL = {"local": True}
"""Metadata of a dataclass's field that says where something is kept or shown, which no result depends on."""


def identity(value: object) -> Any:
    """What a value is made of, ready for JSON.

    A dataclass is its class's name and its fields, less those marked :data:`LOCAL`; a function or a class is its name.

    Raises:
        TypeError: the value holds something that has no such form; the message names it.
    """
    if is_dataclass(value) and not isinstance(value, type):
        shown = [f for f in fields(value) if not f.metadata.get("local")]
        return {"type": type(value).__name__, **{f.name: identity(getattr(value, f.name)) for f in shown}}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): identity(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    if isinstance(value, partial):
        return {"type": value.func.__name__, "args": identity(value.args), **identity(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    raise TypeError(
        f"{value!r} ({type(value).__name__}) cannot be part of a row's identity: give a dataclass, a named function, "
        "or numbers, texts, lists and mappings of them"
    )
