"""What came of one input, and how that is found out."""

from __future__ import annotations

import dis
import sys
import traceback
import unicodedata
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType

import rapport

_PACKAGE = Path(rapport.__file__).resolve().parent
ROOTS = tuple(str((_PACKAGE / layer).resolve()) for layer in ("", "datasets", "envs", "agents", "experiments"))
"""Folders of Rapport's own code."""

SECRET = "sk-planted-7c1f0e9d2b"
"""The key in the environment of every input; nothing that is printed or written may hold it."""


class Outcome(StrEnum):
    """What came of an input; everything after ``REFUSED`` is a fault."""

    FINE = "fine"
    """The input was of use, or what was damaged did not matter."""
    REFUSED = "refused"
    """One message of Rapport's own."""
    UNCLEAR = "unclear"
    """A message of more than one line, or one that does not name the file."""
    TRACEBACK = "traceback"
    """An exception that nobody expected."""
    CRASH = "crash"
    """The process died."""
    HANG = "hang"
    """It took too long."""
    SECRET = "secret"
    """The planted key was printed, written, or sent to a server that the input chose."""
    SILENT = "silent"
    """Another result than that of the whole file, without a word."""
    RAW = "raw"
    """Control characters of the input reached the terminal."""
    REACHED = "reached"
    """A file or server was touched that only the input named."""

    @property
    def is_fault(self) -> bool:
        """Whether somebody has to mend something."""
        return self not in (Outcome.FINE, Outcome.REFUSED)


@dataclass(frozen=True)
class Finding:
    """The outcome of one input.

    Attributes:
        kind: name of the kind of input.
        seed: number of the input; ``--kind KIND --seed SEED`` makes it again.
        outcome: what came of it.
        input: what was done to the valid input, in words.
        error: type and message of the exception, or what is wrong.
        place: where it was raised, as ``module:function``.
    """

    kind: str
    seed: int
    outcome: Outcome
    input: str
    error: str = ""
    place: str = ""

    @property
    def fault(self) -> tuple[str, str, str, str]:
        """What faults of the same cause have in common."""
        return self.kind, self.outcome, self.error.partition(":")[0], self.place


@dataclass
class Attempt:
    """One input, ready to be tried.

    Attributes:
        input: what was done to the valid input, in words.
        run: does what a user would do with it, and returns a result that can be compared, or None.
        pristine: the result of the whole file where damage must be noticed; None: any result is accepted.
        names: of which a refusal has to hold one, e.g. the file; none: it may say anything.
        watched: files that must not change.
    """

    input: str
    run: Callable[[], object]
    pristine: object = None
    names: tuple[str, ...] = ()
    watched: tuple[Path, ...] = ()


class Fault(Exception):
    """An attempt found out by itself that something is wrong."""

    def __init__(self, outcome: Outcome, message: str, place: str = "") -> None:
        super().__init__(message)
        self.outcome, self.place = outcome, place


def place_of(trace: TracebackType | None) -> str:
    """The innermost function of Rapport in a traceback."""
    frames = [frame for frame in traceback.extract_tb(trace) if own(frame.filename)]
    return _named(frames[-1].filename, frames[-1].name) if frames else ""


def own(file: str) -> bool:
    """Whether a source file is Rapport's."""
    return str(Path(file).resolve()).startswith(ROOTS)


def _named(file: str, function: str) -> str:
    path = Path(file).resolve()
    return f"{path.parent.name}/{path.stem}:{function}"


def is_deliberate(error: BaseException) -> bool:
    """Whether Rapport's own code raised an exception by a ``raise``, and did not let one of a library through."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not own(trace.tb_frame.f_code.co_filename):
        return False
    code = trace.tb_frame.f_code.co_code
    return dis.opname[code[trace.tb_lasti]] == "RAISE_VARARGS"


def control_characters(printed: str) -> list[str]:
    """Characters that a terminal obeys, and those that turn the direction of text."""
    return sorted({c for c in printed if c not in "\n\t\r" and unicodedata.category(c) in ("Cc", "Cf")})


def leaks(folder: Path, printed: str) -> str:
    """Where the planted key is found; empty if nowhere."""
    if SECRET in printed:
        return "printed"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if SECRET.encode() in content or _in_transcript(path, content):
            return f"in {path.name}"
    return ""


def _in_transcript(path: Path, content: bytes) -> bool:
    """Whether a compressed batch of a transcript holds the key."""
    if not content.startswith(b"SQLite format 3"):
        return False
    import sqlite3

    try:
        with closing(sqlite3.connect(path)) as db:
            rows = db.execute("SELECT content FROM batches").fetchall()
            return any(SECRET.encode() in zlib.decompress(row[0]) for row in rows)
    except (sqlite3.Error, zlib.error, TypeError):
        return False


def explain(error: BaseException) -> str:
    """Type and message, in one line."""
    line = " ".join(str(error).split())
    return f"{type(error).__name__}: {line:.160}"


def print_trace(error: BaseException) -> None:
    """The whole traceback, on standard error."""
    traceback.print_exception(error, file=sys.stderr)
