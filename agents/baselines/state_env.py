"""Sessions with a state vector as observation and a box or a category as action, as Stable-Baselines3 expects them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rapport.agents.baselines.click_prior import CTRModel, top_items
from rapport.agents.baselines.task import Act
from rapport.agents.planning.wrapper import PlannedVectorEnv

Chooser = Callable[[NDArray[np.float32], dict[str, Any], Any], NDArray[np.int64]]
"""From states (B, D), observations and actions (B, ...) to slates (B, K)."""


class StateEnv(VectorWrapper):
    """Observes the CTR model's states, and takes actions that a chooser turns into slates.

    Args:
        env: planned sessions that reset within the step, or a wrapper around them.
        ctr_model: makes states of observations.
        action_space: of one session.
        choose: turns actions into slates.
    """

    def __init__(
        self,
        env: PlannedVectorEnv | VectorWrapper,
        ctr_model: CTRModel,
        action_space: spaces.Space[Any],
        choose: Chooser,
    ) -> None:
        super().__init__(env)
        self.ctr_model, self.choose = ctr_model, choose
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (ctr_model.width,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space = action_space
        self.action_space = batch_space(action_space, self.num_envs)
        self._seen: dict[str, Any] = {}
        self._states: NDArray[np.float32] = np.empty((0, ctr_model.width), np.float32)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions."""
        observations, info = self.env.reset(**arguments)
        return self._observe(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Serve the slates that the actions stand for; ``final_obs`` holds states, too."""
        observations, rewards, terminated, truncated, info = self.env.step(self.slates(actions))
        rows = np.flatnonzero(terminated | truncated)
        if len(rows):
            last = [info["final_obs"][row] for row in rows.tolist()]
            stacked = {name: np.stack([seen[name] for seen in last]) for name in last[0]}
            final = np.full(self.num_envs, None, dtype=object)
            for row, state in zip(rows.tolist(), self.ctr_model.states(stacked).numpy(), strict=True):
                final[row] = state
            info = {**info, "final_obs": final}
        return self._observe(observations), rewards, terminated, truncated, info

    def slates(self, actions: Any) -> NDArray[np.int64]:
        """The slates, shape (B, K), that actions stand for now."""
        return self.choose(self._states, self._seen, actions)

    def action_masks(self) -> NDArray[np.bool_]:
        """Categories that may be chosen now, shape (B, C), for actions that are categories."""
        return category_masks(self.ctr_model, self._seen)

    def _observe(self, observations: dict[str, Any]) -> NDArray[np.float32]:
        self._seen = observations
        self._states = self.ctr_model.states(observations).numpy()
        return self._states


def hyper_action_space(ctr_model: CTRModel) -> spaces.Box:
    """What is added to the CTR model's hyper-action, as a share of the radius: [-1, 1]^(E + 1)."""
    return spaces.Box(-1.0, 1.0, (ctr_model.items.shape[1] + 1,), np.float32)


def hyper_action_chooser(ctr_model: CTRModel, radius: float) -> Chooser:
    """The best allowed items under the CTR model's hyper-action plus ``radius`` times the action.

    Action 0 is the CTR model's own slate, so that an agent begins with what the log teaches, as LERL's does.
    """

    def choose(states: NDArray[np.float32], observations: dict[str, Any], actions: Any) -> NDArray[np.int64]:
        weights = ctr_model.weights(torch.from_numpy(states)) + radius * torch.as_tensor(actions, dtype=torch.float32)
        return top_items(ctr_model.scores(weights), ctr_model.allowed(observations), ctr_model.slate_size)

    return choose


def category_space(ctr_model: CTRModel) -> spaces.Discrete:
    """One of C categories."""
    return spaces.Discrete(ctr_model.data.catalog.n_categories)


def category_chooser(ctr_model: CTRModel) -> Chooser:
    """The category's allowed items of highest click log-odds; others follow where it holds fewer than K."""

    def choose(states: NDArray[np.float32], observations: dict[str, Any], actions: Any) -> NDArray[np.int64]:
        scores = ctr_model.scores(ctr_model.weights(torch.from_numpy(states)))
        own = ctr_model.category == torch.as_tensor(actions)[:, None]
        beyond = scores.max() - scores.min() + 1.0  # lifts a category's items above all others, their order kept
        return top_items(scores + beyond * own, ctr_model.allowed(observations), ctr_model.slate_size)

    return choose


def category_masks(ctr_model: CTRModel, observations: dict[str, Any]) -> NDArray[np.bool_]:
    """Categories, shape (B, C), that hold a slate, that the plan allows and that the last slate did not show.

    Where none is left the last slate's are allowed, then all that hold a slate.
    """
    large = ctr_model.data.catalog.category_sizes >= ctr_model.slate_size
    allowed = large & observations["plan"].astype(bool)
    masks: NDArray[np.bool_] = allowed & ~ctr_model.last_categories(observations)
    for remedy in (allowed, np.broadcast_to(large, allowed.shape), np.ones_like(allowed)):
        none = ~masks.any(axis=1)
        masks[none] = remedy[none]
    return masks


def on_states(ctr_model: CTRModel, choose: Chooser, actions: Callable[[Any, dict[str, Any]], Any]) -> Act:
    """A policy on states as a function from observations to slates."""

    def act(observations: dict[str, Any]) -> NDArray[Any]:
        states = ctr_model.states(observations).numpy()
        return choose(states, observations, actions(states, observations))

    return act
