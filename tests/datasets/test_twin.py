from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rapport.datasets.registry.load import load
from rapport.datasets.schema import DataError, SessionData
from rapport.datasets.twin import FIGURES_FILE, draw, measure, read_figures, twin


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return read_figures()


@pytest.fixture(scope="module")
def large(figures: dict[str, Any]) -> SessionData:
    return draw(figures, n_users=8_000, n_items=2_000, seed=3)


def z_scores(count: np.ndarray[Any, Any], trials: np.ndarray[Any, Any], rate: np.ndarray[Any, Any]) -> Any:
    return (count - trials * rate) / np.sqrt(np.maximum(trials * rate * (1 - rate), 1e-9))


def test_same_seed_same_twin() -> None:
    assert twin(200, 80, seed=5).fingerprint == twin(200, 80, seed=5).fingerprint
    assert twin(200, 80, seed=5).fingerprint != twin(200, 80, seed=6).fingerprint


@pytest.mark.parametrize(("n_users", "n_items", "days"), [(5, 1, None), (50, 7, 3), (300, 60, 30), (1_000, 500, None)])
def test_any_size(n_users: int, n_items: int, days: int | None) -> None:
    data = twin(n_users, n_items, days=days)
    assert data.population.n_users == n_users
    assert data.catalog.n_items == n_items
    assert (np.bincount(data.log.user, minlength=n_users) > 0).all()


@pytest.mark.parametrize(
    ("size", "message"), [({"n_users": 2}, "n_users=2"), ({"n_items": 0}, "n_items=0"), ({"days": 2}, "days=2")]
)
def test_too_small(size: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=f"twin: {message} is too small"):
        twin(**size)


def test_click_rates_by_category_are_those_of_the_figures(large: SessionData, figures: dict[str, Any]) -> None:
    log = large.log
    category = large.catalog.category[log.item]
    shown = np.bincount(category, minlength=large.catalog.n_categories)
    clicks = np.bincount(category, weights=log.feedback[:, 0], minlength=large.catalog.n_categories)
    z = z_scores(clicks, shown, np.array(figures["categories"]["click_rate"]))
    assert np.abs(z).max() < 4.0  # 37 categories: beyond 4 by chance once in 400 seeds
    assert large.catalog.category_names == tuple(figures["categories"]["names"])
    np.testing.assert_allclose(shown / shown.sum(), figures["categories"]["share_of_exposures"], atol=0.005)


def test_click_rates_by_activity_are_close(large: SessionData, figures: dict[str, Any]) -> None:
    features = large.population.features
    column = features.names.index("user_active_degree")
    rate = dict(zip(figures["activity"]["names"], figures["activity"]["click_rate"], strict=True))
    group = features.codes[large.log.user, column]
    for code, value in enumerate(features.values[column]):
        clicks = large.log.feedback[group == code, 0]
        if len(clicks) > 5_000:
            assert clicks.mean() == pytest.approx(rate[value], abs=0.015)


def test_variances_come_back(large: SessionData, figures: dict[str, Any]) -> None:
    found = measure(large)["variances"]
    for name, value in figures["variances"].items():
        assert found[name] == pytest.approx(value, abs=0.12)


def test_other_behaviours_given_the_click(large: SessionData, figures: dict[str, Any]) -> None:
    click = large.log.feedback[:, 0] == 1
    for rows, key in ((click, "rate_if_click"), (~click, "rate_if_no_click")):
        counts = large.log.feedback[rows, 1:].sum(axis=0, dtype=np.int64)
        assert np.abs(z_scores(counts, np.array(rows.sum()), np.array(figures["behaviours"][key]))).max() < 4.0
    assert list(large.log.behaviours) == figures["behaviours"]["names"]


def test_rows_per_user_days_and_hours(large: SessionData, figures: dict[str, Any]) -> None:
    found = measure(large)
    np.testing.assert_allclose(found["rows_per_user"][1:-1], figures["rows_per_user"][1:-1], atol=2)
    np.testing.assert_allclose(found["share_of_days"], figures["share_of_days"], atol=0.01)
    np.testing.assert_allclose(found["share_of_hours"], figures["share_of_hours"], atol=0.01)
    assert found["first_day"] == figures["first_day"]


def test_feature_shares(large: SessionData, figures: dict[str, Any]) -> None:
    for features, key in ((large.population.features, "user_features"), (large.catalog.features, "item_features")):
        assert features.names == tuple(figures[key])
        for column, name in enumerate(features.names):
            share = np.bincount(features.codes[:, column], minlength=len(features.values[column])) / len(features.codes)
            np.testing.assert_allclose(share, list(figures[key][name].values()), atol=0.04)


def test_twin_of_a_small_log_has_its_schema(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path, n_users=60, n_rows=3_000)
    real = load(root=tmp_path)
    figures = json.loads(json.dumps(measure(real)))
    drawn = draw(figures, 100, 50)
    assert drawn.catalog.category_names == real.catalog.category_names
    assert drawn.catalog.features.names == real.catalog.features.names
    assert drawn.population.features.names == real.population.features.names
    assert drawn.log.behaviours == real.log.behaviours


def test_shipped_figures_hold_aggregates_only() -> None:
    content = json.loads(FIGURES_FILE.read_text(encoding="utf-8"))
    assert content["licence"] == "CC BY-SA 4.0"
    assert content["command"] == "rapport twin measure --name kuairand-pure"
    assert "KuaiRand" in content["source"]
    text = FIGURES_FILE.read_text(encoding="utf-8")
    assert len(text) < 20_000
    assert "/" not in content["command"]

    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        return len(value) if isinstance(value, list) else 0

    assert longest(content["figures"]) <= 40  # nothing is as long as a list of people, items or rows


def test_bad_figures(tmp_path: Path, figures: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no figures of a twin"):
        read_figures(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text('{"figures": []}')
    with pytest.raises(DataError, match="'figures' is not a table"):
        read_figures(tmp_path / "list.json")
    with pytest.raises(DataError, match="the figures lack 'popularity'"):
        draw({key: value for key, value in figures.items() if key != "popularity"}, 50, 50)
