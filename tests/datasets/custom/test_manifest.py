from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rapport.datasets.custom import manifest
from rapport.datasets.custom.frames import Bins, Threshold, from_frames, row_ids
from rapport.datasets.custom.manifest import from_manifest, read_manifest
from rapport.datasets.schema import DataError

TEXT = """
name = "my-shop"

[interactions]
path = "log.csv"
user = "uid"
item = "sku"
time = "at"
time_unit = "s"

[interactions.behaviours]
click = "clicked"
like = { column = "rating", at_least = 4 }

[items]
path = "items.csv"
id = "code"
category = "kind"
features = ["brand", { column = "price", bins = 3 }]

[users]
path = "users.csv"
features = ["plan"]

[splits]
test_share = 0.2
seed = 3
utc_offset_hours = 1

[environment]
slate_size = 4
quit_rule = "positional"
budget = 12
"""


def frames(n: int = 300) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(1)
    items = pd.DataFrame({"code": [f"{i:03d}" for i in range(12)], "kind": ["tea", "cup", "pot"] * 4})
    items["brand"], items["price"] = rng.choice(["a", "b"], 12), rng.random(12).round(3)
    items.loc[2, "brand"] = None
    users = pd.DataFrame({"uid": range(10), "plan": ["free", "paid"] * 5})
    log = pd.DataFrame({"uid": rng.integers(0, 10, n), "sku": rng.choice(items["code"], n)})
    log["at"] = 1_700_000_000 + rng.integers(0, 8 * 86_400, n)
    log["clicked"], log["rating"] = rng.integers(0, 2, n), rng.choice([1.0, 4.0, 5.0, np.nan], n)
    return log, items, users


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for frame, name in zip(frames(), ("log", "items", "users"), strict=True):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "shop.toml").write_text(TEXT)
    return tmp_path / "shop.toml"


def expected() -> Any:
    log, items, users = frames()
    return from_frames(
        log,
        items.rename(columns={"code": "sku"}),
        users,
        name="my-shop",
        user="uid",
        item="sku",
        time="at",
        category="kind",
        behaviours={"click": "clicked", "like": Threshold("rating", 4)},
        item_features=("brand", Bins("price", 3)),
        user_features=("plan",),
        test_share=0.2,
        seed=3,
        utc_offset_hours=1,
    )


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_same_as_from_frames(shop: Path) -> None:
    data = from_manifest(shop)
    assert data.name == "my-shop"
    assert data.fingerprint == expected().fingerprint
    assert from_manifest(read_manifest(shop), use_cache=False).fingerprint == data.fingerprint


