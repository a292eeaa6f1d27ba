"""What happened in the running sessions, kept for those who want to look at them."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np

from rapport.datasets.schema import Int32Array, IntArray
from rapport.envs.session.engine.core import SessionCore, StepResult
from rapport.envs.session.render.view import SessionView

RENDER_MODES = ("ansi", "rgb_array")
_TRAITS = ("user_active_degree", "register_days_range", "follow_user_num_range", "fans_user_num_range")
"""User features that a picture shows; where a log has none of them, its first ones."""


class Diary:
    """The slates of the running sessions of an engine and what came of them.

    Args:
        core: the engine.
        mode: how sessions are drawn: one of :data:`RENDER_MODES`.

    Raises:
        ValueError: there is no such mode.
    """

    def __init__(self, core: SessionCore, mode: str) -> None:
        if mode not in RENDER_MODES:
            raise ValueError(f"render_mode={mode!r} is unknown; choose one of {', '.join(RENDER_MODES)} or None")
        self.core, self.mode = core, mode
        self._pages: list[tuple[Int32Array, StepResult]] = []
        self._since = np.zeros(core.n_envs, np.int64)

    @classmethod
    def of(cls, core: SessionCore, mode: str | None) -> Diary | None:
        """A diary where sessions are to be drawn, else None: keeping one costs time."""
        return None if mode is None else cls(core, mode)

    def begin(self, rows: IntArray) -> None:
        """New sessions have begun in these slots."""
        self._since[rows] = len(self._pages)
        unread = int(self._since.min())
        self._pages, self._since = self._pages[unread:], self._since - unread

    def write(self, slates: Int32Array, result: StepResult) -> None:
        """Keep what was shown, shape (B, K), and what came of it."""
        self._pages.append((slates, copy.deepcopy(result)))  # callers may write in theirs

    def view(self, slot: int) -> SessionView:
        """The session in a slot, as plain data."""
        core, pages = self.core, self._pages[self._since[slot] :]
        catalog, log, places = core.data.catalog, core.data.log, core.slate_size
        ended: Literal["", "left", "time limit"] = ""
        if pages and pages[-1][1].terminated[slot]:
            ended = "left"
        elif pages and pages[-1][1].truncated[slot]:
            ended = "time limit"
        n_behaviours = len(log.behaviours)
        return SessionView(
            user=f"user {core.data.population.user_ids[core.user[slot]]}",
            traits=_traits(core, int(core.user[slot])),
            category_names=catalog.category_names,
            slates=np.array([r.categories[slot] for _, r in pages], np.int32).reshape(-1, places),
            items=np.array([s[slot] for s, _ in pages], np.int32).reshape(-1, places),
            feedback=np.array([r.feedback[slot] for _, r in pages], np.int8).reshape(-1, places, n_behaviours),
            behaviours=log.behaviours,
            costs=np.array([r.cost[slot] for _, r in pages], np.float64),
            budget=float(core.budget[slot]),
            start_budget=core.start_budget,
            max_steps=core.max_steps,
            quit_rule=core.quit_rule.name,
            ended=ended,
        )

    def picture(self, slot: int) -> Any:
        """The session in a slot, drawn: text, or an image of shape (H, W, 3), uint8."""
        if self.mode == "ansi":
            from rapport.envs.session.render.ansi import ansi

            return ansi(self.view(slot))
        from rapport.envs.session.render.image import rgb_array

        return rgb_array(self.view(slot))


def _traits(core: SessionCore, user: int) -> tuple[tuple[str, str], ...]:
    features = core.data.population.features
    named = [features.names.index(name) for name in _TRAITS if name in features.names]
    columns = named or range(min(len(_TRAITS), len(features.names)))
    return tuple((features.names[c], features.values[c][features.codes[user, c]]) for c in columns)
