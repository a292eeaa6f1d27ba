"""HAC: the hyper-actor critic (Liu et al., "Exploration and Regularization of the Latent Action Space in
Recommendation", WWW 2023).

An actor outputs a hyper-action Z; the items it scores highest are the effect-action, a slate; a pooling module maps the
slate back to a hyper-action Z'. One critic values both, an alignment loss keeps Z near Z', and clicks on the slate
supervise the scores under Z. Here Z is the pretrained CTR model's hyper-action plus what the actor adds to it, so that
the agent begins with what the log teaches. The paper's released code bootstraps at the ends of sessions only
(``reward + gamma * done * Q`` in its ``DDPG.py``); here the target bootstraps only where a session goes on.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.state_env import StateEnv, hyper_action_chooser, hyper_action_space, on_states
from rapport.agents.baselines.task import Act, Settings, TrainingTask, settings_of
from rapport.agents.policies.score import score_pairs

if TYPE_CHECKING:
    import optuna

WARM_UP = 1_280
"""Transitions before the first gradient step."""
DEFAULTS: Settings = {
    "learning_rate": 3e-4,
    "gamma": 0.8,
    "batch_size": 256,
    "gradient_steps": 4,
    "tau": 0.01,
    "noise": 0.2,
    "radius": 0.3,
    "align": 0.1,
    "supervise": 1.0,
}


class ReplayBuffer:
    """A ring of transitions: a new one takes the oldest's place.

    Args:
        capacity: transitions kept.
        width: D, of states.
        action_width: of hyper-actions.
        slate_size: K.
    """

    def __init__(self, capacity: int, width: int, action_width: int, slate_size: int) -> None:
        shapes = (width, action_width, slate_size, slate_size, None, width, None)
        kinds = (np.float32, np.float32, np.int64, np.float32, np.float32, np.float32, np.float32)
        self._arrays: list[NDArray[Any]] = [
            np.zeros(capacity if size is None else (capacity, size), kind)
            for size, kind in zip(shapes, kinds, strict=True)
        ]
        self._capacity = capacity
        self.size, self._next = 0, 0

    def add(self, *parts: NDArray[Any]) -> None:
        """Add B transitions: state, action, slate, clicks, reward, state after, and 1 where the session goes on."""
        rows = (self._next + np.arange(len(parts[0]))) % self._capacity
        for array, part in zip(self._arrays, parts, strict=True):
            array[rows] = part
        self._next = int(rows[-1] + 1) % self._capacity
        self.size = min(self.size + len(rows), self._capacity)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """N transitions, drawn with replacement, their parts in the order of :meth:`add`."""
        rows = rng.integers(self.size, size=n)
        return tuple(torch.from_numpy(array[rows]) for array in self._arrays)


@dataclass
class Hac:
    """Actor, critic and their targets.

    Attributes:
        ctr_model: encodes items and gives the hyper-action that the actor adds to.
        settings: as of :data:`DEFAULTS`.
        actor: states (B, D) to actions (B, E + 1) in [-1, 1].
        critic: states and hyper-actions (B, D + E + 1) to values (B, 1).
    """

    ctr_model: CTRModel
    settings: dict[str, Any]
    actor: nn.Module
    critic: nn.Module

    def __post_init__(self) -> None:
        self.actor_target, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        rate = self.settings["learning_rate"]
        self._actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=rate)
        self._critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=rate)

    def hyper_actions(self, states: Tensor, actions: Tensor) -> Tensor:
        """Z, shape (B, E + 1): the CTR model's hyper-action plus the radius times the actions (B, E + 1)."""
        sent: Tensor = self.ctr_model.weights(states) + self.settings["radius"] * actions
        return sent

    def pooled(self, states: Tensor, slates: Tensor) -> Tensor:
        """Z', shape (B, E + 1): the hyper-action that slates (B, K) stand for, the mean of their encodings.

        Only its direction decides which items come first; its length and bias are the CTR model's, so that Z and Z'
        lie in one space.
        """
        pretrained = self.ctr_model.weights(states)
        direction = F.normalize(self.ctr_model.items[slates].mean(dim=1), dim=1)
        return torch.cat([direction * pretrained[:, :-1].norm(dim=1, keepdim=True), pretrained[:, -1:]], dim=1)

    def critic_loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Squared one-step errors of Q(s, Z) and Q(s, Z'); the target of both is the target networks' value next."""
        state, action, slate, _, reward, after, continues = batch
        with torch.no_grad():
            following = _values(self.critic_target, after, self.hyper_actions(after, self.actor_target(after)))
            target = reward + self.settings["gamma"] * continues * following
        sent = _values(self.critic, state, self.hyper_actions(state, action))
        effect = _values(self.critic, state, self.pooled(state, slate))
        return F.mse_loss(sent, target) + F.mse_loss(effect, target)

    def actor_loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        """-Q(s, Z), the squared distance from Z to Z', and the cross-entropy of the slate's clicks under Z.

        The distance is a mean over the E + 1 numbers, the cross-entropy one over the slate.
        """
        state, _, slate, clicks, *_ = batch
        sent = self.hyper_actions(state, self.actor(state))
        align = F.mse_loss(sent, self.pooled(state, slate))
        logits = score_pairs(sent[:, None], self.ctr_model.items[slate])
        supervised = F.binary_cross_entropy_with_logits(logits, clicks)
        value = _values(self.critic, state, sent).mean()
        loss: Tensor = -value + self.settings["align"] * align + self.settings["supervise"] * supervised
        return loss

    def learn(self, batch: tuple[Tensor, ...]) -> None:
        """One gradient step of critic and actor, then a Polyak update of their targets."""
        for loss, optimiser in ((self.critic_loss, self._critic_optimiser), (self.actor_loss, self._actor_optimiser)):
            optimiser.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        for online, target in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
            polyak_update(online.parameters(), target.parameters(), self.settings["tau"])


def _values(critic: nn.Module, states: Tensor, hyper_actions: Tensor) -> Tensor:
    values: Tensor = critic(torch.cat([states, hyper_actions], dim=1))[:, 0]
    return values


def new_hac(ctr_model: CTRModel, settings: dict[str, Any], seed: int) -> Hac:
    """Untrained networks; the actor's first actions are near 0, which serves the CTR model's slates."""
    width, action_width = ctr_model.width, ctr_model.items.shape[1] + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = create_mlp(width, action_width, [256, 64], squash_output=True)
        critic = nn.Sequential(*create_mlp(width + action_width, 1, [256, 64]))
        head = layers[-2]
        assert isinstance(head, nn.Linear)
        nn.init.uniform_(head.weight, -1e-3, 1e-3)
        nn.init.zeros_(head.bias)
    return Hac(ctr_model, settings, nn.Sequential(*layers), critic)


def hac(task: TrainingTask) -> Act:
    """Learn from sessions, and serve as while learning, with exploration noise."""
    settings = settings_of("hac", DEFAULTS, task.settings)
    ctr_model, rng = task.ctr_model, np.random.default_rng(task.seed)
    choose = hyper_action_chooser(ctr_model, settings["radius"])
    env = StateEnv(task.sessions, ctr_model, hyper_action_space(ctr_model), choose)
    agent = new_hac(ctr_model, settings, task.seed)
    n_envs = env.num_envs
    replay = ReplayBuffer(
        task.transitions + n_envs, ctr_model.width, ctr_model.items.shape[1] + 1, ctr_model.slate_size
    )
    states, _ = env.reset(seed=task.seed)
    for step in range(-(-task.transitions // n_envs)):
        with torch.no_grad():
            actions = agent.actor(torch.from_numpy(states)).numpy()
        actions = np.clip(actions + rng.normal(0.0, settings["noise"], actions.shape), -1, 1).astype(np.float32)
        slates, before = env.slates(actions), states
        states, rewards, terminated, truncated, info = env.step(actions)
        after = states.copy()
        for row in np.flatnonzero(terminated | truncated).tolist():
            after[row] = info["final_obs"][row]
        replay.add(before, actions, slates, info["feedback"][:, :, 0], rewards, after, ~terminated)
        if (step + 1) * n_envs >= WARM_UP:
            for _ in range(settings["gradient_steps"]):
                agent.learn(replay.sample(settings["batch_size"], rng))

    generator = torch.Generator().manual_seed(task.seed)

    @torch.no_grad()
    def act(states: NDArray[np.float32], observations: dict[str, Any]) -> Tensor:
        sent: Tensor = agent.actor(torch.from_numpy(states))
        noise: Tensor = settings["noise"] * torch.randn(sent.shape, generator=generator)
        return (sent + noise).clamp(-1.0, 1.0)

    return on_states(ctr_model, choose, act)


def space(trial: optuna.Trial) -> dict[str, Any]:
    """The search space."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gamma": trial.suggest_float("gamma", 0.3, 0.99),
        "noise": trial.suggest_float("noise", 0.05, 1.0, log=True),
        "radius": trial.suggest_float("radius", 0.1, 3.0, log=True),
        "align": trial.suggest_float("align", 0.001, 1.0, log=True),
        "supervise": trial.suggest_float("supervise", 0.01, 3.0, log=True),
    }
