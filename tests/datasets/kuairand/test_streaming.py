from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rapport.datasets import schema
from rapport.datasets.kuairand import large as kuairand_large
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.kuairand.streaming import ROW, Spill, sort_rows, whole_folder, write_log
from rapport.datasets.registry.check import State, check
from rapport.datasets.registry.load import available, load
from rapport.datasets.schema import DataError, InteractionLog, SessionData, Tables
from rapport.datasets.splits import time_split

FEEDBACK = ["is_click", "long_view", "is_like", "is_comment", "is_forward", "is_follow", "is_hate"]
Write = Callable[..., Path]


@pytest.fixture
def write(kuairand_files: ModuleType, tmp_path: Path) -> Write:
    """Writes a small KuaiRand-1K or 27K, rows in no order, some repeated, some random; returns its data folder."""

    def files(name: str = "kuairand-27k", n_rows: int = 900) -> Path:
        version = kuairand_large.VERSIONS[name]
        data = tmp_path / version.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        kuairand_files.users(30).to_csv(data / version.user_file, index=False)
        kuairand_files.videos(40).sample(frac=1, random_state=4).to_csv(data / version.item_file, index=False)
        rows = kuairand_files.log(n_rows, 30, 40, seed=1)
        rows = pd.concat([rows, rows.iloc[::9]]).sample(frac=1, random_state=2)
        parts = np.array_split(np.arange(len(rows)), len(version.standard_logs))
        for part, path in zip(parts, version.standard_logs, strict=True):
            rows.iloc[part].to_csv(data / path, index=False)
        random = kuairand_files.log(70, 30, 40, seed=3).assign(is_rand=1)
        random.to_csv(data / version.random_log, index=False)
        (data.parent / "tag_names.csv").write_text("tag_id,name_en\n3,Gaming\n39,Film\n")
        return data

    return files


def all_rows(data: Path, name: str = "kuairand-27k") -> pd.DataFrame:
    return pd.concat([pd.read_csv(path) for path in kuairand_large.VERSIONS[name].logs(data)])


def as_pure(data: Path, name: str, root: Path) -> Tables:
    """The same rows through the reader of KuaiRand-Pure, which sorts them in memory."""
    version = kuairand_large.VERSIONS[name]
    pure = root / "KuaiRand-Pure" / "data"
    pure.mkdir(parents=True)
    rows = all_rows(data, name)
    rows.iloc[:100].to_csv(pure / kuairand.STANDARD_LOGS[0], index=False)
    rows.iloc[100:].to_csv(pure / kuairand.STANDARD_LOGS[1], index=False)
    pd.read_csv(data / version.user_file).to_csv(pure / kuairand.USER_FILE, index=False)
    pd.read_csv(data / version.item_file).to_csv(pure / kuairand.ITEM_FILE, index=False)
    (pure.parent / "tag_names.csv").write_bytes((data.parent / "tag_names.csv").read_bytes())
    return kuairand.read(root)


def arrays(tables: Tables) -> dict[str, NDArray[np.generic]]:
    catalog, population, log = tables
    return {
        "item_ids": catalog.item_ids,
        "category": catalog.category,
        "item_features": catalog.features.codes,
        "user_ids": population.user_ids,
        "user_features": population.features.codes,
        **{name: getattr(log, name) for name in ("user", "item", "time_ms", "feedback", "randomised")},
    }


@pytest.mark.parametrize("name", ["kuairand-1k", "kuairand-27k"])
@pytest.mark.parametrize(("rows_per_part", "block_bytes"), [(25, 700), (180, 5_000), (10_000, 1 << 20)])
def test_same_as_the_reader_that_sorts_in_memory(
    write: Write, tmp_path: Path, name: str, rows_per_part: int, block_bytes: int
) -> None:
    expected = as_pure(write(name), name, tmp_path / "pure")
    found, report = kuairand_large.read(
        name, tmp_path, tmp_path / "cache", None, rows_per_part=rows_per_part, block_bytes=block_bytes
    )
    assert found.catalog.category_names == expected.catalog.category_names
    assert found.catalog.features.values == expected.catalog.features.values
    assert found.population.features.values == expected.population.features.values
    for (what, x), y in zip(arrays(found).items(), arrays(expected).values(), strict=True):
        assert x.dtype == y.dtype, what
        np.testing.assert_array_equal(x, y, err_msg=what)
    assert report == kuairand_large.Conversion(1_070, 0, 100, 970, 40, 40)


