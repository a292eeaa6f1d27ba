"""A click model that begins as the log's and goes on learning from sessions; the best slate by it is served.

What a slate does to people here is mostly whether they click it. PPO learns that from one number a slate, and from how
a draw differs from what it would have drawn; a model of clicks learns it from every item shown. The model is the first
policy itself (:class:`~rapport.agents.baselines.click_prior.LogModel`), its items too: encoder, actor and item
encodings go on with the likelihood they began with, on what their own slates were answered. It explores by no device of
its own: sessions differ enough to keep it from getting stuck (Bastani, Bayati & Khosravi, *Mostly exploration-free
algorithms for contextual bandits*, Management Science 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rapport.agents.baselines.bandits import learn_online
from rapport.agents.baselines.click_prior import LogModel, top_items
from rapport.agents.baselines.task import Act, Lesson, Settings, settings_of
from rapport.agents.policies.score import score_pairs
from rapport.agents.policies.slate_policy import SlatePolicy

if TYPE_CHECKING:
    import optuna

DEFAULTS: Settings = {"learning_rate": 3e-4, "passes": 6.0, "weight_decay": 0.1}
BATCH = 256
"""Slates in a minibatch."""
EVERY = 4
"""Steps of all sessions between lessons: the first one is of several slates a session, or it leads astray."""


class Answers(NamedTuple):
    """Slates and what they were answered, n of them.

    Attributes:
        user_features: shape (n, G), int64.
        items: shape (n, W), int64, item index + 1 of the newest items before the slate, oldest first; 0: none.
        feedback: shape (n, W, F), int8, what was done with them.
        slates: shape (n, K), int64.
        clicks: shape (n, K), float32.
    """

    user_features: Tensor
    items: Tensor
    feedback: Tensor
    slates: Tensor
    clicks: Tensor


def click_learner(lesson: Lesson) -> Act:
    """Learn clicks while serving the slates of most likely clicks among what plans allow; then serve on by it.

    Settings: ``learning_rate`` (3e-4) of AdamW; ``passes`` (6.0), slates drawn into minibatches for each one served,
    all so far being as likely; ``weight_decay`` (0.1).
    """
    settings = settings_of("click model", DEFAULTS, lesson.settings)
    rng = np.random.default_rng(lesson.seed)
    model = lesson.log_model.copy()
    parameters = _learned(model.policy)
    optimiser = torch.optim.AdamW(parameters, settings["learning_rate"], weight_decay=settings["weight_decay"])
    lesson_size = EVERY * lesson.sessions.num_envs
    memory = Memory(lesson.transitions + lesson_size)

    def choose(observations: dict[str, Any]) -> NDArray[np.int64]:
        return top_items(model.click_scores(observations), model.allowed(observations), model.slate_size)

    def update(observations: dict[str, Any], slates: NDArray[np.int64], clicks: NDArray[np.integer]) -> None:
        memory.add(_answers(model, observations, slates, clicks))
        if memory.size % lesson_size:
            return
        for _ in range(max(1, round(settings["passes"] * lesson_size / BATCH))):
            loss = click_loss(model.policy, memory.draw(BATCH, rng))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
        model.encode_items()

    learn_online(lesson, choose, update, rng)
    return choose


def click_loss(policy: SlatePolicy, answers: Answers) -> Tensor:
    """Mean binary cross-entropy of clicks, whose logit is the item's score under the mean hyper-action; a scalar."""
    encoder = policy.encoder
    state = encoder.encode(answers.user_features, answers.items, answers.feedback)
    no_plan = state.new_zeros(len(state), policy.features_dim - state.shape[1])
    weights = policy.mean_action(torch.cat([state, no_plan], dim=1))
    shown = F.embedding(answers.slates, encoder.items())
    return F.binary_cross_entropy_with_logits(score_pairs(weights[:, None], shown), answers.clicks)


def _learned(policy: SlatePolicy) -> list[nn.Parameter]:
    """Encoder, item encodings and actor, free to change; the critic and what reads plans have no part in this."""
    parts = (policy.encoder, policy.mlp_extractor.policy_net, policy.action_net)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _answers(
    model: LogModel, observations: dict[str, Any], slates: NDArray[np.int64], clicks: NDArray[np.integer]
) -> Answers:
    user_features, items, feedback = model.read(observations)
    return Answers(user_features, items, feedback, torch.from_numpy(slates), torch.from_numpy(clicks).float())


class Memory:
    """All answers so far.

    Args:
        capacity: how many there will be at most.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size = capacity, 0
        self._kept: Answers | None = None

    def add(self, answers: Answers) -> None:
        """Keep more of them."""
        if self._kept is None:
            self._kept = Answers(*(part.new_empty(self.capacity, *part.shape[1:]) for part in answers))
        for kept, part in zip(self._kept, answers, strict=True):
            kept[self.size : self.size + len(part)] = part
        self.size += len(answers.slates)

    def draw(self, n: int, rng: np.random.Generator) -> Answers:
        """``n`` of them, evenly, some perhaps more than once."""
        assert self._kept is not None
        drawn = torch.from_numpy(rng.integers(self.size, size=n))
        return Answers(*(part[drawn] for part in self._kept))


def space(trial: optuna.Trial) -> dict[str, Any]:
    """What to search for :func:`click_learner`."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "passes": trial.suggest_float("passes", 1.0, 12.0, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
    }
