"""``rapport simulator compare``: predictors of what people do, on the same later days, with intervals over users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rapport.datasets.registry.licence import licence_note
from rapport.datasets.schema import FloatArray, IntArray, SessionData
from rapport.envs.session.official.fit import OfficialSettings, predict_history
from rapport.envs.session.response.fit import ALL_TIME, FitSettings, calibrate, predict
from rapport.envs.session.simulator_cache import load_official, load_simulator
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.table import Table
from rapport.experiments.simulator.counting_baselines import JOINT, LEAST_POSITIVES, USER_ITEM, CountingBaselines
from rapport.experiments.simulator.factorisation import Inputs, fit_factorisation, predict_factorisation
from rapport.experiments.simulator.metrics import Floats, Interval, Ranking, compare_runs, log_losses

FACTORISATION, GRU, TRANSFORMER, OURS = "factorisation machine", "GRU", "transformer + counting", "GRU + counting"
LERL = "LERL's transformer"
BEHAVIOURS = ("click", "long_view", "like")
Chances = dict[str, list[Floats]]
"""Predictor -> one array (R, behaviours compared) per seed."""


@dataclass(frozen=True)
class Comparison:
    """What was measured on the test days.

    Attributes:
        scores: (behaviour, predictor) -> AUC and log-loss [nats], means over seeds, and how far the seeds spread.
        differences: (behaviour, predictor, reference) -> AUC and log-loss, predictor minus reference.
        seeds: of each predictor, how many.
        rows: of the test days.
        users: whose rows they are.
    """

    scores: dict[tuple[str, str], tuple[float, float, float]]
    differences: dict[tuple[str, str, str], tuple[Interval, Interval]]
    seeds: dict[str, int]
    rows: int
    users: int


def compare_predictors(
    data: SessionData,
    seeds: int,
    resamples: int,
    rng: np.random.Generator,
    *,
    settings: FitSettings | None = None,
    lerl: OfficialSettings | None = None,
    report: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Fit every predictor to the training days, calibrate on the validation days, and measure on the test days.

    Args:
        data: the log.
        seeds: fits of each model that depends on a seed: seeds 0, 1, ...
        resamples: of the bootstrap over users.
        rng: of the bootstrap.
        settings: of the simulator's model; the GRU and the transformer are fitted alike.
        lerl: also fit LERL's own model so, once.
        report: told what is done next.

    Raises:
        ModuleNotFoundError: the ``stats`` extra is not installed.
    """
    log = data.log
    test = (log.time_ms >= data.test_from_ms) & (log.feedback[:, 0] >= 0)
    rows, _ = predict_rows(data, settings or FitSettings(), np.flatnonzero(test))
    columns = [log.behaviours.index(name) for name in BEHAVIOURS if name in log.behaviours]
    found = _counting(data, rows, columns)
    for name, seed, chance in _models(data, seeds, rows, settings or FitSettings(), lerl, report):
        report(f"{name}, seed {seed}: done")
        found.setdefault(name, []).append(chance[:, columns])
    return _measure(data, rows, columns, found, resamples, rng)


def predict_rows(data: SessionData, settings: FitSettings, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Of rows of the test days those that the sequence models predict (a user's newest), and the others."""
    user, place = np.unique(data.log.user, return_index=True)
    last = np.append(place[1:], len(data.log)) - 1
    age = last[np.searchsorted(user, data.log.user[rows])] - rows
    return rows[age < settings.length], rows[age >= settings.length]


def _counting(data: SessionData, rows: IntArray, columns: list[int]) -> Chances:
    baselines = CountingBaselines(data)
    by_behaviour = [baselines.predict(column, rows) for column in columns]
    names = [name for name in (USER_ITEM, JOINT) if all(name in found for found in by_behaviour)]
    return {name: [np.stack([found[name] for found in by_behaviour], axis=1)] for name in names}


def _models(
    data: SessionData,
    seeds: int,
    rows: IntArray,
    settings: FitSettings,
    lerl: OfficialSettings | None,
    report: Callable[[str], None],
) -> Iterator[tuple[str, int, Floats]]:
    """Each model's calibrated chances of the rows, (R, F)."""
    variants = {
        GRU: replace(settings, counting=False),
        TRANSFORMER: replace(settings, encoder="transformer"),
        OURS: settings,
    }
    for seed in range(seeds):
        report(f"{FACTORISATION}, seed {seed}: fitting")
        yield FACTORISATION, seed, _factorisation(data, seed, rows)
        for name, variant in variants.items():
            report(f"{name}, seed {seed}: fitting")
            fitted = load_simulator(data, replace(variant, seed=seed))[1]
            there, logits = predict(fitted.model, data, data.test_from_ms, ALL_TIME, variant.length)
            order = np.argsort(there)
            place = order[np.searchsorted(there[order], rows)]
            yield name, seed, _chances(logits[place], *fitted.calibration.numpy())
    if lerl is not None:
        report(f"{LERL}: fitting")
        model = load_official(data, replace(lerl, all_days=False)).model
        yield LERL, 0, _calibrated(data, lambda wanted, _: predict_history(model, data, wanted), rows)


def _factorisation(data: SessionData, seed: int, rows: IntArray) -> Floats:
    model = fit_factorisation(data, seed)
    return _calibrated(data, lambda wanted, until: predict_factorisation(model, Inputs(data, until), wanted), rows)


def _calibrated(data: SessionData, logits_of: Callable[[IntArray, int], FloatArray], rows: IntArray) -> Floats:
    """Chances of rows, calibrated on the validation days as the simulator is; items known until the second argument."""
    log = data.log
    recent = np.flatnonzero((log.time_ms >= data.valid_from_ms) & (log.time_ms < data.test_from_ms))
    calibration = calibrate(logits_of(recent, data.valid_from_ms), log.feedback[recent])
    return _chances(logits_of(rows, data.test_from_ms), *calibration.numpy())


def _chances(logits: FloatArray, scale: FloatArray, shift: FloatArray) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-(scale * logits + shift).astype(np.float64))))


