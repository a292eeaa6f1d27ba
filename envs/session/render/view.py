"""A frame of one session to be rendered: what was shown, how the user responded, and why the user left, in words.

:mod:`rapport.envs.session.render.ansi` and :mod:`rapport.envs.session.render.image` draw it.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapport._deprecation import renamed
from rapport.datasets.schema import Int8Array, Int32Array, IntArray

SAME_PLACE, OTHER_PLACE = 2, 1
"""How an item repeats a category of the previous slate: at the same place, or at another."""

LONGEST_NAME = 200
"""Letters of a name that a picture shows at most; a line of a terminal has fewer."""

_EXTRA = {"positional": "repeated categories", "set_overlap": "repeated categories", "satisfaction": "items not liked"}
"""Rules under which a slate costs at least 1, and what they charge more for."""


_MARKS = {"click": "●", "long_view": "▶", "like": "♥", "comment": "✎", "forward": "➜", "follow": "★", "hate": "✗"}


@dataclass(frozen=True)
class SessionFrame:
    """The data of one rendered frame: a session so far, T slates of K places with F behaviours.

    Attributes:
        user: e.g. ``"user 1234"``.
        traits: a few pairs of (feature, value).
        category_names: C names.
        slates: shape (T, K), int32, category of each item shown; -1 for an empty place.
        items: shape (T, K), int32, the items.
        feedback: shape (T, K, F), int8: 1 did.
        behaviours: F names; the first is the one that is counted.
        costs: shape (T,), float64, budget that each slate cost; infinite where it made the user leave at once.
        budget: budget left.
        start_budget: budget at the start.
        max_steps: the time limit in slates.
        quit_rule: its name.
        ended: how the session ended; empty while it runs.

    Raises:
        ValueError: the arrays' shapes do not fit each other.
    """

    user: str
    traits: tuple[tuple[str, str], ...]
    category_names: tuple[str, ...]
    slates: Int32Array
    items: Int32Array
    feedback: Int8Array
    behaviours: tuple[str, ...]
    costs: NDArray[np.float64]
    budget: float
    start_budget: float
    max_steps: int
    quit_rule: str
    ended: Literal["", "left", "time limit"]

    def __post_init__(self) -> None:
        length, places = self.slates.shape
        wanted = {"items": (length, places), "feedback": (length, places, len(self.behaviours)), "costs": (length,)}
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name}: shape {getattr(self, name).shape} where {shape} is needed; give one row per slate shown"
                )


class Spending(NamedTuple):
    """How the budget was spent.

    Attributes:
        least: the least cost of a slate.
        slates: spent at that cost.
        extra: spent beyond it.
        left: not spent, at least 0.
        at_once: whether the last slate took all that was left.
    """

    least: float
    slates: float
    extra: float
    left: float
    at_once: bool


def spending(frame: SessionFrame) -> Spending:
    """Split the budget spent into the least cost of the slates and what they cost beyond it.

    The least cost is 1 under the rules in which it is fixed, and otherwise that of the cheapest slate so far.
    """
    costs = np.where(np.isfinite(frame.costs), frame.costs, 0.0)
    at_once = bool((costs != frame.costs).any())
    cheapest = float(frame.costs.min(initial=np.inf))
    least = min(1.0, cheapest) if frame.quit_rule in _EXTRA else cheapest
    slates = least * len(costs) if np.isfinite(least) else 0.0
    left = max(round(frame.start_budget - float(costs.sum()), 6), 0.0)
    extra = round(float(costs.sum()) - slates, 6) + (left if at_once else 0.0)
    return Spending(least, slates, extra, 0.0 if at_once else left, at_once)


def repeats(slates: Int32Array) -> IntArray:
    """How each item repeats the previous slate, shape (T, K): :data:`SAME_PLACE`, :data:`OTHER_PLACE` or 0."""
    before = np.full_like(slates, -1)
    before[1:] = slates[:-1]
    shown = slates >= 0
    anywhere = (slates[:, :, None] == before[:, None, :]).any(axis=2) & shown
    return np.where((slates == before) & shown, SAME_PLACE, np.where(anywhere, OTHER_PLACE, 0))


def figures(frame: SessionFrame) -> str:
    """The state of the session, in one line."""
    shown = int((frame.slates >= 0).sum())
    rewarded = words(frame.behaviours[0])
    if not shown:
        return f"no slate yet, of at most {frame.max_steps}"
    hits = int((frame.feedback[..., 0] > 0)[frame.slates >= 0].sum())
    return (
        f"{counted(len(frame.slates), 'slate')} of at most {frame.max_steps}, "
        f"{counted(shown, 'item')}, {counted(hits, rewarded)} ({hits / shown:.0%})"
    )


def ending(frame: SessionFrame) -> str:
    """Why the session ended, in words; empty while it runs."""
    if not frame.ended:
        return ""
    n, spent = counted(len(frame.slates), "slate"), spending(frame)
    total = number(frame.start_budget)
    if frame.ended == "time limit":
        return f"cut off at the time limit, after {n}, with {number(spent.left)} of a budget of {total} left"
    if spent.at_once:
        return f"left at once after {n}: the last was more than the rule '{rule_name(frame)}' lets pass"
    parts = [f"{number(spent.slates)} went on slates"]
    if spent.extra > 0:
        parts.append(f"{number(spent.extra)} on {extra_name(frame)}")
    over = round(spent.slates + spent.extra - frame.start_budget, 6)
    if spent.left > 0:
        parts.append(f"{number(spent.left)} was too little for another")
    elif over > 0:
        parts.append(f"{number(over)} more than there was")
    return f"left after {n}: of a budget of {total}, {', '.join(parts)}"


def behaviour_marks(behaviours: tuple[str, ...]) -> dict[str, str]:
    """One character for each behaviour: a symbol for the usual ones, a free letter for the others."""
    marks: dict[str, str] = {}
    for name in behaviours:
        letters = [*name.lower(), *string.ascii_lowercase, *string.ascii_uppercase, *string.digits]
        free = (c for c in letters if c.isascii() and c.isalnum() and c not in marks.values())
        marks[name] = _MARKS.get(name) or next(free, "?")
    return marks


def extra_name(frame: SessionFrame) -> str:
    """Name of the costs beyond the least."""
    if np.isinf(frame.costs).any():
        return "the last slate"
    return _EXTRA.get(frame.quit_rule, "extra costs")


def rule_name(frame: SessionFrame) -> str:
    """The quit rule's name as words."""
    return words(frame.quit_rule)


def category_name(frame: SessionFrame, category: int) -> str:
    """A category's name, or its number where its name cannot be shown."""
    name = plain(frame.category_names[category]) if 0 <= category < len(frame.category_names) else ""
    return name or f"category {category}"


def traits(frame: SessionFrame) -> str:
    """The user's traits in one line."""
    return " · ".join(f"{words(name)}: {words(value)}" for name, value in frame.traits)


def cost_text(cost: float) -> str:
    """A slate's cost, short."""
    return "all" if np.isinf(cost) else number(cost)


def number(value: float) -> str:
    """At most two decimals."""
    return f"{round(value, 2):g}"


def counted(number: int, noun: str) -> str:
    """``1 slate``, ``2 slates``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def words(name: str) -> str:
    """A feature's, rule's or behaviour's name as words."""
    return plain(name).replace("_", " ")


def plain(text: str) -> str:
    """Text for one place of a picture, whatever a log holds.

    Line breaks and what controls a terminal or the direction of writing become spaces; what is longer than
    :data:`LONGEST_NAME` ends in an ellipsis.
    """
    short = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return " ".join("".join(c if c.isprintable() else " " for c in short).split())


__getattr__ = renamed(__name__, {"SessionView": "SessionFrame"})
