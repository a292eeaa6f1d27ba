"""The table: every cell, honest verdicts, readable in 110 columns."""

from __future__ import annotations

import io

import numpy as np
import pytest

from rapport.experiments.results.store import MethodResult
from rapport.experiments.results.summary import RunFacts, compare, footer, print_table, summarise, to_markdown, verdict

FACTS = RunFacts("kuairand-pure", 2_471, "corrected", "heuristic (no LLM given)")
METHODS = (("lerl", "LERL"), ("random", "random"), ("oracle", "oracle (reads the simulator's weights)"))


def runs(method: str, rate: float, *, seeds: int = 5, sessions: int = 1_000, **more: object) -> list[MethodResult]:
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, round(rate * 1_000)])
        lengths = rng.integers(11, 21, sessions)
        returns = rng.binomial(lengths * 6, rate) / 6
        users = np.random.default_rng(seed).integers(0, 99, sessions)
        found.append(MethodResult(method, method.upper(), seed, lengths, returns, users, **more))  # type: ignore[arg-type]
    return found


def test_cells_are_the_metrics() -> None:
    results = runs("lerl", 0.5, train_transitions=1_000, train_seconds=30.0, eval_seconds=3.0)
    row = summarise(results, FACTS).rows[0]
    assert row.t_int and row.r_cum and row.r_sin
    assert row.t_int.point == pytest.approx(np.mean(sorted(r.t_int for r in results)[1:4]))
    assert row.r_cum.point == pytest.approx(np.mean(sorted(r.r_cum for r in results)[1:4]))
    assert row.r_sin.low < row.r_sin.point == pytest.approx(np.mean(sorted(r.r_sin for r in results)[1:4]))
    assert (row.transitions, row.seconds, row.sessions, row.seeds) == (1_000, 33.0, 1_000, (0, 1, 2, 3, 4))


def test_a_row_does_not_depend_on_the_others() -> None:
    alone = summarise(runs("lerl", 0.5), FACTS).row("lerl")
    beside = summarise([*runs("random", 0.3), *runs("lerl", 0.5)], FACTS).row("lerl")
    assert alone == beside


def test_what_was_not_run_is_said() -> None:
    table = summarise(runs("lerl", 0.5, seeds=2, sessions=50), FACTS, METHODS)
    assert [row.method for row in table.rows] == ["lerl", "random", "oracle"]
    assert to_markdown(table).count("not run") == 10
    assert summarise([], FACTS, METHODS).comparisons == ()
    assert verdict(summarise([], FACTS, METHODS)) == ["lerl: not run, so nothing is compared with it."]
    print_table(summarise([], FACTS, METHODS), io.StringIO())


def test_a_control_that_wins_is_named_first() -> None:
    table = summarise([*runs("lerl", 0.5), *runs("random", 0.4), *runs("oracle", 0.6)], FACTS, METHODS)
    lines = verdict(table)
    assert lines[0] == "LERL: in R_cum above 1 of 2 other methods, below 1, level with 0."
    assert lines[1].startswith("oracle (reads the simulator's weights) beats LERL by ")
    assert lines[2].startswith("LERL is above random by ")


def test_equal_methods_are_not_told_apart() -> None:
    same = [MethodResult("twin", "twin", r.seed, r.lengths, r.returns[::-1], None) for r in runs("lerl", 0.5)]
    lines = verdict(summarise([*runs("lerl", 0.5), *same], FACTS))
    assert lines[0] == "LERL: in R_cum above 0 of 1 other methods, below 0, level with 1."
    assert lines[1].startswith("LERL and twin cannot be told apart: they differ by ")


def test_a_clear_win_over_all() -> None:
    lines = verdict(summarise([*runs("lerl", 0.6), *runs("random", 0.4)], FACTS))
    assert lines[0] == "LERL is above the one other method in R_cum."


def test_only_common_seeds_are_compared() -> None:
    difference = compare(runs("lerl", 0.5, seeds=5), runs("random", 0.4, seeds=3))
    assert difference is not None and difference.n_seeds == 3
    assert compare(runs("lerl", 0.5), []) is None


def test_the_footer_says_what_it_rests_on() -> None:
    whole = footer(summarise(runs("lerl", 0.5), FACTS))
    assert (
        whole[0] == "data: kuairand-pure, 2,471 held-out users; 1,000 sessions per seed; 5 seed(s); profile: corrected"
    )
    assert whole[1] == "planner: heuristic (no LLM given)"
    assert not any("quick look" in line for line in whole)
    quick = footer(summarise(runs("lerl", 0.5, seeds=1, sessions=50, notes=("widened 3 plans",)), FACTS))
    assert any("a quick look: the protocol asks for 5 seeds and 1,000 sessions" in line for line in quick)
    assert "with one seed an interval shows how sessions vary, not how trainings do" in quick
    assert quick[-1] == "LERL: widened 3 plans"


def test_it_fits_a_file() -> None:
    meter = {"calls": 360_000, "prompt_tokens": 123_456_789, "completion_tokens": 9e6, "cache_hits": 1, "fallbacks": 12}
    results = [*runs("lerl", 0.5, meter=meter, train_transitions=360_000, train_seconds=5_000.0), *runs("random", 0.4)]
    out = io.StringIO()
    print_table(summarise(results, FACTS, METHODS), out)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 110
    assert "\x1b" not in text
    for part in ("T_int", "slates", "360,000", "123 M", "83 min", "none", "95 %"):
        assert part in text


def test_markdown_keeps_labels_in_their_cells() -> None:
    results = [MethodResult("lerl", "a|b [bold]", r.seed, r.lengths, r.returns) for r in runs("lerl", 0.5)]
    line = next(line for line in to_markdown(summarise(results, FACTS)).splitlines() if "bold" in line)
    assert line.startswith("| a\\|b [bold] | ")
    out = io.StringIO()
    print_table(summarise(results, FACTS), out)
    assert "a|b [bold]" in out.getvalue()
