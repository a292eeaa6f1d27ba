"""Jobs on all cores, each telling how far it is."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Job = Callable[[Callable[[float], None]], Any]
"""A picklable call that is handed a function to tell its share done, in [0, 1]."""


@dataclass(frozen=True)
class Named:
    """A job and what to call it.

    Attributes:
        name: shown beside its bar.
        job: what to run.
        then: jobs that may begin when it is done.
    """

    name: str
    job: Job
    then: tuple[Named, ...] = ()


def run_jobs(jobs: list[Named], workers: int, console: Console) -> None:
    """Run jobs, and those that follow from them, on ``workers`` processes of one thread each.

    With one worker they run in this process, one after the other, and make the same results: sums over several threads
    would differ in their last digits. The first failure stops what has not begun and is
    raised.
    """
    with shown(console, count(jobs)) as board:
        if workers == 1:
            _run_here(jobs, board)
        else:
            _run_apart(jobs, workers, board)


def count(jobs: list[Named] | tuple[Named, ...]) -> int:
    """How many jobs there are, with all that follow."""
    return sum(1 + count(job.then) for job in jobs)


class Board:
    """Progress of all jobs: bars in a terminal, a line per finished job elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("{task.description:<26}"), BarColumn(36), TextColumn("{task.fields[unit]}"))
        self.progress = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
        self.console, self.total, self.done = console, total, 0
        self.bars: dict[str, TaskID] = {}
        self.all = self.progress.add_task("all", total=total, unit=f"0/{total}")

    def show(self, name: str, share: float) -> None:
        """Move one job's bar."""
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=1.0, unit="")
        self.progress.update(self.bars[name], completed=share, unit=f"{share:4.0%}")

    def finish(self, name: str) -> None:
        """Take a finished job's bar away."""
        if name in self.bars:
            self.progress.remove_task(self.bars.pop(name))
        self.done += 1
        self.progress.update(self.all, completed=self.done, unit=f"{self.done}/{self.total}")
        if not self.console.is_terminal:
            self.console.print(f"  [{self.done}/{self.total}] {name}", highlight=False, markup=False)


@contextmanager
def shown(console: Console, total: int) -> Iterator[Board]:
    """A board on the screen for as long as the block runs."""
    board = Board(console, total)
    with board.progress:
        yield board


def _run_here(jobs: list[Named], board: Board) -> None:
    _one_thread()
    waiting = list(jobs)
    while waiting:
        job = waiting.pop(0)
        board.show(job.name, 0.0)
        job.job(_Shower(board, job.name))
        board.finish(job.name)
        waiting += job.then


@dataclass(frozen=True)
class _Shower:
    board: Board
    name: str

    def __call__(self, share: float) -> None:
        self.board.show(self.name, share)


def _run_apart(jobs: list[Named], workers: int, board: Board) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(workers, context, _one_thread) as pool:
        assert isinstance(manager, SyncManager)
        news: Any = manager.Queue()
        running: dict[Future[Any], Named] = {}

        def submit(batch: list[Named] | tuple[Named, ...]) -> None:
            for job in batch:
                running[pool.submit(_call, job.job, job.name, news)] = job

        submit(jobs)
        try:
            while running:
                finished, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
                _read(news, board)
                for future in finished:
                    job = running.pop(future)
                    future.result()
                    board.finish(job.name)
                    submit(job.then)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@dataclass(frozen=True)
class _Teller:
    news: Any
    name: str

    def __call__(self, share: float) -> None:
        self.news.put((self.name, share))


def _call(job: Job, name: str, news: Any) -> Any:
    news.put((name, 0.0))
    return job(_Teller(news, name))


def _read(news: Any, board: Board) -> None:
    while True:
        try:
            name, share = news.get_nowait()
        except queue.Empty:
            return
        board.show(name, share)
