"""A metric is what its arrays say, by seed; used as a study of sessions would use it."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.experiments.results.metrics import NOT_RUN, Metric
from rapport.experiments.results.stats import Estimate, Scores, estimate, paired_difference

LENGTH = Metric("length", "slates", numerator="length")
RATE = Metric("click rate", "clicks per slate", digits=3, numerator="clicks", denominator="length")
SPENT = Metric("spent", "seconds", digits=0, higher_is_better=False, numerator="seconds")


def runs(rate: float, seeds: int = 5, sessions: int = 60) -> list[dict[str, np.ndarray]]:
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        length = rng.integers(5, 20, sessions)
        found.append({"length": length, "clicks": rng.binomial(length, rate), "seconds": 30 * length})
    return found


def test_a_study_in_four_lines() -> None:
    """What a table of two methods needs, from arrays to text."""
    better, worse = runs(0.6), runs(0.4)
    cells = [RATE.shown(RATE.estimate(found, np.random.default_rng(0))) for found in (better, worse)]
    difference = RATE.difference(better, worse, np.random.default_rng(0))
    assert RATE.better(difference) is True
    assert [float(cell.split(" ")[0]) for cell in cells] == pytest.approx([0.6, 0.4], abs=0.02)
    assert RATE.shown(difference, signed=True).startswith("+0.") and RATE.column == ("click rate", "clicks per slate")


def test_a_mean_and_a_ratio_by_hand() -> None:
    found = [
        {"length": np.array([2, 4]), "clicks": np.array([1, 2])},
        {"length": np.array([5]), "clicks": np.array([4])},
    ]
    np.testing.assert_allclose(LENGTH.scores(found).per_seed(), [3.0, 5.0])
    np.testing.assert_allclose(RATE.scores(found).per_seed(), [0.5, 0.8])


def test_estimates_are_those_of_the_scores() -> None:
    a, b = runs(0.5), runs(0.3)
    lengths, clicks = [r["length"] for r in a], [r["clicks"] for r in a]
    rng = np.random.default_rng
    assert LENGTH.estimate(a, rng(1)) == estimate(Scores.mean(lengths), rng(1))
    assert RATE.estimate(a, rng(1), resamples=50, level=0.8) == estimate(
        Scores.ratio(clicks, lengths), rng(1), resamples=50, level=0.8
    )
    expected = paired_difference(RATE.scores(a), RATE.scores(b), rng(2), same_sessions=False, resamples=70)
    assert RATE.difference(a, b, rng(2), same_sessions=False, resamples=70) == expected


@pytest.mark.parametrize(
    ("low", "high", "more", "less"), [(0.1, 0.2, True, False), (-0.2, -0.1, False, True), (-0.1, 0.1, None, None)]
)
def test_which_is_better_depends_on_the_metric(low: float, high: float, more: bool | None, less: bool | None) -> None:
    difference = Estimate((low + high) / 2, low, high, 5)
    assert LENGTH.better(difference) is more and SPENT.better(difference) is less


def test_figures_are_shown_with_the_metrics_digits() -> None:
    value = Estimate(9.1, 8.765, 9.449, 5)
    assert LENGTH.shown(value) == "9.10 [8.77, 9.45]"
    assert RATE.shown(value, signed=True) == "+9.100 [+8.765, +9.449]"
    assert SPENT.shown(value) == "9 [9, 9]"
    assert LENGTH.shown(None) == NOT_RUN == "not run"


def test_an_array_that_is_missing_is_named() -> None:
    found = [*runs(0.5, seeds=1), {"length": np.ones(3)}]
    with pytest.raises(ValueError, match="'click rate': seed number 1 has no array 'clicks'; it has length"):
        RATE.scores(found)
