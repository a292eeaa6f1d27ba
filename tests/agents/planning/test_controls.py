from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.planning.build import CONSTANT, RANDOM_HELD, control_planner
from rapport.agents.planning.controls import (
    ConstantPlanner,
    GreedyPreferencePlanner,
    GreedyRotationPlanner,
    NoPlanner,
    RandomPlanner,
    RotationPlanner,
)
from rapport.agents.planning.planner import Planner, SessionViews
from rapport.agents.planning.preference import category_counts, recent_categories, smoothed_click_rate
from rapport.datasets.schema import SessionData

Case = tuple[SessionViews, np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_users, horizon = draw(st.integers(0, 6)), draw(st.integers(0, 24))
    n_categories, slate_size = draw(st.integers(1, 10)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    views = SessionViews(
        user=np.arange(n_users),
        step=rng.integers(0, 8, n_users),
        categories=rng.integers(-1, n_categories, (n_users, horizon)),
        clicks=rng.integers(-1, 2, (n_users, horizon)).astype(np.int8),
        slate_size=slate_size,
    )
    sizes = rng.integers(0, 9, n_categories)
    sizes[rng.integers(n_categories)] += 1
    return views, sizes, rng.random(n_categories)


PLANNERS: dict[str, Callable[[np.ndarray, np.ndarray], Planner]] = {
    "none": lambda sizes, prior: NoPlanner(sizes),
    "random": lambda sizes, prior: RandomPlanner(sizes, np.random.default_rng(0)),
    "random, held": lambda sizes, prior: RandomPlanner(sizes, np.random.default_rng(0), n=8),
    "constant": lambda sizes, prior: ConstantPlanner(sizes, prior, n=3),
    "rotation": lambda sizes, prior: RotationPlanner(sizes, np.random.default_rng(0), n=3),
    "greedy": lambda sizes, prior: GreedyPreferencePlanner(sizes, prior, n=2),
    "greedy rotation": lambda sizes, prior: GreedyRotationPlanner(sizes, prior, n=2),
}


@pytest.mark.parametrize("name", PLANNERS)
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_plan_holds_a_slate(name: str, case: Case) -> None:
    views, sizes, prior = case
    plans = PLANNERS[name](sizes, prior).plan(views)
    assert plans.shape == (len(views), len(sizes)) and plans.dtype == np.bool_
    assert np.all(plans @ sizes >= min(views.slate_size, sizes.sum()))
    if name != "none":
        assert not plans[:, sizes == 0].any()


@pytest.mark.parametrize("name", PLANNERS)
@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_plans_are_reproducible(name: str, case: Case) -> None:
    views, sizes, prior = case
    first, second = (PLANNERS[name](sizes, prior).plan(views) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@settings(max_examples=100, deadline=None)
@given(case=cases(), window=st.integers(1, 3))
def test_greedy_rotation_is_disjoint_from_the_last_slates(case: Case, window: int) -> None:
    views, sizes, prior = case
    plans = GreedyRotationPlanner(sizes, prior, n=2, window=window).plan(views)
    for row in range(len(views)):
        shown = min(int(views.step[row]) * views.slate_size, window * views.slate_size, views.categories.shape[1])
        recent = set(views.categories[row, views.categories.shape[1] - shown :]) - {-1}
        fresh = [c for c in range(len(sizes)) if c not in recent]
        if sizes[fresh].sum() >= views.slate_size:
            assert not recent & set(np.flatnonzero(plans[row]))
        else:  # everything fresh is taken before anything that is not
            assert plans[row][[c for c in fresh if sizes[c] > 0]].all()


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_counts_agree_with_a_loop(case: Case) -> None:
    views, sizes, prior = case
    seen, clicked = category_counts(views.categories, views.clicks, len(sizes))
    expected = np.zeros((2, len(views), len(sizes)), dtype=int)
    for row in range(len(views)):
        for category, click in zip(views.categories[row], views.clicks[row], strict=True):
            if category >= 0 and click >= 0:
                expected[0, row, category] += 1
                expected[1, row, category] += click
    np.testing.assert_array_equal([seen, clicked], expected)
    rates = smoothed_click_rate(views, prior, 5.0)
    np.testing.assert_allclose(rates, (expected[1] + 5 * prior) / (expected[0] + 5))


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_greedy_preference_takes_the_best(case: Case) -> None:
    views, sizes, prior = case
    plans = GreedyPreferencePlanner(sizes, prior, n=2).plan(views)
    rates = smoothed_click_rate(views, prior, 10.0)
    for plan, rate in zip(plans, rates, strict=True):
        left = ~plan & (sizes > 0)
        assert not left.any() or rate[plan].min() >= rate[left].max()


def test_rotation_takes_disjoint_blocks_in_turn() -> None:
    sizes = np.full(12, 10)
    planner = RotationPlanner(sizes, np.random.default_rng(1), n=4)
    steps = np.arange(6)
    nothing = np.full((6, 0), -1)
    plans = planner.plan(SessionViews(steps, steps, nothing, nothing.astype(np.int8), 6))
    np.testing.assert_array_equal(plans.sum(1), [4] * 6)
    np.testing.assert_array_equal(plans[:3].sum(0), np.ones(12))
    np.testing.assert_array_equal(plans[:3], plans[3:])


def test_random_plans_are_uniform() -> None:
    views = SessionViews(np.arange(4000), np.zeros(4000, int), np.full((4000, 6), -1), np.full((4000, 6), -1, "i1"), 6)
    plans = RandomPlanner(np.full(12, 10), np.random.default_rng(0)).plan(views)
    np.testing.assert_array_equal(plans.sum(1), np.full(4000, 4))
    np.testing.assert_allclose(plans.mean(0), 1 / 3, atol=0.03)


def test_at_the_start_of_a_session_nothing_is_recent() -> None:
    views = SessionViews(np.array([0]), np.array([0]), np.array([[1, 2]]), np.array([[1, 1]], "i1"), 2)
    assert not recent_categories(views, 4, 1).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoPlanner([[1, 2]]), "one count per category"),
        (lambda: NoPlanner([0, 0]), "not all 0"),
        (lambda: NoPlanner([1, -1]), "0 or more"),
        (lambda: NoPlanner([0.5, 1.0]), "whole numbers"),
        (lambda: GreedyPreferencePlanner([1, 2], [0.5]), "each of 2 categories"),
        (lambda: GreedyPreferencePlanner([1, 2], [0.5, np.nan]), "got nan for category 1"),
        (lambda: GreedyRotationPlanner([1, 2], [0.5, 0.5], window=0), "window must be at least 1"),
        (lambda: GreedyRotationPlanner([1, 2], [0.5, 0.5], strength=0), "strength"),
        (lambda: RandomPlanner([1, 2], np.random.default_rng(0), n=0), "at least 1; got 0"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Planner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_category_the_planner_does_not_know_is_an_error() -> None:
    views = SessionViews(np.array([0]), np.array([1]), np.array([[7]]), np.array([[1]], "i1"), 1)
    with pytest.raises(ValueError, match="category 7, but the planner was made for 2"):
        GreedyRotationPlanner([1, 1], [0.5, 0.5]).plan(views)


def test_the_constant_plan_is_the_most_clicked_categories_whoever_asks(small_data: SessionData) -> None:
    """Counted here item by item over training users' training days."""
    seen: dict[int, list[int]] = {category: [] for category in range(small_data.catalog.n_categories)}
    log = small_data.log
    for user, item, time, click in zip(log.user, log.item, log.time_ms, log.feedback[:, 0], strict=True):
        if click >= 0 and time < small_data.valid_from_ms and not small_data.held_out[user]:
            seen[int(small_data.catalog.category[item])].append(int(click))
    overall = np.mean([click for clicks in seen.values() for click in clicks])
    rate = {category: (sum(clicks) + 10 * overall) / (len(clicks) + 10) for category, clicks in seen.items()}
    wanted = sorted(rate, key=lambda category: (-rate[category], category))[:8]
    planner = control_planner(CONSTANT, small_data, np.random.default_rng(0))
    for seed in range(2):
        plans = planner.plan(some_views(small_data, 5, seed))
        assert plans.shape == (5, small_data.catalog.n_categories)
        assert {tuple(np.flatnonzero(plan)) for plan in plans} == {tuple(sorted(wanted))}


def test_the_random_plan_that_is_held_has_eight_categories_of_each_sessions_own(small_data: SessionData) -> None:
    planner = control_planner(RANDOM_HELD, small_data, np.random.default_rng(0))
    plans = planner.plan(some_views(small_data, 400, 0))
    assert (plans.sum(axis=1) >= 8).all() and (plans.sum(axis=1) == 8).mean() > 0.9
    assert len({tuple(plan) for plan in plans}) > 300
    chance = plans.mean(axis=0)  # no category is preferred: within four standard deviations of 8 in C
    expected = 8 / small_data.catalog.n_categories
    assert (np.abs(chance - expected) < 4 * np.sqrt(expected * (1 - expected) / 400) + 0.02).all()


def some_views(data: SessionData, n: int, seed: int) -> SessionViews:
    rng = np.random.default_rng(seed)
    shape = (n, 12)
    return SessionViews(
        user=rng.integers(0, data.population.n_users, n),
        step=rng.integers(0, 3, n),
        categories=rng.integers(0, data.catalog.n_categories, shape),
        clicks=rng.integers(0, 2, shape).astype(np.int8),
        slate_size=6,
    )


@pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0, 2.0, 3.0]], [1.0, np.nan, 2.0]])
def test_a_constant_plan_needs_a_score_for_each_category(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores must hold a finite number for each of 3 categories"):
        ConstantPlanner(np.array([3, 4, 5]), scores)
