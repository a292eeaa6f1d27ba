"""Hostile inputs: made, tried, and judged."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from tests.fuzz.lanes import Ended, run_forked
from tests.fuzz.outcome import (
    SECRET,
    Attempt,
    Fault,
    Finding,
    Outcome,
    control_characters,
    explain,
    is_deliberate,
    leaks,
    own,
    place_of,
    print_trace,
)

EXPECTED = (ValueError, OSError, ImportError)
"""Types of exceptions that public functions may raise by themselves; the command line turns them into one message."""


class Kind(Protocol):
    """A kind of input.

    Attributes:
        name: as of ``--kind``.
    """

    name: str

    def missing(self) -> str | None:
        """The package that is needed and not installed; None if all are."""
        ...

    def prepare(self) -> None:
        """Import what is needed and make the valid input, once."""
        ...

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """One input, drawn with ``rng`` and written to ``folder``."""
        ...


def prepare(kind: Kind) -> None:
    """Prepare a kind without a word."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        kind.prepare()
    finally:
        sys.stdout, sys.stderr = out, err


class Refused(Exception):
    """The command line said no; the message is what it printed."""


def command(*argv: object) -> str:
    """What a command prints.

    Raises:
        Refused: its exit code is not 0.
        SystemExit: it did not like its arguments.
    """
    from rapport.experiments.cli import main

    code = main([str(word) for word in argv])
    if code != 0:
        printed = sys.stderr.getvalue() if isinstance(sys.stderr, io.StringIO) else ""
        raise Refused(printed)
    return sys.stdout.getvalue() if isinstance(sys.stdout, io.StringIO) else ""


def try_input(kind: Kind, seed: int, folder: Path, debug: bool = False) -> Finding:
    """Make the input of a seed, try it, and judge what came of it."""
    made: list[str] = []
    outcome, error, place = _tried(kind, seed, folder, made, debug)
    return Finding(kind.name, seed, outcome, made[0], error, place)


def _tried(kind: Kind, seed: int, folder: Path, made: list[str], debug: bool) -> tuple[Outcome, str, str]:
    attempt = kind.attempt(_generator(kind, seed), folder)
    made.append(attempt.input)
    before = {path: path.read_bytes() for path in attempt.watched}
    os.environ["OPENAI_API_KEY"] = SECRET
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = io.StringIO(), io.StringIO()
    try:
        found = _outcome(attempt)
    finally:
        sys.stdout, sys.stderr = streams
    printed, said = out.getvalue() + err.getvalue(), err.getvalue()
    if debug:
        print(printed)
        if isinstance(found, BaseException):
            print_trace(found)
    if where := leaks(folder, printed):
        return Outcome.SECRET, where, ""
    for path, content in before.items():
        if not path.exists() or path.read_bytes() != content:
            return Outcome.REACHED, f"{path.name} was changed", ""
    if isinstance(found, BaseException):
        verdict = _of_error(found, attempt, said)
    elif attempt.pristine is not None and found[0] != attempt.pristine and not said.strip():
        verdict = Outcome.SILENT, f"another result: {found[0]!r:.60} in place of {attempt.pristine!r:.60}", ""
    else:
        verdict = Outcome.REFUSED if said.strip() else Outcome.FINE, "", ""
    if verdict[0].is_fault:
        return verdict
    if raw := control_characters(printed):
        return Outcome.RAW, f"{raw} printed", ""
    return verdict


def _generator(kind: Kind, seed: int) -> Generator:
    return np.random.default_rng([seed, zlib.crc32(kind.name.encode())])


def _outcome(attempt: Attempt) -> BaseException | tuple[object]:
    try:
        return (attempt.run(),)
    except (Exception, SystemExit) as error:
        return error


def _of_error(error: BaseException, attempt: Attempt, said: str) -> tuple[Outcome, str, str]:
    if isinstance(error, Fault):
        if error.outcome is Outcome.SILENT and said.strip():
            return Outcome.REFUSED, "", ""
        return error.outcome, str(error), error.place
    if isinstance(error, SystemExit):
        return (Outcome.REFUSED if error.code in (0, 2) else Outcome.TRACEBACK), "", ""
    if isinstance(error, Refused):
        return _of_message(str(error), attempt)
    if isinstance(error, EXPECTED) and is_deliberate(error):
        return _of_message(f"rapport: {error}", attempt)
    return Outcome.TRACEBACK, explain(error), place_of(error.__traceback__)


def _of_message(printed: str, attempt: Attempt) -> tuple[Outcome, str, str]:
    """Whether a refusal is one line that names the file."""
    message = printed[printed.rfind("rapport: ") :].strip()
    if not message.startswith("rapport: "):
        return Outcome.UNCLEAR, f"no message: {printed.strip():.100}", ""
    if len(message.splitlines()) > 1:
        return Outcome.UNCLEAR, f"several lines: {' '.join(message.split()):.140}", ""
    if attempt.names and not any(name in message for name in attempt.names):
        return Outcome.UNCLEAR, f"does not name {' or '.join(attempt.names)}: {message:.100}", ""
    return Outcome.REFUSED, "", ""


def try_inputs(
    kinds: Sequence[Kind], number: int, seed: int, lanes: int, limit: float, progress: Callable[[int, int], None]
) -> list[Finding]:
    """Findings on ``number`` inputs of all kinds, in the order of kinds and seeds."""
    jobs = [(kinds[i % len(kinds)], seed + i // len(kinds)) for i in range(number)]
    jobs.sort(key=lambda job: (job[0].name, job[1]))
    findings: dict[int, Finding] = {}
    for index, result in run_forked([partial(try_input, *job) for job in jobs], lanes, limit):
        kind, number_of_input = jobs[index]
        findings[index] = _of_end(kind, number_of_input, result) if isinstance(result, Ended) else result
        progress(len(findings), len(jobs))
    return [findings[index] for index in sorted(findings)]


def _of_end(kind: Kind, seed: int, ended: Ended) -> Finding:
    outcome = Outcome.HANG if ended.signal is None else Outcome.CRASH
    error = "took too long" if ended.signal is None else f"signal {-ended.signal}"
    with tempfile.TemporaryDirectory() as folder:
        words = kind.attempt(_generator(kind, seed), Path(folder)).input
    return Finding(kind.name, seed, outcome, words, error, _place_in(ended.trace))


def _place_in(trace: str) -> str:
    """The innermost function of Rapport in a trace by ``faulthandler``."""
    for line in trace.splitlines():
        parts: list[str] = line.strip().split('"')
        if len(parts) == 3 and own(parts[1]) and " in " in parts[2]:
            path = Path(parts[1])
            return f"{path.parent.name}/{path.stem}:{parts[2].split(' in ')[1]}"
    return ""


def result_of(*parts: Any) -> str:
    """Short name of plain data, arrays and dataclasses of them, the same for equal ones."""
    digest = hashlib.sha256()
    for part in parts:
        _add(digest, part)
    return digest.hexdigest()[:12]


def _add(digest: hashlib._Hash, part: Any) -> None:
    if isinstance(part, np.ndarray) and part.dtype != object:
        digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    elif is_dataclass(part) and not isinstance(part, type):
        for item in fields(part):
            _add(digest, getattr(part, item.name))
    elif isinstance(part, dict):
        for key in sorted(part, key=str):
            _add(digest, key)
            _add(digest, part[key])
    elif isinstance(part, list | tuple):
        digest.update(f"{len(part)}".encode())
        for item in part:
            _add(digest, item)
    else:
        digest.update(repr(part).encode("utf-8", "backslashreplace"))
