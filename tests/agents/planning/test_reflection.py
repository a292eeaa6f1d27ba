from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rapport.agents.planning.reflection import Reflection, ReflectionPool, read_reflections


def test_the_pool_draws_different_entries_and_is_reproducible() -> None:
    pool = ReflectionPool()
    for number in range(10):
        pool.add(f"reflection number {number}", number)
    draws = [pool.sample(np.random.default_rng(5)) for _ in range(2)]
    assert draws[0] == draws[1]
    assert len({entry.text for entry in draws[0]}) == 3
    assert len(pool.sample(np.random.default_rng(0), n=50)) == 10
    assert ReflectionPool().sample(np.random.default_rng(0)) == []


def test_first_in_first_out() -> None:
    pool = ReflectionPool(capacity=3)
    for number in range(5):
        pool.add(f"lesson {number}", number, user=number)
    assert pool.entries() == [Reflection(f"lesson {n}", n, n) for n in (2, 3, 4)]
    assert len(pool) == 3


def test_duplicates_are_stored_once() -> None:
    pool = ReflectionPool()
    pool.add("Rest Comedy after every slate.", 10)
    pool.add("Show more Sport.", 4)
    pool.add("rest  COMEDY after every slate", 2)
    assert pool.entries() == [Reflection("Show more Sport.", 4), Reflection("rest COMEDY after every slate", 2)]
    pool.add("Show less Sport.", 5)  # other advice
    assert len(pool) == 3


@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [("  ", 1.0, "^a text must not be blank"), ("fine", float("nan"), "^score must be a finite number; got nan")],
)
def test_useless_reflections_are_refused(text: str, score: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ReflectionPool().add(text, score)


def test_text_that_is_not_utf8_is_kept_readable() -> None:
    pool = ReflectionPool()
    pool.add("odd \ud800 text\x00 here", 1)
    assert pool.entries()[0].text == "odd ? text here"


def test_the_pool_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "pool.sqlite"
    first = ReflectionPool(path)
    first.add("kept", 7, 3)
    first.close()
    assert ReflectionPool(path).entries() == [Reflection("kept", 7, 3)]


def test_the_pool_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    code = (
        "import sys; from rapport.agents.planning.reflection import ReflectionPool\n"
        "pool = ReflectionPool(sys.argv[1], capacity=20)\n"
        "for n in range(10**6):\n    pool.add(f'lesson {n}', n); print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 30:
                break
        process.send_signal(signal.SIGKILL)
        last = max([30, *(int(line) for line in process.stdout if line.strip())])
    entries = ReflectionPool(path, capacity=20).entries()
    assert len(entries) == 20
    assert [e.score for e in entries] == list(range(int(entries[0].score), int(entries[0].score) + 20))
    assert entries[-1].score in (last, last + 1)  # nothing that was reported done is lost


def test_a_damaged_pool_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pool.sqlite"
    path.write_bytes(b"this is no database" * 100)
    pool = ReflectionPool(path)
    pool.add("new", 1)
    assert len(pool) == 1
    assert (tmp_path / "pool.sqlite.corrupt-1").read_bytes().startswith(b"this is no database")
    assert "damaged" in caplog.text


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be opened as a database"):
        ReflectionPool(tmp_path)


def test_capacity_is_checked() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1 text; got 0"):
        ReflectionPool(capacity=0)


def test_pool_files_are_plain_sqlite(tmp_path: Path) -> None:
    pool = ReflectionPool(tmp_path / "pool.sqlite")
    pool.add("readable by anyone", 2)
    pool.close()
    with sqlite3.connect(tmp_path / "pool.sqlite") as db:
        assert db.execute("SELECT text, score FROM reflections").fetchall() == [("readable by anyone", 2.0)]


def test_a_pool_is_restored_to_what_it_held() -> None:
    pool = ReflectionPool(capacity=5)
    for n in range(4):
        pool.add(f"lesson {n}", n, n)
    kept = pool.entries()
    pool.add("a later lesson", 9)
    pool.restore(kept)
    assert pool.entries() == kept
    for n in range(4, 7):
        pool.add(f"lesson {n}", n)
    assert [entry.text for entry in pool.entries()] == [f"lesson {n}" for n in range(2, 7)]  # still first in, first out
    pool.restore([])
    assert len(pool) == 0


def test_a_pool_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "pool.sqlite") as db:
        db.execute(
            "CREATE TABLE reflections (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, score REAL NOT NULL, "
            "user INTEGER)"
        )
        db.executemany(
            "INSERT INTO reflections (text, score, user) VALUES (?, ?, ?)", [("old", 3, 5), ("older", 1, None)]
        )
    pool = ReflectionPool(tmp_path / "pool.sqlite", capacity=2)
    assert (
        pool.entries()
        == read_reflections(tmp_path / "pool.sqlite")
        == [Reflection("old", 3, 5), Reflection("older", 1)]
    )
    pool.add("new", 2)
    assert [entry.text for entry in pool.entries()] == ["older", "new"]
