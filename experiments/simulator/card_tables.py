"""The simulator card in words and tables: for the terminal, for Markdown and for the report page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from rich.table import Table

from rapport.datasets.splits import CHINA_OFFSET_MS
from rapport.experiments.report.figures import Card
from rapport.experiments.simulator.card import MODEL, Difference, Score, SimulatorCard
from rapport.experiments.simulator.counting_baselines import GLOBAL, ITEM, JOINT, JOINT_BEHAVIOURS, PRIOR, USER_ITEM
from rapport.experiments.simulator.metrics import Bin, Interval
from rapport.experiments.simulator.selection_bias import PUBLISHED_SOURCE, Selection

TOO_FEW = "too few"
NOT_PUBLISHED = "-"
TEXT_COLUMNS = (
    *("behaviour", "predictor", "baseline", "group", "exposures"),
    *("what", "held fixed", "parts", "environment", "method"),
)
_SELECTION_OF = {
    "users": "the same, by how active people are",
    "duration": "the same, by how long the video is",
    "popularity": "the same, by tenths of the items, least to most often shown (nothing is published by these)",
}


def card_tables(card: SimulatorCard) -> list[Card]:
    """Prediction per kind of exposure, differences from the baselines, and selection; those that hold a row."""
    tables = [_scores(card, exposures) for exposures in ("standard", "random")]
    tables += [_differences(card.differences, card.resamples), _reliability(card), _cold(card)]
    tables += [_differences(card.cold_differences, card.resamples), _selection(card, "all", _selection_caption(card))]
    tables += [_selection(card, kind, caption) for kind, caption in _SELECTION_OF.items()]
    return [table for table in tables if table.rows]


def card_notes(card: SimulatorCard) -> list[str]:
    """What the tables say, in plain words: how to read them, where the model loses, and what not to trust."""
    first = (
        f"The user model learned from rows before {_day(card.valid_from_ms)} and was stopped and calibrated on the "
        f"days before {_day(card.test_from_ms)}. The counting baselines use all rows before {_day(card.test_from_ms)}."
    )
    joint = ", ".join(JOINT_BEHAVIOURS)
    read = (
        f"{GLOBAL}, {ITEM}: shares of positives, the item's smoothed by {PRIOR:.0f} exposures. {USER_ITEM}: logistic "
        f"regression on the user's and the item's rate. {JOINT}: the same with their rates of {joint}. AUC: chance "
        "that a positive exposure is ranked above a negative one. Log-loss: in nats, lower is better. Calibration "
        f"error: mean gap of predicted and actual rate over {card.bins} bins of equal mass; in brackets what chance "
        "alone gives."
    )
    if card.profile == "official":
        read += " The official profile predicts for a balanced prior: its log-loss and calibration error show that."
    return [first, read, *(_verdict(difference) for difference in card.differences), *_selection_notes(card)]


def card_markdown(card: SimulatorCard) -> str:
    """The whole card as Markdown."""
    notes = "\n".join(f"- {note}" for note in card_notes(card))
    return tables_markdown(f"Simulator card: {card.data}, {card.profile} profile", card_tables(card)) + f"\n{notes}\n"


def tables_markdown(title: str, tables: Sequence[Card]) -> str:
    """A page of tables as Markdown."""
    return "\n\n".join([f"# {title}", *(part for table in tables for part in (table.caption, _markdown(table)))]) + "\n"


def as_rich(table: Card) -> Table:
    """A card's table for the terminal, with a line between behaviours."""
    shown = Table(title=table.caption, title_justify="left")
    for column in table.columns:
        shown.add_column(column, justify="left" if column in TEXT_COLUMNS else "right")
    for place, row in enumerate(table.rows):
        following = table.rows[place + 1][0] if place + 1 < len(table.rows) else row[0]
        shown.add_row(*(str(value) for value in row), end_section=following != row[0])
    return shown


def _scores(card: SimulatorCard, exposures: str) -> Card:
    scores = [score for score in card.scores if score.exposures == exposures]
    columns = ("behaviour", "rate", "predictor", "predicted", "AUC", "log-loss (nats)", "calibration error")
    chosen = "chosen by the platform" if exposures == "standard" else "chosen at random"
    rows = max((score.rows for score in scores), default=0)
    caption = f"{card.data}: {rows:,} exposures {chosen}, from {_day(card.test_from_ms)} on, {card.users:,} users"
    return Card(columns, tuple(_score_row(score) for score in scores), caption)


def _score_row(score: Score) -> tuple[str, ...]:
    error = f"{_percent(score.calibration_error)} ({_percent(score.calibration_luck)})"
    auc = TOO_FEW if score.auc is None else f"{score.auc:.3f}"
    rates = _percent(score.rate), score.predictor, _percent(score.predicted)
    return score.behaviour, *rates, auc, f"{score.log_loss:.4f}", error


