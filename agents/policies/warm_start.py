"""Pretraining on the log: encoder and actor learn to predict clicks from training users' rows.

LERL's policy starts from random features and learns preferences from rewards alone. Here the encoder and the actor
first learn, by maximum likelihood, which of the logged exposures were clicked: the score of an item under the mean
hyper-action is its click logit. They read only what a service would have on file, training days of users that are not
held out, and nothing of the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.agents.policies.score import score_pairs
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.datasets.schema import IntArray, SessionData
from rapport.envs.session.response.batches import SequenceBatch, sequence_batches
from rapport.envs.session.response.fit import one_cycle


@dataclass(frozen=True)
class WarmStart:
    """How a policy is pretrained."""

    epochs: int = 2
    """Passes over the training users' rows."""
    length: int = 64
    """Newest rows of a user that are read."""
    batch_size: int = 64
    """Users in a batch."""
    learning_rate: float = 3e-3
    """Peak of a one-cycle schedule."""
    item_decay: float = 0.1
    """Decoupled weight decay of the items' own embeddings."""


def warm_start(
    policy: SlatePolicy,
    data: SessionData,
    settings: WarmStart,
    seed: int,
    report: Callable[[int, int, float], None] | None = None,
) -> None:
    """Fit encoder and actor to the training users' training days, in place.

    A second head, which is dropped afterwards, learns from the long views of exposures whose click was not recorded.

    Args:
        policy: an untrained policy.
        data: rows of held-out users and of later days are not read.
        settings: epochs, batch size and learning rate.
        seed: of the order and the dropout.
        report: called after each batch with (batches done, batches in all, loss).
    """
    users = np.flatnonzero(~data.held_out)
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _warm_start(policy, data, settings, users, generator, report)


def _warm_start(
    policy: SlatePolicy,
    data: SessionData,
    settings: WarmStart,
    users: IntArray,
    generator: np.random.Generator,
    report: Callable[[int, int, float], None] | None,
) -> None:
    targets = [0, *(i for i, name in enumerate(data.log.behaviours) if i > 0 and name == "long_view")]
    first = policy.action_net
    assert isinstance(first, nn.Linear)  # Stable-Baselines3's head of a Gaussian action
    second = nn.Linear(first.in_features, first.out_features)
    heads = [first, second][: len(targets)]
    read = (data.log, users, data.valid_from_ms, settings.length, settings.batch_size)
    total = settings.epochs * sum(1 for _ in sequence_batches(*read))
    parameters = [*_learned(policy), *second.parameters()]
    groups = [
        {"params": parameters, "weight_decay": 1e-3},
        {"params": [policy.encoder.item_id.weight], "weight_decay": settings.item_decay},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
    schedule = one_cycle(optimiser, settings.learning_rate, total)
    user_features = torch.tensor(data.population.features.codes).long()
    policy.set_training_mode(True)
    done = 0
    for _ in range(settings.epochs):
        for batch in sequence_batches(*read, generator):
            loss = _loss(policy, heads, targets, user_features[batch.users], batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            schedule.step()
            done += 1
            if report is not None:
                report(done, total, float(loss.detach()))
    policy.set_training_mode(False)
    policy.encoder.disable_dropout()


def _learned(policy: SlatePolicy) -> list[nn.Parameter]:
    encoder = [p for name, p in policy.encoder.named_parameters() if name != "item_id.weight"]
    return [*encoder, *policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]


def _loss(
    policy: SlatePolicy, heads: list[nn.Linear], targets: list[int], user_features: Tensor, batch: SequenceBatch
) -> Tensor:
    encoder = policy.encoder
    items = (batch.items + 1) * torch.from_numpy(batch.rows >= 0)
    states = encoder.encode(user_features, items, batch.feedback, last_only=False)[:, :-1]
    plan = states.new_zeros(*states.shape[:2], policy.features_dim - states.shape[-1])
    latent = policy.mlp_extractor.forward_actor(torch.cat([states, plan], dim=-1))
    shown = F.embedding((items - 1).clamp(min=0), encoder.items())
    total = states.new_zeros(())
    for head, target in zip(heads, targets, strict=True):
        logits = score_pairs(head(latent), shown)
        truth = batch.feedback[..., target]
        known = truth >= 0
        entropy = F.binary_cross_entropy_with_logits(logits, truth.clamp(min=0).float(), reduction="none")
        total = total + (entropy * known).sum() / known.sum().clamp(min=1)
    return total
