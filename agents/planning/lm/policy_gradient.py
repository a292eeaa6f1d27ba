"""The planner learns: policy gradient on the tokens of its plans, rewarded by what holding a plan is worth.

For each of B training users the model writes G plans. Each is played on in the simulator; a plan's advantage is its
value less the mean of its user's G plans (as in RLOO and GRPO, which need no critic), so that easy users teach no more
than hard ones. A Kullback-Leibler term keeps the model near the one it began as. This is the second open question of
LERL (arXiv 2601.19585): a planner that improves with its users instead of being prompted alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rapport.agents.lm.example import split_prompts
from rapport.agents.lm.generate import plans_of, write
from rapport.agents.lm.model import Llama
from rapport.agents.lm.tokenizer import Tokenizer
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.lm.lookahead import HeldPlans, plan_values
from rapport.agents.planning.planner import BoolArray, Planner, SessionViews, session_views
from rapport.agents.planning.preference import FloatArray
from rapport.envs.session.env import SessionVectorEnv


@dataclass(frozen=True)
class Improving:
    """How the planner learns."""

    rounds: int = 40
    """Updates."""
    users: int = 48
    """Training users a round, B; their sessions' number is the environment's."""
    plans: int = 4
    """Plans a user, G."""
    horizon: int = 20
    """Slates a plan is held and valued over: a session, as nobody leaves early in one."""
    learning_rate: float = 1e-4
    """Adam's."""
    kl: float = 0.2
    """Weight of the divergence from the starting model, in nats a token."""
    temperature: float = 1.0
    """Of writing plans while learning."""


@dataclass(frozen=True)
class Round:
    """What one round saw.

    Attributes:
        value: mean value of the plans written, summed expected click rate over the horizon.
        kl: divergence from the starting model, nats a token.
        unusable: share of answers that were no plan.
    """

    value: float
    kl: float
    unusable: float


class PlannerLearner:
    """Improves a model on training users' sessions.

    Args:
        model: changed in place.
        tokenizer: its vocabulary.
        planner: words the prompts and reads the answers.
        fallback: plans where an answer cannot be used.
        low_level: serves the plans.
        settings: how.
        seed: of users and tokens.
    """

    def __init__(
        self,
        model: Llama,
        tokenizer: Tokenizer,
        planner: LLMPlanner,
        fallback: Planner,
        low_level: HeldPlans,
        settings: Improving,
        seed: int,
    ) -> None:
        self.model, self.tokenizer, self.planner, self.fallback = model, tokenizer, planner, fallback
        self.low_level, self.settings = low_level, settings
        self.start_model = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
        self.rng = np.random.default_rng([seed, 4])
        self.generator = torch.Generator().manual_seed(seed)

    def learn(self, env: SessionVectorEnv, report: Callable[[int, Round], None] = lambda number, seen: None) -> None:
        """All rounds, on an environment of ``settings.users`` sessions of training users."""
        for number in range(self.settings.rounds):
            report(number + 1, self.learn_once(env))

    def learn_once(self, env: SessionVectorEnv) -> Round:
        """Begin sessions, play them a random way, write plans, value them, learn."""
        core, settings = env.core, self.settings
        env.reset(seed=int(self.rng.integers(2**31)))
        self._play_on(env, int(self.rng.choice([0, 0, int(self.rng.integers(1, 11))])))
        views = session_views(core.observation(), core.user, core.data, core.slate_size)
        start, rests = self._prompts(views)
        repeated = [rest for _ in range(settings.plans) for rest in rests]
        prefix = self.model.read(start)
        written = write(
            self.model, self.tokenizer, prefix, repeated, temperature=settings.temperature, generator=self.generator
        )
        plans, usable = plans_of(written.texts, self.planner, self.fallback, views)
        values = np.stack([plan_values(core, self.low_level, some, settings.horizon) for some in plans])
        advantage = _advantages(values, usable)
        kl = self._update(start, repeated, written.tokens, torch.from_numpy(advantage.reshape(-1)).float())
        return Round(float(values.mean()), kl, float(1 - usable.mean()))

    def _play_on(self, env: SessionVectorEnv, slates: int) -> None:
        core = env.core
        if not slates:
            return
        views = session_views(core.observation(), core.user, core.data, core.slate_size)
        plans = self.fallback.plan(views)
        for _ in range(slates):
            core.step(self.low_level.slates(core, plans))

    def _prompts(self, views: SessionViews) -> tuple[Tensor, list[str]]:
        start, rests = split_prompts(self.planner.prompts(views))
        return torch.tensor([self.tokenizer.bos, *self.tokenizer.encode(start)]), rests

    def _update(self, start: Tensor, rests: Sequence[str], answers: list[list[int]], advantage: Tensor) -> float:
        tokens, counted = _joined([self.tokenizer.encode(rest) for rest in rests], answers)
        with torch.no_grad():
            before = self._log_chances(self.start_model, start, tokens, counted)
        log_chances = self._log_chances(self.model, start, tokens, counted)
        taken = tokens[:, 1:][counted]
        row = counted.nonzero()[:, 0]
        gain = (advantage[row] * log_chances.gather(1, taken[:, None])[:, 0]).sum() / len(tokens)
        kl = (log_chances.exp() * (log_chances - before)).sum(dim=1).mean()
        self.optimiser.zero_grad()
        (self.settings.kl * kl - gain).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return float(kl.detach())

    def _log_chances(self, model: Llama, start: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        hidden = model.hidden(tokens[:, :-1], model.read(start))
        return F.log_softmax(model.logits(hidden[counted]), dim=1)


def _advantages(values: FloatArray, usable: BoolArray) -> FloatArray:
    """Value less the user's mean, in standard deviations over all, shape (G, B); unusable answers get -1."""
    relative = values - values.mean(axis=0)
    scaled: FloatArray = relative / max(float(relative.std()), 1e-6)
    return np.where(usable, np.clip(scaled, -3, 3), -1.0)


def _joined(rests: list[list[int]], answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Prompts and answers as rows of tokens, shape (N, L), and which are predicted answers, shape (N, L - 1)."""
    longest = max(len(rest) + len(answer) for rest, answer in zip(rests, answers, strict=True))
    tokens = torch.zeros(len(rests), longest, dtype=torch.long)
    counted = torch.zeros(len(rests), longest - 1, dtype=torch.bool)
    for row, (rest, answer) in enumerate(zip(rests, answers, strict=True)):
        end = len(rest) + len(answer)
        tokens[row, :end] = torch.tensor(rest + answer)
        counted[row, len(rest) - 1 : end - 1] = True
    return tokens, counted
