"""Jobs: each runs once, after what it follows from, here or in other processes; a failure is raised."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from rapport.experiments.jobs import local
from rapport.experiments.jobs.local import Job, ProgressDisplay, count, drive, run_jobs


@dataclass(frozen=True)
class Touch:
    path: Path
    needs: Path | None = None

    def __call__(self, progress):
        progress(0.5)
        assert self.needs is None or self.needs.exists()
        self.path.open("x").close()


@dataclass(frozen=True)
class Fail:
    def __call__(self, progress):
        raise RuntimeError("the job failed")


def jobs(folder):
    return [
        Job(f"first {i}", Touch(folder / f"a{i}"), (Job(f"next {i}", Touch(folder / f"b{i}", folder / f"a{i}")),))
        for i in range(3)
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_runs_once_after_what_it_follows_from(tmp_path, workers):
    told = io.StringIO()
    run_jobs(jobs(tmp_path), workers, Console(file=told))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert count(jobs(tmp_path)) == 6
    assert "[6/6]" in told.getvalue()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_raised_and_what_follows_from_it_is_not_begun(tmp_path, workers):
    failing = Job("fails", Fail(), (Job("never", Touch(tmp_path / "never")),))
    with pytest.raises(RuntimeError, match="the job failed"):
        run_jobs([failing], workers, Console(file=io.StringIO()))
    assert not (tmp_path / "never").exists()


def test_a_terminal_shows_bars(tmp_path):
    told = io.StringIO()
    run_jobs(jobs(tmp_path), 1, Console(file=told, force_terminal=True, width=100))
    assert "6/6" in told.getvalue()


def test_without_a_terminal_a_line_at_intervals_says_how_far_the_jobs_are(tmp_path, monkeypatch):
    told = io.StringIO()
    run_jobs(jobs(tmp_path)[:1], 1, Console(file=told))
    assert told.getvalue().splitlines() == ["  [1/2] first 0", "  [2/2] next 0"]
    monkeypatch.setattr(local, "LINE_SECONDS", 0.0)
    with ProgressDisplay(Console(file=(told := io.StringIO())), 2) as display:
        display.show("a", 0.25)
        display.show("b", 0.5)
        display.finish("a")
        display.show("b", 0.75)
    assert told.getvalue().splitlines() == ["  [0/2] a 25%", "  [0/2] a 25%, b 50%", "  [1/2] a", "  [1/2] b 75%"]


def test_lines_come_at_intervals_whether_or_not_a_job_reports():
    now, told = [0.0], io.StringIO()
    with ProgressDisplay(Console(file=told, width=80), 2, clock=lambda: now[0]) as display:
        for second in range(1, 76):
            now[0] = float(second)
            if second <= 40:
                display.show("[fit]", second / 100)
            display.tell()
        display.finish("[fit]")
        now[0] += 100.0
        display.tell()  # nothing runs
    assert local.LINE_SECONDS == 30.0
    assert told.getvalue().splitlines() == ["  [0/2] [fit] 30%", "  [0/2] [fit] 40%", "  [1/2] [fit]"]


def test_names_are_no_markup():
    told = io.StringIO()
    with ProgressDisplay(Console(file=told, force_terminal=True, width=100), 1) as display:
        display.show("model [/x]", 0.5)
        display.progress.refresh()
        display.finish("model [/x]")
    assert "model [/x]" in told.getvalue()


def driven(jobs, start, slots, judge):
    with ProgressDisplay(Console(file=io.StringIO()), count(jobs)) as display:
        drive(jobs, start, lambda: slots, list, judge, display)


def test_a_driven_job_is_started_again_until_its_error_is_final():
    started, errors = [], iter([OSError("first"), OSError("second")])

    def attempt(job):
        started.append(job.name)
        if job.name == "b" and (error := next(errors, None)) is not None:
            raise error

    with ThreadPoolExecutor(1) as pool:
        driven([Job(name, print) for name in "abc"], lambda job: pool.submit(attempt, job), 1, lambda job, error: None)
    assert started == ["a", "b", "b", "b", "c"]


def test_after_a_failure_what_runs_ends_and_nothing_begins():
    began, ended, failed = [], [], threading.Event()

    def attempt(job):
        began.append(job.name)
        if job.name == "fails":
            raise RuntimeError("its own")
        assert failed.wait(10)
        ended.append(job.name)

    def judge(job, error):
        failed.set()
        return error

    first = [Job("runs", print, (Job("dependent", print),)), Job("fails", print), Job("waits", print)]
    with ThreadPoolExecutor(2) as pool, pytest.raises(RuntimeError, match="its own"):
        driven(first, lambda job: pool.submit(attempt, job), 2, judge)
    assert sorted(began) == ["fails", "runs"]
    assert ended == ["runs"]
