"""Quit rules against slow definitions read off their sources, and what they mean for the length of a session."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rapport.datasets.schema import SessionData
from rapport.envs.session.engine.quit_rules import (
    QUIT_RULES,
    Never,
    Positional,
    QuitRule,
    Satisfaction,
    SetOverlap,
    Slate,
    WindowedCount,
)
from rapport.envs.session.factory import behaviour_weights, labels_of, quit_rule_of

SHAPE = st.tuples(st.integers(1, 5), st.integers(1, 6))
EARLY = st.sampled_from(["exact", "easyrl4rec"])


def slate(tick: int, categories: np.ndarray, items: Any = None, feedback: Any = None) -> Slate:
    n = len(categories)
    items = categories if items is None else items
    feedback = np.zeros((*categories.shape, 1), np.int8) if feedback is None else feedback
    return Slate(np.arange(n), items, categories, feedback, np.zeros(n), np.full(n, 20.0), tick)


def costs(rule: QuitRule, slates: Any, first_tick: int = 0) -> list[list[float]]:
    """What each of the slates, shape (T, B, K), costs each user of a fresh batch."""
    slates = np.asarray(slates, np.int32)
    memory = rule.initial_memory(np.arange(slates.shape[1]))
    return [rule.cost(memory, slate(first_tick + t, shown)).tolist() for t, shown in enumerate(slates)]


# --- what repeats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Positional, SetOverlap])
@given(data=st.data())
def test_repetition_rules_match_slow_definitions(rule: type[Positional], data: st.DataObject) -> None:
    n, k = data.draw(SHAPE)
    slates = data.draw(hnp.arrays(np.int32, (data.draw(st.integers(1, 4)), n, k), elements=st.integers(0, 4)))
    expected = [[1.0] * n]
    for old, new in zip(slates.tolist(), slates.tolist()[1:], strict=False):
        pairs = zip if rule is Positional else lambda a, b: ((x, y) for x in a for y in b)
        expected.append([1.0 + any(x == y for x, y in pairs(new[i], old[i])) for i in range(n)])
    assert costs(rule(k), slates) == expected


@pytest.mark.parametrize("rule", [Positional, SetOverlap])
def test_a_penalty_is_paid_once_however_much_repeats(rule: type[Positional]) -> None:
    assert costs(rule(6), [[[3] * 6]] * 3) == [[1.0], [2.0], [2.0]]


def test_reordering_escapes_the_positional_rule_only() -> None:
    turned = [[[0, 1, 2]], [[1, 2, 0]]]
    assert costs(Positional(3), turned) == [[1.0], [1.0]]
    assert costs(SetOverlap(3), turned) == [[1.0], [2.0]]


# --- what is too frequent ---------------------------------------------------------------------------------------------


def released_code_leaves(labels: list[list[int]], shown: list[int], window: int, threshold: int, early: str) -> bool:
    """Whether the last of the items shown makes the user leave: EasyRL4Rec's slice and counter, or the slice mended."""
    t = len(shown) - 1
    if t == 0:
        return False
    start = t - window if early == "easyrl4rec" else max(0, t - window)
    counts = Counter(label for item in shown[:t][start:t] for label in labels[item])
    return any(counts[label] > threshold for label in labels[shown[t]])


@settings(max_examples=200)
@given(data=st.data(), window=st.integers(1, 12), threshold=st.integers(0, 3), early=EARLY, tick=st.integers(0, 99))
def test_the_window_is_that_of_the_released_code(
    data: st.DataObject, window: int, threshold: int, early: Any, tick: int
) -> None:
    n_labels = data.draw(st.integers(1, 3))
    labels = data.draw(hnp.arrays(np.int32, (8, n_labels), elements=st.integers(-1, 5)))
    n = data.draw(st.sampled_from([1, 2]))  # one alone is served in another way
    items = data.draw(hnp.arrays(np.int32, (25, n, 1), elements=st.integers(0, 7)))
    told = [[label for label in row if label >= 0] for row in labels.tolist()]
    got = costs(WindowedCount(labels, window, threshold, early), items, tick)
    for user in range(n):
        shown = items[:, user, 0].tolist()
        leaves = [released_code_leaves(told, shown[: t + 1], window, threshold, early) for t in range(25)]
        assert [cost[user] for cost in got] == [np.inf if leave else 0.0 for leave in leaves]


@settings(max_examples=100)
@given(data=st.data(), window=st.integers(1, 9), k=st.integers(1, 6), early=EARLY, n=st.integers(1, 2))
def test_a_slate_is_read_item_by_item(data: st.DataObject, window: int, k: int, early: Any, n: int) -> None:
    labels = np.arange(10, dtype=np.int32)[:, None] % 7
    items = data.draw(hnp.arrays(np.int32, (6, k, n), elements=st.integers(0, 9)))
    one_by_one = costs(WindowedCount(labels, window, 0, early), items.reshape(-1, n, 1))
    in_slates = costs(WindowedCount(labels, window, 0, early), items.transpose(0, 2, 1))
    assert in_slates == np.max(np.reshape(one_by_one, (6, k, n)), axis=1).tolist()


@pytest.mark.parametrize("n", [1, 2])
def test_wide_windows_are_counted_to_the_end(n: int) -> None:
    """200 marks are more than a byte holds."""
    rule = WindowedCount(np.zeros((1, 1), np.int32), 200, 150, "exact")
    assert np.isinf(costs(rule, np.zeros((153, n, 1)))).argmax(axis=0).tolist() == [151] * n


def items_looked_back_on(window: int, early: Any, t: int) -> int:
    """How many of t different items shown the next one is held against."""
    rule = WindowedCount(np.arange(t + 1, dtype=np.int32)[:, None], window, 0, early)
    shown = [[[item]] for item in range(t)]
    return sum(costs(rule, [*shown, [[again]]])[-1] == [np.inf] for again in range(t))


