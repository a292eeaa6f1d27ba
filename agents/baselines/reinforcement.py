"""Reinforcement learning without a planner, by Stable-Baselines3 and sb3-contrib.

On-policy methods with continuous actions (REINFORCE, A2C) train the same policy as LERL's PPO. Off-policy methods
(DDPG, TD3, SAC, and SAC4IR on top of it) and those that choose a category (DQN, masked PPO, DNaIR) train a network of
their own on the states of the pretrained CTR model, which is frozen; LERL's released code leaves its encoder almost
frozen, too. All begin with what the log teaches: their first action is, or is near, the CTR model's own slate.

Every method serves as it acts while learning, by draws, as LERL does: a policy that always takes its best action shows
the same items again and again, and users leave. DQN and DNaIR take their best action, which changes with the slates
shown before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DDPG, DQN, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from torch import Tensor, nn

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.novelty import NoveltyReward, popularity_bonus, quality_bonus
from rapport.agents.baselines.state_env import (
    StateEnv,
    category_chooser,
    category_masks,
    category_space,
    hyper_action_chooser,
    hyper_action_space,
    on_states,
)
from rapport.agents.baselines.task import Act, Settings, TrainingTask, settings_of
from rapport.agents.lerl import serving_policy
from rapport.agents.policies.encoder import StateEncoder
from rapport.agents.policies.hyper_action import HyperActionEnv
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.agents.sb3 import GymnasiumVecEnv

NET = {"pi": [256, 64], "qf": [256, 64]}
GAMMA = 0.8
"""Discount per slate, as LERL's."""
REPLAY = 100_000
"""Transitions that off-policy methods remember."""
WARM_UP = 1_280
"""Transitions before the first gradient step."""

ON_POLICY: Settings = {"learning_rate": 1e-3, "gamma": GAMMA, "n_steps": 20, "log_std_init": -1.2, "ent_coef": 0.0}
OFF_POLICY: Settings = {
    "learning_rate": 3e-4,
    "gamma": GAMMA,
    "batch_size": 256,
    "gradient_steps": 8,
    "radius": 1.0,
    "tau": 0.01,
}
DEFAULTS: dict[str, Settings] = {
    "reinforce": {**ON_POLICY, "n_steps": 40},
    "a2c": {**ON_POLICY, "gae_lambda": 0.95, "vf_coef": 0.5},
    "ddpg": {**OFF_POLICY, "noise": 0.2},
    "td3": {**OFF_POLICY, "noise": 0.2},
    "sac": OFF_POLICY,
    "sac4ir": OFF_POLICY,
    "dqn": {
        "learning_rate": 5e-4,
        "gamma": GAMMA,
        "batch_size": 256,
        "gradient_steps": 8,
        "exploration_fraction": 0.3,
        "exploration_final_eps": 0.05,
    },
    "masked-ppo": {
        "learning_rate": 1e-3,
        "gamma": GAMMA,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "n_steps": 20,
        "batch_size": 320,
        "n_epochs": 4,
        "ent_coef": 0.01,
    },
}
DEFAULTS["dnair"] = DEFAULTS["dqn"]
"""Default settings of each method."""


def reinforce(task: TrainingTask) -> Act:
    """REINFORCE (Williams, 1992): policy gradient on whole returns, normalised over a batch, without a critic.

    Sessions that a rollout's end cuts count as if they ended there.
    """
    settings = settings_of("reinforce", DEFAULTS["reinforce"], task.settings)
    agent = _on_policy(task, settings, {"gae_lambda": 1.0, "vf_coef": 0.0, "normalize_advantage": True})
    with torch.no_grad():  # a critic whose value is 0 and that no gradient reaches
        for parameter in agent.policy.value_net.parameters():
            parameter.zero_()
    return _learned_slates(task, agent)


def a2c(task: TrainingTask) -> Act:
    """Advantage actor-critic (Mnih et al., 2016)."""
    settings = settings_of("a2c", DEFAULTS["a2c"], task.settings)
    critic = {name: settings.pop(name) for name in ("gae_lambda", "vf_coef")}
    return _learned_slates(task, _on_policy(task, settings, critic))


def ddpg(task: TrainingTask) -> Act:
    """Deterministic policy gradient (Lillicrap et al., 2016)."""
    return _continuous(task, "ddpg", DDPG)


