"""The satiation study of one log: every question, and the component's parameters from the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rapport.datasets.schema import SessionData
from rapport.experiments.satiation.exposures import Exposures
from rapport.experiments.satiation.fit import KINDS, Fade, Spread, fade, spread, undiluted, when_full
from rapport.experiments.satiation.measure import (
    OUTCOMES,
    by_between,
    by_dose,
    by_gap,
    by_part,
    by_places,
    by_time,
    by_visit,
    leaving,
)
from rapport.experiments.satiation.panel import BY_TAB, FORWARD, FORWARD_TASTE, Effect
from rapport.experiments.satiation.placebos import dealt_labels, next_exposure, platform_answer, shuffled_order

Report = Callable[[str], None]
FITTED = f"{BY_TAB}, split halves"
"""The specification that the component is fitted with."""


class Difference(NamedTuple):
    """Whether parts (groups of users, categories) differ in an effect, by DerSimonian and Laird's moments.

    Attributes:
        study: which parts.
        behaviour: e.g. ``"click"``.
        parts: how many.
        mean: their precision-weighted mean effect.
        spread: standard deviation of the true effects, 0 where the estimates vary no more than their errors say.
        p_value: chance of estimates as different as these if all were the same.
    """

    study: str
    behaviour: str
    parts: int
    mean: float
    spread: float
    p_value: float


@dataclass(frozen=True)
class Study:
    """What was found in one log.

    Attributes:
        data: name of the data set.
        fingerprint: of the data set.
        rows: exposures.
        users: people.
        rates: share of exposures with each of the outcomes.
        seconds: an exposure is watched on average.
        share: of what people saw that is in the log.
        effects: all estimates.
        differences: between groups and between categories.
        fade: the time constant.
        spread: between people.
    """

    data: str
    fingerprint: str
    rows: int
    users: int
    rates: tuple[float, ...]
    seconds: float
    share: float
    effects: tuple[Effect, ...]
    differences: tuple[Difference, ...]
    fade: Fade
    spread: Spread

    def effect(self, study: str, what: str, behaviour: str, how: str) -> Effect:
        """Look an estimate up.

        Raises:
            KeyError: there is none.
        """
        for x in self.effects:
            if (x.study, x.what, x.behaviour, x.how) == (study, what, behaviour, how):
                return x
        raise KeyError(f"no effect of {what!r} on {behaviour!r} under {how!r} in the study of {study!r}")


def conduct(
    data: SessionData,
    e: Exposures,
    seconds: float,
    share: float,
    seed: int = 0,
    draws: int = 100,
    report: Report = lambda _: None,
) -> Study:
    """Answer every question from one log.

    Args:
        data: the log.
        e: its exposures.
        seconds: an exposure is watched on average.
        share: of what people saw that is in the log.
        seed: of the placebos, the halves and the bootstraps.
        draws: of the placebo with permuted categories; a fifth of them of the one with shuffled order.
        report: told what is being done.
    """
    rng = np.random.default_rng(seed)
    report("time constant")
    constant = fade(e, rng)
    tau = constant.minutes
    questions: dict[str, Callable[[], list[Effect]]] = {
        "gaps": lambda: by_gap(e),
        "places": lambda: by_places(e),
        "exposures in between": lambda: by_between(e),
        "doses": lambda: by_dose(e),
        "visits": lambda: by_visit(e),
        "time": lambda: by_time(e),
        "leaving": lambda: leaving(e),
        "groups and categories": lambda: by_part(e, tau),
        "the next exposure": lambda: next_exposure(e),
        "the platform's reaction": lambda: platform_answer(e),
        "shuffled order": lambda: shuffled_order(e, rng, max(draws // 5, 2)),
        "permuted categories": lambda: dealt_labels(e, rng, draws),
        "split halves": lambda: [
            x for how in (BY_TAB, FORWARD, FORWARD_TASTE) for x in undiluted(e, tau, rng, how=how)
        ],
    }
    effects: list[Effect] = []
    for name, ask in questions.items():
        report(name)
        effects += ask()
    effects += when_full([x for x in effects if x.study == "undiluted"], tau, seconds, share)
    report("differences between people")
    studies = ("group, all", "group, same category", "category")
    return Study(
        data=data.name,
        fingerprint=data.fingerprint,
        rows=len(e),
        users=len(np.unique(e.user)),
        rates=tuple(float(e.outcome(b).mean()) for b in OUTCOMES),
        seconds=seconds,
        share=share,
        effects=tuple(effects),
        differences=tuple(difference(effects, study, b) for study in studies for b in OUTCOMES),
        fade=constant,
        spread=spread(e, tau, rng),
    )


def difference(effects: list[Effect], study: str, behaviour: str) -> Difference:
    """Compare the parts of one study."""
    from scipy.stats import chi2

    parts = [x for x in effects if (x.study, x.behaviour) == (study, behaviour) and x.error > 0]
    value, weight = np.array([x.value for x in parts]), np.array([x.error**-2.0 for x in parts])
    if len(parts) < 2:
        return Difference(study, behaviour, len(parts), float(value.sum()), 0.0, 1.0)
    mean = (weight * value).sum() / weight.sum()
    q, freedom = float((weight * (value - mean) ** 2).sum()), len(parts) - 1
    variance = (q - freedom) / (weight.sum() - (weight**2).sum() / weight.sum())
    return Difference(
        study, behaviour, len(parts), float(mean), float(np.sqrt(max(variance, 0.0))), float(chi2.sf(q, freedom))
    )


def figures_of(study: Study) -> dict[str, Any]:
    """The component's parameters, JSON-ready: aggregates only; as read by
    :func:`~rapport.envs.session.satiation.parameters.parameters_from`.
    """
    behaviours: dict[str, dict[str, Any]] = {}
    for behaviour, rate in zip(OUTCOMES, study.rates, strict=True):
        behaviours[behaviour] = {"rate": round(rate, 4)}
        for kind in KINDS:
            x = study.effect("full", kind, behaviour, FITTED)
            points = {"points": x.value, "low": x.low, "high": x.high}
            behaviours[behaviour][kind] = {name: round(100 * value, 2) for name, value in points.items()}
    return {
        "measured_on": f"{study.data}, {study.rows:,} exposures of {study.users:,} users",
        "made_by": "rapport satiation measure --fit FILE",
        "units": "points of the behaviour's rate lost (negative) when the recent past is full; minutes; seconds",
        "specification": FITTED,
        "tau_minutes": {"estimate": study.fade.minutes, "low": study.fade.low, "high": study.fade.high},
        "seconds_per_item": round(study.seconds, 2),
        "logged_share": round(study.share, 6),
        "behaviours": behaviours,
        "spread": {name: round(getattr(study.spread, name), 3) for name in ("low", "high")}
        | {"estimate": round(study.spread.ratio, 3)},
    }
