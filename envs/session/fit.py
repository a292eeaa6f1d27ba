"""Fitting the user model to a log, and what it then predicts for later days."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.datasets.schema import FloatArray, Int8Array, IntArray, SessionData
from rapport.envs.session.sequences import sequence_batches
from rapport.envs.session.user_model import UserModel, new_user_model

Profile = Literal["corrected", "official"]
Report = Callable[[int, int, float], None]
"""Called after each batch with (batches done, batches in all, loss)."""

ALL_TIME = 1 << 62


@dataclass(frozen=True)
class FitSettings:
    """How the user model is fitted."""

    profile: Profile = "corrected"
    """``corrected``: plain likelihood, calibrated on the validation days. ``official``: LERL's weighting, positives 1
    and negatives (#positives / #negatives) of each behaviour, so that probabilities refer to a balanced prior."""
    epochs: int = 3
    """Passes over the log; the best on the validation days is kept."""
    length: int = 96
    """Newest exposures of a user that are read."""
    batch_size: int = 256
    """Users in a batch."""
    learning_rate: float = 2e-3
    """Peak of a one-cycle schedule."""
    item_decay: float = 0.3
    """Decoupled weight decay of the items' own embeddings: an item's features speak for it until the log knows it."""
    seed: int = 0
    """Of weights, dropout and batch order."""

    def __post_init__(self) -> None:
        if self.profile not in get_args(Profile):
            raise ValueError(f"profile={self.profile!r} is unknown; choose one of {', '.join(get_args(Profile))}")
        for name in ("epochs", "length", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Fitted:
    """A fitted user model.

    Attributes:
        model: in evaluation mode.
        calibration: shape (2, F): calibrated logit = calibration[0] * logit + calibration[1].
    """

    model: UserModel
    calibration: Tensor


def fit_user_model(
    data: SessionData, settings: FitSettings, users: IntArray | None = None, report: Report | None = None
) -> Fitted:
    """Fit a user model to the training days, stopping and calibrating on the validation days.

    Args:
        data: the log; rows from ``data.test_from_ms`` on are never read.
        settings: how.
        users: whose rows to learn from; all users by default. (A simulator learns from all users' training days; an
            agent may only learn from users that are not held out.)
        report: called after each batch.
    """
    users = np.arange(data.population.n_users) if users is None else users
    generator = np.random.default_rng(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = new_user_model(data)
        model.rates.copy_(_overall_rates(data, users))
        weights = _loss_weights(data, settings.profile)
        best = _train(model, data, users, settings, weights, generator, report)
    model.load_state_dict(best)
    model.eval()
    n_behaviours = len(data.log.behaviours)
    identity = torch.stack([torch.ones(n_behaviours), torch.zeros(n_behaviours)])
    if settings.profile == "official":
        return Fitted(model, identity)
    logits, truth = predict(model, data, users, data.valid_from_ms, data.test_from_ms, settings.length)
    return Fitted(model, _calibrate(logits, truth))


def predict(
    model: UserModel, data: SessionData, users: IntArray, from_ms: int, until_ms: int, length: int
) -> tuple[FloatArray, Int8Array]:
    """Logits and truth, both (R, F), of the rows in [from_ms, until_ms), each given its user's rows before it.

    Of each user only the newest ``length`` rows before ``until_ms`` are read; older ones are neither given nor
    predicted.

    Raises:
        ValueError: there is no such row.
    """
    logits, truth = [], []
    model.eval()
    with torch.no_grad():
        for batch in sequence_batches(data.log, users, until_ms, length, 512):
            wanted = (batch.rows >= 0) & (data.log.time_ms[batch.rows] >= from_ms)
            if wanted.any():
                logits.append(model(batch.users, batch.items, batch.feedback).numpy()[wanted])
                truth.append(data.log.feedback[batch.rows[wanted]])
    if not logits:
        raise ValueError(f"no row of these {len(users)} users lies between {from_ms} and {until_ms} ms")
    return np.concatenate(logits), np.concatenate(truth)


def states_after(model: UserModel, data: SessionData, until_ms: int, length: int) -> FloatArray:
    """Encoder states, shape (U, D), after each user's rows before ``until_ms``; zeros where there is none."""
    states = np.zeros((data.population.n_users, model.size.state_width), np.float32)
    model.eval()
    with torch.no_grad():
        encoded = model.items()
        for batch in sequence_batches(data.log, np.arange(len(states)), until_ms, length, 512):
            after = model.read(encoded[batch.items], batch.feedback)
            last = (batch.rows >= 0).sum(axis=1) - 1
            states[batch.users.numpy()] = after.numpy()[np.arange(len(last)), last]
    return states


def one_cycle(optimiser: torch.optim.Optimizer, peak: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """A learning rate that rises to its peak over a tenth of the steps, at least two, and falls to nothing.

    Torch's own divides by zero where the rise is exactly one step long.
    """
    rise = min(max(0.1, 2 / steps), 0.45)
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=rise)


def _train(
    model: UserModel,
    data: SessionData,
    users: IntArray,
    settings: FitSettings,
    weights: Tensor,
    generator: np.random.Generator,
    report: Report | None,
) -> dict[str, Tensor]:
    def batches() -> list[int]:
        return [len(b.users) for b in sequence_batches(data.log, users, data.valid_from_ms, settings.length, size)]

    size = settings.batch_size
    total = len(batches()) * settings.epochs
    rest = [p for name, p in model.named_parameters() if name != "item_id.weight"]
    groups = [
        {"params": rest, "weight_decay": 1e-3},
        {"params": [model.item_id.weight], "weight_decay": settings.item_decay},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
    schedule = one_cycle(optimiser, settings.learning_rate, total)
    best, best_loss, done = copy.deepcopy(model.state_dict()), float("inf"), 0
    for _ in range(settings.epochs):
        model.train()
        for batch in sequence_batches(data.log, users, data.valid_from_ms, settings.length, size, generator):
            loss = _loss(model(batch.users, batch.items, batch.feedback), batch.feedback, weights)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            done += 1
            if report is not None:
                report(done, total, float(loss.detach()))
        held_back = predict(model, data, users, data.valid_from_ms, data.test_from_ms, settings.length)
        logits, truth = (torch.from_numpy(array)[None] for array in held_back)
        loss_now = float(_loss(logits, truth, weights))
        if loss_now < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), loss_now
    return best


def _loss(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy summed over behaviours, averaged over the exposures where each was recorded; (B, T, F) inputs."""
    known = truth >= 0
    weight = torch.where(truth > 0, weights[0], weights[1]) * known
    entropy = F.binary_cross_entropy_with_logits(logits, truth.clamp(min=0).float(), reduction="none") * weight
    return (entropy.sum((0, 1)) / known.sum((0, 1)).clamp(min=1)).sum()


def _overall_rates(data: SessionData, users: IntArray) -> Tensor:
    """Smoothed rate of each behaviour in the training days of these users, shape (F,)."""
    wanted = np.zeros(data.population.n_users, bool)
    wanted[users] = True
    rows = data.log.feedback[(data.log.time_ms < data.valid_from_ms) & wanted[data.log.user]]
    return torch.tensor(((rows == 1).sum(axis=0) + 1) / ((rows >= 0).sum(axis=0) + 2), dtype=torch.float32)


def _loss_weights(data: SessionData, profile: Profile) -> Tensor:
    """Weights of positives and of negatives, shape (2, F)."""
    n_behaviours = len(data.log.behaviours)
    weights = torch.ones(2, n_behaviours)
    if profile == "official":
        rows = data.log.feedback[data.log.time_ms < data.valid_from_ms]
        weights[1] = torch.tensor((rows == 1).sum(axis=0) / np.maximum((rows == 0).sum(axis=0), 1))
    return weights


def _calibrate(logits: FloatArray, truth: Int8Array) -> Tensor:
    """Platt's two numbers per behaviour, shape (2, F): the scale only where there are enough positives to tell it."""
    scale, shift = torch.ones(truth.shape[1]), torch.zeros(truth.shape[1])
    for column in range(truth.shape[1]):
        known = truth[:, column] >= 0
        x = torch.from_numpy(logits[known, column]).double()
        y = torch.from_numpy(truth[known, column]).double()
        if y.sum() >= 20 and (1 - y).sum() >= 20:
            scale[column], shift[column] = _platt(x, y, fit_scale=bool(y.sum() >= 200))
    return torch.stack([scale, shift])


def _platt(x: Tensor, y: Tensor, fit_scale: bool) -> tuple[Tensor, Tensor]:
    scale = torch.ones((), dtype=torch.double, requires_grad=fit_scale)
    shift = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [p for p in (scale, shift) if p.requires_grad], max_iter=50, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(scale * x + shift, y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return scale.detach(), shift.detach()
