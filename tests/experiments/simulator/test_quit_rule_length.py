"""Session lengths at a given rate of repetition: played, computed, and enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.experiments import cli
from rapport.experiments.commands.quit_rule import REFERENCE, QuitRuleCommand, rate_of
from rapport.experiments.simulator.quit_rule_length import Lengths, expected_length, play, random_plans, scripted

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def data() -> SessionData:
    return twin(n_users=50, n_items=300, seed=0)


@pytest.mark.parametrize("budget", [1, 2, 3, 8])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.52, 1.0])
def test_the_exact_length_by_enumeration(rate: float, budget: int) -> None:
    """Every way in which slates may repeat, weighed by its chance: T = smallest n with n + violations >= budget."""
    total = 0.0
    for repeats in itertools.product((0, 1), repeat=budget):
        chance = np.prod([rate if r else 1 - rate for r in repeats[1:]]) if repeats[0] == 0 else 0.0
        length = next(n for n in range(1, budget + 1) if n + sum(repeats[:n]) >= budget)
        total += chance * length
    assert expected_length(rate, budget) == pytest.approx(total)


@pytest.mark.parametrize("rate", REFERENCE)
def test_the_table_of_the_released_rule(rate: float) -> None:
    """To the digit it was given with; and a length leads back to its rate."""
    assert abs(expected_length(rate) - REFERENCE[rate]) <= 0.05
    assert rate_of(expected_length(rate)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("rule", ["positional", "set_overlap"])
@pytest.mark.parametrize("rate", [0.0, 0.17, 0.52, 1.0])
def test_what_is_played_is_what_is_computed(data: SessionData, rate: float, rule: str) -> None:
    script = scripted(np.random.default_rng(7), data.catalog.n_categories, rate)
    found = play(data, script, 1_500, 3, rule=rule)  # type: ignore[arg-type]
    assert len(found.lengths) == 1_500 and 11 <= found.lengths.min() <= found.lengths.max() <= 20
    assert abs(found.mean - expected_length(rate)) <= 2 * found.margin + 1e-9  # 3.9 standard errors
    assert abs(found.rate - rate) < 0.015
    over = found.lengths + found.repeats  # 20, or 21 where the last slate cost 2 and 1 was left
    assert np.isin(over, (20, 21)).all()


def test_random_plans(data: SessionData) -> None:
    """Two independent plans of 4 of 12 share a category place by place less often than free choice among 12 does."""
    plain = play(data, random_plans(np.random.default_rng(1)), 1_500, 0)
    free = play(data, random_plans(np.random.default_rng(1), leak=8 / 12), 1_500, 0)
    assert abs(free.rate - (1 - (11 / 12) ** 6)) < 0.015
    assert 0.3 < plain.rate < free.rate
    for found in (plain, free):
        assert abs(found.mean - expected_length(found.rate)) < 0.1


def test_short_sessions_are_not_preferred(data: SessionData) -> None:
    """As many sessions of every slot, whichever end first; the numbers are the first sessions' however many follow."""
    few, many = (
        play(data, scripted(np.random.default_rng(0), data.catalog.n_categories, 0.5), n, 0, n_envs=20)
        for n in (20, 60)
    )
    np.testing.assert_array_equal(few.lengths, many.lengths.reshape(20, 3)[:, 0])


def test_intervals() -> None:
    found = Lengths(np.array([11, 13, 15]), np.array([9, 7, 5]))
    assert (found.mean, found.rate) == (13.0, 21 / 36)
    assert found.margin == pytest.approx(1.96 * 2 / np.sqrt(3))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.parse(["simulator", "quit-rule", "--sessions", "60", "--rates", "0", "1"])
    assert isinstance(command, QuitRuleCommand) and command.run() == 0
    printed = capsys.readouterr().out
    assert "20.00 ± 0.00" in printed and "11.00 ± 0.00" in printed and "random plans, 4 of 12" in printed
    assert cli.main(["simulator", "quit-rule", "--rates", "1.5"]) == 2
    assert "rates: 1.5 is no share; give numbers from 0 to 1" in capsys.readouterr().err
    assert cli.main(["simulator", "quit-rule", "--sessions", "1"]) == 2
