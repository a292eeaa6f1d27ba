"""The interface of LERL's high level: what a planner sees of sessions, and what it returns.

A planner chooses, for each of B sessions at once, the set of categories that the next slate may be drawn from. It sees
only what a real service would see: the user's logged history, what was shown in this session and what was clicked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import SessionData

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class SessionViews:
    """B running sessions as a planner sees them.

    Attributes:
        user: shape (B,), int64, index of the user (a key, not an ordinal quantity).
        step: shape (B,), int64, slates already shown in this session; 0 at its start.
        categories: shape (B, H), int64, categories of the last H items seen, oldest first, -1 where there is none.
            The last ``min(step * slate_size, H)`` entries are of this session, those before are of the user's log.
        clicks: shape (B, H), int8, for each of them 1 clicked, 0 not clicked, -1 not recorded.
        slate_size: K, items in one slate.

    Where items have up to L categories each, an item is L entries of ``categories`` and ``clicks``, -1 for those that
    it lacks, and H and K are L times as many.
    """

    user: NDArray[np.int64]
    step: NDArray[np.int64]
    categories: NDArray[np.int64]
    clicks: NDArray[np.int8]
    slate_size: int

    def __len__(self) -> int:
        """Number of sessions, B."""
        return len(self.user)

    def rows(self, rows: NDArray[np.int64]) -> SessionViews:
        """Some of the sessions."""
        return replace(
            self,
            user=self.user[rows],
            step=self.step[rows],
            categories=self.categories[rows],
            clicks=self.clicks[rows],
        )

    def session_slates(self, row: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Categories and clicks, shape (n, K), of at most the ``last`` newest slates of one session, oldest first."""
        size = self.slate_size
        n = min(int(self.step[row]), last, self.categories.shape[1] // size)
        tail = slice(self.categories.shape[1] - n * size, None)
        return self.categories[row, tail].reshape(n, size), self.clicks[row, tail].reshape(n, size)


def session_views(
    observations: dict[str, Any], users: NDArray[np.int64], data: SessionData, slate_size: int
) -> SessionViews:
    """What a planner sees of a session environment's observations.

    Args:
        observations: of B sessions, as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
        users: shape (B,).
        data: the environment's data set.
        slate_size: K.
    """
    behaviours = data.log.behaviours
    # Of some early exposures only the long view is recorded: this stricter sign then stands in for the click.
    stand_in = behaviours.index("long_view") if "long_view" in behaviours else 0
    items = observations["history_items"]
    feedback = observations["history_feedback"].reshape(*items.shape, len(behaviours))
    clicks = np.where(feedback[..., 0] >= 0, feedback[..., 0], feedback[..., stand_in])
    labels = data.catalog.labels
    categories = np.where(items[..., None] > 0, labels[items - 1], -1).astype(np.int64).reshape(len(items), -1)
    clicks = clicks if labels.shape[1] == 1 else np.repeat(clicks, labels.shape[1], axis=1)
    step = observations["step"][:, 0].astype(np.int64)
    return SessionViews(users, step, categories, clicks, slate_size * labels.shape[1])


def last_slate(observations: dict[str, Any], slate_size: int) -> NDArray[np.int64]:
    """Items of the slate just shown in each of B sessions, shape (B, K); -1 where none was shown yet.

    Args:
        observations: as of :func:`session_views`.
        slate_size: K; shorter histories give fewer items.
    """
    items = observations["history_items"][:, -slate_size:].astype(np.int64) - 1
    return np.where(observations["step"] > 0, items, -1)


@dataclass(frozen=True)
class FinishedSession:
    """One session that ended, from its first slate to the last.

    Attributes:
        user: index of the user.
        categories: shape (T, K), int64, category of each item shown.
        clicks: shape (T, K), int8, 1 where it was clicked.
    """

    user: int
    categories: NDArray[np.int64]
    clicks: NDArray[np.int8]

    @property
    def score(self) -> int:
        """S_u of LERL Eq. 4: the sum of clicks over all items of the session."""
        return int(self.clicks.sum())


class Planner(Protocol):
    """Chooses the categories of the next slate for a batch of sessions."""

    name: str

    def plan(self, views: SessionViews) -> BoolArray:
        """Allowed categories, shape (B, C); a row may be empty or too small for a slate: the wrapper widens it."""
        ...


class Critic(Protocol):
    """Learns from sessions that ended."""

    def reflect(self, sessions: list[FinishedSession]) -> None:
        """Learn from sessions that just ended."""
        ...
