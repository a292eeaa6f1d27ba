"""Names in a custom log: one rule for frames and files, several categories an item, and what is no name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rapport.datasets.custom.frames import Labels, Threshold, from_frames
from rapport.datasets.custom.manifest import from_manifest, read_manifest
from rapport.datasets.custom.nominal import MOST_LABELS
from rapport.datasets.schema import DataError, SessionData

GENRES = ["Drama|Comedy", "Comedy|Drama", "Action", "", "Comedy", "Drama | Action|Drama"]


def log(n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"user_id": rng.integers(0, 8, n), "item_id": rng.integers(0, 6, n)})
    rows["time"], rows["click"] = 1_700_000_000 + np.arange(n) * 3_600, rng.integers(0, 2, n)
    return rows


def items(category: Any = GENRES, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"item_id": range(6), "category": category, **more})


def files(folder: Path, rows: pd.DataFrame, catalog: pd.DataFrame, text: str = "") -> Path:
    rows.to_csv(folder / "log.csv", index=False)
    catalog.to_csv(folder / "items.csv", index=False)
    manifest = f"""
        name = "films"
        [interactions]
        path = "log.csv"
        [interactions.behaviours]
        click = "click"
        [items]
        path = "items.csv"
        {text}"""
    (folder / "films.toml").write_text(manifest)
    return folder / "films.toml"


def labels_by_name(data: SessionData) -> list[list[str]]:
    names = data.catalog.category_names
    return [[names[c] for c in row if c >= 0] for row in data.catalog.labels.tolist()]


EXPECTED = [["Comedy", "Drama"], ["Comedy", "Drama"], ["Action"], ["Unknown"], ["Comedy"], ["Action", "Drama"]]


def test_an_item_has_its_categories_in_one_order() -> None:
    data = from_frames(log(), items(), name="films", category=Labels("category"))
    assert data.catalog.category_names == ("Action", "Comedy", "Drama", "Unknown")
    assert labels_by_name(data) == EXPECTED
    assert data.catalog.category_sizes.tolist() == [2, 3, 3, 1]
    other = ["Comedy|Drama", "Drama|Comedy", "Action", "NULL", "Comedy|", "Action|Drama"]
    assert from_frames(log(), items(other), name="films", category=Labels("category")).fingerprint == data.fingerprint


@pytest.mark.parametrize("kind", [list, tuple, set, np.array])
def test_lists_are_categories(kind: Any, tmp_path: Path) -> None:
    cells = [kind([name.strip() for name in text.split("|") if name]) for text in GENRES]
    lists = items(pd.Series(cells, dtype=object))
    data = from_frames(log(), lists, name="films")
    assert labels_by_name(data) == EXPECTED
    manifest = files(tmp_path, log(), items())
    items(pd.Series([list(cell) for cell in cells], dtype=object)).to_parquet(tmp_path / "items.parquet")
    manifest.write_text(manifest.read_text().replace("items.csv", "items.parquet"))
    for _ in range(2):  # as read, and as kept in the cache
        assert from_manifest(manifest).fingerprint == data.fingerprint


def test_a_file_with_a_separator(tmp_path: Path) -> None:
    manifest = files(tmp_path, log(), items(), 'category = { column = "category", separator = "|" }')
    assert read_manifest(manifest).reading["category"] == Labels("category", "|")
    for _ in range(2):
        assert labels_by_name(from_manifest(manifest)) == EXPECTED
    manifest.write_text(manifest.read_text().replace('separator = "|"', 'separator = " "'))
    with pytest.raises(DataError, match="separator=' ' of category 'category'; give one such as"):
        from_manifest(manifest)


def test_one_category_an_item_is_as_ever() -> None:
    plain = from_frames(log(), items(list("abcabc")), name="films")
    split = from_frames(log(), items(list("abcabc")), name="films", category=Labels("category"))
    assert plain.catalog.further is None and plain.fingerprint == split.fingerprint
    assert plain.catalog.labels.tolist() == plain.catalog.category[:, None].tolist()


def test_too_many_categories_and_too_many_names(caplog: pytest.LogCaptureFixture) -> None:
    many = "|".join(f"tag {i}" for i in range(MOST_LABELS + 1))
    with pytest.raises(DataError, match=rf"row 2 has {MOST_LABELS + 1} categories .*; give at most {MOST_LABELS}"):
        from_frames(log(), items(["a", "b", many, "a", "b", "a"]), name="films", category=Labels("category"))
    from_frames(log(), items(list("abcdef")), name="films")
    assert "6 categories in column 'category' for 6 items" in caplog.text


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["01", "1", "001", "2", "1", "2"], ["001", "01", "1", "2"]),
        (["1", "1.0", "1", "2", "2", "2"], ["1", "1.0", "2"]),
        (["10", "9", "10", "9", "2", "2"], ["2", "9", "10"]),
        (["01234", "1234", "01234", "1234", "9", "9"], ["01234", "1234", "9"]),
        (["1.0", "10.0", "2.0", "1.0", "1.0", ""], ["1", "2", "10", "Unknown"]),
        (["true", "false", "true", "false", "true", "true"], ["false", "true"]),
        (["NA", "DE", "NULL", r"\N", "DE", "DE"], ["DE", "NA", "Unknown"]),
    ],
)
def test_codes_stay_as_they_are_written(written: list[str], names: list[str], tmp_path: Path) -> None:
    manifest = files(tmp_path, log(), items(written, brand=written), 'features = ["brand"]')
    data = from_manifest(manifest)
    assert list(data.catalog.category_names) == names
    features = {name: "missing" if name == "Unknown" else name for name in names}
    assert set(data.catalog.features.values[0]) == set(features.values())
    as_text = pd.read_csv(tmp_path / "items.csv", dtype={"category": str, "brand": str}, keep_default_na=False)
    assert from_frames(log(), as_text, name="films", item_features=("brand",)).fingerprint == data.fingerprint


def test_fractions_are_no_names_in_files_either(tmp_path: Path) -> None:
    manifest = files(tmp_path, log(), items("a", price=[1.5, 2, 2, 3, 3, 3]), 'features = ["price"]')
    with pytest.raises(DataError, match=r"column 'price' holds 1.5; cut numbers .*: Bins\('price', 5\)"):
        from_manifest(manifest)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("column", ["category", "brand"])
def test_text_of_another_encoding_is_refused(column: str, encoding: str, tmp_path: Path) -> None:
    manifest = files(tmp_path, log(), items("a", brand="b"), 'features = ["brand"]')
    items(**{"category": "a", "brand": "b", column: "Café"}).to_csv(tmp_path / "items.csv", encoding=encoding)
    with pytest.raises(DataError, match=r"items\.csv: .*; save it as UTF-8"):
        from_manifest(manifest)


@pytest.mark.parametrize("text", ["NULL", r"\N", "NA", "nan"])
@pytest.mark.parametrize("column", ["user_id", "time", "item_id"])
def test_texts_for_missing_values_are_found(text: str, column: str, tmp_path: Path) -> None:
    rows = log().astype({column: object})
    rows.loc[[7, 100], column] = text
    expected = rf"'{column}' is empty in 2 row\(s\), the first being row 7( \({re.escape(repr(text))}\))?; fill them"
    with pytest.raises(DataError, match=expected):
        from_manifest(files(tmp_path, rows, items("a")))
    with pytest.raises(DataError, match=expected):
        from_frames(rows.assign(**{column: rows[column].astype(str)}), items("a"), name="films")


def test_a_missing_click_is_not_recorded(tmp_path: Path) -> None:
    rows = log().astype({"click": object})
    rows.loc[7, "click"] = r"\N"
    data = from_manifest(files(tmp_path, rows, items("a")))
    assert (data.log.feedback == -1).sum() == 1 and (data.log.feedback == 1).sum() == (rows["click"] == 1).sum()
    rows.loc[9, "click"] = "yes"
    with pytest.raises(DataError, match="column 'click' holds 'yes' in row 9; a behaviour is 0 or 1"):
        from_manifest(files(tmp_path, rows, items("a")))


def test_the_odd_time_is_named(tmp_path: Path) -> None:
    rows = log().astype({"time": object})
    rows.loc[7, "time"] = "soon"
    with pytest.raises(DataError, match=r"'time' is not a time in 1 row\(s\), the first being row 7 \('soon'\)"):
        from_manifest(files(tmp_path, rows, items("a")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.assign(time=r["time"].astype("float32")),
            "times as float32, which rounds 170.* to steps of 128 s",
        ),
        (
            lambda r: r.assign(user_id=(r["user_id"] + 2**24 + 1).astype("float32")),
            "'user_id' holds .* as float32, which",
        ),
        (lambda r: r.assign(user_id=r["user_id"] + 2.0**53 + 2), "'user_id' holds .* as float64, which rounds numbers"),
        (lambda r: r.assign(user_id=r["user_id"].astype(str).str.encode("utf-8")), "'user_id' holds bytes in row 0"),
        (lambda r: r.assign(user_id=[[u] for u in r["user_id"]]), r"'user_id' holds \[\d\] in row 0; only an item's"),
        (
            lambda r: r.assign(user_id=[u if u else "0" for u in r["user_id"]]),
            "holds text such as '0' beside \\d; make",
        ),
    ],
)
def test_what_cannot_hold_the_value_is_refused(change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_frames(change(log()), items("a"), name="films")


def test_floats_that_hold_the_value_are_read() -> None:
    rows = log()
    exact = from_frames(rows, items("a"), name="films")
    floats = rows.astype({"time": float, "user_id": "float32", "item_id": float})
    assert from_frames(floats, items("a"), name="films").fingerprint == exact.fingerprint
    stars = from_frames(rows.assign(click="4.5"), items("a"), name="films", behaviours={"like": Threshold("click", 4)})
    assert (stars.log.feedback == 1).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("x" * (1 << 20) + "1", "are no manifest"),
        ("a = \xff", "manifests are TOML in UTF-8"),
        ("[splits]\ntest_share = nan", r"test_share = nan; give a finite number"),
        ("[splits]\nutc_offset_hours = 1e300", r"utc_offset_hours=1e\+300; give a number from -24 to 24"),
        ("[splits]\nseed = -1", "seed = -1; give 0 or more"),
        ("[splits]\ntest_share = " + "9" * 400, "test_share = 9+; give a number"),
    ],
)
def test_hostile_manifests_are_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    manifest = files(tmp_path, log(), items("a"))
    manifest.write_bytes((manifest.read_text() + "\n" + text).encode("latin-1"))
    with pytest.raises(DataError, match=message):
        read_manifest(manifest)


def test_a_binary_file_in_place_of_a_table(tmp_path: Path) -> None:
    manifest = files(tmp_path, log(), items("a"))
    for content in (bytes(range(256)) * 40, b"\x1b[31mred\n1\n", b"\x00" * 5_000):
        (tmp_path / "items.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"items\.csv: ") as error:
            from_manifest(manifest)
        assert str(error.value).isprintable()
