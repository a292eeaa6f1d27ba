from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rapport
from rapport.datasets.custom.frames import Bins, Threshold, from_frames, row_ids
from rapport.datasets.schema import DataError, SessionData
from rapport.datasets.splits import DAY_MS

DAY = 86_400


def shop(n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A log of ten days with text for items' ids and numbers for users', rows in no order."""
    rng = np.random.default_rng(seed)
    items = pd.DataFrame({"sku": [f"item-{i:02d}" for i in range(25)]})
    items["kind"] = [["tea", "cup", None][i % 3] for i in range(25)]
    items["brand"] = rng.choice(["north", "south"], 25)
    items["price"] = np.round(rng.lognormal(2, 1, 25), 2)
    users = pd.DataFrame({"uid": np.arange(12) * 7 + 3, "age": rng.integers(20, 80, 12), "plan": ["free", "paid"] * 6})
    log = pd.DataFrame({"uid": rng.choice(users["uid"][:11], n), "sku": rng.choice(items["sku"][:24], n)})
    log["at"] = rng.permutation(np.linspace(0, 10 * DAY - 1, n).astype(int))
    log["clicked"] = rng.random(n) < 0.4
    log["stars"] = rng.choice([1.0, 3.0, 4.0, 5.0, np.nan], n)
    return log, items.sample(frac=1, random_state=1), users.sample(frac=1, random_state=2)


def made(log: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame | None = None, **change: Any) -> SessionData:
    settings: dict[str, Any] = {
        "name": "my-shop",
        "user": "uid",
        "item": "sku",
        "time": "at",
        "category": "kind",
        "behaviours": {"click": "clicked", "like": Threshold("stars", 4)},
        "item_features": ("brand", Bins("price", 4)),
        "user_features": () if users is None else ("plan", Bins("age", 3)),
    }
    return from_frames(log, items, users, **(settings | change))


def test_every_row_arrives_in_order() -> None:
    log, items, users = shop()
    data = made(log, items, users)
    people, things = row_ids(users["uid"]), row_ids(items["sku"])
    found = pd.DataFrame(
        {"uid": people[data.log.user], "at": data.log.time_ms // 1_000, "sku": things[data.log.item]}
    ).assign(click=data.log.feedback[:, 0], like=data.log.feedback[:, 1])
    expected = log.assign(
        click=log["clicked"].astype("int8"), like=(log["stars"] >= 4).astype("int8").where(log["stars"].notna(), -1)
    ).sort_values(["uid", "at"], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected[list(found)], check_dtype=False)
    assert data.log.behaviours == ("click", "like")
    assert not data.log.randomised.any()


def test_items_and_users_in_the_order_of_their_ids() -> None:
    log, items, users = shop()
    data = made(log, items, users)
    assert data.population.user_ids.tolist() == sorted(users["uid"])
    assert data.catalog.item_ids.tolist() == list(range(25))
    by_id = items.set_index("sku").loc[list(row_ids(items["sku"]))]
    names = np.array(data.catalog.category_names)
    assert names.tolist() == ["cup", "tea", "Unknown"]
    assert names[data.catalog.category].tolist() == by_id["kind"].astype(object).fillna("Unknown").tolist()
    brand = np.array(data.catalog.features.values[0])[data.catalog.features.codes[:, 0]]
    assert brand.tolist() == by_id["brand"].tolist()
    assert data.population.features.names == ("plan", "age")


def test_bins_hold_about_equally_many() -> None:
    log, items, _ = shop()
    items = items.assign(price=np.arange(25.0))
    data = made(log, items, item_features=(Bins("price", 5),))
    assert np.bincount(data.catalog.features.codes[:, 0]).tolist() == [4, 5, 5, 5, 6]
    assert data.catalog.features.values[0][:2] == ("01: under 4", "02: 4 to 9")
    same = made(log, items.assign(price=3.0), item_features=(Bins("price", 5),))
    assert same.catalog.features.cardinalities == (1,)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=25, max_size=25), bins=st.integers(2, 9))
def test_bins_keep_the_order_of_numbers(values: list[float | None], bins: int) -> None:
    log, items, _ = shop(60)
    numbers = pd.Series(values, dtype=float)
    if numbers.isna().all():
        return
    feature = made(log, items.sort_values("sku").assign(x=numbers.to_numpy()), item_features=(Bins("x", bins),))
    codes, names = feature.catalog.features.codes[:, 0], feature.catalog.features.values[0]
    assert [names[c] == "missing" for c in codes] == numbers.isna().tolist()
    known = codes[numbers.notna()][np.argsort(numbers[numbers.notna()], kind="stable")]
    assert (np.diff(known) >= 0).all()
    assert len(names) <= bins + 1


def test_missing_features_have_a_code_of_their_own() -> None:
    log, items, _ = shop()
    items = items.assign(brand=["x", None] + [""] * 23, size=[1.0, np.nan] + [10.0] * 23, new=[True] + [False] * 24)
    features = made(log, items, item_features=("brand", "size", "new")).catalog.features
    assert features.values == (("missing", "x"), ("1", "10", "missing"), ("False", "True"))


def test_users_may_be_left_out() -> None:
    log, items, _ = shop()
    data = made(log, items)
    assert data.population.user_ids.tolist() == sorted(log["uid"].unique())
    assert data.population.features.values == (("anonymous", "known"),)


@pytest.mark.parametrize(
    ("convert", "unit"),
    [
        (lambda s: s, "s"),
        (lambda s: s + 0.0, "s"),
        (lambda s: s * 1_000, "ms"),
        (lambda s: s * 1_000_000, "us"),
        (lambda s: s * 1_000_000_000, "ns"),
        (lambda s: pd.to_datetime(s, unit="s"), "s"),
        (lambda s: pd.to_datetime(s, unit="s", utc=True).dt.tz_convert("Asia/Shanghai"), "s"),
        (lambda s: pd.to_datetime(s, unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"), "s"),
        (lambda s: pd.to_datetime(s, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), "s"),
    ],
)
def test_times_in_every_form(convert: Any, unit: str) -> None:
    log, items, _ = shop()
    log["at"] += 1_700_000_000
    expected = made(log, items)
    found = made(log.assign(at=convert(log["at"])), items, time_unit=unit)
    np.testing.assert_array_equal(found.log.time_ms, expected.log.time_ms)


def test_days_begin_at_the_chosen_midnight() -> None:
    log, items, _ = shop()
    assert made(log, items).test_from_ms % DAY_MS == 0
    ahead = made(log, items, utc_offset_hours=-5.5)
    assert ahead.test_from_ms % DAY_MS == 5.5 * 3_600_000
    assert (ahead.log.time_ms >= ahead.test_from_ms).mean() >= 0.1


def test_behaviours_as_a_tuple_and_random_rows() -> None:
    log, items, _ = shop()
    log = log.assign(like=(log["stars"] > 4).astype(int), coin=np.arange(len(log)) % 10 == 0)
    log["like"] = log["like"].astype("Int64").mask(log["stars"].isna())
    data = made(log, items, behaviours=("clicked", "like"), randomised="coin")
    assert data.log.behaviours == ("clicked", "like")
    assert int((data.log.feedback[:, 1] == -1).sum()) == int(log["stars"].isna().sum())
    assert int(data.log.randomised.sum()) == 40


@pytest.mark.parametrize("kind", ["int64", "Int64", "float64", "category", "object", "string", "int64[pyarrow]"])
def test_ids_of_any_type(kind: str) -> None:
    log, items, _ = shop()
    number = {sku: 100 - i for i, sku in enumerate(items["sku"])}
    expected = made(log, items)
    log, items = (frame.assign(sku=frame["sku"].map(number).astype(kind)) for frame in (log, items))
    data = made(log, items)
    ids = row_ids(items["sku"])
    assert [str(i) for i in ids[data.log.item]] == [
        str(number[s]) for s in row_ids(shop()[1]["sku"])[expected.log.item]
    ]
    if kind in ("int64", "Int64", "float64", "object", "int64[pyarrow]"):
        assert data.catalog.item_ids.tolist() == sorted(number.values())


def test_the_frames_stay_as_they_are() -> None:
    frames = shop()
    before = [frame.copy() for frame in frames]
    made(*frames)
    for frame, copy in zip(frames, before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


def test_same_data_whatever_the_order_of_rows() -> None:
    log, items, users = shop()
    other = made(log.sample(frac=1, random_state=5), items.sort_values("price"), users.sort_values("age"))
    assert made(log, items, users).fingerprint == other.fingerprint


def wrong(column: str, value: object, row: int = 0) -> Any:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        changed[column] = changed[column].astype(object)
        changed.iloc[row, changed.columns.get_loc(column)] = value  # type: ignore[index]
        return changed.infer_objects()

    return change


@pytest.mark.parametrize(
    ("frame", "change", "settings", "message"),
    [
        ("log", lambda f: f.drop(columns="at"), {}, "interactions: no column 'at'; found uid, sku, clicked, stars"),
        (
            "items",
            lambda f: f,
            {"category": "sort"},
            "items: no column 'sort'; found .*; rename one, or name the right",
        ),
        ("users", lambda f: f, {"user_features": ("sex",)}, "users: no column 'sex'"),
        ("log", wrong("sku", "item-99"), {}, r"interactions: sku 'item-99' is not in items \(1 row\(s\) do not join\)"),
        ("log", wrong("uid", 4), {}, "interactions: uid (np.int64.)?4.? is not in users"),
        ("log", wrong("uid", np.nan, 3), {}, "interactions: column 'uid' is empty in 1 row.s., the first being row 3"),
        (
            "log",
            lambda f: f.assign(uid=f["uid"].astype(str)),
            {},
            "holds text, such as '.*', but whole numbers in users",
        ),
        ("items", lambda f: pd.concat([f, f.iloc[3:4]]), {}, "items: sku 'item-.*' occurs twice; keep one row per sku"),
        ("items", lambda f: f.iloc[:0], {}, "items: no row"),
        ("log", lambda f: f.iloc[:0], {}, "interactions: no row"),
        ("log", lambda f: f, {"behaviours": ("stars",)}, r"'stars' holds [345]; a behaviour is .* Threshold\('stars'"),
        ("log", lambda f: f, {"behaviours": ("sku",)}, "column 'sku' holds 'item-.*' in row 0; a behaviour is 0 or 1"),
        ("log", lambda f: f, {"behaviours": "clicked"}, r"behaviours='clicked'; give the columns as a tuple"),
        ("log", lambda f: f, {"behaviours": ()}, r"behaviours=\(\); give the columns as a tuple"),
        (
            "items",
            lambda f: f,
            {"item_features": ("price",)},
            r"holds .*; cut numbers with fractions .*Bins\('price', 5\)",
        ),
        ("items", lambda f: f, {"item_features": "brand"}, r"features='brand'; give the columns as a tuple"),
        (
            "items",
            lambda f: f,
            {"item_features": (Bins("brand"),)},
            "holds '.*' in row 0; only numbers can be cut into bins",
        ),
        ("items", lambda f: f.assign(price=np.nan), {}, "column 'price' is empty in every row; leave it out"),
        (
            "log",
            lambda f: f.assign(at=f["at"] * 10**12),
            {},
            "holds .*, which is no time in 's' since 1970; give the right",
        ),
        ("log", lambda f: f, {"time_unit": "min"}, "time_unit='min' is unknown; choose one of s, ms, us, ns"),
        ("log", lambda f: f.assign(at="soon"), {}, "column 'at' is not a time .*soon"),
        ("log", wrong("at", None), {}, "column 'at' is empty in 1 row"),
        ("log", lambda f: f.assign(at=f["at"] % 9), {}, r"its 1 day\(s\) leave no training day"),
        (
            "log",
            lambda f: f.assign(r=np.where(f.index > 0, 0.0, np.nan)),
            {"randomised": "r"},
            "column 'r' is empty in 1",
        ),
        ("log", lambda f: f, {"name": "my shop"}, "name 'my shop': use letters, digits"),
        ("log", lambda f: f, {"held_out_share": 0.0}, "held_out_share=0.0 of 12 user"),
    ],
)
def test_errors_name_what_is_wrong(frame: str, change: Any, settings: dict[str, Any], message: str) -> None:
    frames = dict(zip(("log", "items", "users"), shop(), strict=True))
    frames[frame] = change(frames[frame])
    with pytest.raises(DataError, match=message):
        made(*frames.values(), **settings)


def test_user_features_need_users() -> None:
    log, items, _ = shop()
    with pytest.raises(DataError, match=r"user_features=\['age'\], but no frame of users"):
        made(log, items, user_features=("age",))
    with pytest.raises(DataError, match="bins=1 of feature 'age'; give a number from 2 to 99"):
        Bins("age", 1)


def test_dates_as_objects_are_times() -> None:
    log, items, _ = shop()
    days = [dt.datetime(2026, 1, 1) + dt.timedelta(seconds=int(s)) for s in log["at"]]
    data = made(log.assign(at=pd.Series(days, dtype=object, index=log.index)), items)
    assert int(data.log.time_ms.min()) == 1_767_225_600_000


def test_exported_by_the_package() -> None:
    assert rapport.from_frames is from_frames


def test_an_environment_over_own_data() -> None:
    import gymnasium as gym

    from rapport.envs.session.response.base import MatrixResponse

    data = made(*shop())
    shape = (data.population.n_users, data.catalog.n_items, 2)
    response = MatrixResponse(np.full(shape, 0.5), data.log.behaviours)
    env = gym.make("rapport/KuaiRand-v0", data=data, response=response, slate_size=3, history=5)
    env.reset(seed=0)
    env.action_space.seed(0)
    _, reward, *_ = env.step(env.action_space.sample())
    assert 0 <= float(reward) <= 1
