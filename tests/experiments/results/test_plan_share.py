"""The share of plans that a language model made: of each seed, in training and in evaluation, and in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.experiments.results.plan_share import PlanShare, plan_share, training_share
from rapport.experiments.results.store import Result


def result(training: tuple[int, int] = (0, 0), evaluation: tuple[int, int] = (0, 0), seed: int = 0) -> Result:
    """Plans wanted and made by the fallback, in training and in evaluation."""
    both = {"decisions": training[0] + evaluation[0], "fallbacks": training[1] + evaluation[1]}
    meter = {**both, "evaluation_decisions": evaluation[0], "evaluation_fallbacks": evaluation[1]}
    return Result("lerl", "LERL", seed, {"length": np.ones(2), "return": np.ones(2)}, meter=meter)


@pytest.mark.parametrize(
    ("results", "by_model", "answered", "fallback"),
    [
        ([result((100, 0), (58, 0))], True, "answered 100 % of 158", ""),
        ([result((0, 0), (158, 45))], False, "answered 71 % of 158", "the fallback planned 29 %"),
        ([result((1_000, 0), (20, 20))], False, "answered 0 to 100 % of 1,020", "the fallback planned 0 to 100 %"),
        (
            [result((0, 0), (100, 4)), result((0, 0), (100, 4))],
            True,
            "answered 96 % of 200",
            "the fallback planned 4 %",
        ),
        ([result((0, 0), (100, 0)), result((0, 0), (100, 11))], False, "answered 89 to 100 % of 200", None),
        ([result((0, 0), (1_000, 4))], True, "answered 99 % of 1,000", ""),
        ([result((0, 0), (10, 1))], True, "answered 90 % of 10", "the fallback planned 10 %"),
        ([result((0, 0), (1_000, 101))], False, "answered 89 % of 1,000", "the fallback planned 11 %"),
    ],
)
def test_the_worst_seed_and_phase_decide(
    results: list[Result], by_model: bool, answered: str, fallback: str | None
) -> None:
    share = plan_share(results)
    assert share is not None
    assert (share.by_model, share.answered) == (by_model, answered)
    assert fallback is None or share.fallback == fallback


def test_nothing_is_said_where_no_model_was_wanted() -> None:
    assert (
        plan_share([]) is None and plan_share([result()]) is None and training_share([result((0, 0), (9, 9))]) is None
    )


def test_a_row_that_plays_anothers_policy_has_that_ones_training() -> None:
    trained, own = [result((100, 80), (50, 0))], [result((0, 0), (50, 0))]
    assert plan_share(own, trained) == PlanShare(150, pytest.approx(0.2), 1.0)
    assert training_share(trained) == PlanShare(100, pytest.approx(0.2), pytest.approx(0.2))


def test_a_meter_of_an_earlier_version_is_one_whole() -> None:
    old = Result(
        "lerl", "LERL", 0, {"length": np.ones(1), "return": np.ones(1)}, meter={"decisions": 8, "fallbacks": 2}
    )
    assert plan_share([old]) == PlanShare(8, 0.75, 0.75) == training_share([old])


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_what_is_said_never_flatters(wanted: int, share: float) -> None:
    fallbacks = round(wanted * (1 - share))
    found = plan_share([result((0, 0), (wanted, fallbacks))])
    assert found is not None
    said = int(found.answered.split()[1])
    assert said * wanted <= 100 * (wanted - fallbacks) + 1e-6 * wanted
    assert found.by_model == (10 * fallbacks <= wanted)
