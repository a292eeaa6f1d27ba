from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from rapport.datasets.schema import DataError
from rapport.datasets.twin import draw, read_figures
from rapport.experiments.commands.data import DataCheck, DataFetch, DataList, TwinMeasure


def test_list_names_every_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert DataList(data_dir=tmp_path).run() == 0
    out = capsys.readouterr().out
    assert "kuairand-pure" in out and "https://zenodo.org/records/18164998/files/KuaiRec.zip" in out


def test_check_fails_only_on_damage(
    kuairand_files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert DataCheck(data_dir=tmp_path).run() == 0
    data = kuairand_files.write_kuairand(tmp_path)
    assert DataCheck(data_dir=tmp_path).run() == 0
    assert "27,285" in capsys.readouterr().out
    (data / "user_features_pure.csv").write_text("user_id\n1\n")
    assert DataCheck(data_dir=tmp_path).run() == 1
    assert "damaged" in capsys.readouterr().out


def test_fetch_of_something_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset 'movielens' is unknown"):
        DataFetch("movielens", data_dir=tmp_path).run()


def test_measure_writes_figures_that_can_be_drawn_from(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path / "data", n_rows=3_000)
    output = tmp_path / "figures.json"
    assert TwinMeasure(data_dir=tmp_path / "data", output=output).run() == 0
    assert draw(read_figures(output), 50, 20).population.n_users == 50
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    assert json.loads(output.read_text(encoding="utf-8"))["measured_on"]["users"] == 30


def test_command_lines() -> None:
    assert tyro.cli(DataFetch, args=[]).name == "kuairand-pure"
    assert tyro.cli(DataFetch, args=["kuairec", "--overwrite"]) == DataFetch("kuairec", overwrite=True)
    assert tyro.cli(DataCheck, args=["--data-dir", "x"]).data_dir == Path("x")
