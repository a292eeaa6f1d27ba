"""``rapport evaluate``: another planner over a checkpoint is the table's row of that name."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rapport.experiments.commands import evaluate
from rapport.experiments.commands.evaluate import Evaluate
from rapport.experiments.core import Experiment
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS, RowSettings, lerl_row
from rapport.experiments.results.store import Result

ROWS = ("lerl", "lerl-rotation", "random-plan", "greedy-plan", "lerl-top-k")
OWN = """
import numpy as np
from rapport.agents.planning.controls import RandomPlanner

class Planner:
    period, cooldown = 1, False
    def __init__(self, data, seed):
        self.inner = RandomPlanner(data.catalog.category_sizes, np.random.default_rng(seed))
    def plan(self, views):
        return self.inner.plan(views)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def table(twin_env: Any, small: Any, folder: Path) -> Experiment:
    """The table's rows over one small agent of LERL, whose plans hold 20 slates."""
    settings = RowSettings(PlannerConfig(period=20), 40, small)
    rows = tuple(lerl_row(name, twin_env, settings) for name in ROWS)
    experiment = Experiment(rows, 1, HeldOutSessions(25), folder)
    run_jobs(experiment.jobs(), 1, Console(file=io.StringIO()))
    return experiment


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, table: Experiment) -> Any:
    """What ``rapport evaluate`` plays, with these options, and what it prints."""

    def play(**options: Any) -> Result:
        kept: list[Result] = []
        monkeypatch.setattr(evaluate, "Result", lambda *a, **k: kept.append(Result(*a, **k)) or kept[-1])
        checkpoint = table.folder / "checkpoints" / "lerl-seed0.safetensors"
        Evaluate(checkpoint=checkpoint, data="twin", sessions=25, seeds=1, **options).run()
        return kept[0]

    return play


@pytest.mark.parametrize("name", ROWS)
def test_a_planner_by_its_name_is_the_tables_row_to_the_last_digit(table: Experiment, played: Any, name: str) -> None:
    planner = None if name == "lerl" else DEFINITIONS[name].planner
    (row,) = table.results()[name]
    found = played(planner=planner)
    np.testing.assert_array_equal(found.ids, row.ids)
    assert found.arrays.keys() == row.arrays.keys()
    for array, values in row.arrays.items():
        np.testing.assert_array_equal(found.arrays[array], values, err_msg=array)


def test_the_period_can_be_given_and_the_schedule_is_told(
    table: Experiment, played: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert played(planner="rotation").arrays["length"].mean() == 20.0
    assert "A plan every slate, without the one-slate cooldown." in re.sub(r"\s+", " ", capsys.readouterr().out)
    held = played(planner="rotation", plan_period=20)
    assert held.arrays["length"].mean() < 12.0 and held.meter["plans"] == 25
    assert "A plan every 20 slates, without the one-slate" in re.sub(r"\s+", " ", capsys.readouterr().out)
    with pytest.raises(ValueError, match=r"--plan-period 0: it must be at least 1"):
        played(planner="rotation", plan_period=0)


def test_a_planner_of_ones_own_plays_a_checkpoint(
    played: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.py").write_text(OWN)
    found = played(planner=f"{tmp_path / 'my.py'}:Planner")
    assert found.meter["plans"] == found.served and "planner: my.py:Planner" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"my.py has no class or function 'Plan'"):
        played(planner=f"{tmp_path / 'my.py'}:Plan")
    with pytest.raises(ValueError, match=r"planner='rotatoin' is unknown; choose one of none, random"):
        played(planner="rotatoin")


@pytest.mark.parametrize("given", ["model.zip", "my.py:Agent"])
def test_an_agent_of_ones_own_is_told_its_door(given: str) -> None:
    with pytest.raises(ValueError, match=f"^{given}: no checkpoint of `rapport run`; .*`rapport run --agent {given}`"):
        Evaluate(checkpoint=Path(given)).run()