def _cold(card: SimulatorCard) -> Card:
    columns = ("exposures", "behaviour", "rate", "predictor", "rows", "predicted", "AUC", "log-loss (nats)")
    kept = [score for score in card.cold if score.predictor in (MODEL, USER_ITEM, JOINT)]
    rows = tuple(
        (
            *(score.exposures, score.behaviour, _percent(score.rate), score.predictor, f"{score.rows:,}"),
            *(_percent(score.predicted), TOO_FEW if score.auc is None else f"{score.auc:.3f}", f"{score.log_loss:.4f}"),
        )
        for score in kept
    )
    return Card(columns, rows, "Users and items that were hardly known before the test days; standard exposures")


def _reliability(card: SimulatorCard) -> Card:
    columns = ("behaviour", "calibration error", "by luck alone", "lowest bin", "highest bin")
    caption = (
        f"{MODEL}: expected calibration error over {card.bins} bins of equal mass, with 95 % intervals; predicted and "
        "observed in the outermost bins"
    )
    rows = tuple(
        (
            found.behaviour,
            _percent_interval(found.error),
            _percent(found.luck),
            _bin(found.bins[0]),
            _bin(found.bins[-1]),
        )
        for found in card.reliability
    )
    return Card(columns, rows, caption)


def _bin(found: Bin) -> str:
    return f"{_percent(found.predicted)}: {_percent_interval(found.observed)}"


def _differences(found: Sequence[Difference], resamples: int) -> Card:
    columns = ("behaviour", "exposures", "baseline", "AUC", "log-loss (nats)")
    caption = f"{MODEL} minus baseline, with 95 % intervals ({resamples:,} bootstrap samples of users)"
    rows = tuple((d.behaviour, d.exposures, d.baseline, _interval(d.auc), _interval(d.log_loss)) for d in found)
    return Card(columns, rows, caption)


def _selection(card: SimulatorCard, kind: str, caption: str) -> Card:
    simulated, published = ("simulated logged", "simulated random", "ratio"), ("real standard", "real random", "ratio")
    columns = ("behaviour", "group", "logged", *simulated, *published)
    rows = sorted((row for row in card.selection if row.kind == kind), key=lambda row: row.behaviour)
    return Card(columns, tuple(_selection_row(row) for row in rows), caption)


def _selection_caption(card: SimulatorCard) -> str:
    return (
        f"Items the platform chose and random items for the same users ({card.pairs:,} random pairs, at the users' "
        "starting states)"
    )


def _selection_row(row: Selection) -> tuple[str, ...]:
    simulated = row.simulated_logged, row.simulated_random
    published = row.published_logged, row.published_random
    return (
        *(row.behaviour, row.group, _percent(row.observed_logged, 1)),
        *(*(_percent(rate, 1) for rate in simulated), f"{row.simulated_ratio:.2f}"),
        *(NOT_PUBLISHED if rate is None else _percent(rate, 1) for rate in published),
        NOT_PUBLISHED if row.published_ratio is None else f"{row.published_ratio:.2f}",
    )


def _selection_notes(card: SimulatorCard) -> list[str]:
    notes = []
    for row in card.selection:
        if row.kind != "all" or row.published_logged is None or row.published_random is None:
            continue
        verdict = "too generous to" if row.simulated_random > row.published_random else "not too generous to"
        notes.append(
            f"{row.behaviour}: from the platform's items to random ones the simulated rate goes from "
            f"{_percent(row.simulated_logged)} to {_percent(row.simulated_random)}; real people went from "
            f"{_percent(row.published_logged)} to {_percent(row.published_random)}. The simulator is {verdict} items "
            f"nobody would have been shown, by {100 * (row.simulated_random - row.published_random):+.1f} points."
        )
    if card.learned_from_random:
        notes.append("Random exposures were among the rows it learned from.")
    else:
        notes.append(
            "It learned from exposures that the platform chose, and from no random one. Trust it near what people were "
            "shown; a policy that serves odd items looks better here than it would be."
        )
    if any(row.published_random is not None for row in card.selection):
        notes.append(f"Published rates: {PUBLISHED_SOURCE}.")
    return notes


def _verdict(difference: Difference) -> str:
    auc = _side(difference.auc, "better", "worse")
    loss = _side(difference.log_loss, "worse", "better")
    return (
        f"{difference.behaviour}, {difference.exposures} exposures: against {difference.baseline}, the {MODEL} ranks "
        f"{auc} and its log-loss is {loss}."
    )


def _side(interval: Interval, above: str, below: str) -> str:
    if interval.low > 0:
        return above
    return below if interval.high < 0 else "no different within the interval"


def _interval(interval: Interval) -> str:
    return f"{interval.point:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _percent_interval(interval: Interval) -> str:
    return f"{100 * interval.point:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}] %"


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def _day(time_ms: int) -> str:
    zone = timezone(timedelta(milliseconds=CHINA_OFFSET_MS))
    moment = datetime.fromtimestamp(time_ms / 1000, zone)
    return f"{moment.day} {moment:%B %Y}"


def _markdown(table: Card) -> str:
    rule = ["---" if column in TEXT_COLUMNS else "---:" for column in table.columns]
    lines: list[Sequence[object]] = [table.columns, rule, *table.rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)
