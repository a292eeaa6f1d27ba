"""What agents are tested on: sessions under plans, and a CTR model of an untrained policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.lerl import PPOConfig, new_agent, pretrain_policy, slate_policy
from rapport.agents.planning.controls import NoPlanner, RandomPlanner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

Sessions = Callable[..., PlannedVectorEnv]


@pytest.fixture
def sessions(small_data: SessionData, matrix_response: MatrixResponse) -> Sessions:
    def made(
        n: int, random_plans: bool = False, response: MatrixResponse | None = None, **arguments: Any
    ) -> PlannedVectorEnv:
        arguments = {"history": 130, **arguments}  # a whole session and more
        core = kuairand_core(n, data=small_data, response=response or matrix_response, **arguments)
        sizes = small_data.catalog.category_sizes
        planner = RandomPlanner(sizes, np.random.default_rng(0)) if random_plans else NoPlanner(sizes)
        return PlannedVectorEnv(SessionVectorEnv(core, AutoresetMode.SAME_STEP), small_data, planner)

    return made


@pytest.fixture
def untrained_model(small_data: SessionData, sessions: Sessions) -> CTRModel:
    encoder = EncoderSettings(item_width=8, width=16, feed_forward=16, window=12)
    low_level = PPOConfig(encoder=encoder, warm_start=None, n_envs=4, n_steps=4, batch_size=16)
    agent = new_agent(sessions(4), low_level, 0)
    pretrain_policy(agent, small_data, low_level, 0)
    return CTRModel(slate_policy(agent), small_data, 6)


@pytest.fixture
def ctr_model(untrained_model: CTRModel) -> CTRModel:
    with torch.no_grad():  # scores of an untrained policy hardly differ
        untrained_model.policy.action_net.weight.mul_(20.0)
    return untrained_model
