"""How many threads torch computes on: one a process, unless more are asked for.

Sums over several threads differ in their last digits, and small models on threads that wait for each other are many
times slower beside busy neighbours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "RAPPORT_THREADS"
"""Environment variable with the number of threads; ``--threads`` sets it for a command and its worker processes."""
LIMIT = "OMP_NUM_THREADS"
"""Environment variable that bounds the number, as for other programs."""


def threads() -> int:
    """Threads that fits and trainings use: ``$RAPPORT_THREADS``, 1 by default, at most ``$OMP_NUM_THREADS``.

    It is part of the key of whatever is kept of a fit or a training.

    Raises:
        ValueError: ``$RAPPORT_THREADS`` is no number of at least 1.
    """
    wanted = os.environ.get(VARIABLE, "1")
    if not (wanted.isascii() and wanted.isdecimal() and 1 <= int(wanted) <= 1024):
        raise ValueError(f"{VARIABLE}={wanted}: it must be a number of threads from 1 to 1024")
    limit = os.environ.get(LIMIT, "").partition(",")[0]  # one number a level of nesting; the first counts
    return min(int(wanted), int(limit)) if limit.isascii() and limit.isdecimal() and int(limit) else int(wanted)


def more_threads() -> dict[str, int]:
    """What a key says of the threads: nothing where one computes, so that one thread's results keep their keys."""
    return {} if threads() == 1 else {"threads": threads()}


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch compute on ``number`` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def process_threads(number: int | None) -> Iterator[None]:
    """Let this process, and those that it starts, compute on ``number`` threads inside the block.

    Args:
        number: None for ``$RAPPORT_THREADS``, else 1.
    """
    before = {name: os.environ.get(name) for name in (VARIABLE, LIMIT)}
    if number is not None:
        os.environ[VARIABLE] = str(number)
    try:
        used = threads()
        os.environ |= {VARIABLE: str(used), LIMIT: str(used)}
        if "torch" in sys.modules:  # torch reads the limit when it is imported
            with torch_threads(used):
                yield
        else:
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
