"""The satiation study as pages of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rapport.datasets.registry.licence import licence_note
from rapport.experiments.core import Experiment, Row
from rapport.experiments.lerl.metrics import METRICS, R_CUM
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.table import Table
from rapport.experiments.results.stats import Estimate, interval_text
from rapport.experiments.results.summary import Found
from rapport.experiments.satiation.panel import Effect
from rapport.experiments.satiation.separation import REFERENCE, row_name
from rapport.experiments.satiation.study import FITTED, Study

CAPTIONS = {
    "full": "What a full recent past takes: of the same category on top of what anything takes",
    "undiluted": "Per logged exposure and the unlogged ones it stands for (split halves as instruments)",
    "gap": "Same category as the exposure just before, by the time between the two",
    "places": "Same category as the exposure k places before, and after",
    "between": "Newest exposure of the same category in the visit, by the number of others in between",
    "dose": "Same category several times in a row just before, within a visit",
    "visit": "Fatigue: place in the visit, whatever the category, against the visit's first logged exposure",
    "time": "Discounted count of earlier exposures, per logged exposure, by time constant",
    "leaving": "Leaving: chance that no further logged exposure follows",
    "group, all": "Fatigue by group of users: discounted count of all exposures",
    "group, same category": "Category satiation by group of users: discounted count of the same category",
    "next": "Placebo: same category as the next exposure, which cannot have had an effect yet",
    "platform": "What the platform does: chance that the next exposure is of the same category, after a response",
    "shuffled order": "Placebo: the exposures of a person's day in random order (in brackets: spread over draws)",
    "dealt labels": "Placebo: categories permuted over videos (in brackets: spread over draws)",
}
"""Question -> caption of its table, in the order shown."""
_SECTIONS = {
    "What a full recent past takes": ("full", "undiluted"),
    "Repetition of a category": ("gap", "places", "between", "dose"),
    "Time": ("visit", "time", "leaving"),
    "Groups of users": ("group, all", "group, same category"),
    "Placebos": ("next", "platform", "shuffled order", "dealt labels"),
}
_COLUMNS = (("behaviour", ""), ("what", ""), ("held fixed", ""), ("change", "points"), ("95 % interval", "points"))


def study_page(study: Study) -> Page:
    """The whole study."""
    sections = [Section(title, _tables(study, names)) for title, names in _SECTIONS.items()]
    sections.append(Section("Differences between parts", [_differences(study)]))
    return Page(
        title=f"Satiation in {study.data}",
        finding=study_finding(study),
        sections=[section for section in sections if section.blocks],
        settings=study_notes(study),
        licence=licence_note(study.data),
    )


def study_finding(study: Study) -> str:
    """What a full recent past takes of the click rate, and how long it lasts, in a sentence."""
    everything, category = (study.effect("full", kind, "click", FITTED) for kind in ("all", "same category"))
    return (
        f"When the recent past is full, the click rate changes by {_points(everything)} points whatever the category, "
        f"and by {_points(category)} more for the same category; the past fades with a time constant of "
        f"{study.fade.minutes:.0f} min [{study.fade.low:.0f}, {study.fade.high:.0f}]."
    )


def study_tables(study: Study) -> list[Table]:
    """One table per question, and the one on how much groups and categories differ."""
    return [*_tables(study, CAPTIONS), _differences(study)]


def effects_table(effects: Sequence[Effect], caption: str) -> Table:
    """Estimates, one a row."""
    return Table(_COLUMNS, tuple(_row(x) for x in effects), caption)


def study_notes(study: Study) -> dict[str, str]:
    """What the figures rest on."""
    fade, spread = study.fade, study.spread
    return {
        "data": f"{study.rows:,} exposures of {study.users:,} users ({study.data}). Changes in points of the "
        "behaviour's rate per unit; in brackets the standard error, clustered by user; then the 95 % interval.",
        "time constant": f"{fade.minutes:.0f} min fits best, 95 % interval {fade.low:.0f} to {fade.high:.0f} min "
        "(bootstrap over users).",
        "differences between people": f"Standard deviation of fatigue {spread.ratio:.2f} of its mean, 95 % interval "
        f"{spread.low:.2f} to {spread.high:.2f} (pairs of different days; 0 where the estimated variance is not above "
        "0).",
        "what people saw": f"An exposure is watched {study.seconds:.1f} s on average; the log holds "
        f"{100 * study.share:.2f} % of what these people saw.",
    }


def separation_page(data: str, tables: Sequence[Table], experiment: Experiment, found: Found) -> Page:
    """Methods by environment.

    Args:
        data: name of the data set.
        tables: of :func:`rows_table`.
        experiment: the first table's, which the finding is about.
        found: its results.
    """
    said = []
    for environment in dict.fromkeys(row.family for row in experiment.rows):
        rows = [row for row in experiment.rows if row.family == environment and found.get(row.name)]
        points = {row.name: R_CUM.estimate([r.arrays for r in found[row.name]], _rng()) for row in rows}
        best = max(rows, key=lambda row: points[row.name].point)
        against = _against(found, best)
        above = f", {against.shown(3, signed=True)} against {REFERENCE}" if against else ""
        said.append(f"{best.label} in {environment} ({points[best.name].shown(3)}{above})")
    return Page(
        title=f"Methods under satiation: {data}",
        finding=f"Highest R_cum: {'; '.join(said)}.",
        sections=(Section("Methods by environment", tables),),
        licence=licence_note(data),
    )


def rows_table(experiment: Experiment, found: Found, caption: str) -> Table:
    """Methods by environment."""
    columns = ("environment", "method", *(metric.name for metric in METRICS), "R_cum less rotation's")
    shown = []
    for row in experiment.rows:
        arrays = [result.arrays for result in found[row.name]]
        against = _against(found, row)
        figures = (metric.estimate(arrays, _rng()).shown(3) for metric in METRICS)
        shown.append((row.family, row.label, *figures, "" if against is None else against.shown(3, signed=True)))
    return Table(tuple((name, "") for name in columns), tuple(shown), caption)


def _against(found: Found, row: Row) -> Estimate | None:
    """R_cum minus that of the reference in the same environment; None for the reference itself."""
    other = found.get(row_name(row.family, REFERENCE), ())
    if row.label == REFERENCE or not other:
        return None
    return R_CUM.difference([r.arrays for r in found[row.name]], [r.arrays for r in other], _rng())


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _tables(study: Study, names: Iterable[str]) -> list[Table]:
    found = {name: sorted((x for x in study.effects if x.study == name), key=lambda x: x.behaviour) for name in names}
    return [effects_table(effects, CAPTIONS[name]) for name, effects in found.items() if effects]


def _points(x: Effect) -> str:
    return interval_text(100 * x.value, 100 * x.low, 100 * x.high, 2, signed=True)


def _row(x: Effect) -> tuple[str, ...]:
    points = f"{100 * x.value:+.2f} ({100 * x.error:.2f})"
    return x.behaviour, x.what, x.how, points, f"{100 * x.low:+.2f} to {100 * x.high:+.2f}"


def _differences(study: Study) -> Table:
    units = {"parts": "", "behaviour": "", "number": "", "mean": "points", "spread": "points", "p-value": ""}
    rows = tuple(
        (d.study, d.behaviour, f"{d.parts}", f"{100 * d.mean:+.2f}", f"{100 * d.spread:.2f}", f"{d.p_value:.3f}")
        for d in study.differences
    )
    caption = "Do the parts differ? Spread: standard deviation beyond sampling error (0: none shown)"
    return Table(tuple(units.items()), rows, caption)
