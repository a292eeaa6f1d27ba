"""The effect of repetition measured in a log: by gap, by distance, by dose, over time, by group, and on leaving.

Every function answers one question with a list of :class:`~rapport.experiments.satiation.panel.Effect`. All compare
exposures of one user (and of one video) with each other, so constant tastes do not show; alternative explanations are
tested in :mod:`rapport.experiments.satiation.placebos`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.experiments.satiation.exposures import GAP_NAMES, Bools, Exposures, Floats, recent_count
from rapport.experiments.satiation.panel import (
    BY_TAB,
    FORWARD_TASTE,
    PLAIN,
    SPECIFICATIONS,
    Effect,
    Panel,
    naive,
)

OUTCOMES = ("click", "long_view")
NEAR_MINUTES = 30.0
"""Exposures that lie closer count as one visit."""
PLACES = (1, 2, 3, 4, 6, 8)
LEAVING_MINUTES = (10.0, 30.0, 60.0)
TAUS = (5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 1_440.0, 4_320.0)
"""Time constants tried, minutes."""


def by_gap(e: Exposures) -> list[Effect]:
    """Effect of "same category as the exposure just before" by the gap between the two, under every specification."""
    same, bins = e.same_as(1), e.gap_bins()
    near = e.gap <= NEAR_MINUTES
    wide: dict[str, NDArray[Any]] = {"within 30 min": same & near, "later": same & ~near}
    result: list[Effect] = []
    for how in SPECIFICATIONS:
        panel = Panel(e, how)
        for behaviour in OUTCOMES:
            y = e.outcome(behaviour)
            result += panel.effects("gap", behaviour, y, wide, bins)
            result += panel.effects("gap", behaviour, y, {"any gap": same}, bins)
            if how in (PLAIN, FORWARD_TASTE):
                named = {name: same & here for name, here in zip(GAP_NAMES, bins, strict=True)}
                result += panel.effects("gap", behaviour, y, named, bins)
    pairs = Panel(e, PLAIN, near)
    for behaviour in OUTCOMES:
        result += pairs.effects("gap", behaviour, e.outcome(behaviour), {"within 30 min, only such rows": same}, ())
        result += naive(e, "gap", behaviour, {"any gap": same})
    return result


def by_places(e: Exposures) -> list[Effect]:
    """Effect of the exposure k places *before* (after -k) having the same category, all in one regression."""
    result: list[Effect] = []
    for how, places in ((PLAIN, (*PLACES, *(-k for k in PLACES))), (FORWARD_TASTE, PLACES)):
        panel = Panel(e, how)
        columns = {_place_name(k): e.same_as(k) for k in places}
        there = [e.follows(k) for k in places]
        for behaviour in OUTCOMES:
            result += panel.effects("places", behaviour, e.outcome(behaviour), dict(columns), there)
    return result


def by_between(e: Exposures) -> list[Effect]:
    """Effect of the newest exposure of the same category lying 1, 2, 3 or at least 4 other exposures back, in a visit.

    Only where all exposures between follow each other within :data:`NEAR_MINUTES`; against rows with none in the visit.
    """
    place, distance = visit_place(e), since_same(e)
    visit = [place == n for n in (1, 2, 3)] + [place >= 4]
    columns: dict[str, NDArray[Any]] = {f"{n} between": distance == n + 1 for n in range(4)}
    columns["4 or more between"] = distance >= 5
    return [
        effect
        for how in (BY_TAB, FORWARD_TASTE)
        for behaviour in OUTCOMES
        for effect in Panel(e, how).effects("between", behaviour, e.outcome(behaviour), columns, visit)
    ]


def by_dose(e: Exposures) -> list[Effect]:
    """Effect of 1, 2 or at least 3 exposures of the same category in a row just before, within one visit."""
    run = run_before(e)
    bins = e.gap_bins()
    columns: dict[str, NDArray[Any]] = {"1 in a row": run == 1, "2 in a row": run == 2, "3 or more": run >= 3}
    return [
        effect
        for how in (BY_TAB, FORWARD_TASTE)
        for behaviour in OUTCOMES
        for effect in Panel(e, how).effects("dose", behaviour, e.outcome(behaviour), columns, bins)
    ]


def by_visit(e: Exposures) -> list[Effect]:
    """Fatigue whatever the category: being the 2nd, 3rd, ... logged exposure of a visit, against the 1st."""
    place = visit_place(e)
    columns: dict[str, NDArray[Any]] = {f"number {n + 1}": place == n for n in (1, 2, 3)}
    columns["number 5 or later"] = place >= 4
    return [
        effect
        for how in (PLAIN, BY_TAB)
        for behaviour in OUTCOMES
        for effect in Panel(e, how).effects("visit", behaviour, e.outcome(behaviour), columns, ())
    ]


def by_time(e: Exposures) -> list[Effect]:
    """Effect of the discounted count of earlier exposures, of the same category and of all, for each time constant."""
    result: list[Effect] = []
    for how in (BY_TAB, FORWARD_TASTE):
        panel = Panel(e, how)
        prepared = {behaviour: panel.prepare(e.outcome(behaviour)) for behaviour in OUTCOMES}
        for tau in TAUS:
            x = panel.prepare(loads(e, tau))
            for behaviour in OUTCOMES:
                found = panel.regress(prepared[behaviour], x)
                for i, name in enumerate(("same category", "all")):
                    words = f"{name}, {minutes(tau)}"
                    figures = len(x), float(found.value[i]), float(found.error[i])
                    result.append(Effect("time", words, behaviour, how, *figures))
    return result


def leaving(e: Exposures) -> list[Effect]:
    """Does repetition make it likelier that no further logged exposure follows within so many minutes?

    The outcome is 1 where none follows; "not clicked" is the response to the exposure itself, for scale.
    """
    near = e.gap <= NEAR_MINUTES
    passed = 1.0 - e.outcome("click")
    columns: dict[str, NDArray[Any]] = {
        "same category within 30 min": e.same_as(1) & near,
        "not clicked": passed,
        "not clicked after the same category": passed * (e.same_as(1) & near),
    }
    panel = Panel(e, BY_TAB)
    return [
        effect
        for horizon in LEAVING_MINUTES
        for effect in panel.effects(
            "leaving",
            f"none within {horizon:.0f} min",
            (e.gap_after > horizon).astype(np.float64),
            columns,
            e.gap_bins(),
        )
    ]


def by_part(e: Exposures, tau: float) -> list[Effect]:
    """Effects of both discounted counts for each group of users, and of the same-category count for each category."""
    same, everything = loads(e, tau).T
    panel = Panel(e, BY_TAB)
    names = [name for g, name in enumerate(e.group_names) if (e.group == g).sum() >= 1_000]
    groups = [e.group == e.group_names.index(name) for name in names]
    rest = ~np.any(groups, axis=0) if groups else np.ones(len(e), np.bool_)
    large = np.flatnonzero(np.bincount(e.category, minlength=e.n_categories) >= 1_000)
    result: list[Effect] = []
    for behaviour in OUTCOMES:
        y = e.outcome(behaviour)
        for study, own, other in (("group, all", everything, same), ("group, same category", same, everything)):
            columns = {name: own * here for name, here in zip(names, groups, strict=True)}
            result += panel.effects(study, behaviour, y, columns, [other, own * rest])
        columns = {str(c): same * (e.category == c) for c in large}
        result += panel.effects("category", behaviour, y, columns, [everything, same * ~np.isin(e.category, large)])
    return result


def loads(e: Exposures, tau: float, counted: Bools | None = None) -> Floats:
    """Discounted counts of earlier exposures of the same category and of all, shape (R, 2)."""
    return np.stack([recent_count(group, e.minute, tau, counted) for group in (e.cell, e.user)], axis=1)


def visit_place(e: Exposures) -> NDArray[np.int64]:
    """How many exposures of the same visit came before, shape (R,)."""
    place = np.arange(len(e))
    return place - np.maximum.accumulate(np.where(e.gap > NEAR_MINUTES, place, 0))


def since_same(e: Exposures) -> NDArray[np.int64]:
    """Places back to the newest exposure of the same category in the same visit, shape (R,); 0 where there is none."""
    order = np.argsort(e.cell, kind="stable")
    before = np.full(len(e), -1)
    pair = np.diff(e.cell[order]) == 0
    before[order[1:][pair]] = order[:-1][pair]
    place = np.arange(len(e))
    return np.where((before >= 0) & (place - before <= visit_place(e)), place - before, 0)


def run_before(e: Exposures) -> NDArray[np.int64]:
    """Length of the unbroken run of the same category just before, in one visit, shape (R,)."""
    goes_on = e.same_as(1) & (e.gap <= NEAR_MINUTES)
    place = np.arange(len(e))
    return place - np.maximum.accumulate(np.where(goes_on, 0, place))


def minutes(tau: float) -> str:
    """A time constant in words."""
    return f"{tau:.0f} min" if tau < 60 else f"{tau / 60:.0f} h"


def _place_name(k: int) -> str:
    return f"{abs(k)} before" if k > 0 else f"{abs(k)} after"
