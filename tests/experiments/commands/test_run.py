"""``rapport run --agent`` and ``--planner``: rows of a user's own beside the run's, the same in worker processes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import rapport
import rapport.experiments.commands.run as runs
import rapport.experiments.lerl.pages.run as run_pages
from rapport.experiments.cli import main, parse
from rapport.experiments.commands.run import Run
from rapport.experiments.core import EnvConfig, Experiment
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.lerl.own_agents import own_learner, own_row
from rapport.experiments.lerl.protocol import HeldOutSessions

CODE = """
import numpy as np

class Agent:
    def __init__(self, env, data, seed):
        self.n_items, self.rng = data.catalog.n_items, np.random.default_rng(seed)
    def train(self, env, transitions, seed):
        env.reset(seed=seed)
        for _ in range(0, transitions, env.num_envs):
            env.step(self(env.num_envs))
    def __call__(self, observations):
        n = observations if isinstance(observations, int) else len(observations["step"])
        return np.stack([self.rng.choice(self.n_items, 6, replace=False) for _ in range(n)])

class Rotation:
    period, cooldown = 1, False
    def __init__(self, data, seed):
        from rapport.agents.planning.controls import RotationPlanner
        self.inner = RotationPlanner(data.catalog.category_sizes, np.random.default_rng(seed))
    def plan(self, views):
        return self.inner.plan(views)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(CODE)
    return tmp_path / "my.py"


def planned(folder: Path, small: Any, **options: Any) -> Experiment:
    """What ``rapport run`` would do, of LERL's row and of those of the user's own."""
    sizes: dict[str, Any] = {"data": "twin", "llm": "none", "seeds": 1, "transitions": 80, "sessions": 10}
    experiment = Run(out=folder, **{**sizes, **options}).planned("twin", small).experiment
    return replace(experiment, rows=tuple(row for row in experiment.rows if row.name.startswith(("own-", "lerl"))))


def only(experiment: Experiment, *names: str) -> Experiment:
    return replace(experiment, rows=tuple(row for row in experiment.rows if row.name in names))


def test_rows_of_ones_own_stand_beside_the_runs_with_the_same_people(
    code: Path, tmp_path: Path, small: Any, twin_env: EnvConfig
) -> None:
    own = {"agent": ("my.py:Agent",), "planner": ("my.py:Rotation",)}
    experiment = only(planned(tmp_path / "run", small, **own), "lerl", "own-my-py-agent", "own-my-py-rotation")
    plain = planned(tmp_path / "run", small)
    assert {row.name for row in planned(tmp_path / "run", small, **own).rows} == {
        *(row.name for row in plain.rows),
        *("own-my-py-agent", "own-my-py-rotation"),
    }
    assert experiment.key(experiment.by_name["lerl"]) == plain.key(plain.by_name["lerl"])
    run_jobs(experiment.jobs(), 1, Console(file=io.StringIO()))
    lerl, agent, rotation = ((group[0]) for group in experiment.results().values())
    assert agent.steps == 128 and rotation.meter["plans"] == rotation.served
    assert rotation.arrays["length"].mean() == 20.0
    found = rapport.evaluate("my.py:Agent", twin_env, transitions=80, sessions=10, seeds=1)
    np.testing.assert_array_equal(found.results["my.py:Agent"][0].arrays["return"], agent.arrays["return"])
    for result in (agent, rotation):
        np.testing.assert_array_equal(result.ids, lerl.ids)


@pytest.mark.slow
def test_a_worker_process_loads_the_users_file(code: Path, tmp_path: Path) -> None:
    row = own_row(own_learner("my.py:Agent", 80), session_env("kuairec", "synthetic"))
    found = []
    for folder, workers in (("here", 1), ("there", 2)):
        experiment = Experiment((row,), 1, HeldOutSessions(10), tmp_path / folder)
        run_jobs(experiment.jobs(), workers, Console(file=io.StringIO()))
        found.append(experiment.results()["own-my-py-agent"])
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first.arrays["return"], second.arrays["return"])


def test_a_whole_run_shows_and_reports_them(
    code: Path, small: Any, twin_env: EnvConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twin_env.make_vec(1)  # the simulator is fitted beforehand, on one thread
    monkeypatch.setattr(runs, "PPOConfig", lambda: small)
    monkeypatch.setattr(runs, "RUN_ROWS", ("lerl", "popularity"))
    monkeypatch.setattr(run_pages, "_trust", lambda env: [])
    argv = "run --data twin --llm none --seeds 1 --transitions 40 --sessions 8 --workers 1 --out run"
    assert main([*argv.split(), "--agent", "my.py:Agent", "--planner", "my.py:Rotation"]) == 0
    printed = capsys.readouterr().out
    assert "your own: my.py:Agent, digest " in printed
    report = Path("run/report.md").read_text()
    for name in ("my.py:Agent", "my.py:Rotation over LERL's policy"):
        assert name in printed.replace("\n", " ") or name[:20] in printed
        assert f"| {name} |" in report and f"above {name} by" in report
    assert "- my.py:Agent: digest " in report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent", "none.py:Agent"], "none.py:Agent: there is no file "),
        (["--agent", "my.py:Agnet"], "my.py has no class or function 'Agnet'; it has Agent, Rotation"),
        (["--agent", "none.zip"], "none.zip cannot be read: No such file or directory"),
        (["--agent", "my.py:Rotation"], "my.py:Rotation: this class has no __call__(observations)"),
        (["--planner", "my.py:Agent"], "my.py:Agent: it is no class with a method plan(views)"),
        (["--planner", "rotation"], "--planner rotation: give FILE.py:NAME"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_before_anything_is_trained(
    code: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["run", "--data", "twin", "--llm", "none", "--out", "run", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(Path("run").glob("*"))


def test_several_may_be_given() -> None:
    command = parse(["run", "--agent", "a.py:A", "--agent", "PPO:m.zip", "--planner", "p.py:P"])
    assert isinstance(command, Run)
    assert (command.agent, command.planner) == (("a.py:A", "PPO:m.zip"), ("p.py:P",))
