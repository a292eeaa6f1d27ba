"""Reinforcement learning without a planner, by Stable-Baselines3 and sb3-contrib.

On-policy methods with continuous actions (REINFORCE, A2C) train the very policy that LERL's PPO trains. Off-policy ones
(DDPG, TD3, SAC, and SAC4IR on top of it) and those that choose a category (DQN, masked PPO, DNaIR) train a network of
their own on the log model's states, which stay as they are; LERL's released code leaves its encoder as good as frozen,
too. All begin with what the log teaches: their first action is, or is near, the log's own slate.

Everybody serves as it acts while learning, by draws, as LERL does: a policy that always takes its best action shows the
same again and again, and people leave. DQN and DNaIR, whose choice changes with what was shown, take their best.
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

from rapport.agents.baselines.click_prior import LogModel
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
from rapport.agents.baselines.task import Act, Lesson, Settings, settings_of
from rapport.agents.lerl import served_slates
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
"""What each method does unless its lesson says otherwise."""


def reinforce(lesson: Lesson) -> Act:
    """REINFORCE (Williams, 1992): policy gradient on whole returns, normalised over a batch, without a critic.

    Sessions that a rollout's end cuts count as if they ended there.
    """
    settings = settings_of("reinforce", DEFAULTS["reinforce"], lesson.settings)
    agent = _on_policy(lesson, settings, {"gae_lambda": 1.0, "vf_coef": 0.0, "normalize_advantage": True})
    with torch.no_grad():  # a critic that says nothing, and that no gradient reaches
        for parameter in agent.policy.value_net.parameters():
            parameter.zero_()
    return _learned_slates(lesson, agent)


def a2c(lesson: Lesson) -> Act:
    """Advantage actor-critic (Mnih et al., 2016)."""
    settings = settings_of("a2c", DEFAULTS["a2c"], lesson.settings)
    critic = {name: settings.pop(name) for name in ("gae_lambda", "vf_coef")}
    return _learned_slates(lesson, _on_policy(lesson, settings, critic))


def ddpg(lesson: Lesson) -> Act:
    """Deterministic policy gradient (Lillicrap et al., 2016)."""
    return _continuous(lesson, "ddpg", DDPG)


def td3(lesson: Lesson) -> Act:
    """Twin delayed deterministic policy gradient (Fujimoto et al., 2018)."""
    return _continuous(lesson, "td3", TD3)


def sac(lesson: Lesson) -> Act:
    """Soft actor-critic (Haarnoja et al., 2018)."""
    return _continuous(lesson, "sac", SAC)


def sac4ir(lesson: Lesson) -> Act:
    """SAC4IR (Shi et al., ICWS 2023): soft actor-critic whose reward is higher for what few have seen."""
    bonus = popularity_bonus(lesson.data)
    return _continuous(lesson, "sac4ir", SAC, lambda sessions: NoveltyReward(sessions, bonus))


def dqn(lesson: Lesson) -> Act:
    """Deep Q-network (Mnih et al., 2015) that chooses a category; its best items fill the slate."""
    return _q_network(lesson, "dqn")


def dnair(lesson: Lesson) -> Act:
    """DNaIR (Shi et al., TOIS 2023): a deep Q-network whose reward is higher for good items that few have seen."""
    bonus = quality_bonus(lesson.data)
    return _q_network(lesson, "dnair", lambda sessions: NoveltyReward(sessions, bonus))


def random_category(lesson: Lesson) -> Act:
    """Masked PPO's actions without its learning: any category but those just shown, its best items by the log model."""
    settings_of("random-category", {}, lesson.settings)
    log_model, rng = lesson.log_model, np.random.default_rng(lesson.seed)

    def any_allowed(states: NDArray[np.float32], observations: dict[str, Any]) -> NDArray[np.int64]:
        masks = category_masks(log_model, observations)
        drawn: NDArray[np.int64] = np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1)
        return drawn

    return on_states(log_model, category_chooser(log_model), any_allowed)


def masked_ppo(lesson: Lesson) -> Act:
    """PPO over categories with invalid ones masked (Huang and Ontañón, 2022): too small ones, and those just shown."""
    settings = settings_of("masked-ppo", DEFAULTS["masked-ppo"], lesson.settings)
    log_model, choose = lesson.log_model, category_chooser(lesson.log_model)
    env = StateEnv(lesson.sessions, log_model, category_space(log_model), choose)
    agent = MaskablePPO(
        "MlpPolicy",
        GymnasiumVecEnv(env),
        policy_kwargs={"net_arch": {"pi": NET["pi"], "vf": NET["pi"]}},
        seed=lesson.seed,
        device="cpu",
        **settings,
    )
    agent.learn(lesson.transitions)
    policy, generator = agent.policy, torch.Generator().manual_seed(lesson.seed)
    policy.set_training_mode(False)

    @torch.no_grad()
    def categories(states: NDArray[np.float32], observations: dict[str, Any]) -> NDArray[np.int64]:
        masks = category_masks(log_model, observations)
        chances: Any = policy.get_distribution(torch.from_numpy(states), masks).distribution
        drawn: NDArray[np.int64] = torch.multinomial(chances.probs, 1, generator=generator)[:, 0].numpy()
        return drawn

    return on_states(log_model, choose, categories)


