"""The summary of a table: every cell, honest verdicts, and what they rest on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rapport.experiments.results.metrics import Metric
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Summary, compare, estimated, footer, summarise, verdict

T_INT = Metric("T_int", "slates", 2, numerator="length")
R_CUM = Metric("R_cum", "summed click rate", 2, numerator="return")
R_SIN = Metric("R_sin", "click rate", 3, numerator="return", denominator="length")
FACTS = ("data: kuairand-pure, 2,471 held-out users; profile: corrected", "planner: none given")
LABELS = {"lerl": "LERL", "random": "random", "oracle": "oracle (reads the simulator's weights)"}


def runs(row: str, rate: float, *, seeds: int = 5, episodes: int = 1_000, **more: object) -> list[Result]:
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, round(rate * 1_000)])
        lengths = rng.integers(11, 21, episodes)
        returns = rng.binomial(lengths * 6, rate) / 6
        ids = np.random.default_rng(seed).integers(0, 99, episodes)
        found.append(Result(row, row.upper(), seed, {"length": lengths, "return": returns}, ids=ids, **more))  # type: ignore[arg-type]
    return found


def table(labels: dict[str, str] | None = None, **found: list[Result]) -> Summary:
    labels = {name: LABELS.get(name, name) for name in found} if labels is None else labels
    return summarise(found, labels, (T_INT, R_CUM, R_SIN), "lerl", main=R_CUM, facts=FACTS)


def test_cells_are_the_metrics() -> None:
    results = runs("lerl", 0.5, steps=1_000, train_seconds=30.0, eval_seconds=3.0)
    row = table(lerl=results).rows[0]
    lengths, returns = ([r.arrays[name] for r in results] for name in ("length", "return"))
    means = {
        "T_int": [values.mean() for values in lengths],
        "R_cum": [values.mean() for values in returns],
        "R_sin": [top.sum() / below.sum() for top, below in zip(returns, lengths, strict=True)],
    }
    assert set(row.estimates) == set(means)
    for name, values in means.items():  # the interquartile mean of five seeds is that of the middle three
        assert row.estimates[name].low < row.estimates[name].point == pytest.approx(np.mean(sorted(values)[1:4]))
    assert (row.name, row.label) == ("lerl", "LERL")
    assert (row.steps, row.seconds, row.episodes, row.seeds) == (1_000, 33.0, 1_000, (0, 1, 2, 3, 4))
    assert row.served == pytest.approx(1_000 + np.mean([values.sum() for values in lengths]))


def test_a_row_does_not_depend_on_the_others() -> None:
    alone = table(lerl=runs("lerl", 0.5)).row("lerl")
    beside = table(random=runs("random", 0.3), lerl=runs("lerl", 0.5)).row("lerl")
    assert alone is not None and alone == beside


def test_rows_stand_in_the_order_of_their_labels_and_what_was_not_run_is_empty() -> None:
    summary = table(LABELS, lerl=runs("lerl", 0.5, seeds=2, episodes=50))
    assert [row.name for row in summary.rows] == ["lerl", "random", "oracle"]
    assert [bool(row.seeds) for row in summary.rows] == [True, False, False]
    assert summary.row("random") == replace(summary.rows[1]) and summary.rows[1].estimates == {}
    assert summary.row("nobody") is None
    nothing = table(LABELS)
    assert nothing.differences == ()
    assert verdict(nothing) == ["lerl: not run, so nothing is compared with it."]
    assert estimated([], R_CUM) is None


def test_a_control_that_wins_is_named_first() -> None:
    lines = verdict(table(lerl=runs("lerl", 0.5), random=runs("random", 0.4), oracle=runs("oracle", 0.6)))
    assert lines[0] == "LERL: in R_cum above 1 of 2 other methods, below 1, level with 0."
    assert lines[1].startswith("oracle (reads the simulator's weights) beats LERL by ")
    assert lines[2].startswith("LERL is above random by ")


def test_equal_rows_are_not_told_apart() -> None:
    same = [
        Result("twin", "twin", r.seed, {"length": r.arrays["length"], "return": r.arrays["return"][::-1]})
        for r in runs("lerl", 0.5)
    ]
    lines = verdict(table(lerl=runs("lerl", 0.5), twin=same))
    assert lines[0] == "LERL: in R_cum above 0 of 1 other methods, below 0, level with 1."
    assert lines[1].startswith("LERL and twin cannot be told apart: they differ by ")


def test_a_clear_win_over_all() -> None:
    summary = table(lerl=runs("lerl", 0.6), random=runs("random", 0.4))
    lines = verdict(summary)
    assert lines[0] == "LERL is above the one other method in R_cum."
    d = summary.differences[0].value
    assert lines[1] == f"LERL is above random by {d.point:.2f} [{d.low:.2f}, {d.high:.2f}] in R_cum."


def test_where_less_is_better_the_one_with_less_is_above() -> None:
    regret = replace(R_CUM, name="regret", higher_is_better=False)
    found = {"lerl": runs("lerl", 0.4), "random": runs("random", 0.6), "oracle": runs("oracle", 0.2)}
    summary = summarise(found, LABELS, (regret,), "lerl")
    lines = verdict(summary)
    assert lines[0] == "LERL: in regret above 1 of 2 other methods, below 1, level with 0."
    by = {d.label: d.value for d in summary.differences}
    oracle, random = by[LABELS["oracle"]], by["random"]
    assert lines[1] == f"{LABELS['oracle']} beats LERL by " + (
        f"{oracle.point:.2f} [{oracle.low:.2f}, {oracle.high:.2f}] in regret."
    )
    assert lines[2] == f"LERL is above random by {-random.point:.2f} [{-random.high:.2f}, {-random.low:.2f}] in regret."
    assert oracle.low > 0 > random.high


def test_only_common_seeds_are_compared() -> None:
    difference = compare(runs("lerl", 0.5, seeds=5), runs("random", 0.4, seeds=3), R_CUM)
    assert difference is not None and difference.n_seeds == 3
    assert compare(runs("lerl", 0.5), [], R_CUM) is None


def test_episodes_are_paired_only_where_they_are_of_the_same_people() -> None:
    """A constant difference has no spread where every episode is paired with its own."""
    first = runs("lerl", 0.5)
    second = [replace(r, row="less", arrays={**r.arrays, "return": r.arrays["return"] - 1}) for r in first]
    paired = compare(first, second, R_CUM)
    assert paired is not None and (paired.low, paired.high) == pytest.approx((1.0, 1.0))
    for ids in (None, np.arange(1_000)):
        others = [replace(r, ids=ids) for r in second]
        loose = compare(first, others, R_CUM)
        assert loose is not None and loose.low < 1.0 < loose.high


def test_the_footer_says_what_it_rests_on() -> None:
    whole = footer(table(lerl=runs("lerl", 0.5)))
    assert whole[:2] == list(FACTS)
    assert whole[2].startswith("1,000 complete episodes per seed; 5 seed(s); interquartile mean over seeds [95 %")
    assert not any("quick look" in line for line in whole)
    quick = footer(table(lerl=runs("lerl", 0.5, seeds=1, episodes=50, notes=("widened 3 plans",))))
    assert any("a quick look: the protocol asks for 5 seeds and 1,000 episodes" in line for line in quick)
    assert "with one seed an interval shows how episodes vary, not how trainings do" in quick
    assert quick[-1] == "LERL: widened 3 plans"
    mixed = footer(table(lerl=runs("lerl", 0.5), random=runs("random", 0.4, seeds=2, episodes=500)))
    assert mixed[2].startswith("500 to 1,000 complete episodes per seed; 2 to 5 seed(s);")