def td3(task: TrainingTask) -> Act:
    """Twin delayed deterministic policy gradient (Fujimoto et al., 2018)."""
    return _continuous(task, "td3", TD3)


def sac(task: TrainingTask) -> Act:
    """Soft actor-critic (Haarnoja et al., 2018)."""
    return _continuous(task, "sac", SAC)


def sac4ir(task: TrainingTask) -> Act:
    """SAC4IR (Shi et al., ICWS 2023): soft actor-critic with a reward bonus for items that few users have seen."""
    bonus = popularity_bonus(task.data)
    return _continuous(task, "sac4ir", SAC, lambda sessions: NoveltyReward(sessions, bonus))


def dqn(task: TrainingTask) -> Act:
    """Deep Q-network (Mnih et al., 2015) that chooses a category; its best items fill the slate."""
    return _q_network(task, "dqn")


def dnair(task: TrainingTask) -> Act:
    """DNaIR (Shi et al., TOIS 2023): a deep Q-network with a reward bonus for good items that few users have seen."""
    bonus = quality_bonus(task.data)
    return _q_network(task, "dnair", lambda sessions: NoveltyReward(sessions, bonus))


def random_category(task: TrainingTask) -> Act:
    """Masked PPO's actions without its learning: a random category not just shown, its best items by the CTR model."""
    settings_of("random-category", {}, task.settings)
    ctr_model, rng = task.ctr_model, np.random.default_rng(task.seed)

    def any_allowed(states: NDArray[np.float32], observations: dict[str, Any]) -> NDArray[np.int64]:
        masks = category_masks(ctr_model, observations)
        drawn: NDArray[np.int64] = np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1)
        return drawn

    return on_states(ctr_model, category_chooser(ctr_model), any_allowed)


def masked_ppo(task: TrainingTask) -> Act:
    """PPO over categories (Huang and Ontañón, 2022) that masks those just shown and those with less than a slate."""
    settings = settings_of("masked-ppo", DEFAULTS["masked-ppo"], task.settings)
    ctr_model, choose = task.ctr_model, category_chooser(task.ctr_model)
    env = StateEnv(task.sessions, ctr_model, category_space(ctr_model), choose)
    agent = MaskablePPO(
        "MlpPolicy",
        GymnasiumVecEnv(env),
        policy_kwargs={"net_arch": {"pi": NET["pi"], "vf": NET["pi"]}},
        seed=task.seed,
        device="cpu",
        **settings,
    )
    agent.learn(task.transitions)
    policy, generator = agent.policy, torch.Generator().manual_seed(task.seed)
    policy.set_training_mode(False)

    @torch.no_grad()
    def categories(states: NDArray[np.float32], observations: dict[str, Any]) -> NDArray[np.int64]:
        masks = category_masks(ctr_model, observations)
        chances: Any = policy.get_distribution(torch.from_numpy(states), masks).distribution
        drawn: NDArray[np.int64] = torch.multinomial(chances.probs, 1, generator=generator)[:, 0].numpy()
        return drawn

    return on_states(ctr_model, choose, categories)


Shaped = Callable[[Any], VectorEnv[Any, Any, Any]]


def _on_policy(task: TrainingTask, settings: dict[str, Any], fixed: Mapping[str, Any]) -> A2C:
    """An A2C agent that begins as the pretrained policy; its item encodings are fixed."""
    encoder = _copy_of(task.ctr_model)
    log_std_init = settings.pop("log_std_init")
    agent = A2C(
        SlatePolicy,
        GymnasiumVecEnv(HyperActionEnv(task.sessions, encoder, task.data.catalog.labels)),
        policy_kwargs={"encoder": encoder, "log_std_init": log_std_init},
        use_rms_prop=False,
        seed=task.seed,
        device="cpu",
        **settings,
        **fixed,
    )
    weights = {k: v for k, v in task.ctr_model.policy.state_dict().items() if k != "log_std"}
    agent.policy.load_state_dict(weights, strict=False)
    return agent


def _copy_of(ctr_model: CTRModel) -> StateEncoder:
    """An encoder of the CTR model's shape, its items fixed; its weights are loaded with the policy's."""
    encoder = StateEncoder(ctr_model.data, ctr_model.policy.encoder.settings)
    encoder.disable_dropout()
    encoder.freeze_items()
    return encoder


