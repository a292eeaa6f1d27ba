"""The quick run of ``python -m tests.fuzz``: the environments have no fault, and the harness finds its way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLEAN = ".*"
"""Kinds without a fault, as a regular expression: all."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="inputs are tried in forks")


def fuzz(*argv: str) -> tuple[int, str]:
    """Exit code and output of a run from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "tests.fuzz", *argv]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_a_quick_run_finds_no_fault_in_what_is_clean() -> None:
    code, printed = fuzz("--quick")
    faults = re.findall(r"^\d+ x ([\w-]+), ", printed, re.MULTILINE)
    assert (code == 1) == bool(faults)
    assert not [kind for kind in faults if re.fullmatch(CLEAN, kind)], printed
    rows = re.findall(r"^([\w-]+) .* ([\d,]+)$", printed, re.MULTILINE)
    tried = {kind: int(number.replace(",", "")) for kind, number in rows}
    assert {"steps", "csv", "manifest", "checkpoint", "transcript", "pool", "command-line"} <= set(tried)
    assert all(tried.values())
