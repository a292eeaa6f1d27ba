"""User satiation: against item-by-item definitions, and what it does to sessions."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import rapport  # noqa: F401 - registers the ids
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.session.engine.quit_rules import Slate
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand_satiation import satiation_core
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationQuit, SatiationState, sensitivity
from rapport.envs.session.satiation.parameters import (
    FIGURES_FILE,
    SatiationParameters,
    parameters_from,
    shipped,
)

ID = "rapport/KuaiRandSatiation-v0"
PARAMETERS = SatiationParameters(10.0, 60.0, ("click", "long_view"), (2.0, 1.0), (0.5, 0.25), 0.6)


@pytest.fixture(scope="module")
def satiation(small_data: SessionData) -> SatiationState:
    return SatiationState(small_data, PARAMETERS)


@pytest.fixture(scope="module")
def satiated(matrix_response: MatrixResponse, satiation: SatiationState) -> SatiatedResponse:
    return SatiatedResponse(matrix_response, satiation)


def slate(users: np.ndarray, items: np.ndarray, categories: np.ndarray) -> Slate:
    n = len(users)
    feedback = np.zeros((*items.shape, 7), np.int8)
    return Slate(users, items, categories, feedback, np.zeros(n), np.full(n, 20.0), 0)


@settings(max_examples=30, deadline=None)
@given(shown=hnp.arrays(np.int32, (3, 7), elements=st.integers(0, 4)))
def test_loads_are_what_fading_item_by_item_gives(satiation: SatiationState, shown: np.ndarray) -> None:
    expected = np.zeros((3, satiation.n_categories))
    for place in range(7):
        expected *= math.exp(-0.1)
        expected[np.arange(3), shown[:, place]] += 1 - math.exp(-0.1)
    loads = satiation.after(satiation.after(satiation.initial(3), shown[:, :4]), shown[:, 4:])
    np.testing.assert_allclose(loads, expected, atol=1e-6)
    assert (loads >= 0).all() and (loads.sum(axis=1) < 1).all()


def test_satiation_decays_while_others_are_shown(satiation: SatiationState) -> None:
    one, other = np.zeros((1, 6), np.int32), np.ones((1, 6), np.int32)
    sated = satiation.after(satiation.initial(1), one)
    recovering = satiation.after(sated, other)
    assert 0 < recovering[0, 0] < sated[0, 0]
    for _ in range(60):
        recovering = satiation.after(recovering, other)
    assert recovering[0, 0] < 1e-6 and recovering[0, 1] > 0.99


def test_sensitivity_is_a_trait_of_the_user() -> None:
    users = np.arange(40_000)
    drawn = sensitivity(users, 0.6)
    assert (
        drawn.min() > 0 and drawn.mean() == pytest.approx(1.0, abs=0.02) and drawn.std() == pytest.approx(0.6, abs=0.03)
    )
    np.testing.assert_array_equal(sensitivity(users[[7, 3, 7]], 0.6), drawn[[7, 3, 7]])
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02
    np.testing.assert_array_equal(sensitivity(users[:3], 0.0), 1.0)


def test_without_load_users_respond_as_inside(
    satiated: SatiatedResponse, matrix_response: MatrixResponse, small_data: SessionData
) -> None:
    users, items = np.array([3, 9]), np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    state = satiated.initial_state(users)
    assert state.shape == (2, small_data.catalog.n_categories)
    inner = matrix_response.probabilities(matrix_response.initial_state(users), users, items)
    np.testing.assert_allclose(satiated.probabilities(state, users, items), inner, atol=1e-6)
    assert satiated.state_after(users, items, np.zeros((2, 3, 7), np.int8)).shape == state.shape


def test_the_loss_of_log_odds_is_the_documented_one(
    satiated: SatiatedResponse, matrix_response: MatrixResponse, small_data: SessionData
) -> None:
    users, items = np.array([3, 9]), np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    state = satiated.initial_state(users)
    for _ in range(3):
        state = satiated.advance(state, users, items, np.zeros((2, 3, 7), np.int8))
    inner = matrix_response.probabilities(state[:, :0], users, items).astype(np.float64)
    tired = satiated.probabilities(state, users, items).astype(np.float64)
    loads = state.astype(np.float64)
    for b, (category_loss, overall_loss) in enumerate(((2.0, 0.5), (1.0, 0.25))):
        for row, user in enumerate(users):
            for place in range(3):
                part = loads[row, small_data.catalog.category[items[row, place]]]
                trait = sensitivity(np.array([user]), 0.6)[0]
                loss = trait * (category_loss * part + overall_loss * loads[row].sum())
                p = inner[row, place, b]
                expected = 1 / (1 + math.exp(-(math.log(p / (1 - p)) - loss)))
                assert tired[row, place, b] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(tired[:, :, 2:], inner[:, :, 2:], atol=1e-6)


def test_inner_memory_goes_on_as_without_satiation(sequence_response, satiation: SatiationState) -> None:
    satiated = SatiatedResponse(sequence_response, satiation)
    users, items = np.array([1, 2]), np.array([[5, 6], [7, 8]], np.int32)
    feedback = np.ones((2, 2, 7), np.int8)
    state = satiated.advance(satiated.initial_state(users), users, items, feedback)
    inner = sequence_response.advance(sequence_response.initial_state(users), users, items, feedback)
    np.testing.assert_allclose(satiated.split(state)[0], inner, atol=1e-6)


def test_certain_behaviour_stays_certain(small_data: SessionData, satiation: SatiationState) -> None:
    table = np.zeros((200, small_data.catalog.n_items, 7))
    table[:, ::2] = 1.0
    satiated = SatiatedResponse(MatrixResponse(table, small_data.log.behaviours), satiation)
    users, items = np.array([0]), np.array([[0, 1]], np.int32)
    state = satiated.advance(satiated.initial_state(users), users, items, np.ones((1, 2, 7), np.int8))
    np.testing.assert_array_equal(satiated.probabilities(state, users, items)[0, :, 0], [1.0, 0.0])


def test_a_slate_costs_more_the_more_it_repeats(small_data: SessionData, satiation: SatiationState) -> None:
    rule = SatiationQuit(satiation, tolerance=0.25)
    users = np.array([4, 5])
    items = np.array([[0, 1], [2, 3]], np.int32)
    categories = np.array([[0, 0], [1, 2]], np.int32)
    memory = rule.initial_memory(users)
    np.testing.assert_array_equal(rule.cost(memory, slate(users, items, categories)), [1.0, 1.0])
    before = memory.copy()
    cost = rule.cost(memory, slate(users, items, categories))
    met = np.array([before[0, 0], (before[1, 1] + before[1, 2]) / 2])
    np.testing.assert_allclose(cost, 1 + sensitivity(users, 0.6) * met / 0.25, rtol=1e-6)
    assert met[0] > met[1] > 0
    fresh = rule.cost(memory, slate(users, items, np.array([[3, 3], [4, 4]], np.int32)))
    np.testing.assert_array_equal(fresh, [1.0, 1.0])


def test_infinite_tolerance_never_costs_more_than_one(satiation: SatiationState) -> None:
    rule = SatiationQuit(satiation, tolerance=math.inf)
    users, same = np.array([4]), np.zeros((1, 6), np.int32)
    memory = rule.initial_memory(users)
    assert [float(rule.cost(memory, slate(users, same, same))[0]) for _ in range(5)] == [1.0] * 5


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_a_tolerance_that_is_none_is_refused(satiation: SatiationState, tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"tolerance=.*must be above 0"):
        SatiationQuit(satiation, tolerance)


def test_variety_makes_sessions_longer(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    def lengths(varied: bool) -> np.ndarray:
        core = satiation_core(64, data=small_data, response=matrix_response, users="all", strength="high")
        env = SessionVectorEnv(core, AutoresetMode.NEXT_STEP)
        env.reset(seed=0)
        largest = np.flatnonzero(small_data.catalog.category == np.bincount(small_data.catalog.category).argmax())[:6]
        order = np.argsort(np.random.default_rng(0).random(small_data.catalog.n_items))
        running, steps = np.ones(64, bool), np.zeros(64)
        for step in range(20):
            items = order[np.arange(6 * step, 6 * step + 6) % len(order)] if varied else largest
            _, _, terminated, truncated, _ = env.step(np.tile(items, (64, 1)))
            steps += running
            running &= ~(terminated | truncated)
        return steps

    assert lengths(True).mean() > lengths(False).mean() + 1


def test_shipped_figures_are_ordered_and_hold_no_rows() -> None:
    low, middle, high = (shipped(strength) for strength in ("low", "estimate", "high"))
    for kind in ("category", "overall"):
        for a, b, c in zip(*(getattr(p, kind) for p in (low, middle, high)), strict=True):
            assert 0 <= a <= b <= c
    assert middle.behaviours == ("click", "long_view") and middle.tau_minutes > 0 and middle.spread >= 0
    assert FIGURES_FILE.stat().st_size < 3_000


def test_figures_turn_into_log_odds() -> None:
    figures = json.loads(FIGURES_FILE.read_text("utf-8"))
    click = figures["behaviours"]["click"]
    expected = -click["all"]["points"] / 100 / (click["rate"] * (1 - click["rate"]))
    assert parameters_from(figures).overall[0] == pytest.approx(expected)
    assert parameters_from(figures).fade == pytest.approx(
        math.exp(-figures["seconds_per_item"] / 60 / figures["tau_minutes"]["estimate"])
    )
    with pytest.raises(ValueError, match="strength='none' is unknown; choose one of estimate, low, high"):
        parameters_from(figures, "none")  # type: ignore[arg-type]
    del figures["spread"]
    with pytest.raises(DataError, match="they lack 'spread'; make them again"):
        parameters_from(figures)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_minutes": 0.0}, "tau_minutes=0.0; it must be above 0"),
        ({"seconds": -1.0}, "seconds=-1.0"),
        ({"spread": -0.1}, "spread=-0.1; it must be at least 0"),
        ({"overall": (1.0,)}, "give one of each per behaviour"),
    ],
)
def test_parameters_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PARAMETERS, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"strength": "high", "tolerance": 0.1}, {"quit_rule": "positional", "slate_size": 4}, {"slate_size": None}],
)
def test_the_environment_passes_the_checkers(
    small_data: SessionData, matrix_response: MatrixResponse, arguments: dict[str, object]
) -> None:
    env = gym.make(ID, data=small_data, response=matrix_response, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env)


def test_a_batch_is_as_single_sessions(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    envs = gym.make_vec(ID, num_envs=3, data=small_data, response=matrix_response)
    single = SessionEnv(satiation_core(1, data=small_data, response=matrix_response))
    envs.reset(seed=5)
    single.reset(seed=7)
    rng = np.random.default_rng(0)
    for _ in range(8):
        slates = rng.integers(small_data.catalog.n_items, size=(3, 6))
        _, rewards, _, _, infos = envs.step(slates)
        _, reward, ended, _, info = single.step(slates[2])
        assert rewards[2] == reward and infos["budget"][2] == info["budget"]
        if ended:
            break


def test_a_wrong_word_is_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    with pytest.raises(ValueError, match="strength='much' is unknown"):
        satiation_core(1, data=small_data, response=matrix_response, strength="much")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="users='some' is unknown"):
        satiation_core(1, data=small_data, users="some")