def _learned_slates(task: TrainingTask, agent: A2C) -> Act:
    agent.learn(task.transitions)
    return serving_policy(agent, task.data.catalog.labels, task.ctr_model.slate_size, task.seed)


def _continuous(
    task: TrainingTask, method: str, algorithm: type[DDPG] | type[TD3] | type[SAC], shaped: Shaped = lambda s: s
) -> Act:
    settings = settings_of(method, DEFAULTS[method], task.settings)
    ctr_model = task.ctr_model
    choose = hyper_action_chooser(ctr_model, settings.pop("radius"))
    space = hyper_action_space(ctr_model)
    env = StateEnv(shaped(task.sessions), ctr_model, space, choose)  # type: ignore[arg-type]
    noise = settings.pop("noise", None)
    agent = algorithm(
        "MlpPolicy",
        GymnasiumVecEnv(env),
        policy_kwargs={"net_arch": NET},
        action_noise=None if noise is None else _noise(space.shape[0], noise, task.sessions.num_envs),
        buffer_size=REPLAY,
        learning_starts=WARM_UP,
        train_freq=1,
        seed=task.seed,
        device="cpu",
        **settings,
    )
    _begin_at_zero(agent)
    agent.learn(task.transitions)
    return on_states(ctr_model, choose, _drawn_actions(agent, noise or 0.0, task.seed))


def _noise(size: int, scale: float, n_envs: int) -> VectorizedActionNoise:
    base = NormalActionNoise(np.zeros(size), np.full(size, scale))
    return VectorizedActionNoise(base, n_envs)


def _begin_at_zero(agent: BaseAlgorithm) -> None:
    """Set the actor's first actions near 0, which serves the CTR model's own slates."""
    actor: Any = agent.actor  # type: ignore[attr-defined]
    if isinstance(agent, SAC):
        heads, start = [actor.mu], -1.5
        nn.init.zeros_(actor.log_std.weight)
        nn.init.constant_(actor.log_std.bias, start)
    else:
        heads = [[layer for layer in actor.mu if isinstance(layer, nn.Linear)][-1]]
    for head in heads:
        nn.init.uniform_(head.weight, -1e-3, 1e-3)
        nn.init.zeros_(head.bias)
    for target in (getattr(agent, "actor_target", None),):
        if target is not None:
            target.load_state_dict(actor.state_dict())


def _drawn_actions(agent: BaseAlgorithm, noise: float, seed: int) -> Callable[[Any, dict[str, Any]], Tensor]:
    """The actor's actions while serving: the best one with exploration noise, or, for SAC, a draw."""
    actor: Any = agent.actor  # type: ignore[attr-defined]
    actor.set_training_mode(False)
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def actions(states: NDArray[np.float32], observations: dict[str, Any]) -> Tensor:
        seen = torch.from_numpy(states)
        if isinstance(agent, SAC):
            mean, log_std, _ = actor.get_action_dist_params(seen)
            drawn: Tensor = torch.tanh(mean + log_std.exp() * torch.randn(mean.shape, generator=generator))
            return drawn
        best: Tensor = actor(seen)
        return (best + noise * torch.randn(best.shape, generator=generator)).clamp(-1.0, 1.0)

    return actions


def _q_network(task: TrainingTask, method: str, shaped: Shaped = lambda s: s) -> Act:
    settings = settings_of(method, DEFAULTS[method], task.settings)
    ctr_model, choose = task.ctr_model, category_chooser(task.ctr_model)
    env = StateEnv(shaped(task.sessions), ctr_model, category_space(ctr_model), choose)  # type: ignore[arg-type]
    agent = DQN(
        "MlpPolicy",
        GymnasiumVecEnv(env),
        policy_kwargs={"net_arch": NET["qf"]},
        buffer_size=REPLAY,
        learning_starts=WARM_UP,
        train_freq=1,
        target_update_interval=WARM_UP,
        seed=task.seed,
        device="cpu",
        **settings,
    )
    agent.learn(task.transitions)
    network = agent.q_net
    network.set_training_mode(False)

    @torch.no_grad()
    def best(states: NDArray[np.float32], observations: dict[str, Any]) -> Tensor:
        return network(torch.from_numpy(states)).argmax(dim=1)  # type: ignore[no-any-return]

    return on_states(ctr_model, choose, best)
