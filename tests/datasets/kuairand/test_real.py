"""On the real files, where RAPPORT_DATA_DIR has them; figures as published with the development data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from rapport.datasets.files.directory import data_directory
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.registry.load import available, load
from rapport.datasets.schema import SessionData
from rapport.datasets.twin import measure, read_figures

pytestmark = pytest.mark.skipif(not available(), reason="no KuaiRand-Pure in the data directory")

OFFICIAL_ROWS = 1_436_609
DEVELOPMENT_ROWS = 2_000 + 198_895


@pytest.fixture(scope="module")
def data() -> SessionData:
    return load()


@pytest.fixture(scope="module")
def rows() -> int:
    """Raw rows of the two standard logs."""
    layout = kuairand.find(data_directory())
    assert layout is not None
    return sum((layout.folder / name).read_bytes().count(b"\n") - 1 for name in kuairand.STANDARD_LOGS)


@pytest.fixture(scope="module")
def development(rows: int) -> None:
    if rows != DEVELOPMENT_ROWS:
        pytest.skip("not the development data")


def test_published_sizes(data: SessionData, rows: int) -> None:
    assert data.population.n_users == 27_285
    assert data.catalog.n_items == 7_583
    assert rows in (DEVELOPMENT_ROWS, OFFICIAL_ROWS)


def test_categories(data: SessionData) -> None:
    assert data.catalog.n_categories == 37
    assert data.catalog.category_names[-1] == "Unknown"
    assert data.catalog.category_sizes[-1] == 96
    assert len(set(data.catalog.category_names)) == 37


def test_rates(data: SessionData) -> None:
    full = (data.log.feedback != -1).all(axis=1) & ~data.log.randomised
    rates = data.log.feedback[full].mean(axis=0)
    np.testing.assert_allclose(rates[:3], [0.45, 0.32, 0.017], atol=0.015)
    assert (rates[3:] < 0.003).all()


@pytest.mark.usefixtures("development")
def test_counts_of_the_development_data() -> None:
    folder = data_directory()
    layout = kuairand.find(folder)
    assert layout is not None
    main = pd.read_csv(layout.folder / kuairand.STANDARD_LOGS[1])
    assert (len(main), main["user_id"].nunique(), main["video_id"].nunique()) == (198_895, 24_717, 6_242)
    log = kuairand.read(folder, histories=False).log
    both = pd.concat([main, pd.read_csv(layout.folder / kuairand.STANDARD_LOGS[0])])
    used = [
        "user_id",
        "video_id",
        "time_ms",
        "is_rand",
        "long_view",
        *(c for c in both.columns.astype(str) if c.startswith("is_")),
    ]
    used = [c for c in dict.fromkeys(used) if c != "is_profile_enter"]
    assert len(log) == len(both.drop_duplicates(used))


@pytest.mark.usefixtures("development")
def test_test_days_are_5_and_6_may(data: SessionData) -> None:
    def local(ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1_000, UTC).replace(tzinfo=None) + timedelta(hours=8)

    assert local(data.test_from_ms) == datetime(2022, 5, 5)
    assert local(data.valid_from_ms) == datetime(2022, 5, 4)


@pytest.mark.usefixtures("development")
def test_histories_agree_with_the_log(data: SessionData) -> None:
    """Where an early exposure is in both, the sequences tell the same about it."""
    plain = load(histories=False)
    if len(plain.log) == len(data.log):
        pytest.skip("no file of earlier exposures")
    part = (data.log.feedback == -1).any(axis=1)
    columns = ["long_view", "like"]
    kept = [data.log.behaviours.index(name) for name in columns]

    def frame(source: SessionData, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pd.DataFrame:
        log = source.log
        table = pd.DataFrame({"user": log.user[mask], "item": log.item[mask]})
        table[columns] = log.feedback[mask][:, kept]
        return table.drop_duplicates(["user", "item"], keep=False)

    early = frame(plain, plain.log.time_ms < data.log.time_ms[part].max())
    both = early.merge(frame(data, part), on=["user", "item"])
    assert len(both) > 500
    for name in columns:
        assert (both[f"{name}_x"] == both[f"{name}_y"]).mean() > 0.99


@pytest.mark.usefixtures("development")
def test_shipped_figures_are_those_of_this_log(data: SessionData) -> None:
    if (data.log.feedback >= 0).all():
        pytest.skip("no file of earlier exposures")
    assert measure(data) == read_figures()
