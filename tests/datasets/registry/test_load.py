from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rapport.datasets.registry import load as store
from rapport.datasets.registry.load import DATASETS, available, load
from rapport.datasets.schema import DataError


def test_load_is_the_same_from_files_and_from_cache(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path)
    assert available("kuairand-pure", tmp_path)
    prints = {load(root=tmp_path, use_cache=use).fingerprint for use in (False, True, True)}
    assert len(prints) == 1


def test_data_directory_from_the_environment(
    kuairand_files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(tmp_path))
    assert not available()
    kuairand_files.write_kuairand(tmp_path)
    assert available()
    assert load().population.n_users == 30


def test_arrays_are_read_only(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path)
    for use_cache in (False, True, True):
        data = load(root=tmp_path, use_cache=use_cache)
        for array in (data.log.feedback, data.log.user, data.catalog.category, data.held_out, data.log.randomised):
            assert not array.flags.writeable


def test_data_directory_stays_as_it_is(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    load(root=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_splits_are_settings(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path)
    plain, other = load(root=tmp_path), load(root=tmp_path, held_out_share=0.5, seed=1, test_share=0.3)
    assert plain.held_out.sum() == 6 and other.held_out.sum() == 15
    assert other.test_from_ms < plain.test_from_ms
    assert not np.array_equal(other.held_out, load(root=tmp_path, held_out_share=0.5, seed=2).held_out)


def test_log_of_too_few_days(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path, days=2)
    with pytest.raises(DataError, match=r"its 2 day\(s\) leave no training day"):
        load(root=tmp_path)


def test_incomplete_is_not_available_and_says_what_is_missing(kuairand_files: ModuleType, tmp_path: Path) -> None:
    data = kuairand_files.write_kuairand(tmp_path)
    (data / "video_features_basic_pure.csv").unlink()
    assert not available("kuairand-pure", tmp_path)
    with pytest.raises(DataError, match=r"video_features_basic_pure\.csv: no such file"):
        load(root=tmp_path)


def test_unknown_and_unreadable_names() -> None:
    with pytest.raises(DataError, match=r"dataset 'kuairand' is unknown; choose one of kuairand-pure, "):
        load("kuairand")
    with pytest.raises(DataError, match="can be fetched but not loaded; load 'kuairand-pure'"):
        load("kuairand-captions")
    assert not available("kuairand-captions")


def test_table_of_data_sets() -> None:
    for name, entry in DATASETS.items():
        assert name == entry.name
        assert entry.url.startswith("https://zenodo.org/records/")
        assert entry.md5 is None or len(entry.md5) == 32
        assert entry.licence and entry.citation and entry.contents
    assert [e.name for e in DATASETS.values() if e.md5 is None] == ["kuairec"]
    assert len({e.folder for e in DATASETS.values()}) == len(DATASETS)
    assert store.info("kuairec").folder == "KuaiRec"
