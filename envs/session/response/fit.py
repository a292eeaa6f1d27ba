"""Fitting the user model to a log, and its predictions for later days."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapport.datasets.schema import FloatArray, Int8Array, IntArray, SessionData
from rapport.envs.session.response.base import Profile as Profile
from rapport.envs.session.response.batches import sequence_batches
from rapport.envs.session.response.counts import counts_before, counts_on_earlier_days
from rapport.envs.session.response.user_model import Encoder, UserModel, UserModelSize, new_user_model

Report = Callable[[int, int, float], None]
"""Called after each batch with (batches done, total batches, loss)."""

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
    """Newest exposures of a user that are used."""
    batch_size: int = 32
    """Users in a batch."""
    learning_rate: float = 1e-3
    """Peak of a one-cycle schedule."""
    item_decay: float = 0.3
    """Decoupled weight decay of the items' own embeddings, so that an item with few exposures is judged by its
    features."""
    encoder: Encoder = "gru"
    """Encoder of the history; a transformer is for comparison only."""
    counting: bool = True
    """Give the model counted rates of items, and of users by category; False is for comparison only."""
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


def fit_user_model(data: SessionData, settings: FitSettings, report: Report | None = None) -> Fitted:
    """Fit a user model to the training days, with early stopping and calibration on the validation days.

    Args:
        data: the log; rows from ``data.test_from_ms`` on are never used.
        settings: of the fit.
        report: called after each batch.
    """
    generator = np.random.default_rng(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = new_user_model(data, UserModelSize.of(data, settings.encoder))
        model.rates.copy_(_overall_rates(data))
        if not settings.counting:
            for weight in model.counted.parameters():
                weight.requires_grad_(False).zero_()
        weights = _loss_weights(data, settings.profile)
        count_items(model, data, data.valid_from_ms)
        best = _train(model, data, settings, weights, generator, report)
    model.load_state_dict(best)
    model.eval()
    forget_unmet(model)
    n_behaviours = len(data.log.behaviours)
    calibration = torch.stack([torch.ones(n_behaviours), torch.zeros(n_behaviours)])
    if settings.profile == "corrected":
        rows, logits = predict(model, data, data.valid_from_ms, data.test_from_ms, settings.length)
        calibration = calibrate(logits, data.log.feedback[rows])
    count_items(model, data, data.test_from_ms)
    return Fitted(model, calibration)


def forget_unmet(model: UserModel) -> None:
    """Set the id embeddings of items without training rows to zero: they are still as initialised."""
    _, recorded = model.item_counts.chunk(2, dim=1)
    with torch.no_grad():
        model.item_id.weight[recorded.sum(dim=1) == 0] = 0


def count_items(model: UserModel, data: SessionData, until_ms: int) -> None:
    """Set the model's item counts to those of the rows before ``until_ms``."""
    counts = counts_before(data.log, until_ms, data.catalog.n_items)
    model.item_counts.copy_(torch.from_numpy(counts))


def predict(
    model: UserModel, data: SessionData, from_ms: int, until_ms: int, length: int
) -> tuple[IntArray, FloatArray]:
    """Rows of the log in [from_ms, until_ms), shape (R,), and their logits, (R, F), given each user's earlier rows.

    Only the newest ``length`` rows of each user before ``until_ms`` are used; older ones are neither given nor
    predicted.

    Raises:
        ValueError: there is no such row.
    """
    rows, logits = [], []
    model.eval()
    with torch.no_grad():
        for batch in sequence_batches(data.log, np.arange(data.population.n_users), until_ms, length, 512):
            wanted = (batch.rows >= 0) & (data.log.time_ms[batch.rows] >= from_ms)
            if wanted.any():
                logits.append(model(batch.users, batch.items, batch.feedback).numpy()[wanted])
                rows.append(batch.rows[wanted])
    if not logits:
        raise ValueError(f"no row of the log lies between {from_ms} and {until_ms} ms")
    return np.concatenate(rows), np.concatenate(logits)


def states_after(model: UserModel, data: SessionData, until_ms: int, length: int) -> FloatArray:
    """States, shape (U, D), after each user's rows before ``until_ms``; zeros for users without rows."""
    states = np.zeros((data.population.n_users, model.size.state_width), np.float32)
    model.eval()
    with torch.no_grad():
        encoded = model.items()
    for batch in sequence_batches(data.log, np.arange(len(states)), until_ms, length, 512):
        count = (batch.rows >= 0).sum(axis=1)
        states[batch.users.numpy()] = states_of(model, encoded, batch.items, batch.feedback, count)
    return states