def test_the_most_shown_videos_by_a_sort_in_pandas(write: Write, tmp_path: Path) -> None:
    frame = all_rows(write())
    tables, report = kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache", 7, rows_per_part=50)
    shown = frame["video_id"].value_counts().rename("n").reset_index().sort_values(["n", "video_id"], ascending=[0, 1])
    kept = np.sort(shown["video_id"].to_numpy()[:7])
    np.testing.assert_array_equal(tables.catalog.item_ids, kept)
    rows = frame[frame["video_id"].isin(kept)]
    whole = rows.drop_duplicates(["user_id", "video_id", "time_ms", "is_rand", *FEEDBACK])
    whole = whole.sort_values(["user_id", "time_ms", "video_id"])
    np.testing.assert_array_equal(tables.log.user, whole["user_id"])
    np.testing.assert_array_equal(kept[tables.log.item], whole["video_id"])
    np.testing.assert_array_equal(tables.log.time_ms, whole["time_ms"])
    np.testing.assert_array_equal(tables.log.feedback, whole[FEEDBACK])
    np.testing.assert_array_equal(tables.log.randomised, whole["is_rand"] == 1)
    dropped = len(frame) - len(rows)
    assert report == kuairand_large.Conversion(1_070, dropped, len(rows) - len(whole), len(whole), 40, 7)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3), st.integers(-2, 2), st.integers(0, 7)), max_size=60),
    block=st.integers(1, 20),
    parts=st.integers(1, 12),
)
def test_any_rows_in_any_blocks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int]], block: int, parts: int
) -> None:
    folder = tmp_path_factory.mktemp("log") / "done"
    table = np.array(rows, dtype=ROW)
    with whole_folder(folder) as work, Spill(work, 9, parts) as spill:
        for start in range(0, len(table), block):
            spill.add(table[start : start + block])
        counts = write_log(work, spill, ("a", "b"), lambda part: part[part["item"] > 0])
    expected = sorted({(u, t, i, f) for u, i, t, f in rows if i > 0})
    found = {name: np.load(folder / f"{name}.npy") for name in ("user", "time_ms", "item", "feedback", "randomised")}
    keys = zip(found["user"].tolist(), found["time_ms"].tolist(), found["item"].tolist(), strict=True)
    assert [*keys] == [row[:3] for row in expected]
    assert found["feedback"].tolist() == [[f >> 1 & 1, f >> 2 & 1] for *_, f in expected]
    assert found["randomised"].tolist() == [bool(f & 1) for *_, f in expected]
    assert counts == (sum(row[1] > 0 for row in rows), len(expected))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["done"]


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=12), k=st.integers(1, 14))
def test_most_shown(counts: list[int], k: int) -> None:
    best = sorted(range(len(counts)), key=lambda i: (-counts[i], i))[:k]
    assert kuairand_large.most_shown(np.array(counts, dtype=np.int32), k).tolist() == sorted(best)


def test_no_rows_are_sorted_rows() -> None:
    assert len(sort_rows(np.empty(0, dtype=ROW))) == 0


def test_arrays_are_views_of_files(write: Write, tmp_path: Path) -> None:
    write()
    tables, _ = kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache")
    for what, array in arrays(tables).items():
        assert isinstance(array.base, np.memmap), what
        assert type(array) is np.ndarray and not array.flags.writeable, what


