"""The benchmarks run on a tiny twin and print what they should; how fast is nobody's test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rapport.agents.lerl import PPOConfig
from rapport.datasets.kuairec.load import KuaiRec, synthetic_kuairec
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.learned import SequenceResponse
from rapport.experiments.bench import environment, training
from rapport.experiments.bench.timing import Speed, Work, compare, cores, machine_facts, per_second, torch_threads
from rapport.experiments.commands import bench as bench_commands
from rapport.experiments.commands.bench import BenchEnvironment, BenchTraining


@pytest.fixture
def on_small_data(
    small_data: SessionData, sequence_response: SequenceResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands find the small twin with an unfitted user model, and the lookup table is small."""
    monkeypatch.setattr(bench_commands, "_simulator", lambda command: (small_data, sequence_response))
    monkeypatch.setattr(environment, "peak_memory", lambda name, batch, **_: 0.25)
    monkeypatch.setattr(environment, "LOOKUP_USERS", 50)
    monkeypatch.setattr(environment, "LOOKUP_ITEMS", 60)
    monkeypatch.setenv("COLUMNS", "120")


def test_speed_is_the_median_of_the_rounds() -> None:
    assert Speed.of([3.0, 1.0, 8.0]) == Speed(median=3.0, slowest=1.0, fastest=8.0, rounds=3)


def test_subjects_take_turns_after_a_warm_up() -> None:
    order: list[str] = []

    def work(name: str) -> int:
        order.append(name)
        return 10

    found = compare({"a": lambda: work("a"), "b": lambda: work("b")}, seconds=0.0, rounds=2)
    assert order == ["a", "b"] * 3
    assert {name: speed.rounds for name, speed in found.items()} == {"a": 2, "b": 2}
    assert per_second(lambda: 10, 0.0) > 0


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), torch_threads(1):
        assert torch.get_num_threads() == 1
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_facts_name_cores_and_versions() -> None:
    facts = machine_facts()
    assert f"{cores()} cores" in facts and "torch " in facts and "gymnasium " in facts


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("loop", [environment.bare_items, environment.bare_slates])
def test_bare_loops_serve_every_user(loop: Callable[[KuaiRec, int], Work], batch: int) -> None:
    work = loop(synthetic_kuairec(12, 7, 9), batch)
    assert work() == work() == 64 * batch


def test_memory_is_that_of_a_fresh_process() -> None:
    assert 0.05 < environment.peak_memory("rapport/KuaiRec-v0", 3, data="synthetic") < 3


def test_bench_environment_prints_the_table(
    on_small_data: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # names must not be cut short on a narrow terminal
    command = BenchEnvironment(data="twin", batch_sizes=(1, 4), threads=(1,), seconds=0.01, rounds=2)
    assert command.run() == 0
    printed = capsys.readouterr().out
    for word in ("cores", "200 users, 150 items", environment.REFERENCE, "NextStep", "SameStep", "gym.make"):
        assert word in printed
    for word in ("KuaiRecItem ", "KuaiRand ", "benchmark_step", "1.00", "0.25 GB"):
        assert word in printed


def test_bench_training_prints_the_table(
    on_small_data: None, small: PPOConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_commands, "PPOConfig", lambda n_envs: replace(small, n_envs=n_envs))
    assert BenchTraining(data="twin", transitions=70, threads=(1,), n_envs=8).run() == 0
    printed = capsys.readouterr().out
    for word in (training.SUBJECT, training.REFERENCE, "80", "1.00", "360,000", "collecting"):
        assert word in printed


def test_projection_to_the_paper() -> None:
    row = training.TrainingSpeed("SlatePolicy", 1, 40_960, Speed(6_000.0, 5_000.0, 7_000.0, 8), 0.3, 0.5)
    assert row.paper_minutes == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (BenchEnvironment(batch_sizes=()), "batch_sizes: 0 is not above 0"),
        (BenchEnvironment(batch_sizes=(4, 0)), "batch_sizes: 0 is not above 0"),
        (BenchEnvironment(rounds=0), "rounds: 0"),
        (BenchTraining(transitions=-1), "transitions: -1"),
        (BenchTraining(threads=(0,)), "threads: 0"),
    ],
)
def test_impossible_settings_are_refused(command: BenchEnvironment | BenchTraining, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.run()
