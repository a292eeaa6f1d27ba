"""What the tables answer: whose gain it is, whether the aims are reached, and whether a control does as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapport.experiments.lerl.metrics import R_CUM
from rapport.experiments.lerl.rows import DEFINITIONS
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Found
from rapport.experiments.results.summary import compare as compare_in

LADDER = (
    ("the no-repeat mask (one-slate cooldown)", "mask", "ppo"),
    ("the hierarchy (a plan: the top-k preference planner)", "top-k", "mask"),
    ("the language model (in that planner's place)", "no-reflection", "top-k"),
    ("reflections", "lerl", "no-reflection"),
)
"""From planner-less PPO to LERL, a part at a time: (what is added, with it, without it)."""
BESIDE = (
    ("all of it together", "lerl", "ppo"),
    ("rotating categories alone", "rotation", "ppo"),
    ("what LERL has beyond a rotation", "lerl", "rotation"),
    ("what LERL has beyond random plans", "lerl", "random-plan"),
    ("what LERL has beyond random plans that are held, too", "lerl", "random-held"),
    ("what LERL has beyond the same eight categories for everybody", "lerl", "constant"),
    ("holding plans under a one-slate cooldown", "lerl", "lerl-published"),
    ("reinforcement learning under LERL's plans", "lerl", "lerl-no-rl"),
    ("reinforcement learning under the no-repeat mask alone", "mask", "mask-no-rl"),
    ("serving LERL's best slates in place of draws", "lerl-best", "lerl"),
    ("LERL's best slates beyond greedy under the no-repeat mask", "lerl-best", "mask-greedy"),
    ("Plackett-Luce slates under LERL's plans", "lerl-pl", "lerl"),
    ("Plackett-Luce slates without a planner", "ppo-pl", "ppo"),
    ("the online CTR model in PPO's place, under LERL's plans", "lerl-click", "lerl"),
    ("LERL's plans over the online CTR model, beyond the mask", "lerl-click", "mask-click"),
    ("the top-k preference planner over the online CTR model, beyond the mask", "top-k-click", "mask-click"),
    ("the online CTR model without plan and mask", "click", "ppo"),
)
"""Other comparisons that tell whose the gain is."""
SIMPLE = (
    "mask-greedy",
    "mask-no-rl",
    "mask",
    "rotation",
    "random-plan",
    "random-held",
    "constant",
    "greedy",
    "mmr",
    "popularity",
    "top-k-greedy",
    "top-k",
    "mask-linucb",
    "mask-click",
    "top-k-click",
)
"""Controls that a method with a language model has to beat, simplest first."""
MASKED = "masked-ppo"
"""The planner-less learner that has the mask, too."""
OURS = ("lerl", "lerl-published", "lerl-best", "lerl-pl", "lerl-click", "billp", "no-reflection", "lerl-no-rl")
"""LERL and its variants: rows that a language model plans."""


def compare(first: Sequence[Result], second: Sequence[Result]) -> Estimate | None:
    """First minus second in R_cum, paired by seed; None where one was not run."""
    return compare_in(first, second, R_CUM)


@dataclass(frozen=True)
class Part:
    """What one part adds to R_cum.

    Attributes:
        what: in words.
        added: paired by seed; None where one side was not run.
        share: of LERL's gain over planner-less PPO; None where that is not positive.
    """

    what: str
    added: Estimate | None
    share: float | None


def parts(found: Found, pairs: Sequence[tuple[str, str, str]]) -> list[Part]:
    """What each pair's difference is, and its share of LERL's gain over PPO."""
    whole = compare(found.get("lerl", []), found.get("ppo", []))
    listed = []
    for what, with_it, without in pairs:
        added = compare(found.get(with_it, []), found.get(without, []))
        share = added.point / whole.point if added and whole and whole.point > 0 else None
        listed.append(Part(what, added, share))
    return listed


def r_cum(results: Sequence[Result]) -> float:
    """Mean over seeds of R_cum."""
    return float(np.mean([r.arrays["return"].mean() for r in results]))


def best(found: Found, methods: Sequence[str]) -> str | None:
    """The method of highest R_cum among those that were run; None where none was."""
    run = [method for method in methods if found.get(method)]
    return max(run, key=lambda method: r_cum(found[method])) if run else None


def headline(found: Found) -> str:
    """The finding, first line of the page: the simplest control that beats LERL or is level, or LERL's lead."""
    lerl = found.get("lerl", [])
    if not lerl:
        return "LERL was not run."
    run = {name: d for name in SIMPLE if (d := compare(found.get(name, []), lerl)) is not None}
    if not run:
        return "LERL was run without its controls."
    if beat := {name: d for name, d in run.items() if d.low > 0}:
        simplest, most = next(iter(beat)), max(beat, key=lambda name: beat[name].point)
        line = f"A control beats LERL: {DEFINITIONS[simplest].label}, by {_signed(beat[simplest])} in R_cum"
        more = f"; most of all {DEFINITIONS[most].label}, by {_signed(beat[most])}"
        return f"{line}{more if most != simplest else ''}."
    for name, d in run.items():
        if d.high >= 0:
            label = DEFINITIONS[name].label
            return f"A control does as well as LERL: {label} cannot be told apart from it, {_signed(d)} in R_cum."
    nearest = max(run, key=lambda name: run[name].point)
    d = run[nearest]
    return (
        f"LERL beats every control; the nearest is {DEFINITIONS[nearest].label}, {-d.point:.2f} [{-d.high:.2f}, "
        f"{-d.low:.2f}] below it in R_cum."
    )


