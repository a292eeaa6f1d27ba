from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rapport.datasets.kuairec import read as kuairec_read
from rapport.datasets.kuairec.load import CLIP, load_kuairec
from rapport.datasets.registry.check import State, check
from rapport.datasets.registry.load import available, load
from rapport.datasets.schema import DataError, Features


@pytest.fixture
def folder(kuairec_files: ModuleType, tmp_path: Path) -> Path:
    """The data folder of a small copy in tmp_path."""
    data: Path = kuairec_files.write_kuairec(tmp_path, reported_twice=0.01)
    return data


def decoded(features: Features) -> list[list[str]]:
    return [[features.values[f][code] for f, code in enumerate(row)] for row in features.codes.tolist()]


# --- against a slow, plain reading ------------------------------------------------------------------------------------


def test_truth_is_the_small_matrix(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    kuairec = load_kuairec(tmp_path)
    small = kuairec_files.frame(folder / "small_matrix.csv")
    cells = {(u, v): r for u, v, r in zip(small["user_id"], small["video_id"], small["watch_ratio"], strict=True)}
    user_ids, item_ids = kuairec.data.population.user_ids, kuairec.data.catalog.item_ids
    assert sorted(user_ids[kuairec.truth_users]) == sorted(small["user_id"].unique())
    assert sorted(item_ids) == sorted(small["video_id"].unique())
    assert any(ratio > CLIP for ratio in cells.values()) and len(cells) < kuairec.blocked.size
    for row, user in enumerate(user_ids[kuairec.truth_users].tolist()):
        for item, video in enumerate(item_ids.tolist()):
            ratio = cells.get((user, video))
            assert kuairec.blocked[row, item] == (ratio is None)
            assert kuairec.watch_ratio[row, item] == np.float32(min(ratio or 0.0, CLIP))


@pytest.mark.parametrize("click_at", [1.0, 0.5, 2.0])
def test_log_is_the_big_matrix_on_the_catalogue(
    kuairec_files: ModuleType, folder: Path, tmp_path: Path, click_at: float
) -> None:
    log = load_kuairec(tmp_path, click_at=click_at).data.log
    item_ids = load_kuairec(tmp_path).data.catalog.item_ids.tolist()
    big = kuairec_files.frame(folder / "big_matrix.csv")
    expected = {
        (row.user_id, round(row.timestamp * 1_000), item_ids.index(row.video_id), int(row.watch_ratio >= click_at))
        for row in big.itertuples()
        if row.video_id in item_ids
    }
    found = list(
        zip(log.user.tolist(), log.time_ms.tolist(), log.item.tolist(), log.feedback[:, 0].tolist(), strict=True)
    )
    assert found == sorted(expected)
    assert log.behaviours == ("click",) and not log.randomised.any()


def test_time_is_that_of_the_human_readable_column(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    big = kuairec_files.frame(folder / "big_matrix.csv")
    china = pd.to_datetime(big["time"]).dt.tz_localize("Asia/Shanghai")
    assert set(load_kuairec(tmp_path).data.log.time_ms) <= {round(t.timestamp() * 1_000) for t in china}


def test_watched_again_is_another_row_reported_twice_is_not(
    kuairec_files: ModuleType, folder: Path, tmp_path: Path
) -> None:
    kuairec = load_kuairec(tmp_path)
    big = kuairec_files.frame(folder / "big_matrix.csv")
    big = big[big["video_id"].isin(kuairec.data.catalog.item_ids)]
    once = big.drop_duplicates()
    assert len(once.drop_duplicates(["user_id", "video_id"])) < len(once) < len(big)
    assert len(kuairec.data.log) == len(once)


def test_catalogue_and_tags(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    kuairec = load_kuairec(tmp_path)
    catalog = kuairec.data.catalog
    videos = kuairec_files.frame(folder / "kuairec_caption_category.csv").set_index("video_id")
    english = json.loads(kuairec_read.NAMES_FILE.read_text("utf-8"))
    lists = kuairec_files.frame(folder / "item_categories.csv").set_index("video_id")["feat"].map(json.loads)
    assert catalog.category_names[-1] == "Unknown"
    first = [videos.loc[video, "first_level_category_id"] for video in catalog.item_ids]
    present = sorted(set(first) - {-124})
    assert catalog.category_names[:-1] == tuple(english[str(identity)]["english"] for identity in present)
    for item, video in enumerate(catalog.item_ids.tolist()):
        assert catalog.category[item] == (len(present) if first[item] == -124 else present.index(first[item]))
        assert [tag for tag in kuairec.tags[item] if tag != -1] == lists[video]
    names = [dict(zip(catalog.features.names, row, strict=True)) for row in decoded(catalog.features)]
    for video, found in zip(catalog.item_ids.tolist(), names, strict=True):
        second = videos.loc[video, "second_level_category_id"]
        assert found["second_level_category"] == ("missing" if second == -124 else str(second))
        assert (found["first_tag"], found["second_tag"]) == tuple(map(str, [*lists[video], "none"][:2]))


def test_population_is_everybody(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    population = load_kuairec(tmp_path).data.population
    users = kuairec_files.frame(folder / "user_features.csv")
    assert population.user_ids.tolist() == users["user_id"].tolist()
    column = population.features.names.index("user_active_degree")
    values = [population.features.values[column][code] for code in population.features.codes[:, column]]
    assert values == users["user_active_degree"].tolist()


def test_a_category_without_a_video_in_the_small_matrix_is_dropped(
    kuairec_files: ModuleType, folder: Path, tmp_path: Path
) -> None:
    catalogue = set(kuairec_files.frame(folder / "small_matrix.csv")["video_id"])

    def edit(table: pd.DataFrame) -> None:
        table.loc[table["video_id"].isin(catalogue), "first_level_category_id"] = 8
        table.loc[table["video_id"].isin(catalogue), "first_level_category_name"] = "颜值"

    kuairec_files.change(folder / "kuairec_caption_category.csv", edit)
    assert load_kuairec(tmp_path).data.catalog.category_names == ("Good looks",)


def test_names_fall_back_to_the_source() -> None:
    assert kuairec_read.category_names([8, 8, 99, 98, -124], ["颜值", "另一个", "新", "", "UNKNOWN"]) == (
        *("Good looks", "另一个", "新", "category 98", "Unknown"),
    )
    assert kuairec_read.category_names([98, 99], ["新", "新"]) == ("新 (category 98)", "新 (category 99)")


def test_missing_category_is_unknown(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    video = int(kuairec_files.frame(folder / "small_matrix.csv")["video_id"].iloc[0])
    kuairec_files.change(
        folder / "kuairec_caption_category.csv", kuairec_files.put("first_level_category_id", "", row=video)
    )
    catalog = load_kuairec(tmp_path).data.catalog
    assert catalog.category_names[catalog.category[catalog.item_ids.tolist().index(video)]] == "Unknown"


def test_row_order_and_layout_do_not_matter(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    plain = load_kuairec(tmp_path)
    for path in folder.iterdir():
        kuairec_files.change(path, lambda table: table.iloc[::-1])
    for root in (tmp_path, tmp_path / "KuaiRec", folder):
        other = load_kuairec(root)
        assert other.data.fingerprint == plain.data.fingerprint
        for name in ("truth_users", "watch_ratio", "blocked", "tags"):
            np.testing.assert_array_equal(getattr(other, name), getattr(plain, name))


def test_pieces_of_a_file_make_no_difference(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rapport.datasets.files import csv_tables as tables
    from rapport.datasets.kuairec import matrices as kuairec_matrices

    plain = load_kuairec(tmp_path, use_cache=False)
    sizes: list[int] = []

    def small_blocks(path: Path, columns: Any) -> Any:
        for table in tables.csv_batches(path, columns, block_bytes=4_096):
            sizes.append(table.num_rows)
            yield table

    monkeypatch.setattr(kuairec_matrices, "csv_batches", small_blocks)
    assert load_kuairec(tmp_path, use_cache=False).data.fingerprint == plain.data.fingerprint
    assert len(sizes) > 50


# --- splits, cache, store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_fully_observed_users_on_both_sides(folder: Path, tmp_path: Path, seed: int) -> None:
    kuairec = load_kuairec(tmp_path, seed=seed, held_out_share=0.25)
    held_out = kuairec.data.held_out
    assert held_out[kuairec.truth_users].sum() == 3 and held_out.sum() == 10
    np.testing.assert_array_equal(load_kuairec(tmp_path, seed=seed, held_out_share=0.25).data.held_out, held_out)
    assert not np.array_equal(load_kuairec(tmp_path, seed=seed + 1, held_out_share=0.25).data.held_out, held_out)


def test_everybody_fully_observed(kuairec_files: ModuleType, tmp_path: Path) -> None:
    kuairec_files.write_kuairec(tmp_path, n_users=12, n_truth_users=12)
    assert load_kuairec(tmp_path).data.held_out.sum() == 2


def test_same_from_files_and_cache_and_read_only(folder: Path, tmp_path: Path) -> None:
    copies = [load_kuairec(tmp_path, use_cache=use) for use in (False, True, True)]
    assert len({copy.data.fingerprint for copy in copies}) == 1
    for copy in copies:
        for name in ("truth_users", "watch_ratio", "blocked", "tags"):
            array, first = getattr(copy, name), getattr(copies[0], name)
            np.testing.assert_array_equal(array, first)
            assert array.dtype == first.dtype and not array.flags.writeable
        for array in (copy.data.log.feedback, copy.data.held_out, copy.data.catalog.category):
            assert not array.flags.writeable
    dtypes = [getattr(copies[0], name).dtype for name in ("truth_users", "watch_ratio", "blocked", "tags")]
    assert dtypes == [np.int64, np.float32, np.bool_, np.int32]


def test_cache_is_keyed_by_content_and_threshold(
    kuairec_files: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path / "cache"))
    made = [load_kuairec(tmp_path, click_at=at).data.log.feedback.sum() for at in (1.0, 2.0, 1.0)]
    assert made[0] == made[2] > made[1]
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 2
    kuairec_files.change(folder / "item_categories.csv", kuairec_files.put("feat", "[30]"))
    load_kuairec(tmp_path)
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 3


@pytest.mark.parametrize("file", ["watch_ratio.npy", "tags.npy", "log.arrow"])
@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_damaged_cache_is_built_again(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: str,
) -> None:
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path / "cache"))
    plain = load_kuairec(tmp_path)
    (path,) = (tmp_path / "cache" / "tables").glob(f"*/{file}")
    path.write_bytes(path.read_bytes()[:-5]) if damage == "cut" else path.unlink()
    with caplog.at_level(logging.WARNING):
        again = load_kuairec(tmp_path)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(again.watch_ratio, plain.watch_ratio)
    assert path.is_file()


def test_load_by_name(folder: Path, tmp_path: Path) -> None:
    assert available("kuairec", tmp_path)
    data = load("kuairec", tmp_path, held_out_share=0.5, seed=3)
    assert data.fingerprint == load_kuairec(tmp_path, held_out_share=0.5, seed=3).data.fingerprint
    (folder / "big_matrix.csv").unlink()
    assert not available("kuairec", tmp_path)
    with pytest.raises(DataError, match=r"big_matrix\.csv: no such file; get it again"):
        load("kuairec", tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    assert not available("kuairec", tmp_path)
    with pytest.raises(DataError, match=r"no KuaiRec here .* run `rapport data fetch kuairec`"):
        load("kuairec", tmp_path)


def test_check_names_what_differs_from_the_published(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    lines = {line.file: line for line in check(tmp_path) if line.dataset == "kuairec"}
    assert (lines["small_matrix.csv"].published, lines["big_matrix.csv"].published) == (4_676_570, 12_530_806)
    pairs = lines["pairs of the small matrix"]
    assert (pairs.rows, pairs.published, pairs.state) == (12 * 25, 1_411 * 3_327, State.PARTIAL)
    assert "12 users x 25 videos, " in pairs.note and "blocked" in pairs.note
    assert lines["read and joined"].state is State.OK
    kuairec_files.change(folder / "small_matrix.csv", kuairec_files.put("watch_ratio", -0.5))
    lines = {line.file: line for line in check(tmp_path) if line.dataset == "kuairec"}
    assert lines["pairs of the small matrix"].state is State.DAMAGED
    assert "watch_ratio is -0.5" in lines["pairs of the small matrix"].note
