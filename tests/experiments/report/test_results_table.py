"""A summary as tables and figures: every cell, what was not run, what the model cost, readable in 110 columns."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from rapport.agents.llm import Meter
from rapport.experiments.report.page import Page, Section, print_page, to_html, to_markdown
from rapport.experiments.report.results_table import cost_table, curves_of, forest_of, results_table, shown
from rapport.experiments.report.table import Table
from rapport.experiments.results.llm_cost import COST_COLUMNS
from rapport.experiments.results.metrics import Metric
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Summary, footer, summarise, verdict

T_INT = Metric("T_int", "slates", 2, numerator="length")
R_CUM = Metric("R_cum", "summed click rate", 2, numerator="return")
R_SIN = Metric("R_sin", "click rate", 3, numerator="return", denominator="length")
LABELS = {"lerl": "LERL", "random": "random", "oracle": "oracle (reads the simulator's weights)"}
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
CAPPED = "in training the budget of 3,600 calls is spent, then another planned"


def runs(row: str, *, seeds: int = 2, **more: object) -> list[Result]:
    """Seeds of ten sessions of ten slates each."""
    arrays = {"length": np.full(10, 10), "return": np.linspace(1, 2, 10)}
    return [Result(row, row.upper(), seed, arrays, **more) for seed in range(seeds)]  # type: ignore[arg-type]


def summary(labels: dict[str, str] = LABELS, **found: list[Result]) -> Summary:
    return summarise(found, labels, (T_INT, R_CUM, R_SIN), "lerl", main=R_CUM, facts=("data: twin",))


def with_model() -> Summary:
    lerl = runs("lerl", meter=METER.to_dict(), steps=900, notes=(CAPPED,))
    rotation = runs("rotation", meter={**Meter().to_dict(), "plans": 7})
    labels = {"lerl": "LERL", "rotation": "rotation", "random": "random", "oracle": "oracle"}
    return summary(labels, lerl=lerl, rotation=rotation, random=runs("random"))


def text_of(table: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table.to_rich())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_cells_are_the_estimates_and_the_reference_stands_out() -> None:
    results = summary(lerl=runs("lerl", steps=1_280, train_seconds=30.0, eval_seconds=3.0), random=runs("random"))
    table = results_table(results)
    assert [name for name, _ in table.columns] == ["method", "T_int", "R_cum", "R_sin", "learned from", "time"]
    assert table.columns[2] == R_CUM.column
    value = results.rows[0].estimates["R_cum"]
    assert value.point == 1.5
    assert table.rows[0] == (
        "LERL",
        "10.00 [10.00, 10.00]",
        f"1.50 [{value.low:.2f}, {value.high:.2f}]",
        R_SIN.shown(results.rows[0].estimates["R_sin"]),
        "1,280",
        "33 s",
    )
    assert table.rows[1][-2:] == ("none", "0.0 s") and table.bold == 0
    assert results_table(summary({"random": "random"}, random=runs("random"))).bold is None


def test_what_was_not_run_is_said() -> None:
    results = summary(lerl=runs("lerl"))
    assert results_table(results).to_markdown().count("not run") == 10
    assert shown(results.row("random"), R_CUM) == shown(None, R_CUM) == "not run"
    nothing = summary()
    assert results_table(nothing).to_markdown().count("not run") == 15
    assert cost_table(nothing) is None


def test_it_fits_a_file() -> None:
    meter = {"calls": 360_000, "prompt_tokens": 123_456_789, "completion_tokens": 9e6, "cache_hits": 1, "fallbacks": 12}
    lerl = runs("lerl", seeds=5, meter=meter, steps=360_000, train_seconds=5_000.0)
    found = summary(lerl=lerl, random=runs("random", seeds=5))
    costs = cost_table(found)
    assert costs is not None
    page = Page("run", verdict(found)[0], verdict(found)[1:], sections=[Section("x", [results_table(found), costs])])
    out = io.StringIO()
    print_page(page, Console(file=out, width=200))
    for line in footer(found):
        assert "95 %" in line or "quick look" in line or line == "data: twin"
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 110
    assert "\x1b" not in text
    for part in ("T_int", "slates", "360,000", "123 M", "83 min", "none", "not run", "cannot be told apart"):
        assert part in text


def test_labels_stay_in_their_cells() -> None:
    table = results_table(summary({"lerl": "a|b [bold]"}, lerl=runs("lerl")))
    line = next(line for line in table.to_markdown().splitlines() if "[bold]" in line)
    assert line.startswith("| **a\\|b [bold]** | ")
    assert any("a|b [bold]" in line for line in text_of(table, 110))


# --- what the language model cost -------------------------------------------------------------------------------------


def test_each_row_with_a_model_is_per_seed_and_per_thousand_slates() -> None:
    table = cost_table(with_model(), "a caption")
    assert table is not None and table.caption == "a caption" and table.columns == COST_COLUMNS
    assert table.rows == (
        ("LERL", "3,600", "1.2 M", "90 k", "400", "12", "3", "1,000", "30 s"),
        ("per 1 k slates", "3,600", "1.2 M", "90 k", "400", "12", "3", "1,000", "30 s"),  # 900 + 100 slates a seed
    )


def test_where_no_model_planned_there_is_no_table() -> None:
    assert cost_table(summary(random=runs("random", meter=Meter().to_dict()))) is None


def test_costs_are_aligned_and_fit_80_columns() -> None:
    table = cost_table(with_model())
    assert table is not None
    lines = text_of(table, 80)
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(("LERL", "per 1 k slates"))]
    assert len({len(line) for line in rows}) == 1 and len(rows) == 2
    assert lines[0].split() == ["LLM", "of", *(name for name, _ in COST_COLUMNS[1:])]


def test_footer_and_page_say_who_planned_and_where_a_limit_was_reached() -> None:
    found = with_model()
    lines = footer(found)
    assert "LERL: per seed the language model made 3,000 plans (75 %), the fallback 1,000" in lines
    assert f"LERL: {CAPPED}" in lines
    assert not any(line.startswith(("rotation", "random")) for line in lines)
    costs = cost_table(found)
    assert costs is not None
    page = Page("run", "found", sections=[Section("What the language model cost", [costs, *lines])])
    text = to_markdown(page)
    for part in ("What the language model cost", "per 1 k slates", "| 90 k |", CAPPED, "made 3,000 plans"):
        assert part in text
    pytest.importorskip("jinja2")
    html = to_html(page)
    for part in ("What the language model cost", "per 1 k slates", ">90 k</td>", CAPPED, "made 3,000 plans"):
        assert part in html


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_forest_has_every_row_that_was_run() -> None:
    pytest.importorskip("plotly")
    figure = forest_of(summary(lerl=runs("lerl"), random=runs("random")), R_CUM)
    text = figure.draw().to_json()
    assert figure.small and "LERL" in text and "random" in text and "oracle" not in text
    assert "R_cum [summed click rate]" in text


def test_curves_are_of_length_or_return_and_of_rows_that_have_one() -> None:
    pytest.importorskip("plotly")
    curve = ((40, 12.0, 3.0), (80, 13.0, 4.0))
    learned = [*runs("lerl", curve=curve), *runs("random")]
    for metric, values in ((T_INT, [12.0, 13.0]), (R_CUM, [3.0, 4.0])):
        figure = curves_of(learned, metric, "caption")
        assert figure is not None and figure.caption == "caption"
        drawn = figure.draw()
        assert values in [list(trace.y) for trace in drawn.data]
        text = drawn.to_json()
        assert "LERL" in text and "RANDOM" not in text and "training transitions" in text
    assert curves_of(runs("random"), R_CUM, "caption") is None
    assert curves_of(runs("lerl", curve=curve[:1]), R_CUM, "caption") is None  # a point alone shows no learning
