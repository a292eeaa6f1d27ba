"""The fitted user model as a response model that takes in a slate in O(slate)."""

from __future__ import annotations

import math

import numpy as np
import torch

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray
from rapport.envs.session.fit import Fitted


class SequenceResponse:
    """Behaviour probabilities from a fitted :class:`~rapport.envs.session.user_model.UserModel`.

    All that depends on an item or a user alone is computed once. States are the model's, shape (B, D).

    Args:
        fitted: the model and its calibration.
        start: shape (U, D), states after the users' logged histories.
        behaviours: F names.
    """

    def __init__(self, fitted: Fitted, start: FloatArray, behaviours: tuple[str, ...]) -> None:
        self.behaviours = behaviours
        self.start = start
        self.model = fitted.model.eval()
        with torch.no_grad():
            items = self.model.items()
            users = self.model.users(torch.arange(len(start)))
            self._items = items / math.sqrt(self.model.size.width)
            self._item_bias = self.model.item_bias(items)
            self._item_token = self.model.token_item(items)
            self._user_part = self.model.head_user(users)
            self._scale, self._shift = fitted.calibration

    def initial_state(self, users: IntArray) -> FloatArray:
        """States after the users' logged histories, shape (B, D)."""
        states: FloatArray = self.start[users]
        return states

    @torch.inference_mode()
    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """Calibrated probabilities, shape (B, K, F)."""
        shown = torch.from_numpy(slates).long()
        scoring = self.model.score(torch.from_numpy(state), self._user_part[torch.from_numpy(users)])
        match = self._items[shown] @ scoring[..., :-1].transpose(1, 2)
        logits = match + scoring[..., -1][:, None] + self._item_bias[shown]
        chance: FloatArray = torch.sigmoid(self._scale * logits + self._shift).numpy()
        return chance

    @torch.inference_mode()
    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """States after the slates, read item by item in the order shown, shape (B, D)."""
        told = torch.from_numpy(feedback).float()
        seen = self.model.token_feedback(torch.cat([told, torch.ones_like(told)], dim=-1))
        tokens = torch.relu(self._item_token[torch.from_numpy(slates).long()] + seen)
        width = self.model.size.width
        before = torch.from_numpy(state)
        _, memory = self.model.encoder(tokens, before[None, :, :width].contiguous())
        counted = torch.cat([told, torch.ones_like(told)], dim=-1).sum(dim=1)
        result: FloatArray = torch.cat([memory[0], before[:, width:] + counted], dim=1).numpy()
        return result

    @torch.inference_mode()
    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """Click logits of every item, shape (B, N): for the oracle alone, who may read the simulator."""
        scoring = self.model.score(torch.from_numpy(state), self._user_part[torch.from_numpy(users)])[:, 0]
        logits = torch.addmm(self._item_bias[:, 0], scoring[:, :-1], self._items.T) + scoring[:, -1:]
        return np.asarray((self._scale[0] * logits + self._shift[0]).numpy())
