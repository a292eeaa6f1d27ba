from __future__ import annotations

from pathlib import Path

import pytest

from rapport.datasets.files.directory import cache_directory, data_directory


def test_argument_then_variable_then_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(tmp_path / "variable"))
    assert data_directory(tmp_path / "argument") == tmp_path / "argument"
    assert data_directory() == tmp_path / "variable"
    monkeypatch.delenv("RAPPORT_DATA_DIR")
    assert data_directory().parts[-2:] == ("rapport", "data")


def test_cache_is_never_inside_the_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("RAPPORT_CACHE_DIR")
    monkeypatch.delenv("RAPPORT_DATA_DIR", raising=False)
    assert data_directory() not in (cache_directory(), *cache_directory().parents)
