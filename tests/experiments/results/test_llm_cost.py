"""What the language model cost: counts that fit, rates that compare runs of different size, and who planned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.agents.llm import Meter
from rapport.experiments.results.llm_cost import COST_COLUMNS, cost_rows, count, had_model, mean_meter, planned_by

METER = Meter(
    calls=3_600,
    prompt_tokens=1_234_567,
    completion_tokens=90_000,
    seconds=30.0,
    cache_hits=400,
    retries=12,
    failures=3,
    decisions=4_000,
    fallbacks=1_000,
)


def test_runs_of_different_size_compare() -> None:
    twice = (METER + METER).to_dict()
    assert cost_rows("a", twice, 4_000)[1] == cost_rows("b", METER.to_dict(), 2_000)[1]
    assert cost_rows("a", twice, 4_000)[0] != cost_rows("b", METER.to_dict(), 2_000)[0]


def test_each_line_is_per_seed_or_per_thousand_slates_and_says_none_without_a_model() -> None:
    assert cost_rows("LERL", METER.to_dict(), 2_000) == [
        ("LERL", "3,600", "1.2 M", "90 k", "400", "12", "3", "1,000", "30 s"),
        ("per 1 k slates", "1,800", "617 k", "45 k", "200", "6", "1.5", "500", "15 s"),
    ]
    for meter in ({**Meter().to_dict(), "plans": 7}, {}, None):
        assert cost_rows("rotation", meter, 1_000) == [("rotation", *["none"] * 8)]
    assert len(COST_COLUMNS) == 9


def test_a_model_that_was_wanted_for_nothing_is_none() -> None:
    assert not had_model({}) and not had_model(None) and not had_model(Meter(seconds=0.1).to_dict())
    assert had_model(METER.to_dict()) and had_model({"decisions": 1})


def test_it_is_said_who_planned() -> None:
    assert planned_by("LERL", METER.to_dict()) == [
        "LERL: per seed the language model made 3,000 plans (75 %), the fallback 1,000"
    ]
    assert planned_by("x", {}) == planned_by("x", None) == []


def test_a_mean_counts_what_a_meter_lacks_as_nothing() -> None:
    assert mean_meter([{"calls": 4.0}, {"calls": 2.0, "plans": 8.0}]) == {"calls": 3.0, "plans": 4.0}


@given(st.floats(0, 9e11, allow_nan=False))
def test_counts_fit_five_characters_and_are_off_by_five_per_cent_at_most(value: float) -> None:
    text = count(value)
    number, _, unit = text.partition(" ")
    shown = float(number.replace(",", "")) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit]
    assert shown == pytest.approx(value, rel=0.055, abs=1e-12)
    assert len(text) <= 5 or value < 1e-2
