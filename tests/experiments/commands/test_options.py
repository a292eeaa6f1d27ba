"""Shared options: one help text wherever a command has them, sizes given or by default, jobs here or on a cluster."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro
from rich.console import Console

from rapport.agents.planning.lm.embedded import EMBEDDED
from rapport.experiments.commands import options
from rapport.experiments.commands.options import (
    Cluster,
    DataDirectory,
    FetchedData,
    LanguageModel,
    LanguageModelLimits,
    LocalData,
    TablesFile,
    TrainingSizes,
    Workers,
    at_least_one,
)
from rapport.experiments.commands.run import Run
from rapport.experiments.jobs.local import Job


@dataclass
class Everything(FetchedData, TrainingSizes, LanguageModel, LanguageModelLimits, Cluster):
    """A command that has all options."""

    out: Path = Path("runs/everything")
    """Where its results go."""
    llm_seconds: float = 600.0


def test_a_command_has_the_options_of_its_classes_and_its_own() -> None:
    parsed = tyro.cli(Everything, args=["--data", "twin", "--seeds", "2", "--ray", "auto", "--llm", "none"])
    assert parsed == Everything(data="twin", seeds=2, ray="auto", llm="none")
    assert (parsed.llm_seconds, parsed.out) == (600.0, Path("runs/everything"))


def test_defaults_are_those_of_rapport_run() -> None:
    run = Run()
    for options_of in (FetchedData(), TrainingSizes(), LanguageModel(), LanguageModelLimits(), Workers()):
        for name, value in vars(options_of).items():
            assert getattr(run, name) == value, name
    assert LanguageModel().llm == EMBEDDED


@pytest.mark.parametrize("options_of", [Everything, LocalData, TablesFile])
def test_every_option_has_a_help_text_also_where_a_default_was_changed(options_of, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        tyro.cli(options_of, args=["--help"])
    lines = [line.strip(" │|") for line in capsys.readouterr().out.splitlines()]
    for name in vars(options_of()):
        option = f"--{name.replace('_', '-')}"
        (place,) = (i for i, line in enumerate(lines) if re.match(rf"{option}[ ,]", line))
        told = f"{lines[place]} {lines[place + 1]}".partition("(default:")[0]
        assert len(told.split()) > 5, option


def test_sizes_are_those_given_else_the_defaults() -> None:
    full, quick = {"seeds": 5, "sessions": 1_000}, {"seeds": 2, "sessions": 200}
    assert TrainingSizes().sizes(full, quick) == full
    assert TrainingSizes(quick=True).sizes(full, quick) == quick
    assert TrainingSizes(quick=True, sessions=7).sizes(full, quick) == {"seeds": 2, "sessions": 7}
    with pytest.raises(ValueError, match=r"^--seeds 0: it must be at least 1$"):
        TrainingSizes(seeds=0).sizes(full, quick)


def test_a_number_below_one_is_told_by_its_option() -> None:
    assert at_least_one(plan_period=1) == {"plan_period": 1}
    with pytest.raises(ValueError, match=r"^--plan-period -3: it must be at least 1$"):
        at_least_one(sessions=4, plan_period=-3)


def test_the_data_directory_reaches_the_data(tmp_path) -> None:
    assert DataDirectory().root is None
    assert LocalData(data_dir=tmp_path).root == str(tmp_path)
    assert LocalData(data="twin").session_data().name == "twin"
    assert LocalData(data_dir=tmp_path).session_data().name == "twin"  # nothing else is there


def test_limits_are_a_budget() -> None:
    budget = LanguageModelLimits(llm_calls=3, llm_seconds=120.0).budget()
    assert (budget.calls, budget.tokens, budget.seconds) == (3, None, 120.0)


@dataclass(frozen=True)
class Touch:
    path: Path

    def __call__(self, progress):
        self.path.touch()


@pytest.mark.parametrize("workers", [Workers(workers=1), Cluster(workers=1)])
def test_jobs_run_here_unless_a_cluster_is_named(workers, tmp_path) -> None:
    jobs, console = [Job("touch", Touch(tmp_path / "done"))], Console(file=io.StringIO())
    if isinstance(workers, Cluster):
        workers.run_shared(jobs, tmp_path, console)
    else:
        workers.run_jobs(jobs, console)
    assert (tmp_path / "done").exists()


def test_workers_are_those_given_else_the_commands_default_else_all_cores(monkeypatch) -> None:
    used = []
    monkeypatch.setattr("rapport.experiments.jobs.local.run_jobs", lambda jobs, workers, console: used.append(workers))
    monkeypatch.setattr(options.os, "cpu_count", lambda: 7)
    for workers, default in ((None, None), (None, 1), (3, 1)):
        Workers(workers=workers).run_jobs([], Console(file=io.StringIO()), default)
    assert used == [7, 1, 3]


def test_a_named_cluster_has_its_folder_checked_and_runs_the_jobs(tmp_path, monkeypatch) -> None:
    called = []
    monkeypatch.setattr("rapport.experiments.jobs.ray.check_shared", lambda *args: called.append(args))
    monkeypatch.setattr("rapport.experiments.jobs.ray.run_on_ray", lambda *args: called.append(args))
    console = Console(file=io.StringIO())
    Cluster(ray="10.0.0.1:6379").run_shared([], tmp_path, console)
    assert called == [(tmp_path, "10.0.0.1:6379"), ([], "10.0.0.1:6379", console)]