def test_second_time_from_the_cache(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = from_manifest(shop)
    read: list[Path] = []
    tables = manifest._tables
    monkeypatch.setattr(manifest, "_tables", lambda d: (read.append(d.file), tables(d))[1])
    assert from_manifest(shop).fingerprint == first.fingerprint and not read
    rewrite(shop, "seed = 3", "seed = 4")
    assert from_manifest(shop).fingerprint != first.fingerprint and not read
    rewrite(shop, "at_least = 4", "at_least = 5")
    from_manifest(shop)
    assert len(read) == 1
    path = shop.parent / "items.csv"
    path.write_text(path.read_text().replace("tea", "Tea"))
    assert from_manifest(shop).catalog.category_names == ("Tea", "cup", "pot")


def test_without_features_the_cache_holds_too(
    shop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(shop, 'features = ["brand", { column = "price", bins = 3 }]', "")
    first = from_manifest(shop)
    assert first.catalog.features.codes.shape == (12, 0)
    assert from_manifest(shop).fingerprint == first.fingerprint
    assert "damaged" not in caplog.text


def test_environment_is_handed_on_as_it_stands(shop: Path) -> None:
    assert read_manifest(shop).environment == {"slate_size": 4, "quit_rule": "positional", "budget": 12}
    rewrite(shop, TEXT[TEXT.index("[environment]") :], "")
    assert read_manifest(shop).environment == {}


def test_ids_lead_back_to_the_files(shop: Path) -> None:
    found = read_manifest(shop)
    assert found.item_ids().tolist() == [f"{i:03d}" for i in range(12)]
    assert found.user_ids().tolist() == list(range(10))
    assert found.files == [shop.parent / f"{name}.csv" for name in ("log", "items", "users")]


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_other_kinds_of_file(shop: Path, ending: str) -> None:
    for frame, name in zip(frames(), ("log", "items", "users"), strict=True):
        path = shop.parent / f"{name}.{ending}"
        frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
        rewrite(shop, f'"{name}.csv"', f'"{name}.{ending}"')
    assert from_manifest(shop).fingerprint == expected().fingerprint


def test_one_file_of_each_kind_and_ids_that_are_numbers(shop: Path) -> None:
    log, items, users = (f.assign(**{c: f[c].astype(int) for c in ("sku", "code") if c in f}) for f in frames())
    log.to_csv(shop.parent / "log.csv", index=False)
    items.to_parquet(shop.parent / "items.parquet")
    rewrite(shop, '"items.csv"', '"items.parquet"')
    data = from_manifest(shop)
    assert data.catalog.item_ids.tolist() == list(range(12))
    np.testing.assert_array_equal(data.log.item, expected().log.item)
    assert read_manifest(shop).item_ids().equals(row_ids(items["code"]))
    assert len(users)


def test_times_as_text_are_found_to_be_times(shop: Path) -> None:
    log, *_ = frames()
    log.assign(at=pd.to_datetime(log["at"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S")).to_csv(
        shop.parent / "log.csv", index=False
    )
    assert from_manifest(shop).fingerprint == expected().fingerprint


def test_users_may_be_left_out(shop: Path) -> None:
    rewrite(shop, '[users]\npath = "users.csv"\nfeatures = ["plan"]\n', "")
    data = from_manifest(shop)
    assert data.population.user_ids.tolist() == list(range(10))
    assert read_manifest(shop).user_ids().tolist() == list(range(10))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'time_unit = "s"',
            'time_units = "s"',
            r"shop\.toml: \[interactions\]: unknown key 'time_units'; known",
        ),
        ("[splits]", "[split]", r"shop\.toml: unknown key 'split'; known are name, interactions"),
        ("seed = 3", "seeds = 3", r"\[splits\]: unknown key 'seeds'; known are test_share"),
        ("seed = 3", 'seed = "3"', r"\[splits\]: seed = '3'; give a whole number"),
        ("test_share = 0.2", "test_share = true", r"\[splits\]: test_share = True; give a number"),
        ("test_share = 0.2", "test_share = 2", r"test_share=2 is outside \(0, 1\)"),
        ('name = "my-shop"', "", r"shop\.toml: no key 'name'; give text"),
        ('name = "my-shop"', 'name = "my/shop"', "name 'my/shop': use letters"),
        ('path = "log.csv"', "", r"\[interactions\]: no key 'path'; give text"),
        ('path = "log.csv"', 'path = "lag.csv"', r"lag\.csv is not there; paths are relative to the manifest"),
        (
            'time = "at"',
            'time = "when"',
            r"log\.csv: no column 'when' \(1 missing\); found uid, sku, at, clicked",
        ),
        (
            "at_least = 4",
            "at_last = 4",
            r"\[interactions.behaviours\] like: unknown key 'at_last'; known are column",
        ),
        ('click = "clicked"', "click = 1", r"\[interactions.behaviours\]: click = 1; give a column, or {column"),
        ('click = "clicked"', 'click = "rating"', r"shop\.toml: interactions: column 'rating' holds [45]; a behaviour"),
        ("bins = 3", "bin = 3", r"\[items\] features: unknown key 'bin'; known are column, bins"),
        ("bins = 3", "bins = 1", "bins=1 of feature 'price'"),
        ('["plan"]', "[1]", r"\[users\]: features holds 1; give columns"),
        ('["plan"]', '"plan"', r"\[users\]: features = 'plan'; give a list"),
        ('name = "my-shop"', "name = my-shop", r"shop\.toml: Invalid value .*; manifests are TOML"),
    ],
)
def test_errors_name_the_key(shop: Path, old: str, new: str, message: str) -> None:
    rewrite(shop, old, new)
    with pytest.raises(DataError, match=message):
        from_manifest(shop)


def test_no_behaviour_and_no_file(shop: Path) -> None:
    with pytest.raises(DataError, match=r"shap\.toml: no such file; give the path of a manifest"):
        read_manifest(shop.parent / "shap.toml")
    (shop.parent / "log.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"log\.csv: .*; give a CSV"):
        from_manifest(shop)
    rewrite(shop, 'click = "clicked"\nlike = { column = "rating", at_least = 4 }\n', "")
    with pytest.raises(DataError, match="empty; name at least one behaviour"):
        read_manifest(shop)


def test_text_with_line_breaks_and_empty_cells(shop: Path) -> None:
    log, items, _ = frames()
    items["brand"] = ["first\nsecond", 'so "called"', ""] + ["a, b"] * 9
    items.to_csv(shop.parent / "items.csv", index=False)
    values = from_manifest(shop).catalog.features.values[0]
    assert values == ("a, b", "first\nsecond", "missing", 'so "called"')
    assert len(log)


def test_the_old_names_warn_and_work(shop: Path) -> None:
    for old, new in (("describe", "read_manifest"), ("from_description", "from_manifest"), ("Description", "Manifest")):
        with pytest.warns(DeprecationWarning, match=f"manifest.{old} is called {new} now"):
            assert getattr(manifest, old) is getattr(manifest, new)
