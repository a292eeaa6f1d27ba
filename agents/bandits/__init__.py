"""Bandit algorithms over arms and contexts, on NumPy arrays alone: nothing here knows of sessions or users."""

from rapport.agents.bandits.arms import ArmCounts, epsilon_greedy, top_arms, ucb1
from rapport.agents.bandits.linear import RidgeRegression, linucb

__all__ = ["ArmCounts", "RidgeRegression", "epsilon_greedy", "linucb", "top_arms", "ucb1"]
