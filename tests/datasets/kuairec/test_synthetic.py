from __future__ import annotations

import logging

import numpy as np
import pytest

from rapport.datasets.kuairec.load import KuaiRec, synthetic_kuairec
from rapport.datasets.schema import DataError


@pytest.fixture(scope="module")
def synthetic() -> KuaiRec:
    return synthetic_kuairec(300, 60, 120, seed=1)


def test_synthetic_is_deterministic_and_says_what_it_is(caplog: pytest.LogCaptureFixture, synthetic: KuaiRec) -> None:
    with caplog.at_level(logging.WARNING):
        again = synthetic_kuairec(300, 60, 120, seed=1)
    assert "made up and fitted to no data" in caplog.text
    assert again.data.fingerprint == synthetic.data.fingerprint != synthetic_kuairec(300, 60, 120).data.fingerprint
    np.testing.assert_array_equal(again.watch_ratio, synthetic.watch_ratio)
    np.testing.assert_array_equal(again.tags, synthetic.tags)


def test_synthetic_is_plausible(synthetic: KuaiRec) -> None:
    assert synthetic.data.name == "kuairec-synthetic"
    assert synthetic.watch_ratio.shape == (60, 120) == synthetic.blocked.shape
    assert 0 < synthetic.blocked.mean() < 0.02
    for rate in (synthetic.data.log.feedback.mean(), (synthetic.watch_ratio >= 1).mean()):
        assert 0.2 < rate < 0.5
    assert synthetic.data.held_out[synthetic.truth_users].sum() == 12
    assert "Good looks" in synthetic.data.catalog.category_names


def test_synthetic_tastes_are_about_categories(synthetic: KuaiRec) -> None:
    """What a user makes of half of a category's items foretells the other half, beyond user and item means."""
    ratio = np.log(np.where(synthetic.blocked, 1.0, synthetic.watch_ratio))
    ratio -= ratio.mean(axis=0)
    ratio -= ratio.mean(axis=1, keepdims=True)
    halves = []
    for category in np.flatnonzero(synthetic.data.catalog.category_sizes >= 4):
        items = np.flatnonzero(synthetic.data.catalog.category == category)
        halves.append((ratio[:, items[::2]].mean(axis=1), ratio[:, items[1::2]].mean(axis=1)))
    first, second = (np.concatenate(side) for side in zip(*halves, strict=True))
    assert np.corrcoef(first, second)[0, 1] > 0.3


@pytest.mark.parametrize("size", [{"n_users": 9}, {"n_truth_users": 2}, {"n_items": 1}, {"n_truth_users": 1_001}])
def test_synthetic_sizes(size: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"n_\w+=\d+ is (too small|more than)"):
        synthetic_kuairec(**size)


def test_shapes_are_checked(synthetic: KuaiRec) -> None:
    with pytest.raises(DataError, match="watch_ratio: shape"):
        KuaiRec(synthetic.data, synthetic.truth_users, synthetic.watch_ratio[1:], synthetic.blocked, synthetic.tags)
    with pytest.raises(DataError, match="tags: shape"):
        KuaiRec(synthetic.data, synthetic.truth_users, synthetic.watch_ratio, synthetic.blocked, synthetic.tags[1:])
    with pytest.raises(DataError, match="watch_ratio: must be in"):
        high = synthetic.watch_ratio + 1
        KuaiRec(synthetic.data, synthetic.truth_users, high, synthetic.blocked, synthetic.tags)
