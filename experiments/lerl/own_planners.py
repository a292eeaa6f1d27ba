"""Planners of a user's own, made from their file, and their plans checked; see ``docs/your_agent.md``."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from rapport.agents.planning.planner import BoolArray, SessionViews
from rapport.datasets.schema import SessionData
from rapport.experiments.core.own_code import OwnCode, OwnCodeError


def own_planner_class(code: OwnCode) -> Any:
    """The class.

    Raises:
        OwnCodeError: it has no ``plan``, or its schedule is none.
    """
    found = code.load()
    if not (inspect.isclass(found) and callable(getattr(found, "plan", None))):
        raise OwnCodeError(
            f"{code.shown}: it is no class with a method plan(views), which returns the allowed categories of B "
            "sessions, shape (B, C)"
        )
    period, cooldown = getattr(found, "period", 1), getattr(found, "cooldown", True)
    if not (isinstance(period, int) and period >= 1):
        raise OwnCodeError(f"{code.shown}: period = {period!r}; a number of slates, at least 1, is expected")
    if not isinstance(cooldown, bool):
        raise OwnCodeError(f"{code.shown}: cooldown = {cooldown!r}; True or False is expected")
    return found


def own_planner(code: OwnCode, data: SessionData, seed: int) -> CheckedPlanner:
    """A planner of a user's own, made from its file as ``NAME(data, seed)``.

    Raises:
        OwnCodeError: it cannot be made.
    """
    made = code.called("making it as NAME(data, seed)", own_planner_class(code), data, seed)
    return CheckedPlanner(made, code, data.catalog.n_categories)


class CheckedPlanner:
    """A planner of a user's own whose plans are checked.

    Args:
        planner: has a method ``plan``.
        code: where it is.
        n_categories: C.
    """

    def __init__(self, planner: Any, code: OwnCode, n_categories: int) -> None:
        self.planner, self.code, self.n_categories = planner, code, n_categories
        self.name = code.shown

    def plan(self, views: SessionViews) -> BoolArray:
        """Allowed categories, shape (B, C).

        Raises:
            OwnCodeError: the planner raised an error, or what it returned is no plan; the message says why.
        """
        given = self.code.called("plan(views)", self.planner.plan, views)
        plans = self.code.called("turning its plans into an array", np.asarray, given)
        wanted = (len(views), self.n_categories)
        if plans.shape != wanted:
            raise OwnCodeError(
                f"{self.name}: its plans have shape {plans.shape}; one row for each session and one column for each "
                f"category, shape {wanted}, is expected"
            )
        if plans.dtype.kind not in "biuf" or not ((plans == 0) | (plans == 1)).all():
            other = plans[~((plans == 0) | (plans == 1))].ravel()[:1].tolist() if plans.dtype.kind in "biuf" else []
            has = f"{other[0]!r} in its plans" if other else f"values of type {plans.dtype}"
            raise OwnCodeError(f"{self.name}: {has}; True or 1 for an allowed category and False or 0 else is expected")
        allowed: BoolArray = plans == 1
        return allowed
