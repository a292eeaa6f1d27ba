"""The benchmark of planners runs on a tiny twin and a tiny model; how fast is nobody's test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse
from rapport.experiments.bench import planner
from rapport.experiments.commands import bench as bench_commands
from rapport.experiments.commands.bench import BenchPlanner


def test_bench_planner_prints_the_table(
    small_data: SessionData,
    matrix_response: MatrixResponse,
    tiny_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench_commands, "_simulator", lambda command: (small_data, matrix_response))
    monkeypatch.setenv("COLUMNS", "120")
    assert BenchPlanner(tiny_gguf, data="twin", batch_sizes=(1, 3), seconds=0.01, rounds=1).run() == 0
    printed = capsys.readouterr().out
    for word in (planner.REFERENCE, planner.SUBJECT, "1.00", "tiny.gguf", "llama-cpp-python", "own plans", "%"):
        assert word in printed


def test_sessions_are_under_way_and_differ(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    views = planner.simulated_views(small_data, matrix_response, 20)
    assert (views.step == planner.SLATES).all() and len(views) == 20
    assert len(np.unique(views.categories[:, -views.slate_size * planner.SLATES :], axis=0)) > 10


@pytest.mark.parametrize("wrong", [{"batch_sizes": (0,)}, {"threads": 0}, {"rounds": 0}, {"seconds": 0.0}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: .* is not above 0"):
        BenchPlanner(Path("m.gguf"), **wrong).run()  # type: ignore[arg-type]