def test_converted_once_and_again_when_files_or_settings_change(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write()
    done: list[Path] = []
    convert = kuairand_large._convert
    monkeypatch.setattr(kuairand_large, "_convert", lambda *a: (done.append(a[2]), convert(*a)))

    def rows(max_items: int | None = None) -> int:
        return len(kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache", max_items)[0].log)

    assert rows() == rows() == 970 and len(done) == 1
    assert rows(7) < 970 and len(done) == 2
    path = data / "log_standard_4_22_to_5_08_27k_part2.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert rows() in (969, 970) and len(done) == 3
    assert not [left for left in (tmp_path / "cache").iterdir() if left.name.startswith(".")]


@pytest.mark.parametrize("damage", ["cut", "gone", "nonsense", "unsorted"])
def test_a_damaged_conversion_is_made_again(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    write()
    before, _ = kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache")
    expected = {name: np.array(array) for name, array in arrays(before).items()}
    (folder,) = (tmp_path / "cache").iterdir()
    if damage == "cut":
        os.truncate(folder / "time_ms.npy", 1_000)
    elif damage == "gone":
        (folder / "feedback.npy").unlink()
    elif damage == "nonsense":
        (folder / "meta.json").write_text("{")
    else:
        np.save(folder / "user.npy", expected["user"][::-1])
    after, _ = kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache")
    assert "is damaged" in caplog.text
    for name, array in arrays(after).items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_failure_leaves_nothing(write: Write, tmp_path: Path) -> None:
    data = write()
    path = data / "log_random_4_22_to_5_08_27k.csv"
    frame = pd.read_csv(path)
    frame.loc[60, "is_like"] = 7
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"log_random_4_22_to_5_08_27k\.csv: line 62: is_like is 7; it must be 0 or 1"):
        kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache", block_bytes=700)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f".data.{int(ended.stdout)}.abc"
    working = tmp_path / f".data.{os.getppid()}.abc"
    for folder in (left, working):
        (folder / "spill").mkdir(parents=True)
        (folder / "spill" / "000.rows").write_bytes(b"half")
    with whole_folder(tmp_path / "data") as work:
        (work / "file").write_text("whole")
    assert not left.exists()
    assert working.exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["file"]


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"No space left on device.*; make room, or name another folder"),
        whole_folder(tmp_path / "data"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("user_features_27k.csv", lambda f: f[f["user_id"] != 3], "user_id, in user_features_27k.csv: 3 is unknown"),
        ("video_features_basic_27k.csv", lambda f: f[f["video_id"] != 9], "video_id, in .*: 9 is unknown there"),
        ("video_features_basic_27k.csv", lambda f: pd.concat([f, f.iloc[:1]]), "occurs twice; keep one row per video"),
        ("video_features_basic_27k.csv", lambda f: f.iloc[:0], "has a header but no row"),
        ("log_standard_4_08_to_4_21_27k_part2.csv", lambda f: f.drop(columns="time_ms"), "no column 'time_ms'"),
    ],
)
def test_files_that_do_not_fit(
    write: Write, tmp_path: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    data = write()
    change(pd.read_csv(data / name)).to_csv(data / name, index=False)
    with pytest.raises(DataError, match=message):
        kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache")


def test_a_missing_part_and_a_missing_folder(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no KuaiRand-27K here \(looked for KuaiRand-27K/data/video_features_basic"):
        kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache")
    (write() / "log_standard_4_08_to_4_21_27k_part2.csv").unlink()
    assert not available("kuairand-27k", tmp_path)
    with pytest.raises(DataError, match=r"4_21_27k_part2\.csv: no such file"):
        kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache")
    with pytest.raises(DataError, match="max_items=0 is below 1"):
        kuairand_large.read("kuairand-27k", tmp_path, tmp_path / "cache", 0)


def test_loading_by_name(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write("kuairand-1k")
    assert available("kuairand-1k", tmp_path)
    data = load("kuairand-1k", tmp_path)
    assert isinstance(data, SessionData)
    assert (data.name, data.catalog.n_items, data.population.n_users) == ("kuairand-1k", 40, 30)
    assert load("kuairand-1k", tmp_path, use_cache=False).fingerprint == data.fingerprint
    assert "most shown" not in caplog.text
    with caplog.at_level(logging.WARNING):
        small = load("kuairand-1k", tmp_path, max_items=5)
    assert small.catalog.n_items == 5
    assert "kuairand-1k: only the 5 most shown of 40 videos are kept" in caplog.text
    with pytest.raises(DataError, match="max_items=5 is for kuairand-1k and kuairand-27k; kuairand-pure is kept whole"):
        load("kuairand-pure", tmp_path, max_items=5)


def test_check_counts_the_rows_of_all_parts(write: Write, tmp_path: Path) -> None:
    write()
    lines = {line.file: line for line in check(tmp_path) if line.dataset == "kuairand-27k"}
    assert lines["standard logs together"].rows == 1_000
    assert lines["standard logs together"].published == 322_278_385
    assert lines["standard logs together"].state is State.PARTIAL
    assert lines["log_random_4_22_to_5_08_27k.csv"].rows == 70


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    step=st.integers(1, 5),
)
def test_checks_in_pieces_find_what_one_look_finds(rows: list[tuple[int, int]], step: int) -> None:
    user, time = np.array(rows, dtype=np.int32).T
    ordered = rows == sorted(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_ROWS_AT_ONCE", step)

        def log() -> InteractionLog:
            zeros = np.zeros(len(rows), dtype=np.int32)
            return InteractionLog(user, zeros, time.astype(np.int64), zeros[:, None].astype(np.int8), ("a",), zeros > 0)

        if ordered:
            log()
        else:
            with pytest.raises(DataError, match="not sorted"):
                log()


def test_splits_in_pieces(small_data: SessionData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = time_split(small_data.log)
    monkeypatch.setattr(schema, "_ROWS_AT_ONCE", 17)
    assert time_split(small_data.log) == whole
