"""The results of a table: every row's estimates, and an honest verdict.

:func:`summarise` turns results into a :class:`Summary`; :mod:`rapport.experiments.report.results_table` shows it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rapport.experiments.results.llm_cost import mean_meter, planned_by
from rapport.experiments.results.metrics import NOT_RUN, Metric
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import Result

PROTOCOL_SEEDS, PROTOCOL_EPISODES = 5, 1_000
"""Below these a table is a quick look, and says so."""
Found = Mapping[str, Sequence[Result]]
"""Row's name -> its results, one per seed."""


@dataclass(frozen=True)
class SummaryRow:
    """One row over all its seeds; everything is empty when it was not run.

    Attributes:
        name: short name.
        label: name shown.
        seeds: seeds it was run with.
        episodes: fewest episodes of a seed.
        estimates: by metric's name.
        steps: learned from, mean over seeds.
        seconds: training and measurement, mean over seeds.
        served: steps of training and measurement, mean over seeds.
        meter: what was spent, mean over seeds; empty where nothing is counted.
        notes: distinct notes of its results.
    """

    name: str
    label: str
    seeds: tuple[int, ...] = ()
    episodes: int = 0
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    steps: float = 0.0
    seconds: float = 0.0
    served: float = 0.0
    meter: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """The reference's main metric minus another row's, paired by seed."""

    label: str
    value: Estimate


@dataclass(frozen=True)
class Summary:
    """A table: rows in the order shown, metrics, and every row's difference from the reference.

    Attributes:
        rows: in the order shown.
        metrics: the columns of figures.
        main: the metric that rows are compared in.
        reference: name of the row that all others are compared with.
        differences: reference minus other, in the main metric, of the rows that were run.
        facts: what the table rests on, for its footer, a line each.
    """

    rows: tuple[SummaryRow, ...]
    metrics: tuple[Metric, ...]
    main: Metric
    reference: str
    differences: tuple[Difference, ...]
    facts: tuple[str, ...] = ()

    def row(self, name: str) -> SummaryRow | None:
        """The row of a name, or None."""
        return next((row for row in self.rows if row.name == name), None)


def summarise(
    found: Found,
    labels: Mapping[str, str],
    metrics: Sequence[Metric],
    reference: str,
    *,
    main: Metric | None = None,
    facts: Sequence[str] = (),
    seed: int = 0,
) -> Summary:
    """Estimate every cell.

    Args:
        found: results by row.
        labels: name -> label of every row the table should have, in order; those without a result are "not run".
        metrics: the columns of figures.
        reference: name of the row that all others are compared with.
        main: the metric they are compared in; by default the first.
        facts: what the footer says the table rests on.
        seed: of the bootstrap. A row's intervals do not depend on which others are in the table.
    """
    main = metrics[0] if main is None else main
    rows = tuple(_row(name, label, found.get(name, ()), metrics, seed) for name, label in labels.items())
    differences = []
    for name, label in labels.items():
        value = None if name == reference else compare(found.get(reference, ()), found.get(name, ()), main, seed=seed)
        if value is not None:
            differences.append(Difference(label, value))
    return Summary(rows, tuple(metrics), main, reference, tuple(differences), tuple(facts))


def compare(first: Sequence[Result], second: Sequence[Result], metric: Metric, *, seed: int = 0) -> Estimate | None:
    """First minus second in a metric over the seeds both have; None when there is none.

    Episodes are paired by index when, for every such seed, both measured the same ids in the same order.
    """
    left, right = ({r.seed: r for r in group} for group in (first, second))
    pairs = [(left[s], right[s]) for s in sorted(left.keys() & right.keys())]
    if not pairs:
        return None
    same = all(a.ids is not None and b.ids is not None and np.array_equal(a.ids, b.ids) for a, b in pairs)
    rng = _rng(seed, pairs[0][0].row, pairs[0][1].row)
    a, b = ([r.arrays for r in side] for side in zip(*pairs, strict=True))
    return metric.difference(a, b, rng, same_sessions=same)


