"""Memory and speed of converting logs that do not fit into memory.

A synthetic log in the layout of KuaiRand-27K is written, then converted and opened in processes of their own, whose
peak memory the system reports. The log has the proportions of the real one: 12,000 rows per user and 10 per video, few
videos that are shown often and many that are shown rarely, and files in which users are mixed. Hand-chosen rules draw
all values.

This module imports nothing but the reader, so that the process measures the reader alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from rapport.datasets.kuairand.large import VERSIONS, Conversion, read
from rapport.datasets.kuairand.pure import USER_FEATURES
from rapport.datasets.splits import assemble
from rapport.experiments.bench.timing import STATUS, peak_mb, status_mb

NAME = "kuairand-27k"
ROWS_PER_USER = 12_000
ROWS_PER_VIDEO = 10

_BLOCK = 1_000_000
_FIRST_MS = 1_649_347_200_000
_SPAN_MS = 31 * 86_400_000
_CLICK = 0.38
_RATES = {"is_like": 0.02, "is_follow": 0.002, "is_comment": 0.003, "is_forward": 0.001, "is_hate": 0.0005}
_ENDING = ("profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand", "tab")


@dataclass(frozen=True)
class Step:
    """Time and memory of one step.

    Attributes:
        seconds: wall-clock time [s].
        peak_mb: largest resident memory of the process up to the step's end [MB, 10^6 bytes]. Pages of mapped files
            count, although the system takes them back when it needs them.
        own_mb: largest memory without mapped files, sampled during the step [MB]; NaN where the system does not
            report it.
    """

    seconds: float
    peak_mb: float
    own_mb: float


@dataclass(frozen=True)
class Measurement:
    """One log, converted and opened.

    Attributes:
        csv_bytes: size of its files [bytes].
        start: the process before it reads anything.
        convert: from the CSV files to the finished folder, which is opened and checked once.
        open: from the finished folder to a :class:`~rapport.datasets.schema.SessionData` with every check and split, in
            a new process.
        conversion: counts of the rows that were kept and dropped.
    """

    csv_bytes: int
    start: Step
    convert: Step
    open: Step
    conversion: Conversion


def measure(
    n_rows: int,
    folder: Path | None,
    max_items: int | None,
    report: Callable[[str], None],
    n_videos: int | None = None,
) -> Measurement:
    """Write a log of ``n_rows`` rows in a temporary folder under ``folder``, convert it, open it, remove it all."""
    work = Path(tempfile.mkdtemp(prefix="rapport-bench-", dir=folder))
    try:
        report(f"writing {n_rows:,} rows")
        generate(work, n_rows, n_videos)
        size = sum(path.stat().st_size for path in work.rglob("*.csv"))
        report(f"converting {n_rows:,} rows")
        start, convert, found = _in_a_process(work, max_items)
        report(f"opening {found.rows:,} rows")
        return Measurement(size, start, convert, _in_a_process(work, max_items)[1], found)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def generate(root: Path, n_rows: int, n_videos: int | None = None, seed: int = 0) -> Path:
    """Write a synthetic KuaiRand-27K of ``n_rows`` standard rows under ``root`` and return its data folder."""
    version = VERSIONS[NAME]
    data = root / version.folder / "data"
    data.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    n_users, n_videos = max(10, n_rows // ROWS_PER_USER), n_videos or max(50, n_rows // ROWS_PER_VIDEO)
    names = dict.fromkeys(USER_FEATURES, pa.array(["a", "b"] * (n_users // 2) + ["a"] * (n_users % 2)))
    pacsv.write_csv(pa.table({"user_id": np.arange(n_users)} | names), data / version.user_file)
    for first, columns in _in_blocks(n_videos):
        _append(data / version.item_file, _videos(first, columns, generator))
    for number, name in enumerate(version.standard_logs):
        rows = n_rows // 4 + (number < n_rows % 4)
        span = _FIRST_MS + number // 2 * _SPAN_MS // 2
        for _, count in _in_blocks(rows):
            _append(data / name, _log(count, n_users, n_videos, span, generator))
    return data


def _in_blocks(total: int) -> list[tuple[int, int]]:
    return [(first, min(_BLOCK, total - first)) for first in range(0, total, _BLOCK)]


def _append(path: Path, table: pa.Table) -> None:
    options = pacsv.WriteOptions(include_header=not path.exists())
    with path.open("ab") as file:
        pacsv.write_csv(table, file, options)


def _videos(first: int, n: int, generator: np.random.Generator) -> pa.Table:
    """Basic features of videos ``first`` and on."""
    return pa.table(
        {
            "video_id": np.arange(first, first + n),
            "author_id": generator.integers(0, 8_839_735, n),
            "video_type": pa.array(["NORMAL"] * n),
            "upload_dt": pa.array(["2022-04-10"] * n),
            "upload_type": pa.array(np.array(["ShortImport", "LongImport", "Web"])[generator.integers(0, 3, n)]),
            "visible_status": np.zeros(n),
            "video_duration": generator.integers(5_000, 400_000, n).astype(np.float64),
            "server_width": np.full(n, 720.0),
            "server_height": np.full(n, 1280.0),
            "music_id": generator.integers(0, 10**10, n),
            "music_type": generator.integers(1, 12, n).astype(np.float64),
            "tag": pa.array(generator.integers(1, 40, n).astype(str)),
        }
    )


def _log(n: int, n_users: int, n_videos: int, start_ms: int, generator: np.random.Generator) -> pa.Table:
    """Rows of mixed users over half a month, with every official column."""
    click = generator.random(n) < _CLICK
    columns = {
        "user_id": generator.integers(0, n_users, n),
        "video_id": (n_videos * generator.random(n) ** 3).astype(np.int64),
        "date": np.full(n, 20220408),
        "hourmin": generator.integers(0, 24, n) * 100,
        "time_ms": start_ms + generator.integers(0, _SPAN_MS // 2, n),
        "is_click": click.astype(np.int8),
        **{name: (generator.random(n) < rate).astype(np.int8) for name, rate in _RATES.items()},
        "long_view": (click & (generator.random(n) < 0.7)).astype(np.int8),
        "play_time_ms": generator.integers(0, 60_000, n),
        "duration_ms": generator.integers(5_000, 60_000, n),
        **dict.fromkeys(_ENDING, np.zeros(n, dtype=np.int8)),
    }
    return pa.table(columns)


def _in_a_process(root: Path, max_items: int | None) -> tuple[Step, Step, Conversion]:
    """Read the log in a new process, which converts it if that has not been done."""
    argv = [sys.executable, "-m", "rapport.experiments.bench.streaming", str(root), json.dumps(max_items)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the process that reads the log failed: {done.stderr.strip()[-2_000:]}")
    start, step, found = json.loads(done.stdout)
    return Step(**start), Step(**step), Conversion(**found)


class _OwnMemory(threading.Thread):
    """Samples the process's anonymous memory every 5 ms, on Linux."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = float("nan")
        self._ended = threading.Event()

    def run(self) -> None:
        while STATUS.exists():
            self.peak_mb = np.fmax(self.peak_mb, status_mb("RssAnon"))
            if self._ended.wait(0.005):
                return

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return self.peak_mb


def _step(work: Callable[[], Conversion | None]) -> tuple[Step, Conversion | None]:
    memory, begun = _OwnMemory(), time.perf_counter()
    memory.start()
    found = work()
    seconds = time.perf_counter() - begun
    return Step(seconds, peak_mb(), memory.stop()), found


def _main(root: str, max_items: str) -> None:
    """Read the log in this process and print the time and memory of each step."""

    def load() -> Conversion:
        tables, found = read(NAME, Path(root), Path(root) / "cache", json.loads(max_items))
        assemble(NAME, tables)
        return found

    start, _ = _step(lambda: None)
    step, found = _step(load)
    assert found is not None
    print(json.dumps([asdict(start), asdict(step), asdict(found)]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
