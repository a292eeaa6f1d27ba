"""Quit rules against slow definitions, and what they mean for the length of a session."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rapport.envs.session.quit import QUIT_RULES, quit_rule

SHAPE = st.tuples(st.integers(1, 5), st.integers(1, 6))


def slow(name: str, new: list[int], old: list[int]) -> float:
    if name == "never":
        return 0.0
    pairs = zip(new, old, strict=True) if name == "positional" else ((a, b) for a in new for b in old)
    return 2.0 if any(a == b for a, b in pairs) else 1.0


@pytest.mark.parametrize("name", QUIT_RULES)
@given(data=st.data())
def test_rules_match_slow_definitions(name: str, data: st.DataObject) -> None:
    shape = data.draw(SHAPE)
    new = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 4)))
    old = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(-1, 4)))
    cost = quit_rule(name)(new, old)
    assert cost.shape == (shape[0],) and cost.dtype == np.float64
    assert cost.tolist() == [slow(name, a, b) for a, b in zip(new.tolist(), old.tolist(), strict=True)]


@pytest.mark.parametrize("name", ["positional", "set_overlap"])
def test_nothing_comes_before_the_first_slate(name: str) -> None:
    new = np.array([[0, 0, 0], [2, 1, 0]], np.int32)
    assert quit_rule(name)(new, np.full((2, 3), -1, np.int32)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["positional", "set_overlap"])
def test_a_penalty_is_paid_once_however_much_repeats(name: str) -> None:
    slate = np.array([[3, 3, 3, 3, 3, 3]], np.int32)
    assert quit_rule(name)(slate, slate).tolist() == [2.0]


def test_reordering_escapes_the_positional_rule_only() -> None:
    slate, turned = np.array([[0, 1, 2]], np.int32), np.array([[1, 2, 0]], np.int32)
    assert quit_rule("positional")(turned, slate).tolist() == [1.0]
    assert quit_rule("set_overlap")(turned, slate).tolist() == [2.0]


def test_an_unknown_rule_is_named_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"^quit_rule='bored' is unknown; choose one of positional, set_overlap, never$"
    ):
        quit_rule("bored")