def test_window_sizes_are_those_of_a_slice_with_a_negative_start() -> None:
    assert [items_looked_back_on(9, "easyrl4rec", t) for t in range(12)] == [0, 1, 2, 3, 4, 4, 3, 2, 1, 9, 9, 9]
    assert [items_looked_back_on(9, "exact", t) for t in range(12)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]


@pytest.mark.parametrize("window", [1, 2])
def test_the_fault_shows_from_windows_of_three_on(window: int) -> None:
    for t in range(6):
        sizes = {items_looked_back_on(window, early, t) for early in ("exact", "easyrl4rec")}
        assert sizes == {min(t, window)}
    assert items_looked_back_on(3, "easyrl4rec", 2) == 1


@pytest.mark.parametrize(
    ("window", "threshold", "early", "published"),
    [(9, 1, "easyrl4rec", 17.12), (9, 1, "exact", 15.64), (10, 0, "easyrl4rec", 5.93), (10, 0, "exact", 5.46)],
)
def test_lengths_are_those_measured_with_the_released_code(
    window: int, threshold: int, early: Any, published: float
) -> None:
    """A random policy's mean session, measured to +- 0.12 with EasyRL4Rec itself on made-up items.

    How many labels those items had was not noted down; with 15, one to an item, all four figures come out.
    """
    n, rng = 2_000, np.random.default_rng(0)
    rule = WindowedCount(np.arange(15, dtype=np.int32)[:, None], window, threshold, early)
    left = np.isinf(costs(rule, rng.integers(15, size=(150, n, 1))))
    assert left.any(axis=0).all()
    lengths = left.argmax(axis=0) + 1
    assert abs(lengths.mean() - published) < 4 * np.hypot(lengths.std() / np.sqrt(n), 0.12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, r"^window=0; it must be at least 1$"),
        ({"threshold": -1}, r"^threshold=-1; it must be at least 0$"),
        ({"early": "clipped"}, r"^early='clipped' is unknown; choose one of exact, easyrl4rec$"),
    ],
)
def test_a_bad_window_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowedCount(np.zeros((3, 1), np.int32), **{"window": 9, "threshold": 1, **arguments})


# --- what is liked ----------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_satisfaction_is_kuaisims_leave_signal(data: st.DataObject) -> None:
    """``temper += clip(mean over the slate of the weighted behaviours - 2, -2, 0)``."""
    n, k = data.draw(SHAPE)
    n_behaviours = data.draw(st.integers(1, 4))
    weights = data.draw(hnp.arrays(np.float64, n_behaviours, elements=st.floats(-3, 3)))
    feedback = data.draw(hnp.arrays(np.int8, (n, k, n_behaviours), elements=st.integers(0, 1)))
    rule = Satisfaction(weights)
    got = rule.cost(rule.initial_memory(np.arange(n)), slate(0, np.zeros((n, k), np.int32), feedback=feedback))
    for user in range(n):
        liked = [sum(w * mark for w, mark in zip(weights, marks, strict=True)) for marks in feedback[user].tolist()]
        assert got[user] == pytest.approx(-min(max(sum(liked) / k - 2, -2), 0))


def test_what_behaviours_are_worth(small_data: SessionData) -> None:
    log = small_data.log
    assert behaviour_weights(small_data, "first").tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert behaviour_weights(small_data, range(7)).tolist() == list(range(7))
    ratio = behaviour_weights(small_data, "ratio")
    for place, name in enumerate(log.behaviours):
        counts = Counter(log.feedback[:, place].tolist())
        assert ratio[place] == pytest.approx((-1 if name == "hate" else 1) * counts[1] / max(counts[0], 1))
    for bad in ("best", (1.0, 2.0)):
        with pytest.raises(ValueError, match=r"^weights=.*; give 'first', 'ratio' or 7 numbers, for click, long_view,"):
            behaviour_weights(small_data, bad)  # type: ignore[arg-type]


# --- by name ----------------------------------------------------------------------------------------------------------


def by_name(rule: Any, data: SessionData, **arguments: Any) -> QuitRule:
    given = {"window": 3, "threshold": 0, "early_window": "exact", "weights": "first", **arguments}
    return quit_rule_of(rule, data, 6, **given)


def test_rules_have_the_names_they_are_asked_by(small_data: SessionData) -> None:
    assert [by_name(name, small_data).name for name in QUIT_RULES] == list(QUIT_RULES)
    own = Never()
    assert by_name(own, small_data) is own
    with pytest.raises(ValueError, match=r"^quit_rule='bored' is unknown; choose one of positional, set_overlap, win"):
        by_name("bored", small_data)


def test_never_costs_nothing() -> None:
    assert costs(Never(), np.zeros((3, 2, 6))) == [[0.0, 0.0]] * 3


def test_items_are_counted_by_category_and_second_tag(small_data: SessionData) -> None:
    catalog = small_data.catalog
    labels = labels_of(small_data)
    column = catalog.features.names.index("second_tag")
    assert labels[:, 0].tolist() == catalog.category.tolist() and labels.dtype == np.int32
    assert (labels[:, 1] == -1).any() and (labels[:, 1] >= 0).any()
    for item in range(catalog.n_items):
        code = int(catalog.features.codes[item, column])
        none = catalog.features.values[column][code] in ("none", "")
        assert labels[item, 1] == (-1 if none else code + catalog.n_categories)
    other = tuple("tag" if name == "second_tag" else name for name in catalog.features.names)
    bare = replace(small_data, catalog=replace(catalog, features=replace(catalog.features, names=other)))
    assert labels_of(bare).tolist() == catalog.category[:, None].tolist()
