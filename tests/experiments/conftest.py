"""What the experiments' tests share."""

from __future__ import annotations

import pytest

from rapport.agents.lerl import PPOConfig
from rapport.agents.policies.encoder import EncoderSettings
from rapport.agents.policies.warm_start import WarmStart
from rapport.experiments.lerl.config import Setup


@pytest.fixture
def twin_setup():
    """The statistical twin; its simulator is fitted once, into the tests' own cache."""
    return Setup("twin")


@pytest.fixture
def small():
    """A low level that learns in seconds."""
    return PPOConfig(
        encoder=EncoderSettings(width=16, item_width=8, feed_forward=16, heads=2, window=12),
        warm_start=WarmStart(epochs=1, length=16),
        n_envs=8,
        n_steps=5,
        batch_size=20,
        n_epochs=2,
    )
