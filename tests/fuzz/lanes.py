"""Work in forked processes, a few at a time: one that dies or hangs costs its own result alone.

A fork begins with everything that its parent has imported and prepared, so that one input costs milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Task = Callable[[Path], Any]
"""Called in the fork with an empty folder, which is also its working directory."""


@dataclass(frozen=True)
class Ended:
    """A fork that gave no result.

    Attributes:
        signal: what killed it; None: it took too long.
        trace: Python's stacks at the end, the innermost call first.
    """

    signal: int | None
    trace: str


@dataclass
class _Running:
    number: int
    process: int
    pipe: int
    folder: Path
    until: float
    received: list[bytes] = field(default_factory=list)


def run_forked(tasks: Sequence[Task], lanes: int, limit: float) -> Iterator[tuple[int, Any]]:
    """The number and the result of each task, in the order in which they end.

    Args:
        tasks: what to do; results must be picklable.
        lanes: forks at a time.
        limit: seconds that one may take.
    """
    running: list[_Running] = []
    waiting = iter(enumerate(tasks))
    with tempfile.TemporaryDirectory(prefix="rapport-fuzz-") as parent:
        try:
            while True:
                while len(running) < lanes and (following := next(waiting, None)) is not None:
                    running.append(_start(*following, Path(parent), limit))
                if not running:
                    return
                for fork in list(running):
                    if (result := _result(fork)) is not None:
                        running.remove(fork)
                        yield fork.number, result[0]
                time.sleep(0.001)
        finally:
            for fork in running:
                _kill(fork)


def _start(number: int, task: Task, parent: Path, limit: float) -> _Running:
    folder = parent / f"{number}"
    (folder / "work").mkdir(parents=True)
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _work(task, folder, writing, limit)
    os.close(writing)
    os.set_blocking(reading, False)
    return _Running(number, process, reading, folder, time.monotonic() + limit + 1.0)


def _work(task: Task, folder: Path, pipe: int, limit: float) -> None:
    """What the fork does; it never returns."""
    import faulthandler

    os.setsid()  # so that what it starts dies with it
    trace = (folder / "trace").open("w")
    faulthandler.enable(trace)
    faulthandler.dump_traceback_later(limit, file=trace)
    with (folder / "output").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(folder / "work")
    try:
        result = task(folder / "work")
    except BaseException as error:  # a fault of the harness itself
        import traceback

        result = RuntimeError("".join(traceback.format_exception(error)))
    with os.fdopen(pipe, "wb") as file:
        file.write(pickle.dumps(result))
    os._exit(0)


def _result(fork: _Running) -> tuple[Any] | None:
    """The result in a tuple, or None while there is none."""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fork.pipe, 1 << 16):
            fork.received.append(chunk)
    ended, status = os.waitpid(fork.process, os.WNOHANG)
    if not ended and time.monotonic() < fork.until:
        return None
    if not ended:
        _kill(fork)
        return (_ended(fork, None),)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fork.pipe, 1 << 16):
            fork.received.append(chunk)
    _clean(fork)
    if not fork.received:
        return (_ended(fork, os.waitstatus_to_exitcode(status)),)
    result = pickle.loads(b"".join(fork.received))
    shutil.rmtree(fork.folder, ignore_errors=True)
    if isinstance(result, RuntimeError):
        raise result
    return (result,)


def _ended(fork: _Running, status: int | None) -> Ended:
    trace = (fork.folder / "trace").read_text("utf-8", "replace")
    shutil.rmtree(fork.folder, ignore_errors=True)
    return Ended(status, trace)


def _kill(fork: _Running) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(fork.process, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(fork.process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(fork.process, 0)
    _clean(fork)


def _clean(fork: _Running) -> None:
    with contextlib.suppress(OSError):
        os.close(fork.pipe)
