"""Parameters of user satiation: measured in a log, shipped with the package as a table of aggregates.

``rapport satiation measure --fit FILE`` makes the table; it holds no row of a log.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rapport.datasets.schema import DataError

FIGURES_FILE = Path(__file__).with_name("kuairand_pure.json")
Strength = Literal["estimate", "low", "high"]
KINDS = ("same category", "all")


@dataclass(frozen=True)
class SatiationParameters:
    """Parameters of user satiation.

    Exposures decay with time constant ``tau``. The total load is 1 after watching without pause for much longer than
    that, and 0 after a long break; the load of a category is the share of it that was of this category.
    """

    tau_minutes: float
    """Time constant of the decay of exposures, minutes."""
    seconds: float
    """How long an item is on the screen, seconds."""
    behaviours: tuple[str, ...]
    """Those on which satiation was measured; the others are unaffected."""
    category: tuple[float, ...]
    """For each of them the log-odds lost at load 1 of the item's own category."""
    overall: tuple[float, ...]
    """For each of them the log-odds lost at total load 1."""
    spread: float
    """Standard deviation of users' sensitivities, whose mean is 1; 0: all users are alike."""

    def __post_init__(self) -> None:
        for name in ("tau_minutes", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; it must be above 0")
        if not self.spread >= 0:
            raise ValueError(f"spread={self.spread}; it must be at least 0")
        if not len(self.behaviours) == len(self.category) == len(self.overall):
            raise ValueError(
                f"{len(self.behaviours)} behaviours, {len(self.category)} category and {len(self.overall)} overall "
                "losses; give one of each per behaviour"
            )

    @property
    def fade(self) -> float:
        """Share of a load that is left after one more item, in (0, 1)."""
        return float(np.exp(-self.seconds / 60.0 / self.tau_minutes))


def parameters_from(figures: Mapping[str, Any], strength: Strength = "estimate") -> SatiationParameters:
    """Parameters from a table of figures.

    Args:
        figures: the table that ``rapport satiation measure --fit`` writes.
        strength: which end of the 95 % intervals of the four effects: ``"estimate"``, the estimates; ``"low"``, the
            weakest satiation; ``"high"``, the strongest. An effect that would be a gain counts as 0.

    Raises:
        ValueError: there is no such strength.
        DataError: the table lacks something.
    """
    if strength not in get_args(Strength):
        raise ValueError(f"strength={strength!r} is unknown; choose one of {', '.join(get_args(Strength))}")
    key = {"estimate": "points", "low": "high", "high": "low"}[strength]  # the highest change is the least loss
    try:
        behaviours = figures["behaviours"]
        losses = {
            kind: tuple(max(-one[kind][key] / 100.0 / _slope(one["rate"]), 0.0) for one in behaviours.values())
            for kind in KINDS
        }
        return SatiationParameters(
            figures["tau_minutes"]["estimate"],
            figures["seconds_per_item"],
            tuple(behaviours),
            losses[KINDS[0]],
            losses[KINDS[1]],
            figures["spread"]["estimate"],
        )
    except KeyError as error:
        raise DataError(
            f"satiation figures: they lack {error}; make them again with `rapport satiation measure --fit FILE`"
        ) from error


@functools.lru_cache(maxsize=8)
def shipped(strength: Strength = "estimate") -> SatiationParameters:
    """The parameters measured on KuaiRand-Pure that the package ships; arguments as of :func:`parameters_from`."""
    return parameters_from(json.loads(FIGURES_FILE.read_text("utf-8")), strength)


def _slope(rate: float) -> float:
    """Change of a probability per unit of log-odds, at a rate."""
    return rate * (1.0 - rate)
