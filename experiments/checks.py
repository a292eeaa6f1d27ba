"""What is wrong with a command line, found before anything is computed, in one sentence."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

LARGEST = {
    "workers": 1_024,
    "threads": 1_024,
    "seeds": 10_000,
    "sessions": 10_000_000,
    "transitions": 1_000_000_000,
    "seed": (1 << 32) - 1,
    "llm_calls": (1 << 53) - 1,
    "llm_tokens": (1 << 53) - 1,
    "videos": (1 << 53) - 1,
    "max_items": (1 << 53) - 1,
}
"""Bounds beyond which a number is a slip; the other numbers of a command are bounded by :data:`LARGEST_OTHER`."""
LARGEST_OTHER = (1 << 31) - 1
SMALLEST = {"seed": 0, "sensitivity": 0, "llm_calls": 0, "llm_tokens": 0}
"""Numbers that may be below 1."""
PLACES = ("out", "output", "html", "json", "fit", "write", "folder", "llm_record")
"""Options that name what is written."""
ROOM = 40
"""Letters that names of files get beside those that are given: endings, and marks of unfinished files."""


def check_command(command: object) -> None:
    """Refuse numbers that cannot be meant and places that cannot be written to.

    Args:
        command: a dataclass of options.

    Raises:
        ValueError: an option is out of range; the message names it, its value and what it may be.
        OSError: what an option names cannot be written.
    """
    if not is_dataclass(command):
        return
    for field in fields(command):
        value = getattr(command, field.name)
        for number in _numbers(value):
            _check_number(field.name, number)
        if field.name in PLACES and isinstance(value, Path):
            _check_place(_option(field.name), value, _is_folder(field))


def _numbers(value: Any) -> Iterator[int | float]:
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, int | float) and not isinstance(part, bool):
            yield part


def _check_number(name: str, value: int | float) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_option(name)} {value}: it must be a finite number")
        return
    least, most = SMALLEST.get(name, 1), LARGEST.get(name, LARGEST_OTHER)
    if value < least:
        raise ValueError(f"{_option(name)} {value}: it must be at least {least}")
    if value > most:
        raise ValueError(f"{_option(name)} {_short(value)}: it must be at most {most:,}")


def _check_place(option: str, path: Path, is_folder: bool) -> None:
    """See that ``path`` can be made, without making anything."""
    there = next((p for p in (path, *path.absolute().parents) if os.path.lexists(p)), Path("/"))
    if is_folder and there.exists() and not there.is_dir():
        raise NotADirectoryError(f"{option} {path}: {there} is a file; give a folder")
    if not is_folder and path.is_dir():
        raise IsADirectoryError(f"{option} {path}: it is a folder; give a file")
    if there != path and not there.is_dir():
        raise NotADirectoryError(f"{option} {path}: {there} is no folder, so nothing can be written into it")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{option} {path}: {there} cannot be written to; give another place")
    longest = max(path.parts, key=lambda part: len(os.fsencode(part)), default="")
    if len(os.fsencode(longest)) + (0 if is_folder else ROOM) > 255:
        raise OSError(f"{option} {longest[:40]}…: a name of {len(longest)} letters is too long; give a shorter one")


def _is_folder(field: Field[Any]) -> bool:
    """Whether an option names a folder: its default is one, or its name says so."""
    default = field.default
    return field.name == "folder" or (default is not MISSING and isinstance(default, Path) and not default.suffix)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**20 else f"10^{int(math.log10(abs(value)))}"
