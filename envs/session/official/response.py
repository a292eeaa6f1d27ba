"""LERL's response model in simulation: the whole history is read for every slate."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray
from rapport.envs.session.engine.initial_histories import Histories
from rapport.envs.session.official.user_model import LAYERS, HistoryModel, LayerMasks

_CHUNK = 128
"""Users per forward pass: the memory of attention grows with the square of the history's length."""


class HistoryResponse:
    """Behaviour probabilities from a fitted :class:`~rapport.envs.session.official.user_model.HistoryModel`.

    A state is the history itself: L tokens of 1 + F floats each, the item's index + 1 (0: none) and its feedback,
    oldest first; D = L (1 + F). A step therefore costs O(history), as in the released code.

    Args:
        model: fitted.
        histories: initial histories.
        behaviours: F names.
        dropout: whether dropout stays on, as in the released code, which simulates in training mode. The masks are a
            function of ``seed``, the user and the history, so that responses do not depend on the batch.
        seed: of the masks.
    """

    def __init__(
        self,
        model: HistoryModel,
        histories: Histories,
        behaviours: tuple[str, ...],
        *,
        dropout: bool = False,
        seed: int = 0,
    ) -> None:
        self.model = model.eval()
        self.histories = histories
        self.behaviours = behaviours
        self.dropout, self.seed = dropout, seed
        with torch.no_grad():
            self._encoded = self.model.items()

    def encodings(self) -> FloatArray:
        """Encodings of all items, shape (N, 64)."""
        result: FloatArray = self._encoded[1:].numpy().copy()
        return result

    def initial_state(self, users: IntArray) -> FloatArray:
        """The users' logged histories, shape (B, D)."""
        return self.state_after(users, self.histories.items[users], self.histories.feedback[users])

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """States, shape (B, D), after histories: items (B, H), index + 1, and feedback (B, H, F), oldest first."""
        length = self.model.size.length
        tokens = np.zeros((len(items), length, 1 + len(self.behaviours)), np.float32)
        kept = min(length, items.shape[1])
        if kept:
            tokens[:, -kept:, 0] = items[:, -kept:]
            tokens[:, -kept:, 1:] = np.maximum(feedback[:, -kept:], 0)
        return tokens.reshape(len(items), -1)

    @torch.inference_mode()
    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """Probabilities, shape (B, K, F), under the fit's class-balanced prior."""
        shown = self._encoded[torch.from_numpy(slates).long() + 1]
        logits = torch.einsum("bfd,bkd->bkf", self._scoring(state, users), shown) / shown.shape[-1]
        chance: FloatArray = torch.sigmoid(logits).numpy()
        return chance

    @torch.inference_mode()
    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """Click logits of every item, shape (B, N), under the fit's class-balanced prior."""
        scores: FloatArray = (self._scoring(state, users)[:, 0] @ self._encoded[1:].T / self._encoded.shape[1]).numpy()
        return scores

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """States after the slates, in the order shown, shape (B, D): the oldest tokens are dropped."""
        new = np.concatenate([slates[..., None] + 1, feedback], axis=2).astype(np.float32)
        return np.concatenate([state, new.reshape(len(state), -1)], axis=1)[:, -state.shape[1] :]

    def _scoring(self, state: FloatArray, users: IntArray) -> Tensor:
        """Scoring vectors, shape (B, F, 64)."""
        parts = [
            self._read(state[place : place + _CHUNK], users[place : place + _CHUNK])
            for place in range(0, len(state), _CHUNK)
        ]
        return torch.cat(parts)

    def _read(self, state: FloatArray, users: IntArray) -> Tensor:
        tokens = torch.from_numpy(state.reshape(len(state), self.model.size.length, -1))
        encoded = self._encoded[tokens[..., 0].long()]
        masks = self._masks(state, users) if self.dropout else None
        read = self.model.read(self.model.tokens(encoded, tokens[..., 1:]), masks=masks)
        return self.model.scoring(torch.from_numpy(users), read)[:, 0]

    def _masks(self, state: FloatArray, users: IntArray) -> list[LayerMasks]:
        """Dropout masks of each layer; the same user and history give the same masks."""
        length = self.model.size.length
        shapes = [LayerMasks.shapes(length, 1 if place == LAYERS - 1 else length) for place in range(LAYERS)]
        sizes = [int(np.prod(shape)) for layer in shapes for shape in layer]
        dropped = round(self.model.size.dropout * 2**16)
        words = np.stack([self._words(row, int(user), sum(sizes)) for row, user in zip(state, users, strict=True)])
        parts = iter(np.split(words >= dropped, np.cumsum(sizes)[:-1], axis=1))
        return [LayerMasks(*(torch.from_numpy(next(parts).reshape(-1, *shape)) for shape in layer)) for layer in shapes]

    def _words(self, row: FloatArray, user: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
        """``n`` random 16-bit words, a function of user and history."""
        told = hashlib.blake2b(row.tobytes() + user.to_bytes(8, "little"), digest_size=8, salt=b"dropout")
        key = [int.from_bytes(told.digest(), "little"), self.seed % 2**64]
        return np.random.Generator(np.random.Philox(key=key)).integers(2**16, size=n, dtype=np.uint16)
