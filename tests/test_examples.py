"""Every example runs from a folder of its own and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
PROMISED = {
    "own_log.py": "rapport/my-shop-v0: 6,000 rows",
    "random_agent.py": "mean click rate",
    "rllib_ppo.py": "iteration 9: mean length",
    "stock_ppo.py": "mean length",
}
NEEDS = {"rllib_ppo.py": "ray"}


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example, tmp_path):
    if example.name in NEEDS:
        pytest.importorskip(NEEDS[example.name])
    done = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert PROMISED[example.name] in done.stdout
