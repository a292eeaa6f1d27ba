"""Figures: every point where it belongs, labels whole and escaped."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.experiments.report import figures
from rapport.experiments.report.figures import Curve, broken, forest, label_rows, lay_out, learning_curves
from rapport.experiments.results.stats import Estimate

go = pytest.importorskip("plotly.graph_objects")
LONG = "a planner whose plans last until a session goes otherwise than expected <b>and</b> no longer"


def test_a_forest_has_every_point_and_every_label() -> None:
    rows = [("PPO", Estimate(2.0, 1.5, 2.8, 5)), (LONG, Estimate(3.0, 2.9, 3.2, 5))]
    figure = forest(rows, "return [clicks]")
    assert [tuple(trace.x) for trace in figure.data] == [(2.0,), (3.0,)]
    for trace, (_, value) in zip(figure.data, rows, strict=True):
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(value.high)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(value.low)
    title, *shown = [note.text for note in figure.layout.annotations]
    assert title == "return [clicks]"
    assert shown[0] == "PPO"
    assert shown[1].replace("<br>", " ") == LONG.replace("<b>", "&lt;b&gt;").replace("</b>", "&lt;/b&gt;")
    bottom, top = figure.layout.yaxis.range
    assert bottom > 1 and top < 0  # the first row on top, and both inside


def test_rows_are_as_high_as_their_longest_label() -> None:
    short, long = (label_rows(go.Figure(), ["one", label], "title") for label in ("two", LONG))
    assert long.layout.height > short.layout.height
    assert all(note.y < place for place, note in enumerate(long.layout.annotations[1:]))


@pytest.mark.parametrize("text", ["short", LONG, "x" * 200])
def test_lines_fit_a_phone_and_lose_nothing(text: str) -> None:
    import html

    lines = [html.unescape(line) for line in broken(text).split("<br>")]
    assert max(map(len, lines)) <= 42
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_long_title_makes_room_for_itself() -> None:
    short, long, noted = (lay_out(go.Figure(), *given) for given in (("one", 200), (LONG, 200), ("one", 200, LONG)))
    assert short.layout.height == 200
    assert {figure.layout.height - figure.layout.margin.t for figure in (short, long, noted)} == {162}
    lines = [figure.layout.annotations[0].text.count("<br>") + 1 for figure in (short, long, noted)]
    assert lines == [1, 3, 3]
    assert [figure.layout.margin.t - 20 for figure in (short, long, noted)] == [18 * n for n in lines]


def test_curves_of_different_grids_are_averaged_where_both_are() -> None:
    curves = [
        Curve("a", 0, np.array([0, 10, 20]), np.array([0.0, 10.0, 20.0])),
        Curve("a", 1, np.array([5, 15, 30]), np.array([7.0, 17.0, 32.0])),
    ]
    grid, mean, error = figures._band(curves)
    np.testing.assert_array_equal(grid, [5, 10, 15, 20])
    np.testing.assert_allclose(mean, grid + 1)
    np.testing.assert_allclose(error, 1)


def test_each_method_has_a_line_per_seed_a_band_and_its_mean() -> None:
    x = np.arange(4)
    curves = [Curve("a", seed, x, x + float(seed)) for seed in range(3)] + [Curve("b", 0, x, x * 2.0)]
    figure = learning_curves(curves, "return", "transitions")
    assert len(figure.data) == (3 + 2 + 1) + (0 + 2 + 1)
    named = {trace.name: trace for trace in figure.data if trace.showlegend}
    np.testing.assert_allclose(named["a"].y, x + 1)
    np.testing.assert_allclose(named["b"].y, 2 * x)
    assert figure.layout.xaxis.title.text == "transitions"


def test_a_curve_of_one_point_is_seen() -> None:
    one = [Curve("a", 0, np.array([5]), np.array([1.0]))]
    apart = [*one, Curve("a", 1, np.array([9]), np.array([3.0]))]
    for curves, x in ((one, [5]), (apart, [5, 9])):
        (mean,) = [trace for trace in learning_curves(curves, "return", "slates").data if trace.showlegend]
        assert list(mean.x) == x
        assert mean.mode == ("markers" if len(x) == 1 else "lines")
    points = [trace for trace in learning_curves(apart, "return", "slates").data if trace.mode == "markers"]
    assert [tuple(trace.x) for trace in points] == [(5,), (9,)]


@pytest.mark.parametrize(("x", "y"), [(3, 2), (0, 0)])
def test_a_curve_needs_one_number_per_point(x: int, y: int) -> None:
    with pytest.raises(ValueError, match="need one number per point"):
        Curve("a", 0, np.arange(x), np.zeros(y))
