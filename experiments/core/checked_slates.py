"""The slates of a user's own agent, checked before an environment sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rapport.envs.session.env import SessionVectorEnv
from rapport.experiments.core.own_code import OwnCodeError, called
from rapport.experiments.core.rollout import Act

REPEATS = "repeats_items"
"""Attribute of an agent that may show an item twice in one slate."""


class CheckedSlates:
    """An agent of a user's own whose slates are checked.

    Args:
        agent: from observations of B sessions to slates.
        who: how messages name it.
        env: the B sessions.
        repeats: whether an item may be shown twice in one slate.
        file: where its code is.
    """

    def __init__(
        self, agent: Act, who: str, env: VectorEnv[Any, Any, Any], *, repeats: bool, file: Path | None = None
    ) -> None:
        sessions = env.unwrapped
        assert isinstance(sessions, SessionVectorEnv)
        self.agent, self.who, self.repeats, self.file = agent, who, repeats, file
        self.shape = sessions.action_space.shape or ()
        self.n_items = sessions.core.data.catalog.n_items

    def __call__(self, observations: Mapping[str, Any]) -> NDArray[np.int64]:
        """Slates of shape (B, K), or items of shape (B,).

        Raises:
            OwnCodeError: the agent raised an error, or what it returned cannot be shown; the message says why.
        """
        given = called(self.who, "__call__(observations)", self.agent, observations, file=self.file)
        slates = called(self.who, "turning what it returned into an array", np.asarray, given)
        for wrong in (self._of_shape, self._of_items, self._of_distinct_items):
            said = wrong(slates)
            if said is not None:
                raise OwnCodeError(f"{self.who}: {said}")
        return slates.astype(np.int64)

    def _of_shape(self, slates: NDArray[Any]) -> str | None:
        if slates.shape == self.shape:
            return None
        form = "one item for each session" if len(self.shape) == 1 else "a slate for each session"
        return f"it returned an array of shape {slates.shape}; {form}, shape {self.shape}, is expected"

    def _of_items(self, slates: NDArray[Any]) -> str | None:
        expected = f"item indices, integers from 0 to {self.n_items - 1}, are expected"
        if slates.dtype.kind == "f" and not np.isfinite(slates).all():
            row = int(np.flatnonzero(~np.isfinite(slates.reshape(len(slates), -1)).all(axis=1))[0])
            return f"it returned {slates[row].tolist()} for session {row}; {expected}"
        if slates.dtype.kind not in "iu":
            return f"it returned numbers of type {slates.dtype}; {expected}"
        wrong = np.flatnonzero(((slates < 0) | (slates >= self.n_items)).reshape(len(slates), -1).any(axis=1))
        return f"it returned {slates[wrong[0]].tolist()} for session {wrong[0]}; {expected}" if len(wrong) else None

    def _of_distinct_items(self, slates: NDArray[Any]) -> str | None:
        if self.repeats or slates.ndim == 1:
            return None
        ordered = np.sort(slates, axis=1)
        wrong = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not len(wrong):
            return None
        return (
            f"it returned {slates[wrong[0]].tolist()} for session {wrong[0]}, an item twice in one slate; distinct "
            f"items are expected, unless the agent has an attribute {REPEATS} = True"
        )
