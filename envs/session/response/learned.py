"""The fitted user model as a response model: a step costs O(slate)."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray
from rapport.envs.session.response.fit import Fitted, states_of


class SequenceResponse:
    """Behaviour probabilities from a fitted :class:`~rapport.envs.session.response.user_model.UserModel`.

    Everything that depends on an item or a user alone is computed once. States are those of the model, shape (B, D).

    Args:
        fitted: the model and its calibration.
        start: shape (U, D), states after the users' logged histories.
        behaviours: F names.
        device: where torch computes: ``"cpu"``, ``"cuda"``, ...; arguments and results are NumPy arrays on any device.
    """

    def __init__(self, fitted: Fitted, start: FloatArray, behaviours: tuple[str, ...], device: str = "cpu") -> None:
        self.behaviours = behaviours
        self.start = start
        self.device = torch.device(device)
        moved = fitted.model if device == "cpu" else copy.deepcopy(fitted.model).to(self.device)
        model = self.model = moved.eval()
        with torch.no_grad():
            items = model.items()
            users = model.users(torch.arange(len(start), device=self.device))
            judged, self._item_offsets = model.shown(items, model.item_counts)
            self._encoded, self._items = items, judged / math.sqrt(model.size.width)
            self._item_token = model.token_item(items)
            self._user_part = model.head_user(users)
            self._scale, self._shift = fitted.calibration.to(self.device)

    def initial_state(self, users: IntArray) -> FloatArray:
        """States after the users' logged histories, shape (B, D)."""
        states: FloatArray = self.start[users]
        return states

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """States, shape (B, D), after any histories: items (B, H), index + 1 or 0, and feedback (B, H, F)."""
        # The model reads from the left: missing items are moved to the right end.
        order = np.argsort(items == 0, axis=1, kind="stable")
        known = np.take_along_axis(items, order, axis=1).astype(np.int64)
        told = np.take_along_axis(feedback, order[..., None], axis=1)
        shown = self._tensor(np.maximum(known - 1, 0))
        return states_of(self.model, self._encoded, shown, self._tensor(told), (known > 0).sum(axis=1))

    @torch.inference_mode()
    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """Calibrated probabilities, shape (B, K, F)."""
        shown, known = self._tensor(slates).long(), self._tensor(state)
        scoring = self.model.score(known, self._user_part[self._tensor(users)])
        match = self._items[shown] @ scoring[..., :-1].transpose(1, 2)
        habit = self._category_offsets(known, self.model.category[shown])
        logits = match + scoring[..., -1][:, None] + self._item_offsets[shown] + habit
        chance: FloatArray = torch.sigmoid(self._scale * logits + self._shift).cpu().numpy()
        return chance

    @torch.inference_mode()
    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """States after the slates, read item by item in the order shown, shape (B, D)."""
        shown, told = self._tensor(slates).long(), self._tensor(feedback).float()
        both = torch.cat([told, torch.ones_like(told)], dim=-1)
        tokens = torch.relu(self._item_token[shown] + self.model.token_feedback(both))
        size, after = self.model.size, self._tensor(state).clone()
        _, memory = self.model.encoder(tokens, after[None, :, : size.width].contiguous())
        after[:, : size.width] = memory[0]
        after[:, size.width : size.read_width] += both.sum(dim=1)
        self.model.count_by_category(after, shown, told)
        result: FloatArray = after.cpu().numpy()
        return result

    @torch.inference_mode()
    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """Calibrated click logits of every item, shape (B, N)."""
        known = self._tensor(state)
        scoring = self.model.score(known, self._user_part[self._tensor(users)])[:, 0]
        logits = torch.addmm(self._item_offsets[:, 0], scoring[:, :-1], self._items.T) + scoring[:, -1:]
        categories = torch.arange(self.model.size.n_categories, device=self.device).expand(len(known), -1)
        logits += self._category_offsets(known, categories)[..., 0][:, self.model.category]
        return np.asarray((self._scale[0] * logits + self._shift[0]).cpu().numpy())

    def _category_offsets(self, state: Tensor, categories: Tensor) -> Tensor:
        """Contribution of the users' habits with categories, shape (B, K), to the logits, (B, K, F)."""
        done, recorded = self.model.by_category(state, categories)
        return self.model.category_offsets(state[:, None, : self.model.size.read_width], done, recorded)

    def _tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(array).to(self.device)
