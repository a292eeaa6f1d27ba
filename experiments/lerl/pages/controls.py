"""What the two controls of plans mean: whether a plan has anything personal to win, and whether plans matter at all."""

from __future__ import annotations

from collections.abc import Sequence

from rapport.agents.planning.build import CONSTANT, RANDOM_HELD
from rapport.experiments.lerl.metrics import R_CUM
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.summary import Found, compare

CONSTANT_WORDS = "the same eight most-clicked categories for everybody"
RANDOM_WORDS = "eight random categories, held"


def control_lines(found: Found, planners: Sequence[str]) -> list[str]:
    """What a table's controls say of its planners, a sentence for each control that was run.

    Args:
        found: results by row, under the labels that they are shown by.
        planners: rows whose planner looks at the user, the most important first; those that were not run are left out.
    """
    run = [name for name in planners if found.get(name)]
    above = {name: d for name in run if (d := compare(found.get(CONSTANT, ()), found[name], R_CUM)) is not None}
    lines = [_about_constant(found, above)] if above else []
    random = compare(found[run[0]], found.get(RANDOM_HELD, ()), R_CUM) if run else None
    if random is not None:
        label, size = found[run[0]][0].label, R_CUM.shown(random, signed=True)
        matters = (
            "which categories are planned matters" if random.low > 0 else "which are planned is not seen to matter"
        )
        lines.append(f"{label} against {RANDOM_WORDS}: {size} in R_cum; {matters}.")
    return lines


def _about_constant(found: Found, above: dict[str, Estimate]) -> str:
    """Whether planners that look at the user do better than one plan for everybody, given constant minus planner."""
    reached = [name for name, difference in above.items() if difference.high >= 0]
    named = " and ".join(
        f"{found[name][0].label} ({R_CUM.shown(above[name], signed=True)} in R_cum)" for name in reached or above
    )
    if reached:
        return (
            f"A plan of {CONSTANT_WORDS} does as well as {named}: in this environment a plan has nothing personal to "
            "win, and the table cannot tell a good planner from a constant."
        )
    return f"A plan of {CONSTANT_WORDS} is below {named}: plans have something personal to win here."
