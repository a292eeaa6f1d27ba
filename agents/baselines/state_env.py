"""Sessions as Stable-Baselines3's actor-critics for continuous actions want them: a state vector, a box of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rapport.agents.baselines.click_prior import LogModel, top_items
from rapport.agents.baselines.task import Act
from rapport.agents.planning.wrapper import PlannedVectorEnv

Chooser = Callable[[NDArray[np.float32], dict[str, Any], Any], NDArray[np.int64]]
"""From states (B, D), observations and actions (B, ...) to slates (B, K)."""


class StateEnv(VectorWrapper):
    """Observes the log model's states, and takes whatever actions somebody can turn into slates.

    Args:
        env: planned sessions that begin anew within the step, or a wrapper around them.
        log_model: makes states of observations.
        action_space: of one session.
        choose: turns actions into slates.
    """

    def __init__(
        self,
        env: PlannedVectorEnv | VectorWrapper,
        log_model: LogModel,
        action_space: spaces.Space[Any],
        choose: Chooser,
    ) -> None:
        super().__init__(env)
        self.log_model, self.choose = log_model, choose
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (log_model.width,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space = action_space
        self.action_space = batch_space(action_space, self.num_envs)
        self._seen: dict[str, Any] = {}
        self._states: NDArray[np.float32] = np.empty((0, log_model.width), np.float32)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions."""
        observations, info = self.env.reset(**arguments)
        return self._observe(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Serve what the actions stand for; ``final_obs`` holds states, too."""
        observations, rewards, terminated, truncated, info = self.env.step(self.slates(actions))
        rows = np.flatnonzero(terminated | truncated)
        if len(rows):
            last = [info["final_obs"][row] for row in rows.tolist()]
            stacked = {name: np.stack([seen[name] for seen in last]) for name in last[0]}
            final = np.full(self.num_envs, None, dtype=object)
            for row, state in zip(rows.tolist(), self.log_model.states(stacked).numpy(), strict=True):
                final[row] = state
            info = {**info, "final_obs": final}
        return self._observe(observations), rewards, terminated, truncated, info

    def slates(self, actions: Any) -> NDArray[np.int64]:
        """The slates, shape (B, K), that actions stand for now."""
        return self.choose(self._states, self._seen, actions)

    def action_masks(self) -> NDArray[np.bool_]:
        """Categories that may be chosen now, shape (B, C), for actions that are categories."""
        return category_masks(self.log_model, self._seen)

    def _observe(self, observations: dict[str, Any]) -> NDArray[np.float32]:
        self._seen = observations
        self._states = self.log_model.states(observations).numpy()
        return self._states


def hyper_action_space(log_model: LogModel) -> spaces.Box:
    """What is added to the log model's hyper-action, as a share of the radius: [-1, 1]^(E + 1)."""
    return spaces.Box(-1.0, 1.0, (log_model.items.shape[1] + 1,), np.float32)


def hyper_action_chooser(log_model: LogModel, radius: float) -> Chooser:
    """The best allowed items under the log model's hyper-action plus ``radius`` times the action.

    Action 0 is the log's own slate, so that an agent begins with what the log teaches, as LERL's does.
    """

    def choose(states: NDArray[np.float32], observations: dict[str, Any], actions: Any) -> NDArray[np.int64]:
        weights = log_model.weights(torch.from_numpy(states)) + radius * torch.as_tensor(actions, dtype=torch.float32)
        return top_items(log_model.scores(weights), log_model.allowed(observations), log_model.slate_size)

    return choose


def category_space(log_model: LogModel) -> spaces.Discrete:
    """A category."""
    return spaces.Discrete(log_model.data.catalog.n_categories)


def category_chooser(log_model: LogModel) -> Chooser:
    """The allowed items of the category that the log has clicked most; the best others where it holds fewer than K."""

    def choose(states: NDArray[np.float32], observations: dict[str, Any], actions: Any) -> NDArray[np.int64]:
        scores = log_model.scores(log_model.weights(torch.from_numpy(states)))
        own = log_model.category == torch.as_tensor(actions)[:, None]
        beyond = scores.max() - scores.min() + 1.0  # lifts a category's items above all others, their order kept
        return top_items(scores + beyond * own, log_model.allowed(observations), log_model.slate_size)

    return choose


def category_masks(log_model: LogModel, observations: dict[str, Any]) -> NDArray[np.bool_]:
    """Categories, shape (B, C), that hold a slate, that the plan allows and that the last slate did not show.

    Where none is left the last slate's are allowed, then all that hold a slate.
    """
    large = log_model.data.catalog.category_sizes >= log_model.slate_size
    allowed = large & observations["plan"].astype(bool)
    masks: NDArray[np.bool_] = allowed & ~log_model.last_categories(observations)
    for remedy in (allowed, np.broadcast_to(large, allowed.shape), np.ones_like(allowed)):
        none = ~masks.any(axis=1)
        masks[none] = remedy[none]
    return masks


def on_states(log_model: LogModel, choose: Chooser, actions: Callable[[Any, dict[str, Any]], Any]) -> Act:
    """Somebody who acts on states, as a function from observations to slates."""

    def act(observations: dict[str, Any]) -> NDArray[Any]:
        states = log_model.states(observations).numpy()
        return choose(states, observations, actions(states, observations))

    return act
