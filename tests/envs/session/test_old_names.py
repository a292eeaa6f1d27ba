"""Names of version 0.1 keep working until 0.2, with a warning that says the new one."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.envs.session import satiation
from rapport.envs.session.engine.quit_rules import Positional
from rapport.envs.session.render import view
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.satiation.parameters import shipped


class OldRule:
    """Leaves after two slates; written for version 0.1."""

    name = "two slates"

    def blank(self, users: np.ndarray) -> np.ndarray:
        return np.full((len(users), 1), 5)

    def cost(self, memory: np.ndarray, slate: object) -> np.ndarray:
        memory += 1
        return np.where(memory[:, 0] > 6, np.inf, 0.0)


def test_a_rule_with_blank_is_served(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    with pytest.warns(DeprecationWarning, match="OldRule.blank is called initial_memory now"):
        envs = gym.make_vec(
            "rapport/KuaiRand-v0", num_envs=3, data=small_data, response=matrix_response, quit_rule=OldRule()
        )
    envs.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = [envs.step(np.zeros((3, 6), np.int64))[2].tolist() for _ in range(5)]
    assert ends == [[False] * 3, [True] * 3, [False] * 3, [False] * 3, [True] * 3]


def test_a_rule_with_neither_is_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    with pytest.raises(ValueError, match="has no method initial_memory"):
        gym.make_vec("rapport/KuaiRand-v0", data=small_data, response=matrix_response, quit_rule=object())


def test_classes(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    from rapport.envs.session.satiation import model

    with pytest.warns(DeprecationWarning, match="Boredom is called SatiationState now"):
        assert model.Boredom is model.SatiationState
    with pytest.warns(DeprecationWarning, match="SessionView is called SessionFrame now"):
        assert view.SessionView is view.SessionFrame
    state = model.SatiationState(small_data, shipped())
    with pytest.warns(DeprecationWarning, match="boredom is called satiation now"):
        assert model.SatiatedResponse(matrix_response, state).boredom is state
    with pytest.warns(DeprecationWarning, match="Boredom is rapport.envs.session.satiation.model.Boredom now"):
        assert satiation.Boredom is model.SatiationState  # the old module's path and the old name in one
    assert hasattr(Positional(6), "initial_memory")
