"""Files that several processes write at once, and that one of them leaves in the middle of writing."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rapport.agents.llm import CachedLLM, RecordedLLM, ScriptedLLM
from rapport.agents.llm.transcript import read_batches

WRITER = """
import sys
from rapport.agents.llm import CachedLLM, RecordedLLM, ScriptedLLM, conversation
kind, path, name = sys.argv[1:]
llm = {"cache": CachedLLM, "transcript": RecordedLLM}[kind](ScriptedLLM(lambda prompt: prompt.upper()), path)
with conversation(llm, name):
    for n in range(int(sys.stdin.readline())):
        llm.complete([f"{name} {n} {part}" for part in range(20)])
        print(n, flush=True)
"""


def writer(kind: str, path: Path, name: str, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, kind, str(path), name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(f"{batches}\n")
    process.stdin.flush()
    return process


def whole_batches(kind: str, path: Path, name: str) -> int:
    """Batches in the file from the first on; fails where one is in parts or wrong."""
    if kind == "transcript":
        batches = list(read_batches(path, name))
        for n, batch in enumerate(batches):
            assert batch.prompts == [f"{name} {n} {part}" for part in range(20)]
            assert [answer.text for answer in batch.answers] == [prompt.upper() for prompt in batch.prompts]
        return len(batches)
    llm = CachedLLM(ScriptedLLM([]), path)  # can answer nothing by itself
    for n in range(10**6):
        answers = llm.complete([f"{name} {n} {part}" for part in range(20)])
        found = [answer.text for answer in answers if answer.cached]
        if not found:
            return n
        assert found == [f"{name} {n} {part}".upper() for part in range(20)]
    raise AssertionError("unreachable")


@pytest.mark.parametrize("kind", ["cache", "transcript"])
def test_a_writer_that_is_killed_leaves_whole_batches_and_loses_none_that_was_done(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite"
    with writer(kind, path, "killed", 10**6) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 25:
                break
        process.send_signal(signal.SIGKILL)
        done = max([25, *(int(line) for line in process.stdout if line.strip())])
    assert whole_batches(kind, path, "killed") in (done + 1, done + 2)
    # The file is used on as if nothing had been.
    with writer(kind, path, "next", 3) as process:
        assert process.wait(30) == 0
    assert whole_batches(kind, path, "next") == 3
    assert whole_batches(kind, path, "killed") in (done + 1, done + 2)


@pytest.mark.parametrize("kind", ["cache", "transcript"])
def test_processes_that_find_a_file_damaged_at_once_set_it_aside_once_and_lose_nothing_new(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.sqlite"
    path.write_bytes(b"no database" * 1_000)
    names = ("one", "two", "three")
    processes = [writer(kind, path, name, 15) for name in names]
    assert [process.wait(60) for process in processes] == [0] * len(names)
    for process in processes:
        process.communicate()
    assert [whole_batches(kind, path, name) for name in names] == [15] * len(names)
    assert sorted(file.name for file in tmp_path.glob("*.corrupt-*")) == ["file.sqlite.corrupt-1"]


def test_a_transcript_that_cannot_be_written_has_a_gap_and_the_answers_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rapport.agents.llm.sqlite._BUSY_SECONDS", 0.05)
    path = tmp_path / "file.sqlite"
    llm = RecordedLLM(ScriptedLLM(str.upper), path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert llm.complete(["a"])[0].text == "A"
    other.execute("COMMIT")
    other.close()
    assert llm.complete(["b"])[0].text == "B"
    assert [batch.prompts for batch in read_batches(path)] == [["b"]]
    assert "it has a gap" in caplog.text
