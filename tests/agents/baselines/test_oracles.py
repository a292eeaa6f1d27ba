"""Controls and oracles that serve slates, against plain loops over users and items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rapport.agents.baselines.controls import PlannedSlates, PopularSlates, UnshownItems
from rapport.agents.baselines.oracles import LookAhead, OracleGreedy
from rapport.agents.planning.planner import BoolArray, SessionViews
from rapport.datasets.schema import SessionData
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

N = 4


class OddOrEven:
    """Plans the odd categories and the even ones in turn; users of odd index begin with the odd ones."""

    name = "odd or even"

    def plan(self, views: SessionViews) -> BoolArray:
        return (np.arange(37) + views.user[:, None] + views.step[:, None]) % 2 == 0


@pytest.fixture
def core(small_data: SessionData, matrix_response: MatrixResponse) -> SessionCore:
    return kuairand_core(N, data=small_data, response=matrix_response, budget=9)


def played(
    core: SessionCore, act: Any, steps: int, check: Callable[[dict[str, Any], Any, list[set[int]]], None]
) -> None:
    """Play slates; ``check`` sees observations, the slates and what each session has shown before."""
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    observations, _ = env.reset(seed=0)
    shown: list[set[int]] = [set() for _ in range(N)]
    for _ in range(steps):
        slates = act(observations)
        check(observations, slates, shown)
        observations, _, terminated, truncated, _ = env.step(slates)
        for row in range(N):
            shown[row] = set() if terminated[row] or truncated[row] else shown[row] | set(slates[row].tolist())


def test_planned_slates_are_the_most_popular_unshown_items_of_the_plan(
    core: SessionCore, small_data: SessionData
) -> None:
    order, category = PopularSlates(small_data, 6).order.tolist(), small_data.catalog.category

    def check(observations: dict[str, Any], slates: Any, shown: list[set[int]]) -> None:
        for row in range(N):
            parity = int(core.user[row] + observations["step"][row, 0]) % 2
            wanted = [item for item in order if category[item] % 2 == parity and item not in shown[row]]
            assert slates[row].tolist() == wanted[:6]

    played(core, PlannedSlates(core, OddOrEven()), 20, check)


def test_a_plan_without_enough_items_gives_way_to_the_most_popular(core: SessionCore, small_data: SessionData) -> None:
    class Nothing(OddOrEven):
        def plan(self, views: SessionViews) -> BoolArray:
            return np.zeros((len(views), 37), bool)

    def check(observations: dict[str, Any], slates: Any, shown: list[set[int]]) -> None:
        assert np.array_equal(slates, popular(observations))

    popular = PopularSlates(small_data, 6)
    played(core, PlannedSlates(core, Nothing()), 12, check)


def test_the_greedy_oracle_takes_the_likeliest_unshown_items(
    core: SessionCore, matrix_response: MatrixResponse
) -> None:
    def check(observations: dict[str, Any], slates: Any, shown: list[set[int]]) -> None:
        everything = np.tile(np.arange(150, dtype=np.int32), (N, 1))
        chances = matrix_response.probabilities(core.state, core.user, everything)[:, :, 0]
        for row, chance in enumerate(chances):
            free = [item for item in np.argsort(-chance).tolist() if item not in shown[row]]
            assert set(slates[row].tolist()) == set(free[:6])

    played(core, OracleGreedy(core), 20, check)


@pytest.mark.parametrize("repeats", [False, True])
def test_look_ahead_repeats_items_only_where_it_may(core: SessionCore, repeats: bool) -> None:
    again = []

    def check(observations: dict[str, Any], slates: Any, shown: list[set[int]]) -> None:
        again.extend(bool(set(slates[row].tolist()) & shown[row]) for row in range(N))

    played(core, LookAhead(core, repeats), 16, check)
    assert any(again) == repeats


def test_items_count_as_shown_until_the_session_ends(core: SessionCore) -> None:
    unshown, rng, before = UnshownItems(core), np.random.default_rng(0), []

    def act(_: dict[str, Any]) -> Any:
        before[:] = [set(np.flatnonzero(row).tolist()) for row in unshown.shown()]
        return unshown.mark(rng.integers(150, size=(N, 6)))

    def check(observations: dict[str, Any], slates: Any, shown: list[set[int]]) -> None:
        assert before == shown

    played(core, act, 20, check)
