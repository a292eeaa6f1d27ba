"""What an oracle reads: the scores of every response model, and who lacks them."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.agents.baselines.controls import rested_scores
from rapport.datasets.schema import SessionData
from rapport.envs.session.factory import session_core
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationState
from rapport.envs.session.satiation.parameters import shipped


class Coin:
    """Serves sessions and has no scores."""

    def __init__(self, behaviours: tuple[str, ...]) -> None:
        self.behaviours = behaviours

    def initial_state(self, users: np.ndarray) -> np.ndarray:
        return np.zeros((len(users), 0), np.float32)

    def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> np.ndarray:
        return np.full((*slates.shape, len(self.behaviours)), 0.5, np.float32)

    def advance(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> np.ndarray:
        return state


def test_scores_and_last_categories(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    core = session_core(small_data, matrix_response, 2)
    core.begin(np.arange(2))
    core.step(np.array([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], np.int32))
    scores, marks = rested_scores(core)
    np.testing.assert_array_equal(scores, matrix_response.click_scores(core.state, core.user))
    for row, shown in enumerate(([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11])):
        assert set(np.flatnonzero(marks[row])) == set(small_data.catalog.category[shown])


def test_scores_and_satiation(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    response = SatiatedResponse(matrix_response, SatiationState(small_data, shipped()))
    core = session_core(small_data, response, 2)
    core.begin(np.arange(2))
    core.step(np.zeros((2, 6), np.int32))
    scores, loads = rested_scores(core)
    np.testing.assert_array_equal(scores, matrix_response.click_scores(core.state[:, :0], core.user))
    np.testing.assert_array_equal(loads, core.state)
    assert 0 < loads[0, small_data.catalog.category[0]] == loads[0].sum()


def test_a_model_without_scores_serves_sessions_and_is_named(small_data: SessionData) -> None:
    coin = Coin(small_data.log.behaviours)
    for response in (coin, SatiatedResponse(coin, SatiationState(small_data, shipped()))):
        core = session_core(small_data, response, 2)  # type: ignore[arg-type]
        core.begin(np.arange(2))
        core.step(np.zeros((2, 6), np.int32))
        with pytest.raises(TypeError, match=r"Coin has no click_scores\(state, users\), .* add the method"):
            rested_scores(core)


def test_a_fault_inside_a_model_stays_its_own(small_data: SessionData) -> None:
    class Broken(Coin):
        def click_scores(self, state: np.ndarray, users: np.ndarray) -> np.ndarray:
            return self.scores  # type: ignore[attr-defined]

    core = session_core(small_data, Broken(small_data.log.behaviours), 2)
    core.begin(np.arange(2))
    with pytest.raises(AttributeError, match="scores"):
        rested_scores(core)
