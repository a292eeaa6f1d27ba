"""Jobs: each runs once, after what it follows from, here or in other processes; a failure is raised."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from rapport.experiments.jobs.local import Named, count, run_jobs


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
        Named(f"first {i}", Touch(folder / f"a{i}"), (Named(f"next {i}", Touch(folder / f"b{i}", folder / f"a{i}")),))
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
    failing = Named("fails", Fail(), (Named("never", Touch(tmp_path / "never")),))
    with pytest.raises(RuntimeError, match="the job failed"):
        run_jobs([failing], workers, Console(file=io.StringIO()))
    assert not (tmp_path / "never").exists()


def test_a_terminal_shows_bars(tmp_path):
    told = io.StringIO()
    run_jobs(jobs(tmp_path), 1, Console(file=told, force_terminal=True, width=100))
    assert "6/6" in told.getvalue()