def _signed(d: Estimate) -> str:
    return f"{d.point:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"


def ladder_line(found: Found) -> str:
    """What each part adds on the way from PPO to LERL, in one sentence."""
    steps = parts(found, LADDER)
    known = [
        f"{part.what} {part.added.point:+.2f}" + (f" ({part.share:.0%})" if part.share is not None else "")
        for part in steps
        if part.added is not None
    ]
    if len(known) < len(steps):
        return "Whose LERL's gain is: not known, as not all of its parts were run."
    return f"From planner-less PPO to LERL, in R_cum: {', '.join(known)}."


def rotation_line(found: Found) -> str:
    """How much of LERL's gain over PPO merely rotating categories gives."""
    rotation, *_ = parts(found, [("rotation", "rotation", "ppo")])
    if rotation.added is None:
        return "Rotation of categories: not run."
    if rotation.share is None:
        return "LERL is not above planner-less PPO, so there is no gain to share out."
    return (
        f"Rotating categories alone, blind to taste, gives {rotation.share:.0%} of LERL's gain over planner-less PPO "
        f"({rotation.added.point:+.2f} [{rotation.added.low:+.2f}, {rotation.added.high:+.2f}] in R_cum)."
    )


def aims(found: Found) -> list[str]:
    """The three aims, and what is reached of each; also by what has a plan or mask without a language model."""
    ours = best(found, OURS)
    if ours is None:
        return ["Aims: LERL was not run."]
    plain = best(found, [m for m, row in DEFINITIONS.items() if row.family == "plan" and m not in OURS])
    better = plain if plain is not None and r_cum(found[plain]) > r_cum(found[ours]) else None
    learned = [m for m, row in DEFINITIONS.items() if row.family in ("learned", "bandit") and found.get(m)]
    lines = [_lead(found, ours, better, learned), _nearness(found, ours, better), _above_popularity(found, learned)]
    return [line for line in lines if line is not None]


def _lead(found: Found, ours: str, better: str | None, learned: Sequence[str]) -> str | None:
    rival = best(found, learned)
    if rival is None:
        return None
    value, theirs, name = r_cum(found[ours]), r_cum(found[rival]), DEFINITIONS[rival].label
    line = (
        f"Aim, 20 % above the best planner-less learned baseline in R_cum: {_met(value / theirs >= 1.2)}; "
        f"{DEFINITIONS[ours].label} is {value / theirs - 1:+.1%} above {name} ({value:.2f} against {theirs:.2f})"
    )
    if better is not None:
        line += f", without a language model {DEFINITIONS[better].label} {r_cum(found[better]) / theirs - 1:+.1%}"
    if found.get("look-ahead") and (most := r_cum(found["look-ahead"]) / theirs) < 1.2:
        line += f", a look-ahead that reads the simulator {most - 1:+.1%}"
    free = best(found, [m for m in learned if m != MASKED])
    if rival == MASKED and free is not None:
        line += (
            f". {name[0].upper()}{name[1:]} has the mask, too; above {DEFINITIONS[free].label}, the best of those that "
            f"may show the last category again ({r_cum(found[free]):.2f}), {DEFINITIONS[ours].label} is "
            f"{value / r_cum(found[free]) - 1:+.1%}"
        )
    return f"{line}."


def _nearness(found: Found, ours: str, better: str | None) -> str | None:
    if not found.get("look-ahead"):
        return None
    bound = r_cum(found["look-ahead"])
    share = r_cum(found[ours]) / bound
    line = (
        f"Aim, 95 % of the look-ahead bound: {_met(share >= 0.95)}; {DEFINITIONS[ours].label} has {share:.1%} of "
        f"{bound:.2f}, which a look-ahead reaches that reads the simulator"
    )
    if better is not None:
        line += f"; without a language model {DEFINITIONS[better].label} has {r_cum(found[better]) / bound:.1%}"
    return f"{line}."


def _above_popularity(found: Found, learned: Sequence[str]) -> str | None:
    popular = found.get("popularity")
    if not popular or not learned:
        return None
    below = [DEFINITIONS[m].label for m in learned if r_cum(found[m]) <= r_cum(popular)]
    names = f"below are {', '.join(below)}" if below else "all of them are"
    return f"Aim, every learned baseline above popularity ({r_cum(popular):.2f}): {_met(not below)}; {names}."


def _met(reached: bool) -> str:
    return "reached" if reached else "not reached"