def estimated(results: Sequence[Result], metric: Metric, *, seed: int = 0) -> Estimate | None:
    """A metric of one row over its seeds; None where it was not run."""
    if not results:
        return None
    return metric.estimate([r.arrays for r in results], _rng(seed, results[0].row, metric.name))


def verdict(table: Summary) -> list[str]:
    """What the table says about the reference, one line per other row, least flattering first."""
    reference, metric = table.row(table.reference), table.main
    if reference is None or not reference.seeds:
        return [f"{table.reference}: {NOT_RUN}, so nothing is compared with it."]
    lines, sign = [], 1 if metric.higher_is_better else -1
    for difference in sorted(table.differences, key=lambda c: sign * c.value.point):
        d, other = difference.value, difference.label
        ends = (abs(d.low), abs(d.high))
        low, high = (d.low, d.high) if sign > 0 else (-d.high, -d.low)
        size = metric.shown(Estimate(abs(d.point), min(ends), max(ends), d.n_seeds))
        if high < 0:
            lines.append(f"{other} beats {reference.label} by {size} in {metric.name}.")
        elif low > 0:
            lines.append(f"{reference.label} is above {other} by {size} in {metric.name}.")
        else:
            found = metric.shown(d, signed=True)
            lines.append(
                f"{reference.label} and {other} cannot be told apart: they differ by {found} in {metric.name}."
            )
    return [headline(table), *lines] if lines else [f"{reference.label}: nothing else was run to compare it with."]


def headline(table: Summary) -> str:
    """The verdict in one sentence."""
    reference, name = table.row(table.reference), table.main.name
    label = reference.label if reference is not None else table.reference
    n, sign = len(table.differences), 1 if table.main.higher_is_better else -1
    beaten = sum(min(sign * d.value.low, sign * d.value.high) > 0 for d in table.differences)
    beating = sum(max(sign * d.value.low, sign * d.value.high) < 0 for d in table.differences)
    if beaten == n:
        return f"{label} is above {'the one other method' if n == 1 else f'all {n} other methods'} in {name}."
    return (
        f"{label}: in {name} above {beaten} of {n} other methods, below {beating}, level with {n - beaten - beating}."
    )


def footer(table: Summary) -> list[str]:
    """What the table rests on, and what limits it."""
    run = [row for row in table.rows if row.seeds]
    lines = [
        *table.facts,
        f"{_span([row.episodes for row in run])} complete episodes per seed; {_span([len(r.seeds) for r in run])} "
        "seed(s); interquartile mean over seeds [95 % bootstrap interval over seeds and episodes]; differences paired "
        "by seed",
    ]
    few_seeds = min((len(row.seeds) for row in run), default=0) < PROTOCOL_SEEDS
    if few_seeds or min((row.episodes for row in run), default=0) < PROTOCOL_EPISODES:
        lines.append(f"a quick look: the protocol asks for {PROTOCOL_SEEDS} seeds and {PROTOCOL_EPISODES:,} episodes")
    if any(len(row.seeds) == 1 for row in run):
        lines.append("with one seed an interval shows how episodes vary, not how trainings do")
    for row in run:
        lines += [*planned_by(row.label, row.meter), *(f"{row.label}: {note}" for note in row.notes)]
    return lines


def _row(name: str, label: str, group: Sequence[Result], metrics: Sequence[Metric], seed: int) -> SummaryRow:
    if not group:
        return SummaryRow(name, label)
    found = {metric.name: estimated(group, metric, seed=seed) for metric in metrics}
    return SummaryRow(
        name=name,
        label=label,
        seeds=tuple(r.seed for r in group),
        episodes=min(r.episodes for r in group),
        estimates={key: value for key, value in found.items() if value is not None},
        steps=float(np.mean([r.steps for r in group])),
        seconds=float(np.mean([r.train_seconds + r.eval_seconds for r in group])),
        served=float(np.mean([r.steps + r.served for r in group])),
        meter=mean_meter([r.meter for r in group if r.meter]),
        notes=tuple(dict.fromkeys(note for r in group for note in r.notes)),
    )


def _rng(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def _span(values: Sequence[int]) -> str:
    if not values:
        return "no"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
