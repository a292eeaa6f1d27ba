"""The study of boredom in words and tables: for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rapport.experiments.report.figures import Card
from rapport.experiments.results.stats import Estimate
from rapport.experiments.satiation.panel import Effect
from rapport.experiments.satiation.separation import Row
from rapport.experiments.satiation.study import Study

CAPTIONS = {
    "gap": "Same category as the exposure just before, by the time between the two",
    "places": "Same category as the exposure k places before, and after",
    "between": "Newest exposure of the same category in the visit, by the number of others in between",
    "dose": "Same category several times in a row just before, within a visit",
    "visit": "Weariness: place in the visit, whatever the category, against the visit's first logged exposure",
    "time": "Faded count of earlier exposures, per logged exposure, by time constant",
    "next": "Placebo: the next exposure cannot have bored anybody yet",
    "platform": "What the platform does: chance that the next exposure is of the same category, after a response",
    "shuffled order": "Placebo: the exposures of a person's day in random order (in brackets: spread over draws)",
    "dealt labels": "Placebo: categories dealt to videos at random (in brackets: spread over draws)",
    "leaving": "Leaving: chance that no further logged exposure follows",
    "group, all": "Weariness by group of users: faded count of all exposures",
    "group, same category": "Boredom by group of users: faded count of the same category",
    "undiluted": "Per logged exposure and the unlogged ones it stands for (split halves as instruments)",
    "full": "What a full recent past takes: of the same category on top of what anything takes",
}
"""Studies in the order they are shown."""


def study_tables(study: Study) -> list[Card]:
    """One table per question, and the one on how much groups and categories differ."""
    tables = []
    for name, caption in CAPTIONS.items():
        effects = sorted((x for x in study.effects if x.study == name), key=lambda x: x.behaviour)
        if effects:
            tables.append(effects_table(effects, caption))
    tables.append(_differences(study))
    return tables


def effects_table(effects: Sequence[Effect], caption: str) -> Card:
    """Estimates, one a row."""
    return Card(_COLUMNS, tuple(_row(x) for x in effects), caption)


def study_notes(study: Study) -> list[str]:
    """What the figures rest on."""
    fade, spread = study.fade, study.spread
    return [
        f"{study.rows:,} exposures of {study.users:,} users ({study.data}). Changes in points of the behaviour's rate "
        "per unit; in brackets the standard error, clustered by user; then the 95 % interval.",
        f"Time constant with the best fit: {fade.minutes:.0f} min, 95 % interval {fade.low:.0f} to {fade.high:.0f} min "
        "(bootstrap over users).",
        f"Differences between people in weariness: standard deviation {spread.ratio:.2f} of the mean, 95 % interval "
        f"{spread.low:.2f} to {spread.high:.2f} (pairs of different days; 0 where the estimated variance is not above "
        "0).",
        f"An exposure is watched {study.seconds:.1f} s on average; the log holds {100 * study.share:.2f} % of what "
        "these people saw.",
    ]


def study_markdown(study: Study) -> str:
    """The whole study as Markdown."""
    notes = "\n".join(f"- {note}" for note in study_notes(study))
    return f"# Satiation in {study.data}\n\n{cards_markdown(study_tables(study))}\n## Notes\n\n{notes}\n"


def cards_markdown(cards: Sequence[Card]) -> str:
    """Tables as Markdown, each under its caption."""
    return "\n\n".join(f"## {card.caption}\n\n{_markdown(card)}" for card in cards) + "\n"


def rows_table(rows: Sequence[Row], caption: str) -> Card:
    """Methods by environment."""
    columns = ("environment", "method", "T_int", "R_cum", "R_sin", "R_cum less rotation's")
    shown = tuple(
        (row.environment, row.method, *(_estimate(x) for x in (row.length, row.total, row.single)), _against(row))
        for row in rows
    )
    return Card(columns, shown, caption)


def _estimate(x: Estimate) -> str:
    return f"{x.point:.3f} [{x.low:.3f}, {x.high:.3f}]"


def _against(row: Row) -> str:
    x = row.against
    return "" if x is None else f"{x.point:+.3f} [{x.low:+.3f}, {x.high:+.3f}]"


_COLUMNS = ("behaviour", "what", "held fixed", "points", "95 % interval")


def _row(x: Effect) -> tuple[str, ...]:
    points = f"{100 * x.value:+.2f} ({100 * x.error:.2f})"
    return x.behaviour, x.what, x.how, points, f"{100 * x.low:+.2f} to {100 * x.high:+.2f}"


def _differences(study: Study) -> Card:
    columns = ("parts", "behaviour", "number", "mean", "spread", "chance of as much")
    rows = tuple(
        (d.study, d.behaviour, d.parts, f"{100 * d.mean:+.2f}", f"{100 * d.spread:.2f}", f"{d.p_value:.3f}")
        for d in study.differences
    )
    return Card(columns, rows, "Do the parts differ? Points; spread: standard deviation beyond chance (0: none shown)")


def _markdown(table: Card) -> str:
    lines: list[Sequence[object]] = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)
