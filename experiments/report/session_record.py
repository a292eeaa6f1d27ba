"""Recorded sessions: what was planned, shown and clicked slate by slate, and why the session ended."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rapport.agents.baselines.task import Act
from rapport.datasets.schema import IntArray
from rapport.envs.session.engine.core import SessionCore


@dataclass(frozen=True)
class RecordedSlate:
    """One slate of a session.

    Attributes:
        plan: names of the categories that were allowed; empty where all were.
        items: K names of what was shown, in order.
        categories: K names of their categories.
        clicks: K, 1 where it was clicked.
        reward: what the slate was worth.
        cost: budget it took.
        budget: budget left after it.
    """

    plan: tuple[str, ...]
    items: tuple[str, ...]
    categories: tuple[str, ...]
    clicks: tuple[int, ...]
    reward: float
    cost: float
    budget: float


@dataclass(frozen=True)
class RecordedSession:
    """One session from its first slate to its last.

    Attributes:
        method: short name of who served it.
        label: shown name.
        user: index of the user.
        slates: in the order shown.
        ended: why it ended, in words.
    """

    method: str
    label: str
    user: int
    slates: tuple[RecordedSlate, ...]
    ended: str

    def overlaps(self) -> list[int]:
        """For each slate after the first, how many of its categories the one before showed too."""
        shown = [set(slate.categories) for slate in self.slates]
        return [len(new & old) for old, new in itertools.pairwise(shown)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> RecordedSession:
        """The session that :meth:`to_dict` made the data of."""
        slates: list[dict[str, Any]] = [
            {k: tuple(v) if isinstance(v, list) else v for k, v in slate.items()} for slate in plain["slates"]
        ]
        return cls(**{**plain, "slates": tuple(RecordedSlate(**slate) for slate in slates)})


def record(
    env: VectorEnv[Any, Any, Any], act: Act, users: IntArray, seed: int, method: str, label: str
) -> list[RecordedSession]:
    """Play one session per user, as :func:`~rapport.experiments.lerl.evaluation.play` does, and record all of it.

    Args:
        env: sessions that begin anew within the step; the plans of a planner are recorded too.
        act: serves them.
        users: shape (S,).
        seed: of the users' responses.
        method: short name of who serves.
        label: shown name.
    """
    core: SessionCore = env.unwrapped.core  # type: ignore[attr-defined]
    catalog, size = core.data.catalog, core.slate_size
    names = np.array(catalog.category_names)
    observations, info = env.reset(seed=seed, options={"user": users})
    plans = _plans(observations, names, len(users))
    slates: list[list[RecordedSlate]] = [[] for _ in users]
    ended = [""] * len(users)
    while not all(ended):
        observations, rewards, terminated, truncated, info = env.step(act(observations))
        last = info.get("final_info", info)
        for row in [row for row, why in enumerate(ended) if not why]:
            over = bool(terminated[row] or truncated[row])
            seen = info["final_obs"][row] if over else {"history_items": observations["history_items"][row]}
            items = seen["history_items"][-size:] - 1
            left = float(last["budget"][row] if over else info["budget"][row])
            slates[row].append(
                RecordedSlate(
                    plan=plans[row],
                    items=tuple(f"#{catalog.item_ids[i]}" for i in items),
                    categories=tuple(names[info["categories"][row]].tolist()),
                    clicks=tuple(int(c) for c in info["feedback"][row][:, 0]),
                    reward=float(rewards[row]),
                    cost=float(info["cost"][row]),
                    budget=left,
                )
            )
            if over:
                ended[row] = "the budget was used up" if terminated[row] else "the time limit came"
        plans = _plans(observations, names, len(users))
    return [
        RecordedSession(method, label, int(u), tuple(s), why) for u, s, why in zip(users, slates, ended, strict=True)
    ]


def _plans(observations: dict[str, Any], names: NDArray[np.str_], n: int) -> list[tuple[str, ...]]:
    """Names of the categories that each session allows; empty where all are allowed, or without a planner."""
    if "plan" not in observations:
        return [()] * n
    return [() if plan.all() else tuple(names[plan.astype(bool)].tolist()) for plan in observations["plan"]]
