"""Timing in rounds over all subjects, and medians of the rounds, so that other work on the machine disturbs little."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rapport.envs.common.threads import torch_threads as torch_threads

STATUS = Path("/proc/self/status")

Work = Callable[[], int]
"""Does some work and returns the amount, e.g. in user-steps."""


@dataclass(frozen=True)
class Speed:
    """Amount of work per second over several rounds.

    Attributes:
        median: of the rounds.
        slowest: of the slowest round.
        fastest: of the fastest round.
        rounds: number of rounds.
    """

    median: float
    slowest: float
    fastest: float
    rounds: int

    @classmethod
    def of(cls, rates: Sequence[float]) -> Speed:
        """The summary of the rounds' rates."""
        return cls(float(np.median(rates)), min(rates), max(rates), len(rates))


def per_second(work: Work, seconds: float) -> float:
    """Repeat ``work`` for about ``seconds``, at least once, and return its amount per second."""
    done, begun = 0, time.perf_counter()
    while True:
        done += work()
        spent = time.perf_counter() - begun
        if spent >= seconds:
            return done / spent


def compare(subjects: Mapping[str, Work], seconds: float, rounds: int) -> dict[str, Speed]:
    """Time subjects in turn, round after round, after a warm-up of each, so that a disturbance affects all alike.

    Args:
        subjects: work by name.
        seconds: time for each subject in each round [s].
        rounds: number of rounds.
    """
    for work in subjects.values():
        per_second(work, seconds / 4)
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, work in subjects.items():
            rates[name].append(per_second(work, seconds))
    return {name: Speed.of(found) for name, found in rates.items()}


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mb() -> float:
    """Largest resident memory so far [MB]. On Linux ``ru_maxrss`` begins with that of the parent process."""
    if STATUS.exists():
        return status_mb("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def status_mb(name: str) -> float:
    """A size that Linux reports of this process, e.g. ``VmHWM`` [MB]."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * 1_024 / 1e6


def machine_facts() -> str:
    """What the figures depend on: machine, load and versions."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    names = ("numpy", "torch", "gymnasium", "stable-baselines3")
    compiler = f"numba {version('numba')}" if find_spec("numba") else "no numba"
    versions = ", ".join([*(f"{name} {version(name)}" for name in names), compiler])
    machine = f"{platform.system()} {platform.machine()}, {cores()} cores{load}"
    return f"{machine}; Python {platform.python_version()}, {versions}"