Shaped = Callable[[Any], VectorEnv[Any, Any, Any]]


def _on_policy(lesson: Lesson, settings: dict[str, Any], fixed: Mapping[str, Any]) -> A2C:
    """An A2C agent that begins as the log model's policy; hyper-actions go on meaning the same slates."""
    encoder = _copy_of(lesson.log_model)
    log_std_init = settings.pop("log_std_init")
    agent = A2C(
        SlatePolicy,
        GymnasiumVecEnv(HyperActionEnv(lesson.sessions, encoder, lesson.data.catalog.category)),
        policy_kwargs={"encoder": encoder, "log_std_init": log_std_init},
        use_rms_prop=False,
        seed=lesson.seed,
        device="cpu",
        **settings,
        **fixed,
    )
    weights = {k: v for k, v in lesson.log_model.policy.state_dict().items() if k != "log_std"}
    agent.policy.load_state_dict(weights, strict=False)
    return agent


def _copy_of(log_model: LogModel) -> StateEncoder:
    """An encoder of the log model's shape, its items fixed; the weights follow with the policy's."""
    encoder = StateEncoder(log_model.data, log_model.policy.encoder.settings)
    encoder.forget_dropout()
    encoder.freeze_items()
    return encoder


def _learned_slates(lesson: Lesson, agent: A2C) -> Act:
    agent.learn(lesson.transitions)
    return served_slates(agent, lesson.data.catalog.category, lesson.log_model.slate_size, lesson.seed)


def _continuous(
    lesson: Lesson, method: str, algorithm: type[DDPG] | type[TD3] | type[SAC], shaped: Shaped = lambda s: s
) -> Act:
    settings = settings_of(method, DEFAULTS[method], lesson.settings)
    log_model = lesson.log_model
    choose = hyper_action_chooser(log_model, settings.pop("radius"))
    space = hyper_action_space(log_model)
    env = StateEnv(shaped(lesson.sessions), log_model, space, choose)  # type: ignore[arg-type]
    noise = settings.pop("noise", None)
    agent = algorithm(
        "MlpPolicy",
        GymnasiumVecEnv(env),
        policy_kwargs={"net_arch": NET},
        action_noise=None if noise is None else _noise(space.shape[0], noise, lesson.sessions.num_envs),
        buffer_size=REPLAY,
        learning_starts=WARM_UP,
        train_freq=1,
        seed=lesson.seed,
        device="cpu",
        **settings,
    )
    _begin_at_zero(agent)
    agent.learn(lesson.transitions)
    return on_states(log_model, choose, _drawn_actions(agent, noise or 0.0, lesson.seed))


def _noise(size: int, scale: float, n_envs: int) -> VectorizedActionNoise:
    base = NormalActionNoise(np.zeros(size), np.full(size, scale))
    return VectorizedActionNoise(base, n_envs)


def _begin_at_zero(agent: BaseAlgorithm) -> None:
    """Let the actor's first actions be near 0, the log's own slates."""
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
    """How the actor serves: its best action with the noise of its exploration, or, for SAC, its own draw."""
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


def _q_network(lesson: Lesson, method: str, shaped: Shaped = lambda s: s) -> Act:
    settings = settings_of(method, DEFAULTS[method], lesson.settings)
    log_model, choose = lesson.log_model, category_chooser(lesson.log_model)
    env = StateEnv(shaped(lesson.sessions), log_model, category_space(log_model), choose)  # type: ignore[arg-type]
    agent = DQN(
        "MlpPolicy",
        GymnasiumVecEnv(env),
        policy_kwargs={"net_arch": NET["qf"]},
        buffer_size=REPLAY,
        learning_starts=WARM_UP,
        train_freq=1,
        target_update_interval=WARM_UP,
        seed=lesson.seed,
        device="cpu",
        **settings,
    )
    agent.learn(lesson.transitions)
    network = agent.q_net
    network.set_training_mode(False)

    @torch.no_grad()
    def best(states: NDArray[np.float32], observations: dict[str, Any]) -> Tensor:
        return network(torch.from_numpy(states)).argmax(dim=1)  # type: ignore[no-any-return]

    return on_states(log_model, choose, best)
