"""When people leave: how much of a session's budget one slate costs.

A session starts with a budget (LERL and KuaiSim call it temper; 20 in both). Each slate costs some of it, and the user
leaves once less than one is left. A rule compares the categories of a slate with those of the slate before; on a
session's first slate there is none before, which is written as -1 and matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

QuitRule = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float64]]
"""(categories of the slate (B, K), of the slate before (B, K)) -> budget it costs (B,)."""


def positional(categories: NDArray[np.int32], previous: NDArray[np.int32]) -> NDArray[np.float64]:
    """LERL's released rule: 1 per slate, and 1 more if any *position* repeats its category.

    At most 1 more however many positions match, so with a budget of 20 a session lasts 11 to 20 slates. Merely
    reordering a slate escapes it (LERL released code; the paper states only that same-category content costs budget).
    """
    repeats: NDArray[np.bool_] = (categories == previous).any(axis=1)
    return np.where(repeats, 2.0, 1.0)


def set_overlap(categories: NDArray[np.int32], previous: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 per slate, and 1 more if the two slates share any category, wherever it stands."""
    repeats: NDArray[np.bool_] = (categories[:, :, None] == previous[:, None, :]).any(axis=(1, 2))
    return np.where(repeats, 2.0, 1.0)


def never(categories: NDArray[np.int32], previous: NDArray[np.int32]) -> NDArray[np.float64]:
    """Nothing is ever lost: sessions end at the time limit alone."""
    return np.zeros(len(categories))


QUIT_RULES: dict[str, QuitRule] = {"positional": positional, "set_overlap": set_overlap, "never": never}


def quit_rule(name: str) -> QuitRule:
    """Look a rule up by name.

    Raises:
        ValueError: there is no such rule; the message lists those there are.
    """
    if name not in QUIT_RULES:
        raise ValueError(f"quit_rule={name!r} is unknown; choose one of {', '.join(QUIT_RULES)}")
    return QUIT_RULES[name]
