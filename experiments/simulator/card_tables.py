"""The simulator card in tables and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

from rapport.datasets.splits import CHINA_OFFSET_MS
from rapport.experiments.report.table import Table
from rapport.experiments.simulator.card import MODEL, Difference, Score, SimulatorCard
from rapport.experiments.simulator.counting_baselines import GLOBAL, ITEM, JOINT, JOINT_BEHAVIOURS, PRIOR, USER_ITEM
from rapport.experiments.simulator.metrics import Bin, Interval
from rapport.experiments.simulator.selection_bias import PUBLISHED_SOURCE, Selection

TOO_FEW = "too few"
NOT_PUBLISHED = "-"
_SELECTION_OF = {
    "users": "The same, by how active people are",
    "duration": "The same, by how long the video is",
    "popularity": "The same, by tenths of the items, least to most often shown (nothing is published by these)",
}


def card_tables(card: SimulatorCard) -> list[Table]:
    """All tables that hold a row: prediction, calibration, hardly known users and items, selection bias."""
    return [*prediction_tables(card), *calibration_tables(card), *cold_tables(card), *selection_tables(card)]


def prediction_tables(card: SimulatorCard) -> list[Table]:
    """Prediction per kind of exposure, and differences from the baselines."""
    scores = [_scores(card, exposures) for exposures in ("standard", "random")]
    return _filled(*scores, _differences(card.differences, card.resamples))


def calibration_tables(card: SimulatorCard) -> list[Table]:
    """Calibration error, and the outermost bins."""
    return _filled(_reliability(card))


def cold_tables(card: SimulatorCard) -> list[Table]:
    """Prediction for users and items that were hardly known, and differences from the baselines there."""
    return _filled(_cold(card), _differences(card.cold_differences, card.resamples))


def selection_tables(card: SimulatorCard) -> list[Table]:
    """Items the platform chose against random ones, over all and by group."""
    groups = [_selection(card, kind, caption) for kind, caption in _SELECTION_OF.items()]
    return _filled(_selection(card, "all", _selection_caption(card)), *groups)


def card_finding(card: SimulatorCard) -> str:
    """How the model compares with counting, and whether it is too generous to random items, in a sentence."""
    strongest = {
        d.behaviour: d for d in card.differences if d.exposures == "standard"
    }  # the joint one, if there is one
    sides: dict[str, list[str]] = {}
    for behaviour, difference in strongest.items():
        words = _side(difference.log_loss, "worse than counting", "better than counting", "as well as counting")
        sides.setdefault(words, []).append(behaviour)
    found = [f"{_listed(behaviours)} {words}" for words, behaviours in sides.items()]
    first = f"By log-loss, the {MODEL} predicts {'; '.join(found)}"
    if not found:
        first = f"The test days hold too few positives to compare the {MODEL} with counting"
    for row in card.selection:
        if row.kind == "all" and row.published_random is not None:
            return (
                f"{first}. Random items get {row.behaviour} in {_percent(row.simulated_random, 1)} of simulated "
                f"exposures, where real people gave it in {_percent(row.published_random, 1)}."
            )
    return f"{first}."


def card_findings(card: SimulatorCard) -> list[str]:
    """Where the model wins and loses, and what not to trust."""
    return [*(_verdict(difference) for difference in card.differences), *_selection_notes(card)]


def card_reading(card: SimulatorCard) -> list[str]:
    """What the model and the baselines learned from, and what the columns mean."""
    first = (
        f"The user model learned from rows before {_day(card.valid_from_ms)} and was stopped and calibrated on the "
        f"days before {_day(card.test_from_ms)}. The counting baselines use all rows before {_day(card.test_from_ms)}."
    )
    joint = ", ".join(JOINT_BEHAVIOURS)
    read = (
        f"{GLOBAL}, {ITEM}: shares of positives, the item's smoothed by {PRIOR:.0f} exposures. {USER_ITEM}: logistic "
        f"regression on the user's and the item's rate. {JOINT}: the same with their rates of {joint}. AUC: "
        "probability that a positive exposure is ranked above a negative one. Log-loss: in nats, lower is better. "
        f"Calibration error: mean gap of predicted and actual rate over {card.bins} bins of equal mass; in brackets "
        "its noise floor, which a perfectly calibrated predictor would show on so few rows."
    )
    if card.profile == "official":
        read += " The official profile predicts for a balanced prior: its log-loss and calibration error show that."
    return [first, read]


def card_notes(card: SimulatorCard) -> list[str]:
    """How to read the tables, and what they say."""
    return [*card_reading(card), *card_findings(card)]


def _filled(*tables: Table) -> list[Table]:
    return [table for table in tables if table.rows]


def _scores(card: SimulatorCard, exposures: str) -> Table:
    scores = [score for score in card.scores if score.exposures == exposures]
    columns = _named("behaviour", "rate", "predictor", "predicted", "AUC", "log-loss [nats]", "calibration error")
    chosen = "chosen by the platform" if exposures == "standard" else "chosen at random"
    rows = max((score.rows for score in scores), default=0)
    caption = f"{card.data}: {rows:,} exposures {chosen}, from {_day(card.test_from_ms)} on, {card.users:,} users"
    return Table(columns, tuple(_score_row(score) for score in scores), caption)


def _score_row(score: Score) -> tuple[str, ...]:
    error = f"{_percent(score.calibration_error)} ({_percent(score.calibration_floor)})"
    auc = TOO_FEW if score.auc is None else f"{score.auc:.3f}"
    rates = _percent(score.rate), score.predictor, _percent(score.predicted)
    return score.behaviour, *rates, auc, f"{score.log_loss:.4f}", error


def _cold(card: SimulatorCard) -> Table:
    columns = _named("exposures", "behaviour", "rate", "predictor", "rows", "predicted", "AUC", "log-loss [nats]")
    kept = [score for score in card.cold if score.predictor in (MODEL, USER_ITEM, JOINT)]
    rows = tuple(
        (
            *(score.exposures, score.behaviour, _percent(score.rate), score.predictor, f"{score.rows:,}"),
            *(_percent(score.predicted), TOO_FEW if score.auc is None else f"{score.auc:.3f}", f"{score.log_loss:.4f}"),
        )
        for score in kept
    )
    return Table(columns, rows, "Users and items that were hardly known before the test days; standard exposures")


def _reliability(card: SimulatorCard) -> Table:
    columns = _named("behaviour", "calibration error", "noise floor", "lowest bin", "highest bin")
    caption = (
        f"{MODEL}: expected calibration error over {card.bins} bins of equal mass, with 95 % intervals; its noise "
        "floor, which a perfectly calibrated predictor would show on so few rows; predicted and observed in the "
        "outermost bins"
    )
    rows = tuple(
        (
            found.behaviour,
            _percent_interval(found.error),
            _percent(found.floor),
            _bin(found.bins[0]),
            _bin(found.bins[-1]),
        )
        for found in card.reliability
    )
    return Table(columns, rows, caption)


def _bin(found: Bin) -> str:
    return f"{_percent(found.predicted)}: {_percent_interval(found.observed)}"


def _differences(found: Sequence[Difference], resamples: int) -> Table:
    columns = _named("behaviour", "exposures", "baseline", "AUC", "log-loss [nats]")
    caption = f"{MODEL} minus baseline, with 95 % intervals ({resamples:,} bootstrap samples of users)"
    rows = tuple(
        (d.behaviour, d.exposures, d.baseline, d.auc.shown(4, signed=True), d.log_loss.shown(4, signed=True))
        for d in found
    )
    return Table(columns, rows, caption)


def _selection(card: SimulatorCard, kind: str, caption: str) -> Table:
    simulated, published = ("simulated logged", "simulated random", "ratio"), ("real standard", "real random", "ratio")
    columns = _named("behaviour", "group", "logged", *simulated, *published)
    rows = sorted((row for row in card.selection if row.kind == kind), key=lambda row: row.behaviour)
    return Table(columns, tuple(_selection_row(row) for row in rows), caption)


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


def _selection_notes(card: SimulatorCard) -> Iterator[str]:
    for row in card.selection:
        if row.kind != "all" or row.published_logged is None or row.published_random is None:
            continue
        verdict = "too generous to" if row.simulated_random > row.published_random else "not too generous to"
        yield (
            f"{row.behaviour}: from the platform's items to random ones the simulated rate goes from "
            f"{_percent(row.simulated_logged)} to {_percent(row.simulated_random)}; real people went from "
            f"{_percent(row.published_logged)} to {_percent(row.published_random)}. The simulator is {verdict} items "
            f"nobody would have been shown, by {100 * (row.simulated_random - row.published_random):+.1f} points."
        )
    if card.learned_from_random:
        yield "Random exposures were among the rows it learned from."
    else:
        yield (
            "It learned from exposures that the platform chose, and from no random one. Trust it near what people were "
            "shown; a policy that serves odd items looks better here than it would be."
        )
    if any(row.published_random is not None for row in card.selection):
        yield f"Published rates: {PUBLISHED_SOURCE}."


def _verdict(difference: Difference) -> str:
    auc = _side(difference.auc, "better", "worse")
    loss = _side(difference.log_loss, "worse", "better")
    return (
        f"{difference.behaviour}, {difference.exposures} exposures: against {difference.baseline}, the {MODEL} ranks "
        f"{auc} and its log-loss is {loss}."
    )


def _side(interval: Interval, above: str, below: str, neither: str = "no different within the interval") -> str:
    if interval.low > 0:
        return above
    return below if interval.high < 0 else neither


def _named(*columns: str) -> tuple[tuple[str, str], ...]:
    """Names and units of columns written as ``"name"`` or ``"name [unit]"``."""
    parts = (column.rstrip("]").partition(" [") for column in columns)
    return tuple((name, unit) for name, _, unit in parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def _percent_interval(interval: Interval) -> str:
    return f"{Interval(*(100 * end for end in interval)).shown(2)} %"


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def _day(time_ms: int) -> str:
    zone = timezone(timedelta(milliseconds=CHINA_OFFSET_MS))
    moment = datetime.fromtimestamp(time_ms / 1000, zone)
    return f"{moment.day} {moment:%B %Y}"