def _measure(
    data: SessionData, rows: IntArray, columns: list[int], found: Chances, resamples: int, rng: np.random.Generator
) -> Comparison:
    scores: dict[tuple[str, str], tuple[float, float, float]] = {}
    differences: dict[tuple[str, str, str], tuple[Interval, Interval]] = {}
    user = data.log.user[rows]
    for place, column in enumerate(columns):
        truth, behaviour = data.log.feedback[rows, column], data.log.behaviours[column]
        if min(truth.sum(), (1 - truth).sum()) < LEAST_POSITIVES:
            continue
        chances = {name: [run[:, place] for run in runs] for name, runs in found.items()}
        for name, runs in chances.items():
            aucs = [Ranking(truth, run).auc() for run in runs]
            loss = np.mean([log_losses(truth, run).mean() for run in runs])
            scores[behaviour, name] = float(np.mean(aucs)), float(loss), float(np.ptp(aucs))
        counted = [name for name in (USER_ITEM, JOINT) if name in chances]
        references = [min(counted, key=lambda name: scores[behaviour, name][1])] if counted else []
        for reference in [*references, GRU]:
            for name in chances:
                if name not in (*counted, reference):
                    both = compare_runs(truth, chances[name], chances[reference], user, resamples, rng)
                    differences[behaviour, name, reference] = both
    seeds = {name: len(runs) for name, runs in found.items()}
    return Comparison(scores, differences, seeds, len(rows), len(np.unique(user)))


def comparison_page(data: SessionData, found: Comparison) -> Page:
    """Who predicts best, scores, and differences with their intervals."""
    best: dict[str, list[str]] = {}
    for behaviour in dict.fromkeys(behaviour for behaviour, _ in found.scores):
        losses = {name: loss for (of, name), (_, loss, _) in found.scores.items() if of == behaviour}
        name = min(losses, key=lambda name: losses[name])
        best.setdefault(name, []).append(f"{behaviour} ({losses[name]:.4f})")
    finding = "; ".join(f"{name} has the lowest log-loss on {', '.join(where)}" for name, where in best.items())
    return Page(
        title=f"Predictors compared: {data.name}",
        finding=f"{finding[0].upper()}{finding[1:]}." if finding else "No behaviour has enough positives to compare.",
        subtitle=f"{found.rows:,} exposures of {found.users:,} users on the test days",
        sections=(Section("Scores and differences", comparison_tables(data, found)),),
        licence=licence_note(data),
    )


def comparison_tables(data: SessionData, found: Comparison) -> list[Table]:
    """Scores, and differences with their intervals."""
    captions = f"{data.name}: {found.rows:,} exposures of {found.users:,} users on the test days"
    scores = tuple(
        (behaviour, name, str(found.seeds[name]), f"{auc:.4f}", f"{spread:.4f}", f"{loss:.4f}")
        for (behaviour, name), (auc, loss, spread) in found.scores.items()
    )
    ends = ("AUC", ""), ("log-loss", "nats")
    columns = (("behaviour", ""), ("predictor", ""), ("seeds", ""), ends[0], ("spread over seeds", "AUC"), ends[1])
    differences = tuple(
        (behaviour, name, reference, auc.shown(4, signed=True), loss.shown(4, signed=True))
        for (behaviour, name, reference), (auc, loss) in found.differences.items()
    )
    title = "Predictor minus baseline, with 95 % bootstrap intervals over users, means over seeds"
    return [
        Table(columns, scores, f"{captions}; means over seeds"),
        Table((("behaviour", ""), ("predictor", ""), ("baseline", ""), *ends), differences, title),
    ]
