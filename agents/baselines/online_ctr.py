"""An online CTR model: it begins as the pretrained one, goes on learning from sessions and serves its best slate.

In these environments a slate changes little but whether its items are clicked. PPO learns that from one number a slate,
and from how a draw differs from the mean action; a model of clicks learns it from every item shown. The model is a copy
of the pretrained one (:class:`~rapport.agents.baselines.click_prior.CTRModel`), items included: encoder, actor and item
encodings are trained further with the likelihood they were pretrained with, on the clicks on their own slates. It does
not explore deliberately: sessions differ enough to keep it from getting stuck (Bastani, Bayati & Khosravi, *Mostly
exploration-free algorithms for contextual bandits*, Management Science 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rapport.agents.baselines.bandits import learn_online
from rapport.agents.baselines.click_prior import CTRModel, top_items
from rapport.agents.baselines.task import Act, Settings, TrainingTask, settings_of
from rapport.agents.policies.score import score_pairs
from rapport.agents.policies.slate_policy import SlatePolicy

if TYPE_CHECKING:
    import optuna

DEFAULTS: Settings = {"learning_rate": 3e-4, "passes": 6.0, "weight_decay": 0.1}
BATCH = 256
"""Slates in a minibatch."""
EVERY = 4
"""Steps of all sessions between updates; a first update on one slate of each session would mislead it."""


class ClickBatch(NamedTuple):
    """Slates and the clicks on them, n slates.

    Attributes:
        user_features: shape (n, G), int64.
        items: shape (n, W), int64, item index + 1 of the newest items before the slate, oldest first; 0: none.
        feedback: shape (n, W, F), int8, the user's behaviours on them.
        slates: shape (n, K), int64.
        clicks: shape (n, K), float32.
    """

    user_features: Tensor
    items: Tensor
    feedback: Tensor
    slates: Tensor
    clicks: Tensor


def online_ctr_model(task: TrainingTask) -> Act:
    """Learn clicks while serving the allowed items with the highest scores; then serve on without learning.

    Settings: ``learning_rate`` (3e-4) of AdamW; ``passes`` (6.0), slates drawn into minibatches for each slate served,
    uniformly from all so far; ``weight_decay`` (0.1).
    """
    settings = settings_of("online CTR model", DEFAULTS, task.settings)
    rng = np.random.default_rng(task.seed)
    model = task.ctr_model.copy()
    parameters = _learned(model.policy)
    optimiser = torch.optim.AdamW(parameters, settings["learning_rate"], weight_decay=settings["weight_decay"])
    update_size = EVERY * task.sessions.num_envs
    buffer = ClickBuffer(task.transitions + update_size)

    def choose(observations: dict[str, Any]) -> NDArray[np.int64]:
        return top_items(model.click_scores(observations), model.allowed(observations), model.slate_size)

    def update(observations: dict[str, Any], slates: NDArray[np.int64], clicks: NDArray[np.integer]) -> None:
        buffer.add(_batch(model, observations, slates, clicks))
        if buffer.size % update_size:
            return
        for _ in range(max(1, round(settings["passes"] * update_size / BATCH))):
            loss = click_loss(model.policy, buffer.sample(BATCH, rng))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
        model.encode_items()

    learn_online(task, choose, update, rng)
    return choose


def click_loss(policy: SlatePolicy, batch: ClickBatch) -> Tensor:
    """Mean binary cross-entropy of clicks, whose logit is the item's score under the mean hyper-action; a scalar."""
    encoder = policy.encoder
    state = encoder.encode(batch.user_features, batch.items, batch.feedback)
    no_plan = state.new_zeros(len(state), policy.features_dim - state.shape[1])
    weights = policy.mean_action(torch.cat([state, no_plan], dim=1))
    shown = F.embedding(batch.slates, encoder.items())
    return F.binary_cross_entropy_with_logits(score_pairs(weights[:, None], shown), batch.clicks)


def _learned(policy: SlatePolicy) -> list[nn.Parameter]:
    """Parameters of encoder, item encodings and actor, made trainable; the critic and the plan's layer are left out."""
    parts = (policy.encoder, policy.mlp_extractor.policy_net, policy.action_net)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _batch(
    model: CTRModel, observations: dict[str, Any], slates: NDArray[np.int64], clicks: NDArray[np.integer]
) -> ClickBatch:
    user_features, items, feedback = model.read(observations)
    return ClickBatch(user_features, items, feedback, torch.from_numpy(slates), torch.from_numpy(clicks).float())


class ClickBuffer:
    """All slates so far, with their clicks.

    Args:
        capacity: most slates there will be.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size = capacity, 0
        self._kept: ClickBatch | None = None

    def add(self, batch: ClickBatch) -> None:
        """Add slates."""
        if self._kept is None:
            self._kept = ClickBatch(*(part.new_empty(self.capacity, *part.shape[1:]) for part in batch))
        for kept, part in zip(self._kept, batch, strict=True):
            kept[self.size : self.size + len(part)] = part
        self.size += len(batch.slates)

    def sample(self, n: int, rng: np.random.Generator) -> ClickBatch:
        """Draw ``n`` slates uniformly with replacement."""
        assert self._kept is not None
        drawn = torch.from_numpy(rng.integers(self.size, size=n))
        return ClickBatch(*(part[drawn] for part in self._kept))


def space(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of :func:`online_ctr_model`."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "passes": trial.suggest_float("passes", 1.0, 12.0, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
    }
