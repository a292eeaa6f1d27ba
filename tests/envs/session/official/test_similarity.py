"""LERL's similarity penalty, against plain loops and its published bounds."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.envs.session.official.similarity import SimilarityPenalty
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")


def by_hand(encodings: np.ndarray, slate: np.ndarray, divide_by_width: bool) -> list[float]:
    result = []
    for i in slate:
        cosines = []
        for j in slate:
            a, b = encodings[i].astype(float), encodings[j].astype(float)
            product = a / np.sqrt((a * a).sum()) * (b / np.sqrt((b * b).sum()))
            cosines.append(product.mean() if divide_by_width else product.sum())
        result.append(sum(cosines) / len(cosines))
    return result


@pytest.mark.parametrize("divide_by_width", [True, False])
@pytest.mark.parametrize("rho", [0.2, 3.0])
def test_the_penalty_is_the_formulas(
    small_data: SessionData, matrix_response: MatrixResponse, rho: float, divide_by_width: bool
) -> None:
    rng = np.random.default_rng(0)
    encodings = rng.normal(size=(150, 64)).astype(np.float32) + 0.5
    response = SimilarityPenalty(matrix_response, encodings, rho, divide_by_width)
    users, slates = np.arange(20), rng.integers(150, size=(20, 6)).astype(np.int32)
    state = response.initial_state(users)
    chance, plain = (r.probabilities(state, users, slates) for r in (response, matrix_response))
    for b in range(20):
        corr = by_hand(encodings, slates[b], divide_by_width)
        for k in range(6):
            expected = np.clip(plain[b, k] - rho * corr[k], 0, 1)
            np.testing.assert_allclose(chance[b, k], expected, rtol=0, atol=1e-5)
    assert response.behaviours == small_data.log.behaviours


def test_the_fault_leaves_nearly_nothing(matrix_response: MatrixResponse) -> None:
    """Six times the same item: a penalty of rho, or of rho / 64 = 0.0031."""
    encodings = np.random.default_rng(0).normal(size=(150, 64)).astype(np.float32)
    slates = np.full((1, 6), 3, np.int32)
    for fault, size in ((True, 0.2 / 64), (False, 0.2)):
        penalty = 0.2 * SimilarityPenalty(matrix_response, encodings, 0.2, fault).correlation(slates)
        np.testing.assert_allclose(penalty, size, rtol=1e-4)


def test_bad_arguments_are_named(matrix_response: MatrixResponse) -> None:
    with pytest.raises(ValueError, match=r"^rho=-1; the weight of the penalty must be at least 0$"):
        SimilarityPenalty(matrix_response, np.ones((150, 64), np.float32), -1)
    with pytest.raises(ValueError, match=r"^encodings: shape \(150,\); give one row per item"):
        SimilarityPenalty(matrix_response, np.ones(150, np.float32))
