"""Rewards with a bonus for items that few users have seen, as in SAC4IR's and DNaIR's released code."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rapport.agents.baselines.controls import exposures, smoothed
from rapport.datasets.schema import SessionData

WEIGHT = 0.1
"""What a bonus of 1 is worth, in mean clicks of a slate."""


class NoveltyReward(VectorWrapper):
    """Adds the mean bonus of a slate's items to the reward; wrappers below see true rewards.

    Args:
        env: sessions.
        bonus: shape (N,).
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], bonus: NDArray[np.float64]) -> None:
        super().__init__(env)
        self.bonus = bonus

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Serve slates, shape (B, K)."""
        observations, rewards, *rest = self.env.step(actions)
        return observations, rewards + self.bonus[np.asarray(actions)].mean(axis=1), *rest


def popularity_bonus(data: SessionData) -> NDArray[np.float64]:
    """SAC4IR's, shape (N,): 0.1 / (ln(pop + 1.1) + 1), pop an item's exposures to training users on training days."""
    shown, _ = exposures(data)
    bonus: NDArray[np.float64] = WEIGHT / (np.log(shown + 1.1) + 1.0)
    return bonus


def quality_bonus(data: SessionData) -> NDArray[np.float64]:
    """DNaIR's, shape (N,): 0.1 quality / log10(pop + 1.1), quality an item's smoothed click rate.

    An item never shown counts as shown once: the formula would give it 0.1 quality / 0.04.
    """
    shown, clicked = exposures(data)
    bonus: NDArray[np.float64] = WEIGHT * smoothed(shown, clicked) / np.log10(np.maximum(shown, 1) + 1.1)
    return bonus
