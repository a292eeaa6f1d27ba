"""The one mechanism: a second system goes through it, rows are kept by what they depend on, and jobs come in order."""

from __future__ import annotations

import importlib.util
import io
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from rapport.experiments.core import (
    LOCAL,
    EnvConfig,
    Episodes,
    EpisodeStatistics,
    Experiment,
    Prerequisite,
    Row,
    ServingPolicy,
    Task,
    identity,
    jobs_of,
    play,
)
from rapport.experiments.core.rollout import step_info
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.report.page import publish

SECOND = Path(__file__).with_name("second_system.py")


@pytest.fixture(scope="module")
def second() -> ModuleType:
    """The second system, a module of its own."""
    spec = importlib.util.spec_from_file_location("second_system", SECOND)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["second_system"] = module
    spec.loader.exec_module(module)
    return module


def run(experiment: Experiment) -> None:
    run_jobs(experiment.jobs(), 1, Console(file=io.StringIO()))


def returns(experiment: Experiment) -> dict[str, list[list[float]]]:
    return {name: [r.arrays["return"].tolist() for r in group] for name, group in experiment.results().items()}


# --- a second system --------------------------------------------------------------------------------------------------


def test_a_second_system_takes_fewer_than_eighty_lines() -> None:
    assert len([line for line in SECOND.read_text("utf-8").splitlines() if line.strip()]) < 80


def test_a_second_system_goes_from_definition_to_table_and_page(second: ModuleType, tmp_path: Path) -> None:
    experiment = second.experiment(tmp_path)
    run(experiment)
    results = experiment.results()
    assert list(results) == ["random", "epsilon-greedy", "greedy"] and all(
        len(group) == 3 for group in results.values()
    )
    # By hand: a random choice sells 10 x (0.2 + 0.6) / 2 = 4 times and regrets 10 x 0.4 / 2 = 2 an episode.
    sales = np.concatenate([r.arrays["return"] for r in results["random"]])
    regret = np.concatenate([r.arrays["regret"] for r in results["random"]])
    assert abs(sales.mean() - 4) < 4 * sales.std() / np.sqrt(len(sales))
    assert abs(regret.mean() - 2) < 4 * regret.std() / np.sqrt(len(regret))
    assert results["random"][0].units["regret"] == "sales"

    told = io.StringIO()
    files = publish(second.page(experiment), tmp_path, Console(file=told, width=120))
    for text in (told.getvalue(), *(file.read_text("utf-8") for file in files)):
        assert "epsilon-greedy" in text and "sales" in text and "of offers" in text
    assert "<html" in files[1].read_text("utf-8")


