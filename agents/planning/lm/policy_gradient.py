"""Policy-gradient fine-tuning of the planner model on the values of its plans.

For each of B training users the model generates G plans. The simulator plays each plan; the advantage of a plan is its
value minus the mean value of the user's G plans (as in RLOO and GRPO, which need no critic), so that easy users weigh
no more than hard ones. A Kullback-Leibler penalty keeps the model near the initial one. This addresses the second open
question of LERL (arXiv 2601.19585): a planner that learns from its users instead of prompts alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rapport._deprecation import renamed
from rapport.agents.lm.example import split_prompts
from rapport.agents.lm.generate import generate
from rapport.agents.lm.model import Llama
from rapport.agents.lm.tokenizer import Tokenizer
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.lm.lookahead import FixedPlanPolicy, plan_values
from rapport.agents.planning.lm.torch_planner import parse_plans
from rapport.agents.planning.planner import BoolArray, Planner, SessionViews, session_views
from rapport.agents.planning.preference import FloatArray
from rapport.envs.session.env import SessionVectorEnv


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Hyper-parameters of policy-gradient fine-tuning."""

    rounds: int = 40
    """Updates."""
    users: int = 48
    """Training users in an update, B; it must be the environment's number of sessions."""
    plans: int = 4
    """Plans per user, G."""
    horizon: int = 20
    """Slates over which a plan holds and is valued; a session has no more."""
    learning_rate: float = 1e-4
    """Adam's learning rate."""
    kl: float = 0.2
    """Weight of the divergence from the initial model, in nats per token."""
    temperature: float = 1.0
    """Sampling temperature of the plans."""


@dataclass(frozen=True)
class Update:
    """Statistics of one update.

    Attributes:
        value: mean value of the plans, expected click rates summed over the horizon.
        kl: divergence from the initial model in nats per token.
        unusable: share of completions that were no plan.
    """

    value: float
    kl: float
    unusable: float


class PolicyGradientTrainer:
    """Fine-tunes a model in place on training users' sessions.

    Args:
        model: the model to train.
        tokenizer: its vocabulary.
        planner: writes the prompts and parses the plans.
        fallback: plans where a completion is no plan.
        low_level: chooses the slates under a plan.
        config: hyper-parameters.
        seed: seed of users and tokens.
    """

    def __init__(
        self,
        model: Llama,
        tokenizer: Tokenizer,
        planner: LLMPlanner,
        fallback: Planner,
        low_level: FixedPlanPolicy,
        config: PolicyGradientConfig,
        seed: int,
    ) -> None:
        self.model, self.tokenizer, self.planner, self.fallback = model, tokenizer, planner, fallback
        self.low_level, self.config = low_level, config
        self.initial_model = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        self.rng = np.random.default_rng([seed, 4])
        self.generator = torch.Generator().manual_seed(seed)

    def train(self, env: SessionVectorEnv, report: Callable[[int, Update], None] = lambda done, update: None) -> None:
        """Make all updates.

        Args:
            env: ``config.users`` sessions of training users.
            report: called after each update with the number of updates done and the statistics.
        """
        for number in range(self.config.rounds):
            report(number + 1, self.update(env))

    def update(self, env: SessionVectorEnv) -> Update:
        """Begin sessions, play a random number of slates, generate plans, value them, and make a gradient step."""
        core, config = env.core, self.config
        env.reset(seed=int(self.rng.integers(2**31)))
        self._play(env, int(self.rng.choice([0, 0, int(self.rng.integers(1, 11))])))
        views = session_views(core.observation(), core.user, core.data, core.slate_size)
        prefix, suffixes = self._prompts(views)
        repeated = [suffix for _ in range(config.plans) for suffix in suffixes]
        generation = generate(
            self.model,
            self.tokenizer,
            self.model.read_prefix(prefix),
            repeated,
            temperature=config.temperature,
            generator=self.generator,
        )
        plans, usable = parse_plans(generation.texts, self.planner, self.fallback, views)
        values = np.stack([plan_values(core, self.low_level, some, config.horizon) for some in plans])
        advantage = torch.from_numpy(_advantages(values, usable).reshape(-1)).float()
        kl = self._gradient_step(prefix, repeated, generation.tokens, advantage)
        return Update(float(values.mean()), kl, float(1 - usable.mean()))

    def _play(self, env: SessionVectorEnv, slates: int) -> None:
        core = env.core
        if not slates:
            return
        views = session_views(core.observation(), core.user, core.data, core.slate_size)
        plans = self.fallback.plan(views)
        for _ in range(slates):
            core.step(self.low_level.slates(core, plans))

    def _prompts(self, views: SessionViews) -> tuple[Tensor, list[str]]:
        prefix, suffixes = split_prompts(self.planner.prompts(views))
        return torch.tensor([self.tokenizer.bos, *self.tokenizer.encode(prefix)]), suffixes

    def _gradient_step(
        self, prefix: Tensor, suffixes: Sequence[str], completions: list[list[int]], advantage: Tensor
    ) -> float:
        tokens, counted = _pad([self.tokenizer.encode(suffix) for suffix in suffixes], completions)
        with torch.no_grad():
            initial = self._log_probabilities(self.initial_model, prefix, tokens, counted)
        current = self._log_probabilities(self.model, prefix, tokens, counted)
        taken = tokens[:, 1:][counted]
        row = counted.nonzero()[:, 0]
        gain = (advantage[row] * current.gather(1, taken[:, None])[:, 0]).sum() / len(tokens)
        kl = (current.exp() * (current - initial)).sum(dim=1).mean()
        self.optimiser.zero_grad()
        (self.config.kl * kl - gain).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return float(kl.detach())

    def _log_probabilities(self, model: Llama, prefix: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        hidden = model.hidden(tokens[:, :-1], model.read_prefix(prefix))
        return F.log_softmax(model.logits(hidden[counted]), dim=1)


def _advantages(values: FloatArray, usable: BoolArray) -> FloatArray:
    """Values minus the user's mean, in standard deviations over all, shape (G, B); -1 where there was no plan."""
    relative = values - values.mean(axis=0)
    scaled: FloatArray = relative / max(float(relative.std()), 1e-6)
    return np.where(usable, np.clip(scaled, -3, 3), -1.0)


def _pad(suffixes: list[list[int]], completions: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Suffixes and completions as padded rows, shape (N, L), and which targets are completions, shape (N, L - 1)."""
    longest = max(len(suffix) + len(completion) for suffix, completion in zip(suffixes, completions, strict=True))
    tokens = torch.zeros(len(suffixes), longest, dtype=torch.long)
    counted = torch.zeros(len(suffixes), longest - 1, dtype=torch.bool)
    for row, (suffix, completion) in enumerate(zip(suffixes, completions, strict=True)):
        end = len(suffix) + len(completion)
        tokens[row, :end] = torch.tensor(suffix + completion)
        counted[row, len(suffix) - 1 : end - 1] = True
    return tokens, counted


__getattr__ = renamed(__name__, {"Improving": "PolicyGradientConfig"})
