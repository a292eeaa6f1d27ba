"""``rapport simulator quit-rule``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from rapport.datasets.twin import twin
from rapport.experiments.report.table import Table
from rapport.experiments.simulator.quit_rule_length import (
    PLAN_SIZE,
    PLANS,
    Lengths,
    Rule,
    Script,
    expected_length,
    play,
    random_plans,
    scripted,
)

REFERENCE = {0.0: 20.0, 0.17: 17.4, 0.3: 15.8, 0.42: 14.6, 0.52: 13.7, 1.0: 11.0}
"""T_int by rate of repetition, from a simulation of LERL's released rule by itself, to one decimal."""
REFERENCE_LEAK, REFERENCE_RANDOM = 0.286, 14.8
"""Share of items from outside the plan, and T_int, of LERL's released code, untrained, under such random plans."""
LERL = 17.238
"""T_int that LERL reports on KuaiRand."""

COLUMNS = (
    ("slates", ""),
    ("repeated", "of slates"),
    ("T_int played", "slates"),
    ("T_int exact", "slates"),
    ("reference", "slates"),
)


@dataclass
class QuitRuleCommand:
    """How long sessions last when slates repeat the categories before them at a given rate."""

    rates: tuple[float, ...] = tuple(REFERENCE)
    """Share of slates, but each session's first, that repeat a category."""
    quit_rule: Rule = "positional"
    """`positional`: in its old place; `set_overlap`: in any."""
    sessions: int = 5_000
    """Sessions for each line."""
    seed: int = 0
    """Of slates and sessions."""

    def run(self) -> int:
        """Play, compute and print; 0."""
        bad = [rate for rate in self.rates if not 0 <= rate <= 1]
        if bad:
            raise ValueError(f"rates: {bad[0]} is no share; give numbers from 0 to 1")
        if self.sessions < 2:
            raise ValueError(f"sessions={self.sessions}; give at least 2")
        data = twin(n_users=200, n_items=1_000, seed=0)
        console = Console()
        rows = []
        with console.status("playing sessions"):
            for name, script, exact, known in self._lines(data.catalog.n_categories):
                found = play(data, script, self.sessions, self.seed, rule=self.quit_rule)
                rows.append(_line(name, found, expected_length(found.rate if exact is None else exact), known))
        caption = f"Session length under {self.quit_rule}, budget 20, slates of 6"
        console.print(Table(COLUMNS, tuple(rows), caption))
        console.print()
        for note in _notes(self.sessions, self.quit_rule):
            console.print(note, style="dim", highlight=False, markup=False)
        return 0

    def _lines(self, n_categories: int) -> Iterator[tuple[str, Script, float | None, float | None]]:
        """Name, slates, their rate where it is known beforehand, and the reference."""
        rngs = np.random.default_rng(self.seed).spawn(len(self.rates) + 2)
        for rate, rng in zip(self.rates, rngs, strict=False):
            yield f"repeating at {rate:.0%}", scripted(rng, n_categories, rate), rate, REFERENCE.get(rate)
        plans = f"random plans, {PLAN_SIZE} of {PLANS}"
        yield plans, random_plans(rngs[-2]), None, None
        known = REFERENCE_RANDOM if self.quit_rule == "positional" else None
        yield f"{REFERENCE_LEAK:.0%} outside such plans", random_plans(rngs[-1], REFERENCE_LEAK), None, known


def rate_of(length: float) -> float:
    """The rate of repetition at which sessions last ``length`` slates, between 11 and 20 of them, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_length(middle) > length else (low, middle)
    return (low + high) / 2


def _line(name: str, found: Lengths, exact: float, known: float | None) -> tuple[str, ...]:
    played = f"{found.mean:.2f} ± {found.margin:.2f}"
    return name, f"{100 * found.rate:.1f} %", played, f"{exact:.2f}", "" if known is None else f"{known:.1f}"


def _notes(sessions: int, rule: Rule) -> list[str]:
    notes = [
        f"played: {sessions:,} whole sessions a line, mean and 95 % interval; repeated: of all slates but first ones",
        "exact: if slates repeat independently of each other; under random plans they nearly do",
    ]
    if rule == "positional":
        notes += [
            "reference: LERL's released rule simulated by itself; last line: its code, untrained, whose mask leaks",
            f"LERL's own T_int on KuaiRand, {LERL:.2f}, stands for {100 * rate_of(LERL):.0f} % of slates repeating",
        ]
    return notes
