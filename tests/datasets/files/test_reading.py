"""Files that are read through one door and replaced in one step."""

from __future__ import annotations

import csv
import json
import lzma
import sqlite3
import zlib
from pathlib import Path

import pytest

from rapport.datasets.files import download
from rapport.datasets.files.atomic import write_atomically
from rapport.datasets.files.download import TransferDisplay
from rapport.datasets.files.reading import reading, visible
from rapport.datasets.schema import DataError


class Refused(ValueError):
    """An error of a reader's own."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("planner"), "the entry 'planner' is missing"),
        (TypeError("int() argument"), "a value has the wrong type: int() argument"),
        (RecursionError("maximum"), "it is nested too deeply"),
        (MemoryError(), "it is larger than the memory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "it is not UTF-8"),
        (csv.Error("line contains NUL"), "line contains NUL"),
        (lzma.LZMAError("Corrupt"), "Corrupt"),
        (zlib.error("-3"), "-3"),
        (sqlite3.DatabaseError("not a database"), "not a database"),
        (OverflowError("too large"), "too large"),
        (ValueError("x" * 1_000), "x" * 300 + "…"),
        (EOFError(), "EOFError"),
    ],
)
def test_damage_is_one_sentence_with_file_reason_and_remedy(error: Exception, said: str) -> None:
    with pytest.raises(Refused) as found, reading("a.json", "the note", "make it again", Refused):
        raise error
    message = str(found.value)
    assert message.startswith(f"a.json: the note cannot be read ({said}") and message.endswith("; make it again")
    assert found.value.__cause__ is error


def test_what_is_said_already_and_errors_of_the_system_pass() -> None:
    for error in (
        DataError("said"),
        Refused("said"),
        FileNotFoundError("a"),
        PermissionError("b"),
        KeyboardInterrupt(),
    ):
        with pytest.raises(type(error)) as found, reading("a.json", "the note", "make it again", Refused):
            raise error
        assert found.value is error


def test_deep_nesting_is_damage() -> None:
    with pytest.raises(DataError, match="nested too deeply"), reading("a.json", "the note", "make it again"):
        json.loads("[" * 100_000)


def test_a_terminal_is_shown_letters_alone() -> None:
    assert visible("Essen\n\tund Trinken, 食べ物 é") == "Essen\n\tund Trinken, 食べ物 é"
    assert visible("\x1b[31mred\u202eder\x07\r") == "�[31mred�der��"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_atomically(path, "never")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


class FakeConsole:
    """A console that is no terminal, and keeps its lines."""

    def __init__(self) -> None:
        from rich.console import Console

        self.lines: list[str] = []
        self._console = Console(quiet=True)

    is_terminal, quiet = False, False

    def print(self, line: str, **_: object) -> None:
        self.lines.append(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._console, name)


def test_a_download_without_a_terminal_has_a_line_at_intervals() -> None:
    now, console = [0.0], FakeConsole()
    with TransferDisplay("[log].tar.gz", console, lambda: now[0]) as shown:  # type: ignore[arg-type]
        shown.begin(10_000_000, 100_000_000)
        for _ in range(90):
            now[0] += 1.0
            shown.advance(1_000_000)
    assert download.LINE_SECONDS == 30.0
    assert console.lines == [f"  [log].tar.gz: {have} of 100 MB" for have in (40, 70, 100)]
