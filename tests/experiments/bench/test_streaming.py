"""The measurement of the conversion runs on a small log and says what became of its rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rapport.datasets.kuairand.large import VERSIONS
from rapport.experiments.bench import streaming
from rapport.experiments.cli import main


def test_the_generated_log_has_the_official_columns(tmp_path: Path) -> None:
    data = streaming.generate(tmp_path, 2_001, n_videos=70)
    version = VERSIONS[streaming.NAME]
    logs = [pd.read_csv(path) for path in version.logs(data)]
    assert [len(log) for log in logs] == [501, 500, 500, 500]
    assert set(logs[0]) >= {
        "user_id",
        "video_id",
        "date",
        "hourmin",
        "time_ms",
        "is_click",
        "long_view",
        "is_rand",
        "tab",
    }
    assert len(logs[0].columns) == 19
    assert len(pd.read_csv(data / version.item_file)) == 70
    again = streaming.generate(tmp_path / "again", 2_001, n_videos=70)
    assert all((data / path.name).read_bytes() == path.read_bytes() for path in again.iterdir())


def test_the_command_measures_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["bench", "streaming", "--rows", "30000", "--max-items", "40", "--folder", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "30,000 rows: 40 of 3,000 videos kept" in shown
    assert "convert" in shown and "peak MB" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_sampler_sees_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    if not streaming.STATUS.exists():
        pytest.skip("needs /proc")
    step, _ = streaming._step(lambda: None)
    assert 0 < step.own_mb <= step.peak_mb
