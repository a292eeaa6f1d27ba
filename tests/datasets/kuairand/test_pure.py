from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.schema import DataError

LOG = "log_standard_4_22_to_5_08_pure.csv"
EARLY_LOG = "log_standard_4_08_to_4_21_pure.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"


@pytest.fixture
def data(kuairand_files: ModuleType, tmp_path: Path) -> Path:
    folder: Path = kuairand_files.write_kuairand(tmp_path)
    return folder


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    frame = pd.read_csv(path)
    changed = change(frame)
    (frame if changed is None else changed).to_csv(path, index=False)


def test_joins_by_id_whatever_the_order_of_rows(data: Path, tmp_path: Path) -> None:
    before = kuairand.read(tmp_path)
    edit(data / VIDEOS, lambda f: f.sample(frac=1, random_state=1))
    edit(data / USERS, lambda f: f.sample(frac=1, random_state=2))
    edit(data / LOG, lambda f: f.sample(frac=1, random_state=3))
    after = kuairand.read(tmp_path)
    assert after.catalog.category_names == before.catalog.category_names
    for x, y in zip(
        (*before.catalog.features.codes.T, before.log.item),
        (*after.catalog.features.codes.T, after.log.item),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(before.log.feedback, after.log.feedback)
    np.testing.assert_array_equal(before.population.features.codes, after.population.features.codes)


def test_rows_are_those_of_the_files(data: Path, tmp_path: Path) -> None:
    log = kuairand.read(tmp_path).log
    rows = pd.concat([pd.read_csv(data / LOG), pd.read_csv(data / EARLY_LOG)]).sort_values(["user_id", "time_ms"])
    np.testing.assert_array_equal(log.user, rows["user_id"])
    np.testing.assert_array_equal(log.item, rows["video_id"])
    np.testing.assert_array_equal(log.time_ms, rows["time_ms"])
    names = ["is_click", "long_view", "is_like", "is_comment", "is_forward", "is_follow", "is_hate"]
    np.testing.assert_array_equal(log.feedback, rows[names])
    assert log.behaviours == ("click", "long_view", "like", "comment", "forward", "follow", "hate")
    assert not log.randomised.any()


def test_root_may_be_any_of_three_folders(data: Path, tmp_path: Path) -> None:
    sizes = {len(kuairand.read(root).log) for root in (tmp_path, data.parent, data)}
    assert sizes == {600}


def test_ids_need_not_be_consecutive(data: Path, tmp_path: Path) -> None:
    for name, column in ((USERS, "user_id"), (VIDEOS, "video_id")):
        edit(data / name, lambda f, c=column: f.assign(**{c: f[c] * 7 + 100}))  # type: ignore[misc]
    for name in (LOG, EARLY_LOG):
        edit(data / name, lambda f: f.assign(user_id=f["user_id"] * 7 + 100, video_id=f["video_id"] * 7 + 100))
    tables = kuairand.read(tmp_path)
    assert tables.population.user_ids[1] == 107
    assert tables.log.user.max() < tables.population.n_users


def test_users_and_videos_without_a_row_are_kept(data: Path, tmp_path: Path) -> None:
    edit(data / LOG, lambda f: f[f["user_id"] != 3])
    edit(data / EARLY_LOG, lambda f: f[f["user_id"] != 3])
    tables = kuairand.read(tmp_path)
    assert tables.population.n_users == 30
    assert 3 not in tables.log.user


def test_categories_are_first_category_tags(data: Path, tmp_path: Path) -> None:
    catalog = kuairand.read(tmp_path).catalog
    assert catalog.category_names == (
        *("Gaming", "Beauty", "Sports", "Science and law (tag 29)", "Science and law (tag 30)"),
        "Film TV and variety",
    )
    second = catalog.features.names.index("second_tag")
    minor = np.array(catalog.features.values[second])[catalog.features.codes[:, second]]
    beauty = catalog.category == catalog.category_names.index("Beauty")  # written "62,4"
    assert set(minor[beauty]) == {"62"} and set(minor[~beauty]) == {"none"}


def test_no_category_tag_is_unknown_and_comes_last(data: Path, tmp_path: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame["tag"] = frame["tag"].astype(object)
        frame.loc[0, "tag"], frame.loc[6, "tag"] = "", "67"

    edit(data / VIDEOS, change)
    catalog = kuairand.read(tmp_path).catalog
    assert catalog.category_names[-1] == "Unknown"
    np.testing.assert_array_equal(np.flatnonzero(catalog.category == len(catalog.category_names) - 1), [0, 6])
    assert catalog.category_names[catalog.category[1]] == "Film TV and variety"


def test_without_names_categories_are_called_by_tag(data: Path, tmp_path: Path) -> None:
    (data.parent / "tag_names.csv").unlink()
    assert kuairand.read(tmp_path).catalog.category_names[:2] == ("tag 3", "tag 4")


def test_commas_inside_quotes_and_missing_values(data: Path, tmp_path: Path) -> None:
    tables = kuairand.read(tmp_path)
    users, items = tables.population.features, tables.catalog.features
    assert users.names == kuairand.USER_FEATURES
    assert "(0,10]" in users.values[users.names.index("follow_user_num_range")]
    assert "missing" in items.values[items.names.index("music_type")]
    assert set(items.values[items.names.index("duration")]) == {
        *("a: under 15 s", "c: 30 to 60 s", "f: 300 s or more", "missing"),
    }


def test_random_log_is_used_where_present(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path, random_rows=50)
    log = kuairand.read(tmp_path).log
    assert len(log) == 650
    assert log.randomised.sum() == 50


def test_repeated_reports_of_one_exposure_are_kept_once(data: Path, tmp_path: Path) -> None:
    again = pd.read_csv(data / LOG).iloc[:25]
    later_hour = again.iloc[:5].assign(hourmin=2_300)  # the same exposure, reported with the next hour
    edit(data / EARLY_LOG, lambda f: pd.concat([f, again]))
    edit(data / LOG, lambda f: pd.concat([f, later_hour]))
    assert len(kuairand.read(tmp_path).log) == 600


@pytest.mark.parametrize("name", [LOG, EARLY_LOG, USERS, VIDEOS])
def test_missing_file(data: Path, tmp_path: Path, name: str) -> None:
    (data / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file; get it again with `rapport data fetch`"):
        kuairand.read(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no KuaiRand-Pure here .* run `rapport data fetch kuairand-pure`"):
        kuairand.read(tmp_path)


@pytest.mark.parametrize("name", [LOG, USERS, VIDEOS])
def test_half_downloaded_file_is_noticed_wherever_it_was_cut(data: Path, tmp_path: Path, name: str) -> None:
    whole = (data / name).read_bytes()
    for kept in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 60, 0):
        (data / name).write_bytes(whole[:kept])
        with pytest.raises(DataError, match=name):
            kuairand.read(tmp_path)


def test_row_with_too_few_columns(data: Path, tmp_path: Path) -> None:
    with (data / LOG).open("a") as file:
        file.write("1,2,20220425\n")
    with pytest.raises(DataError, match=f"{LOG}: .*Expected 19 columns, got 3.*the file is damaged"):
        kuairand.read(tmp_path)


@pytest.mark.parametrize("cell", ["abc", "1.5", "99999999999999999999", "\x00"])
def test_value_of_another_type(data: Path, tmp_path: Path, cell: str) -> None:
    edit(data / LOG, lambda f: f.astype({"time_ms": object}).assign(time_ms=[cell, *f["time_ms"].iloc[1:]]))
    with pytest.raises(DataError, match=LOG):
        kuairand.read(tmp_path)


def test_empty_cell(data: Path, tmp_path: Path) -> None:
    edit(data / LOG, lambda f: f.astype({"user_id": object}).assign(user_id=["", *f["user_id"].iloc[1:]]))
    with pytest.raises(DataError, match=f"{LOG}: column 'user_id' is empty in 1 row"):
        kuairand.read(tmp_path)


@pytest.mark.parametrize(("name", "column"), [(LOG, "is_click"), (USERS, "onehot_feat9"), (VIDEOS, "tag")])
def test_missing_column(data: Path, tmp_path: Path, name: str, column: str) -> None:
    edit(data / name, lambda f: f.drop(columns=column))
    with pytest.raises(DataError, match=rf"{name}: no column '{column}' \(1 missing\); found "):
        kuairand.read(tmp_path)


@pytest.mark.parametrize(("name", "column"), [(USERS, "user_id"), (VIDEOS, "video_id")])
def test_ids_that_do_not_join(data: Path, tmp_path: Path, name: str, column: str) -> None:
    edit(data / name, lambda f: f[f[column] != 5])
    with pytest.raises(DataError, match=rf"{column}, in {name}: 5 is unknown there \(\d+ row\(s\) do not join\)"):
        kuairand.read(tmp_path)


@pytest.mark.parametrize("column", ["is_click", "long_view", "is_hate", "is_rand"])
def test_feedback_other_than_0_or_1(data: Path, tmp_path: Path, column: str) -> None:
    edit(data / LOG, lambda f: f.assign(**{column: [0, 0, 2, *f[column].iloc[3:]]}))
    with pytest.raises(DataError, match=f"{LOG}: line 4: {column} is 2; it must be 0 or 1"):
        kuairand.read(tmp_path)


def test_empty_log(data: Path, tmp_path: Path) -> None:
    for name in (LOG, EARLY_LOG):
        edit(data / name, lambda f: f.iloc[:0])
    with pytest.raises(DataError, match="the logs hold no row"):
        kuairand.read(tmp_path)


@pytest.mark.parametrize(("name", "column"), [(USERS, "user_id"), (VIDEOS, "video_id")])
def test_no_user_or_video_and_repeated_ones(data: Path, tmp_path: Path, name: str, column: str) -> None:
    whole = pd.read_csv(data / name)
    whole.iloc[:0].to_csv(data / name, index=False)
    with pytest.raises(DataError, match=f"{name}: has a header but no row"):
        kuairand.read(tmp_path)
    pd.concat([whole, whole.iloc[4:5]]).to_csv(data / name, index=False)
    with pytest.raises(DataError, match=f"{name}: {column} 4 occurs twice"):
        kuairand.read(tmp_path)


def test_tag_that_is_no_number(data: Path, tmp_path: Path) -> None:
    edit(data / VIDEOS, lambda f: f.assign(tag=["3,x", *f["tag"].iloc[1:]]))
    with pytest.raises(DataError, match=f"{VIDEOS}: tag: .*'x'; tags are integers"):
        kuairand.read(tmp_path)
