from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rapport.datasets.files import cache
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.registry.load import load
from rapport.datasets.schema import Tables


@pytest.fixture(scope="module")
def tables(kuairand_files: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("data")
    kuairand_files.write_kuairand(root, random_rows=20)
    return kuairand.read(root)


def never() -> Tables:
    raise AssertionError("built although it was cached")


def assert_same(a: Tables, b: Tables) -> None:
    assert a.catalog.category_names == b.catalog.category_names
    assert a.log.behaviours == b.log.behaviours
    for x, y in ((a.catalog.features, b.catalog.features), (a.population.features, b.population.features)):
        assert (x.names, x.values) == (y.names, y.values)
        np.testing.assert_array_equal(x.codes, y.codes)
        assert x.codes.dtype == y.codes.dtype
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (a.catalog.item_ids, b.catalog.item_ids),
        (a.catalog.category, b.catalog.category),
    ]
    pairs += [(getattr(a.log, n), getattr(b.log, n)) for n in ("user", "item", "time_ms", "feedback", "randomised")]
    for left, right in [*pairs, (a.population.user_ids, b.population.user_ids)]:
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype


def test_comes_back_as_it_went_in(tables: Tables, tmp_path: Path) -> None:
    cache.cached(tmp_path / "key", lambda: tables)
    assert_same(cache.cached(tmp_path / "key", never), tables)


def truncate(folder: Path) -> None:
    path = folder / "log.arrow"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder: Path) -> None:
    content = bytearray((folder / "catalog.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "catalog.arrow").write_bytes(content)


def break_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"format": 1, "sha')


def strip_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"format": 1}')


def lose(folder: Path) -> None:
    (folder / "population.arrow").unlink()


def older(folder: Path) -> None:
    (folder / "meta.json").write_text('{"format": 0}')


def rename_a_category(folder: Path) -> None:
    path = folder / "meta.json"
    name = cache.unsealed(path.read_text())["category_names"][0]
    assert name[0] != "X"
    path.write_text(path.read_text().replace(name, f"X{name[1:]}"))


def of_an_earlier_version(folder: Path) -> None:
    (folder / "meta.json").write_text(json.dumps(cache.unsealed((folder / "meta.json").read_text())))


def nest_deeply(folder: Path) -> None:
    (folder / "meta.json").write_text("[" * 100_000)


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


DAMAGE = [
    *(truncate, flip, break_meta, strip_meta, lose, older, become_a_file),
    *(rename_a_category, of_an_earlier_version, nest_deeply),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_cache_is_built_again_with_a_warning(
    tables: Tables, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "key"
    cache.cached(folder, lambda: tables)
    damage(folder)
    with caplog.at_level(logging.WARNING):
        assert_same(cache.cached(folder, lambda: tables), tables)
    assert "is damaged" in caplog.text and "building it again" in caplog.text
    assert_same(cache.cached(folder, never), tables)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_cache_that_cannot_be_written_costs_a_warning(
    tables: Tables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_same(cache.cached(tmp_path / "file" / "key", lambda: tables), tables)
    assert "cannot write the cache" in caplog.text


def test_two_at_once(tables: Tables, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    barrier = threading.Barrier(4)
    results: list[Tables] = []

    def build() -> Tables:
        barrier.wait(timeout=30)
        return tables

    workers = [threading.Thread(target=lambda: results.append(cache.cached(tmp_path / "key", build))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    assert_same(cache.cached(tmp_path / "key", never), tables)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert not caplog.records


def test_key_is_the_content_and_the_settings(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("1\n")
    same = cache.key([tmp_path / "a" / "x.csv"], "v1")
    assert cache.key([tmp_path / "b" / "x.csv"], "v1") == same
    assert cache.key([tmp_path / "a" / "x.csv"], "v2") != same
    (tmp_path / "b" / "x.csv").write_text("2\n")
    assert cache.key([tmp_path / "b" / "x.csv"], "v1") != same


def test_changed_source_is_noticed(kuairand_files: ModuleType, tmp_path: Path) -> None:
    data = kuairand_files.write_kuairand(tmp_path)
    before = load(root=tmp_path)
    (data.parent / "tag_names.csv").unlink()
    assert load(root=tmp_path).catalog.category_names != before.catalog.category_names
