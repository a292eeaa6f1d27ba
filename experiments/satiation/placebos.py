"""Alternative explanations: placebo tests of the satiation study, and how the platform reacts to a click.

* An exposure that comes *after* cannot have an effect: "same category as the next exposure" must show none, unless
  tastes drift or the platform reacts to a click by showing more of the same.
* The platform's reaction is told from drifting taste by videos that anybody likes: a click that a good video earned
  says little about the taste for its category, so if more of the category follows, the platform reacted.
* In shuffled order nothing comes before anything: what is left is constant taste.
* With categories permuted over videos nothing is "the same": the spread is sampling error alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.experiments.satiation.exposures import Exposures, Floats
from rapport.experiments.satiation.fixed_effects import FixedEffects, instrumented, least_squares, stack
from rapport.experiments.satiation.measure import NEAR_MINUTES, OUTCOMES
from rapport.experiments.satiation.panel import BY_TAB, PLAIN, Effect, Panel

PRIOR = 20.0
"""Exposures at which a video's own rate counts half."""


def next_exposure(e: Exposures) -> list[Effect]:
    """Effect of "same category as the *next* exposure", by the gap to it, next to that of the one before."""
    near, near_after = e.gap <= NEAR_MINUTES, e.gap_after <= NEAR_MINUTES
    columns: dict[str, NDArray[Any]] = {
        "before, within 30 min": e.same_as(1) & near,
        "before, later": e.same_as(1) & ~near,
        "next, within 30 min": e.same_as(-1) & near_after,
        "next, later": e.same_as(-1) & ~near_after,
    }
    controls = [*e.gap_bins(), near_after, e.follows(-1)]
    panel = Panel(e, BY_TAB)
    return [x for b in OUTCOMES for x in panel.effects("next", b, e.outcome(b), columns, controls)]


def platform_answer(e: Exposures) -> list[Effect]:
    """How much likelier is the next exposure of the same category after a response, for any reason or for the video's.

    The instrument is the video's rate among *other* users, each measured against that user's own mean; user x category
    means are taken out. The same video again does not count as the same category.
    """
    after = e.same_as(-1) & (np.append(e.item[1:], -1) != e.item)
    result: list[Effect] = []
    for behaviour in OUTCOMES:
        y = e.outcome(behaviour)
        surprise = FixedEffects(e.user).residual(y)
        shown = np.bincount(e.item)[e.item]
        quality = (np.bincount(e.item, surprise)[e.item] - surprise) / (shown - 1 + PRIOR)
        rows = e.follows(-1) & (shown > 1)
        kept = e.take(rows)
        left = FixedEffects(kept.cell).residual(stack([after[rows], y[rows], quality[rows]]))
        cells = 0  # nested in users
        for what, z in (("response, for any reason", left[:, [1]]), ("response, for the video's sake", left[:, [2]])):
            found = instrumented(left[:, 0], left[:, [1]], z, kept.user, cells)
            figures = int(rows.sum()), float(found.value[0]), float(found.error[0])
            result.append(Effect("platform", what, behaviour, "user x category", *figures))
    return result


def shuffled_order(e: Exposures, rng: np.random.Generator, draws: int = 20) -> list[Effect]:
    """Effects of "same as before" when each person's exposures of a day change places; ``error``: sd over draws."""
    found = []
    for _ in range(draws):
        order = np.lexsort((rng.random(len(e)), e.day, e.user))
        mixed = replace(e.take(order), minute=e.minute)
        found.append(_same_before(mixed, Panel(mixed, PLAIN)))
    return _draws("shuffled order", np.array(found), len(e))


def dealt_labels(e: Exposures, rng: np.random.Generator, draws: int = 100) -> list[Effect]:
    """The same with categories permuted over videos; ``error``: sd over draws, to set beside the standard error."""
    panel = Panel(e, PLAIN)
    items, place = np.unique(e.item, return_inverse=True)
    label = np.zeros(len(items), np.int64)
    label[place] = e.category
    y = stack([e.outcome(behaviour) for behaviour in OUTCOMES])
    prepared = panel.prepare(y)
    found = []
    for _ in range(draws):
        dealt = replace(e, category=rng.permutation(label)[place])
        found.append(_same_before(dealt, panel, prepared))
    return _draws("dealt labels", np.array(found), len(e))


_SHUFFLED = ("within 30 min", "later")


def _same_before(e: Exposures, panel: Panel, prepared: Floats | None = None) -> Floats:
    """Effects of the category before, shape (behaviours, 2)."""
    near, same = e.gap <= NEAR_MINUTES, e.same_as(1)
    x = panel.prepare(stack([same & near, same & ~near, *e.gap_bins()]))
    y = panel.prepare(stack([e.outcome(b) for b in OUTCOMES])) if prepared is None else prepared
    return np.stack([least_squares(y[:, i], x, panel.user).value[:2] for i in range(len(OUTCOMES))])


def _draws(study: str, found: Floats, rows: int) -> list[Effect]:
    """Mean and spread of draws of shape (draws, behaviours, 2)."""
    mean, spread = found.mean(axis=0), found.std(axis=0, ddof=1)
    return [
        Effect(study, what, behaviour, f"{PLAIN}, {len(found)} draws", rows, float(mean[i, j]), float(spread[i, j]))
        for i, behaviour in enumerate(OUTCOMES)
        for j, what in enumerate(_SHUFFLED)
    ]
