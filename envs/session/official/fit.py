"""Fitting LERL's response model as its released code does: on every row, with class-balanced weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapport.datasets.schema import FloatArray, IntArray, InteractionLog, SessionData
from rapport.envs.session.official.user_model import HistoryModel, HistoryModelSize, new_history_model
from rapport.envs.session.response.fit import Report, balanced_weights, cross_entropy


@dataclass(frozen=True)
class OfficialSettings:
    """How LERL's response model is fitted; the defaults are the released code's, except ``targets``."""

    epochs: int = 10
    """Passes over the log; the last one is kept."""
    length: int = 100
    """Exposures of a history, L."""
    batch_size: int = 512
    """Rows in a batch, on average."""
    learning_rate: float = 1e-4
    """Adam's."""
    targets: int = 25
    """Neighbouring rows of a user that one pass over a history predicts. The released code's 1 is many times slower;
    the only difference is that the earlier rows miss up to ``targets - 1`` of the oldest exposures."""
    scramble: bool = False
    """Released fault: time and behaviours are mixed in the history. A pass can then predict one row only. Because one
    pass per row takes hours, the model is first fitted without the fault and then, with it, to one row in ``targets``,
    drawn again in each epoch. ``targets=1`` is the released code's fit."""
    all_days: bool = True
    """Learn from every row, including validation and test days, as the released code does."""
    seed: int = 619607
    """Of weights, dropout and batch order."""

    def __post_init__(self) -> None:
        for name in ("epochs", "length", "batch_size", "targets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 1")

    @property
    def size(self) -> HistoryModelSize:
        """Size of the model."""
        return HistoryModelSize(self.length, scramble=self.scramble)


class Windows(NamedTuple):
    """B histories, each with the Q rows that it predicts.

    Attributes:
        users: shape (B,), int64.
        items: shape (B, L), int64, item index + 1, oldest first; 0 where padded.
        feedback: shape (B, L, F), int8; -1 where padded.
        targets: shape (B, Q), int64, item indices: the q-th was shown after token L - Q + q.
        truth: shape (B, Q, F), int8; -1 where padded or not to be predicted.
    """

    users: Tensor
    items: Tensor
    feedback: Tensor
    targets: Tensor
    truth: Tensor


def windows(log: InteractionLog, ends: IntArray, wanted: NDArray[np.bool_], length: int, targets: int) -> Windows:
    """Histories of ``length`` rows and the ``targets`` rows up to and including ``ends``, shape (B,), to predict."""
    first = np.searchsorted(log.user, log.user[ends], side="left")[:, None]
    tokens = ends[:, None] - np.arange(length, 0, -1)
    shown = ends[:, None] - np.arange(targets - 1, -1, -1)
    own, asked = tokens >= first, (shown >= first) & wanted[shown]
    feedback = np.where(own[..., None], log.feedback[tokens], -1)
    return Windows(
        torch.from_numpy(log.user[ends].astype(np.int64)),
        torch.from_numpy(np.where(own, log.item[tokens] + 1, 0).astype(np.int64)),
        torch.from_numpy(feedback),
        torch.from_numpy(np.where(asked, log.item[shown], 0).astype(np.int64)),
        torch.from_numpy(np.where(asked[..., None], log.feedback[shown], -1)),
    )


def window_ends(log: InteractionLog, wanted: NDArray[np.bool_], targets: int) -> IntArray:
    """Last rows of the blocks of ``targets`` of each user, counted from the newest, that hold a wanted row."""
    last = np.searchsorted(log.user, log.user, side="right") - 1
    age = (last - np.arange(len(log))) // targets
    block = log.user.astype(np.int64) * (len(log) + 1) + age
    _, place = np.unique(block[wanted], return_index=True)
    rows = np.flatnonzero(wanted)[place]
    return np.asarray(last[rows] - age[rows] * targets)


def fit_history_model(data: SessionData, settings: OfficialSettings, report: Report | None = None) -> HistoryModel:
    """Fit the model by weighted cross-entropy, summed over behaviours, and return it in evaluation mode.

    Rows whose first behaviour was not recorded are part of histories but not predicted.

    Args:
        data: the log; with ``settings.all_days`` all its days, otherwise the training days.
        settings: of the fit.
        report: called after each batch with (batches done, total batches, loss).
    """
    log, wanted = data.log, predicted_rows(data, settings.all_days)
    weights = balanced_weights(log.feedback[wanted])
    generator = np.random.default_rng(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = new_history_model(data, settings.size).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
        batches = [b for phase in _phases(settings) for b in _shuffled(log, wanted, phase, generator)]
        for done, (ends, targets, scramble) in enumerate(batches, start=1):
            model.size = replace(settings.size, scramble=scramble)
            batch = windows(log, ends, wanted, settings.length, targets)
            loss = cross_entropy(model(*batch[:4]), batch.truth, weights)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if report is not None:
                report(done, len(batches), float(loss.detach()))
    return model.eval()


def predicted_rows(data: SessionData, all_days: bool) -> NDArray[np.bool_]:
    """Rows of the log that are prediction targets, shape (R,): the click was recorded, on training days or on any."""
    recorded: NDArray[np.bool_] = data.log.feedback[:, 0] >= 0
    return recorded if all_days else recorded & (data.log.time_ms < data.valid_from_ms)


def predict_history(model: HistoryModel, data: SessionData, rows: IntArray) -> FloatArray:
    """Logits, shape (R, F), of rows of the log, each given its user's earlier rows, in a pass of its own."""
    wanted = np.ones(len(data.log), np.bool_)
    parts = []
    with torch.inference_mode():
        for place in range(0, len(rows), 128):
            batch = windows(data.log, rows[place : place + 128], wanted, model.size.length, 1)
            parts.append(model(*batch[:4])[:, 0].numpy())
    return np.concatenate(parts)


def _phases(settings: OfficialSettings) -> list[OfficialSettings]:
    first = [replace(settings, scramble=False)] if settings.scramble and settings.targets > 1 else []
    return [*first, settings]


def _shuffled(
    log: InteractionLog, wanted: NDArray[np.bool_], settings: OfficialSettings, generator: np.random.Generator
) -> Iterator[tuple[IntArray, int, bool]]:
    """Batches in random order, epoch by epoch: last rows of windows, rows predicted by each, whether scrambled."""
    targets = min(settings.targets, settings.length)
    ends = window_ends(log, wanted, 1 if settings.scramble else targets)
    share = targets if settings.scramble else 1
    size = max(1, round(settings.batch_size * len(ends) / max(wanted.sum(), 1) / share))
    for _ in range(settings.epochs):
        order = generator.permutation(len(ends))[: -(-len(ends) // share)]
        for place in range(0, len(order), size):
            yield ends[order[place : place + size]], 1 if settings.scramble else targets, settings.scramble
