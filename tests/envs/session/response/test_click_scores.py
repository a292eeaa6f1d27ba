"""Every response model tells an oracle the same as its probabilities do: wrappers hand on what is inside them."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.envs.session.official.profile import PlainPrior
from rapport.envs.session.official.similarity import SimilarityPenalty
from rapport.envs.session.response.base import MatrixResponse, ResponseModel
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationState
from rapport.envs.session.satiation.parameters import shipped

USERS = np.array([3, 9, 150])


def log_odds_of_single_items(model: ResponseModel, n_items: int) -> np.ndarray:
    """Log-odds of a click on each item where it is shown alone to somebody who comes new, shape (B, N)."""
    state = model.initial_state(USERS)
    every = [np.full((len(USERS), 1), item, np.int32) for item in range(n_items)]
    chance = np.concatenate([model.probabilities(state, USERS, slates)[:, :, 0] for slates in every], axis=1)
    chance = chance.astype(np.float64)
    return np.log(chance / (1 - chance))


@pytest.fixture(params=["matrix", "sequence"])
def inner(request: pytest.FixtureRequest, matrix_response: MatrixResponse, sequence_response: SequenceResponse):
    return matrix_response if request.param == "matrix" else sequence_response


def test_scores_are_the_log_odds_of_single_items(inner: ResponseModel, small_data: SessionData) -> None:
    scores = inner.click_scores(inner.initial_state(USERS), USERS)
    np.testing.assert_allclose(scores, log_odds_of_single_items(inner, small_data.catalog.n_items), atol=2e-3)


def test_satiation_is_left_out(inner: ResponseModel, small_data: SessionData) -> None:
    model = SatiatedResponse(inner, SatiationState(small_data, shipped("high")))
    fresh = log_odds_of_single_items(model, small_data.catalog.n_items)
    state = model.initial_state(USERS)
    np.testing.assert_allclose(model.click_scores(state, USERS), fresh, atol=2e-3)
    # After a slate the inner state has moved, and so have the scores; the satiation alone changes nothing.
    after = model.advance(state, USERS, np.zeros((3, 6), np.int32), np.zeros((3, 6, 7), np.int8))
    np.testing.assert_array_equal(
        model.click_scores(after, USERS), inner.click_scores(np.ascontiguousarray(model.split(after)[0]), USERS)
    )


def test_the_similarity_penalty_is_left_out(inner, small_data: SessionData) -> None:
    encodings = np.random.default_rng(0).normal(size=(small_data.catalog.n_items, 4)).astype(np.float32)
    free = SimilarityPenalty(inner, encodings, rho=0.0)
    expected = log_odds_of_single_items(free, small_data.catalog.n_items)
    state = inner.initial_state(USERS)
    for rho in (0.0, 0.2):
        scores = SimilarityPenalty(inner, encodings, rho).click_scores(state, USERS)
        np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_the_plain_prior_shifts_every_item_alike(inner, small_data: SessionData) -> None:
    """p = w q / (1 - q + w q) adds log w to every log-odds, so that the order of the items is that of the scores."""
    model = PlainPrior(inner, np.full(7, 0.25))
    scores = model.click_scores(model.initial_state(USERS), USERS)
    shift = log_odds_of_single_items(model, small_data.catalog.n_items) - scores
    np.testing.assert_allclose(shift, np.log(0.25), atol=3e-3)
