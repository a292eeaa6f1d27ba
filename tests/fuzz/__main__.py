"""``python -m tests.fuzz``: checked steps of every environment, and hostile inputs of every kind.

    python -m tests.fuzz                                million steps and 2,000 inputs, in minutes
    python -m tests.fuzz --quick                        a look, in seconds
    python -m tests.fuzz --kind checkpoint --seed 17    one input again, with everything it prints

Exit code 1 if a fault was found.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz.inputs import Kind, prepare, try_input, try_inputs
from tests.fuzz.kinds import KINDS
from tests.fuzz.outcome import Finding, Outcome
from tests.fuzz.steps import NAME as STEPS
from tests.fuzz.steps import play_case, play_cases

LIMIT = {False: 120.0, True: 60.0}
"""Seconds that one input may take, without and with ``--quick``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table; 1 if there is a fault."""
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="rapport-fuzz-") as folder:
        for name in ("RAPPORT_CACHE_DIR", "RAPPORT_DATA_DIR", "HF_HOME"):
            os.environ[name] = f"{folder}/{name.lower()}"
        if options.seed is not None and options.kind:
            return _again(options.kind, options.seed, Path(folder))
        return _all(options)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [STEPS, *(kind.name for kind in KINDS)]
    parser.add_argument("--steps", type=int, help="checked steps, one user's slate each (1,000,000; --quick: 3,000)")
    parser.add_argument("--inputs", type=int, help="hostile inputs of all kinds together (2,000; --quick: 100)")
    parser.add_argument("--kind", choices=names, help="only this kind")
    parser.add_argument("--seed", type=int, help="with --kind: only the input of this seed; else the first seed (0)")
    parser.add_argument("--quick", action="store_true", help="a look, in seconds")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="processes side by side")
    return parser.parse_args(argv)


def _again(name: str, seed: int, folder: Path) -> int:
    """One input in this process, with all that it prints."""
    if name == STEPS:
        done = play_case(seed, folder)
        print(f"{done.steps:,} steps; {done.case}\n{done.fault or 'no fault'}")
        return 1 if done.fault else 0
    (kind,) = [kind for kind in KINDS if kind.name == name]
    prepare(kind)
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    finding = try_input(kind, seed, work, debug=True)
    print(f"{finding.outcome}: {finding.input}\n{finding.error} {finding.place}")
    return 1 if finding.outcome.is_fault else 0


def _all(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    kinds = _chosen(options.kind)
    findings: list[Finding] = []
    if options.kind in (None, STEPS):
        steps = options.steps or (3_000 if options.quick else 1_000_000)
        findings += _steps(steps, options)
    if kinds:
        for kind in kinds:
            prepare(kind)
            _say(f"prepared {kind.name}")
        number = options.inputs or (100 if options.quick else 2_000)
        findings += try_inputs(
            kinds, number, options.seed or 0, options.lanes, LIMIT[options.quick], _progress("inputs")
        )
    print()
    print("\n".join(table(findings)))
    faults = [finding for finding in findings if finding.outcome.is_fault]
    print("\n".join(examples(faults)))
    print(f"{len(findings):,} findings, {len(faults):,} faults, {time.monotonic() - begun:.0f} s")
    return 1 if faults else 0


def _chosen(name: str | None) -> list[Kind]:
    kinds = []
    for kind in KINDS:
        if name not in (None, kind.name):
            continue
        if missing := kind.missing():
            print(f"{kind.name}: left out, {missing} is not installed")
        else:
            kinds.append(kind)
    return kinds


def _steps(number: int, options: argparse.Namespace) -> list[Finding]:
    findings, done = play_cases(number, options.seed or 0, options.lanes, LIMIT[options.quick], _progress("steps"))
    _say(f"{done:,} steps checked")
    print()
    return findings


def table(findings: Sequence[Finding]) -> list[str]:
    """Kind x outcome, with counts, in aligned columns."""
    counts = Counter((finding.kind, finding.outcome) for finding in findings)
    outcomes = [o for o in Outcome if o in ("fine", "refused") or any(finding.outcome == o for finding in findings)]
    lines = [["", *outcomes, "all"]]
    for kind in dict.fromkeys(finding.kind for finding in findings):
        row = [counts[kind, outcome] for outcome in outcomes]
        lines.append([kind, *(f"{count:,}" if count else "." for count in row), f"{sum(row):,}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def examples(faults: Sequence[Finding]) -> list[str]:
    """The distinct faults, most frequent first, each with its first example."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for fault in faults:
        groups.setdefault(fault.fault, []).append(fault)
    lines = []
    for same in sorted(groups.values(), key=len, reverse=True):
        first = same[0]
        lines += [
            f"\n{len(same)} x {first.kind}, {first.outcome}: {first.error}",
            *([f"    in {first.place}"] if first.place else []),
            f"    {first.input:.200}",
            f"    python -m tests.fuzz --kind {first.kind} --seed {first.seed}",
        ]
    return [*lines, ""]


def _progress(what: str) -> Callable[[int, int], None]:
    last = [0.0]

    def show(done: int, total: int) -> None:
        if done >= total or time.monotonic() > last[0] + (0.5 if sys.stderr.isatty() else 20.0):
            last[0] = time.monotonic()
            _say(f"{done:,} of {total:,} {what}")

    return show


def _say(line: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{line:<60}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
