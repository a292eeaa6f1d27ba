"""The episode history that rendering needs: slates and outcomes of the running sessions."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np

from rapport.datasets.schema import Int32Array, IntArray
from rapport.envs.session.engine.core import SessionCore, StepResult
from rapport.envs.session.render.view import SessionFrame

RENDER_MODES = ("ansi", "rgb_array")
_TRAITS = ("user_active_degree", "register_days_range", "follow_user_num_range", "fans_user_num_range")
"""User features that are shown; if a log has none of them, its first ones."""


class EpisodeHistory:
    """Slates and outcomes of an engine's running sessions.

    Args:
        core: the engine.
        mode: render mode, one of :data:`RENDER_MODES`.

    Raises:
        ValueError: there is no such mode.
    """

    def __init__(self, core: SessionCore, mode: str) -> None:
        if mode not in RENDER_MODES:
            raise ValueError(f"render_mode={mode!r} is unknown; choose one of {', '.join(RENDER_MODES)} or None")
        self.core, self.mode = core, mode
        self._steps: list[tuple[Int32Array, StepResult]] = []
        self._since = np.zeros(core.n_envs, np.int64)

    @classmethod
    def of(cls, core: SessionCore, mode: str | None) -> EpisodeHistory | None:
        """A history if there is a render mode, else None: recording costs time."""
        return None if mode is None else cls(core, mode)

    def begin(self, rows: IntArray) -> None:
        """Record that new sessions have begun in these slots."""
        self._since[rows] = len(self._steps)
        unused = int(self._since.min())
        self._steps, self._since = self._steps[unused:], self._since - unused

    def add(self, slates: Int32Array, result: StepResult) -> None:
        """Record slates, shape (B, K), and their outcome."""
        self._steps.append((slates, copy.deepcopy(result)))  # callers may change theirs

    def frame(self, slot: int) -> SessionFrame:
        """The session in a slot, as plain data."""
        core, steps = self.core, self._steps[self._since[slot] :]
        catalog, log, places = core.data.catalog, core.data.log, core.slate_size
        ended: Literal["", "left", "time limit"] = ""
        if steps and steps[-1][1].terminated[slot]:
            ended = "left"
        elif steps and steps[-1][1].truncated[slot]:
            ended = "time limit"
        n_behaviours = len(log.behaviours)
        return SessionFrame(
            user=f"user {core.data.population.user_ids[core.user[slot]]}",
            traits=_traits(core, int(core.user[slot])),
            category_names=catalog.category_names,
            slates=np.array([r.categories[slot] for _, r in steps], np.int32).reshape(-1, places),
            items=np.array([s[slot] for s, _ in steps], np.int32).reshape(-1, places),
            feedback=np.array([r.feedback[slot] for _, r in steps], np.int8).reshape(-1, places, n_behaviours),
            behaviours=log.behaviours,
            costs=np.array([r.cost[slot] for _, r in steps], np.float64),
            budget=float(core.budget[slot]),
            start_budget=core.start_budget,
            max_steps=core.max_steps,
            quit_rule=core.quit_rule.name,
            ended=ended,
        )

    def render(self, slot: int) -> Any:
        """The session in a slot, rendered: text, or an image of shape (H, W, 3), uint8."""
        if self.mode == "ansi":
            from rapport.envs.session.render.ansi import ansi

            return ansi(self.frame(slot))
        from rapport.envs.session.render.image import rgb_array

        return rgb_array(self.frame(slot))


def _traits(core: SessionCore, user: int) -> tuple[tuple[str, str], ...]:
    features = core.data.population.features
    named = [features.names.index(name) for name in _TRAITS if name in features.names]
    columns = named or range(min(len(_TRAITS), len(features.names)))
    return tuple((features.names[c], features.values[c][features.codes[user, c]]) for c in columns)
