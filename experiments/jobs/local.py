"""Jobs on all cores of this machine, each reporting how far it is."""

from __future__ import annotations

import math
import multiprocessing
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.managers import SyncManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rapport.envs.common.threads import threads, torch_threads

Task = Callable[[Callable[[float], None]], object]
"""A picklable call that is handed a function to report its share done, in [0, 1]. What it returns is dropped."""

LOOK_SECONDS = 0.5
"""Time between two reports of a job, and between two looks at the reports [s]."""
LINE_SECONDS = 30.0
"""Time between two lines of progress where there is no terminal [s]."""


@dataclass(frozen=True)
class Job:
    """A task and what to call it.

    Attributes:
        name: shown beside its bar.
        task: what to run.
        dependents: jobs that may begin when it is done.
    """

    name: str
    task: Task
    dependents: tuple[Job, ...] = ()


def run_jobs(jobs: Sequence[Job], workers: int, console: Console) -> None:
    """Run jobs and their dependents on ``workers`` processes of one thread each, or of as many as were asked for.

    One worker runs them in this process, one after the other. The results do not depend on the number of workers. Sums
    over several threads differ in their last digits, so their number is part of the keys of results. The first failure
    stops what has not begun and is raised.
    """
    with ProgressDisplay(console, count(jobs)) as display:
        if workers == 1:
            _run_here(jobs, display)
        else:
            _run_in_processes(jobs, workers, display)


def count(jobs: Sequence[Job]) -> int:
    """Number of jobs with all their dependents."""
    return sum(1 + count(job.dependents) for job in jobs)


class ProgressDisplay(AbstractContextManager["ProgressDisplay"]):
    """Progress of all jobs, while the block runs: bars in a terminal, plain lines at intervals elsewhere.

    Args:
        console: where it is shown.
        total: number of jobs.
        clock: tells the time [s].
    """

    def __init__(self, console: Console, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        name = TextColumn("{task.description:<26}", markup=False)
        columns = (name, BarColumn(36), TextColumn("{task.fields[unit]}"))
        self.progress = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
        self.console, self.total, self.done = console, total, 0
        self.bars: dict[str, TaskID] = {}
        self.all = self.progress.add_task("all", total=total, unit=f"0/{total}")
        self.shares: dict[str, float] = {}
        self.clock, self.printed = clock, clock()

    def __enter__(self) -> ProgressDisplay:
        """Begin to show."""
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End showing."""
        self.progress.stop()

    def show(self, name: str, share: float) -> None:
        """Move one job's bar."""
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=1.0, unit="")
        self.progress.update(self.bars[name], completed=share, unit=f"{share:4.0%}")
        self.shares[name] = share
        self.tell()

    def tell(self) -> None:
        """Print how far the jobs are, where there is no terminal and the last line was some time ago."""
        if self.shares and self.clock() - self.printed >= LINE_SECONDS:
            self._print(", ".join(f"{job} {share:.0%}" for job, share in self.shares.items()))

    def finish(self, name: str) -> None:
        """Take a finished job's bar away."""
        if name in self.bars:
            self.progress.remove_task(self.bars.pop(name))
        self.shares.pop(name, None)
        self.done += 1
        self.progress.update(self.all, completed=self.done, unit=f"{self.done}/{self.total}")
        self._print(name)

    def _print(self, line: str) -> None:
        self.printed = self.clock()
        if not self.console.is_terminal:
            self.console.print(f"  [{self.done}/{self.total}] {line}", highlight=False, markup=False)


def _run_here(jobs: Sequence[Job], display: ProgressDisplay) -> None:
    waiting = list(jobs)
    with torch_threads(threads()):
        while waiting:
            job = waiting.pop(0)
            display.show(job.name, 0.0)
            job.task(partial(display.show, job.name))
            display.finish(job.name)
            waiting += job.dependents


def _run_in_processes(jobs: Sequence[Job], workers: int, display: ProgressDisplay) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(workers, context, use_threads) as pool:
        assert isinstance(manager, SyncManager)
        reports: Any = manager.Queue()

        def start(job: Job) -> Future[None]:
            return pool.submit(run_task, job.task, job.name, reports)

        drive(jobs, start, lambda: workers, lambda: _drain(reports), lambda job, error: error, display)


def drive(
    jobs: Sequence[Job],
    start: Callable[[Job], Future[None]],
    slots: Callable[[], int],
    reports: Callable[[], Iterable[tuple[str, float]]],
    judge: Callable[[Job, Exception], Exception | None],
    display: ProgressDisplay,
) -> None:
    """Start jobs, and their dependents when they are done, and show their progress until all have ended.

    Args:
        jobs: what to run.
        start: starts a job elsewhere.
        slots: how many jobs run at once.
        reports: the reports since the last call: names of jobs, and the shares of them that are done.
        judge: told the error of a job; what to raise when all that runs has ended, or None to start the job again.
        display: shows progress.

    Raises:
        Exception: the first that ``judge`` returned. Nothing was started after it.
    """
    waiting, running = deque(jobs), dict[Future[None], Job]()
    failure: Exception | None = None
    while running or (waiting and failure is None):
        while waiting and failure is None and len(running) < max(1, slots()):
            job = waiting.popleft()
            running[start(job)] = job
        finished, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
        for name, share in reports():
            display.show(name, share)
        display.tell()
        for future in finished:
            job = running.pop(future)
            try:
                future.result()
            except Exception as error:
                failure = failure or judge(job, error)
                waiting.appendleft(job)  # it is started again, unless something failed
            else:
                display.finish(job.name)
                waiting += job.dependents
    if failure is not None:
        raise failure


def use_threads() -> None:
    """Let torch compute on one thread in this process, or on as many as were asked for."""
    import torch

    torch.set_num_threads(threads())


def run_task(task: Task, name: str, reports: Any) -> None:
    """Run a job's task in another process; its reports go to the queue ``reports``."""
    report = _Reporter(reports, name)
    report(0.0)
    task(report)


@dataclass
class _Reporter:
    reports: Any
    name: str
    last: float = field(default=-math.inf, init=False)

    def __call__(self, share: float) -> None:
        if time.monotonic() - self.last >= LOOK_SECONDS:
            self.last = time.monotonic()
            self.reports.put((self.name, share))


def _drain(reports: Any) -> Iterator[tuple[str, float]]:
    with suppress(queue.Empty):
        while True:
            yield reports.get_nowait()
