"""What the experiments' tests share."""

from __future__ import annotations

import pytest

from rapport.agents.lerl import PPOConfig
from rapport.agents.policies.encoder import EncoderSettings
from rapport.agents.policies.warm_start import WarmStart
from rapport.experiments.core import EnvConfig
from rapport.experiments.lerl.environments import session_env


@pytest.fixture
def twin_env() -> EnvConfig:
    """The statistical twin; its simulator is fitted once, into the tests' own cache."""
    return session_env("kuairand", "twin")


@pytest.fixture
def small() -> PPOConfig:
    """A low level that learns in seconds."""
    return PPOConfig(
        encoder=EncoderSettings(width=16, item_width=8, feed_forward=16, heads=2, window=12),
        warm_start=WarmStart(epochs=1, length=16),
        n_envs=8,
        n_steps=5,
        batch_size=20,
        n_epochs=2,
    )
