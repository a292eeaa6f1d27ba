"""What the language model cost: counts that fit, rates that compare runs of different size, and who planned."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rapport.agents.llm import Meter
from rapport.experiments.report.compat import RunReport, render
from rapport.experiments.results.llm_cost import COST_COLUMNS, cost_rows, count, had_model, planned_by
from rapport.experiments.results.store import MethodResult
from rapport.experiments.results.summary import RunFacts, costs, footer, grid, summarise, to_markdown

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
CAPPED = "in training the budget of 3,600 calls is spent, then lasting preference planned"


def results(method: str, meter: dict[str, float], **more: Any) -> list[MethodResult]:
    """Two seeds of ten sessions of ten slates each."""
    lengths, returns = np.full(10, 10), np.linspace(1, 2, 10)
    return [MethodResult(method, method.upper(), seed, lengths, returns, meter=meter, **more) for seed in range(2)]


def a_table() -> Any:
    with_model = results("lerl", METER.to_dict(), train_transitions=900, notes=(CAPPED,))
    found = [*with_model, *results("rotation", {**Meter().to_dict(), "plans": 7}), *results("random", {})]
    return summarise(found, RunFacts("twin", 50, "corrected", "LLM m.gguf"), (("lerl", "LERL"), ("oracle", "oracle")))


def test_each_row_is_per_seed_and_per_thousand_slates_and_says_none_without_a_model() -> None:
    assert costs(a_table()) == [
        ("LERL", "3,600", "1.2 M", "90 k", "400", "12", "3", "1,000", "30 s"),
        ("per 1 k slates", "3,600", "1.2 M", "90 k", "400", "12", "3", "1,000", "30 s"),  # 900 + 100 slates a seed
        ("ROTATION", *["none"] * 8),
        ("RANDOM", *["none"] * 8),
    ]


def test_runs_of_different_size_compare() -> None:
    twice = (METER + METER).to_dict()
    assert cost_rows("a", twice, 4_000)[1] == cost_rows("b", METER.to_dict(), 2_000)[1]
    assert cost_rows("a", twice, 4_000)[0] != cost_rows("b", METER.to_dict(), 2_000)[0]


def test_where_no_model_planned_there_is_no_table() -> None:
    table = summarise(results("random", Meter().to_dict()), RunFacts("twin", 50, "corrected", "heuristic"))
    assert costs(table) == []
    assert "LLM of" not in to_markdown(table)
    assert not had_model({}) and not had_model(None) and not had_model(Meter(seconds=0.1).to_dict())


def test_it_is_aligned_and_fits_80_columns() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(grid(COST_COLUMNS, costs(a_table())))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(("LERL", "per 1 k slates", "ROTATION", "RANDOM"))]
    assert len({len(line.rstrip()) for line in rows}) == 1 and len(rows) == 4
    assert lines[0].split() == ["LLM", "of", *(name for name, _ in COST_COLUMNS[1:])]


def test_footer_and_report_say_who_planned_and_where_a_limit_was_reached() -> None:
    lines = footer(a_table())
    assert "LERL: per seed the language model made 3,000 plans (75 %), the fallback 1,000" in lines
    assert f"LERL: {CAPPED}" in lines
    assert not any("ROTATION" in line for line in lines)
    assert planned_by("x", {}) == planned_by("x", None) == []
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    page = render(RunReport("run", a_table(), {}))
    for part in ("What the language model cost", "per 1 k slates", "<td>90 k</td>", CAPPED, "made 3,000 plans"):
        assert part in page


@given(st.floats(0, 9e11, allow_nan=False))
def test_counts_fit_five_characters_and_are_off_by_five_per_cent_at_most(value: float) -> None:
    text = count(value)
    number, _, unit = text.partition(" ")
    shown = float(number.replace(",", "")) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit]
    assert shown == pytest.approx(value, rel=0.055, abs=1e-12)
    assert len(text) <= 5 or value < 1e-2