@pytest.mark.slow
def test_a_second_system_runs_on_ray_and_makes_the_same_results(second: ModuleType, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from rapport.experiments.jobs.ray import run_on_ray

    # Workers cannot import this module: they get its classes, and the environment that it registers, by value.
    ray.cloudpickle.register_pickle_by_value(second)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        here, there = second.experiment(tmp_path / "here"), second.experiment(tmp_path / "there")
        run(here)
        run_on_ray(there.jobs(), cluster.address, Console(file=io.StringIO()))
        assert returns(there) == returns(here)
    finally:
        ray.shutdown()
        cluster.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(second)


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    """Always the same action; counts how often it was trained."""

    action: int = 0
    file: Path | None = field(default=None, metadata=LOCAL)

    def prerequisite(self, task: Task) -> Prerequisite | None:
        if self.file is None:
            return None
        return Prerequisite("first", str(self.file), lambda progress: self.file.open("a").write("first\n"))

    def __call__(self, task: Task, progress: object) -> ServingPolicy:
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(f"{task.row.name} with {task.trained.name}, {task.seed}\n")
        meter = {"calls": 2.0}
        act = lambda _: lambda observations: np.full(len(observations), self.action)  # noqa: E731
        return ServingPolicy(act, 7, 1.5, meter, ("trained",), ((7, 1.0, 1.0),))


@dataclass(frozen=True)
class Short:
    episodes: int = 2

    def __call__(self, task: Task, policy: ServingPolicy) -> Episodes:
        env = task.row.env.make_vec(self.episodes)
        return Episodes(play(env, policy.act(env), task.seed), {}, meter={"calls": 1.0}, notes=("measured",))


def small(second: ModuleType, folder: Path, **changes: object) -> Experiment:
    env = EnvConfig("toy/TwoVariants-v0", {"better": 0.6}, entry_point=second.TwoVariants)
    rows = (Row("one", "One", env, Constant(1)), Row("zero", "Zero", env, Constant(0)))
    return replace(Experiment(rows, 2, Short(), folder), **changes)  # type: ignore[arg-type]


def test_a_key_changes_with_what_results_depend_on_and_with_nothing_else(second: ModuleType, tmp_path: Path) -> None:
    experiment = small(second, tmp_path)
    row = experiment.rows[0]

    def key(row: Row, **changes: object) -> str:
        return replace(experiment, rows=(row,), **changes).key(row)  # type: ignore[arg-type]

    same = key(row)
    assert key(replace(row, name="other", label="Other", family="f")) == same
    assert key(row, folder=tmp_path / "moved", seeds=9, name="grid") == same
    assert key(replace(row, learner=Constant(1, tmp_path / "log"))) == same
    assert key(replace(row, env=replace(row.env, local={"root": "/elsewhere"}, title="T"))) == same
    changed = [
        key(replace(row, learner=Constant(0))),
        key(replace(row, env=row.env.changed(better=0.7))),
        key(replace(row, env=replace(row.env, data={"fingerprint": "other"}))),
        key(replace(row, planner=Constant())),
        key(row, protocol=Short(3)),
    ]
    assert len({same, *changed}) == 1 + len(changed)


def test_a_row_that_one_experiment_made_is_taken_by_another_and_a_moved_folder_is_as_good(
    second: ModuleType, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    row = Row("one", "One", EnvConfig("toy/TwoVariants-v0", entry_point=second.TwoVariants), Constant(1, log))
    run(Experiment((row,), 2, Short(), tmp_path / "a", "first command"))
    made = log.read_text()
    (tmp_path / "a").rename(tmp_path / "b")
    other = replace(row, name="two", label="Two", learner=Constant(0))
    second_command = Experiment((other, replace(row, label="Renamed")), 2, Short(), tmp_path / "b", "second command")
    run(second_command)
    assert log.read_text() == f"{made}first\n" and set(second_command.results()) == {"one", "two"}


def test_what_a_row_plays_with_belongs_to_its_key(second: ModuleType, tmp_path: Path) -> None:
    env = EnvConfig("toy/TwoVariants-v0", entry_point=second.TwoVariants)

    def key(action: int) -> str:
        rows = (Row("base", "B", env, Constant(action)), Row("late", "L", env, Constant(5), trained_as="base"))
        return Experiment(rows, 1, Short(), tmp_path).key(rows[1])

    assert key(0) != key(1)


def test_an_identity_is_plain_and_what_has_none_is_refused() -> None:
    assert identity(Constant(3, Path("/x"))) == {"type": "Constant", "action": 3}
    assert identity({"a": (1, None), "f": identity}) == {"a": [1, None], "f": "identity"}
    with pytest.raises(TypeError, match="cannot be part of a row's identity"):
        identity(np.zeros(2))


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_prerequisites_come_first_and_once_and_followers_after_who_trained_for_them(
    second: ModuleType, tmp_path: Path
) -> None:
    env, log = EnvConfig("toy/TwoVariants-v0", entry_point=second.TwoVariants), tmp_path / "log"
    rows = (
        Row("late", "Late", env, Constant(1, log), trained_as="base"),
        Row("base", "Base", env, Constant(0, log)),
        Row("else", "Else", env, Constant(1, log)),
    )
    experiments = [Experiment(rows, 1, Short(), tmp_path / name, name) for name in ("a", "b")]
    run_jobs(jobs_of(experiments), 1, Console(file=io.StringIO()))
    lines = log.read_text().splitlines()
    assert lines[0] == "first" and lines.count("first") == 1
    for name in ("base with base, 0", "else with else, 0", "late with base, 0"):
        assert lines.count(name) == 2
    assert lines.index("base with base, 0") < lines.index("late with base, 0")
    found = experiments[0].results()
    assert found["base"][0].meter == {"calls": 3.0} and found["base"][0].notes == ("trained", "measured")
    # A training is charged to the row that made it.
    assert found["late"][0].meter == {"calls": 1.0} and found["late"][0].steps == 0 and not found["late"][0].curve


def test_rows_that_do_not_fit_together_are_refused(second: ModuleType, tmp_path: Path) -> None:
    row = Row("one", "One", EnvConfig("toy/TwoVariants-v0", entry_point=second.TwoVariants), Constant())
    with pytest.raises(ValueError, match="two are called 'one'"):
        Experiment((row, row), 1, Short(), tmp_path)
    with pytest.raises(ValueError, match="trained_as='none' is no row here"):
        Experiment((replace(row, trained_as="none"),), 1, Short(), tmp_path)


# --- rollouts ---------------------------------------------------------------------------------------------------------


def test_steps_that_end_an_episode_are_told_of_as_well() -> None:
    info = {
        "x": np.array([0.0, 2.0]),
        "final_info": {"x": np.array([1.0, 0.0]), "_x": np.array([True, False])},
    }
    assert step_info(info)["x"].tolist() == [1.0, 2.0]


def test_episode_statistics_are_those_of_the_episodes(second: ModuleType) -> None:
    env = EpisodeStatistics(EnvConfig("toy/TwoVariants-v0", entry_point=second.TwoVariants).make_vec(3), every=15)
    env.reset(seed=0)
    totals = np.zeros(3)
    for _ in range(10):
        totals += env.step(np.ones(3, int))[1]
    assert env.steps == 30 and env.curve == [(30, 10.0, pytest.approx(totals.mean()))]