def states_of(model: UserModel, encoded: Tensor, items: Tensor, feedback: Tensor, count: IntArray) -> FloatArray:
    """States, shape (B, D), after histories; zeros after empty ones.

    Args:
        model: in evaluation mode.
        encoded: shape (N, W), encodings of all items.
        items: shape (B, T), int64, padded on the right.
        feedback: shape (B, T, F), in {-1, 0, 1}; -1 where padded.
        count: shape (B,), number of exposures.
    """
    if items.shape[1] == 0:
        return np.zeros((len(items), model.size.state_width), np.float32)
    with torch.no_grad():
        states = torch.zeros(len(items), model.size.state_width, device=items.device)
        after = model.read(encoded[items], feedback)
        many = torch.from_numpy(count).to(items.device)
        last = after[torch.arange(len(items), device=items.device), (many - 1).clamp(min=0)]
        states[:, : model.size.read_width] = last * (many > 0)[:, None]
        model.count_by_category(states, items, feedback)
    result: FloatArray = states.cpu().numpy()
    return result


def one_cycle(optimiser: torch.optim.Optimizer, peak: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """A learning rate that rises to its peak over a tenth of the steps, at least two, and then falls to zero.

    Torch's schedule divides by zero where the rise is exactly one step long.
    """
    rise = min(max(0.1, 2 / steps), 0.45)
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=rise)


def _train(
    model: UserModel,
    data: SessionData,
    settings: FitSettings,
    weights: Tensor,
    generator: np.random.Generator,
    report: Report | None,
) -> dict[str, Tensor]:
    users, counts = np.arange(data.population.n_users), counts_on_earlier_days(data.log)
    window = data.log, users, data.valid_from_ms, settings.length, settings.batch_size
    total = settings.epochs * sum(1 for _ in sequence_batches(*window))
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
        for batch in sequence_batches(*window, generator):
            logits = model(batch.users, batch.items, batch.feedback, torch.from_numpy(counts[batch.rows]))
            loss = cross_entropy(logits, batch.feedback, weights)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            done += 1
            if report is not None:
                report(done, total, float(loss.detach()))
        rows, held_back = predict(model, data, data.valid_from_ms, data.test_from_ms, settings.length)
        truth = torch.from_numpy(data.log.feedback[rows])[None]
        loss_now = float(cross_entropy(torch.from_numpy(held_back)[None], truth, weights))
        if loss_now < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), loss_now
    return best


def cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy summed over behaviours, each averaged over the exposures that recorded it; (B, T, F) inputs."""
    known = truth >= 0
    weight = torch.where(truth > 0, weights[0], weights[1]) * known
    entropy = F.binary_cross_entropy_with_logits(logits, truth.clamp(min=0).float(), reduction="none") * weight
    return (entropy.sum((0, 1)) / known.sum((0, 1)).clamp(min=1)).sum()


def _overall_rates(data: SessionData) -> Tensor:
    """Smoothed rate of each behaviour in the training days, shape (F,)."""
    rows = data.log.feedback[data.log.time_ms < data.valid_from_ms]
    return torch.tensor(((rows == 1).sum(axis=0) + 1) / ((rows >= 0).sum(axis=0) + 2), dtype=torch.float32)


def _loss_weights(data: SessionData, profile: Profile) -> Tensor:
    """Weights of positives and of negatives, shape (2, F)."""
    if profile == "official":
        return balanced_weights(data.log.feedback[data.log.time_ms < data.valid_from_ms])
    return torch.ones(2, len(data.log.behaviours))


def balanced_weights(feedback: Int8Array) -> Tensor:
    """LERL's weights of positives and negatives, shape (2, F): 1, and (#positives / #negatives) of the given rows."""
    weights = torch.ones(2, feedback.shape[1])
    weights[1] = torch.tensor((feedback == 1).sum(axis=0) / np.maximum((feedback == 0).sum(axis=0), 1))
    return weights


def calibrate(logits: FloatArray, truth: Int8Array) -> Tensor:
    """Platt scaling, shape (2, F): scale and shift of each behaviour's logits; scale 1 below 200 positives."""
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
