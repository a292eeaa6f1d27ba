"""A log as padded batches of users' sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapport.datasets.schema import IntArray, InteractionLog


class SequenceBatch(NamedTuple):
    """B users' sequences, padded on the right to the longest.

    Attributes:
        users: shape (B,), int64.
        items: shape (B, T), int64; 0 where padded.
        feedback: shape (B, T, F), int8; -1 where padded.
        rows: shape (B, T), int64, row of the log; -1 where padded.
    """

    users: Tensor
    items: Tensor
    feedback: Tensor
    rows: NDArray[np.int64]


def sequence_batches(
    log: InteractionLog,
    users: IntArray,
    until_ms: int,
    length: int,
    batch_size: int,
    generator: np.random.Generator | None = None,
) -> Iterator[SequenceBatch]:
    """Yield the last ``length`` rows before ``until_ms`` of each user that has any.

    Users with sequences of similar length share a batch, which keeps padding small. A generator shuffles the batches.
    """
    first = np.searchsorted(log.user, users, side="left")
    early = np.concatenate([[0], np.cumsum(log.time_ms < until_ms)])
    last = np.searchsorted(log.user, users, side="right")
    n_before = early[last] - early[first]
    end = first + n_before
    count = np.minimum(n_before, length)
    order = np.flatnonzero(count > 0)
    order = order[np.argsort(count[order], kind="stable")]
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if generator is not None:
        chunks = [chunks[i] for i in generator.permutation(len(chunks))]
    for chunk in chunks:
        position = np.arange(count[chunk].max())
        rows = (end - count)[chunk, None] + position
        rows[position >= count[chunk, None]] = -1
        feedback = np.where(rows[..., None] >= 0, log.feedback[rows], -1)
        yield SequenceBatch(
            torch.from_numpy(users[chunk].astype(np.int64)),
            torch.from_numpy(np.where(rows >= 0, log.item[rows], 0).astype(np.int64)),
            torch.from_numpy(feedback),
            rows,
        )
