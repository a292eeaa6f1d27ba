"""Slips on a command line and errors of the operating system are one sentence, at once, whatever the command."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import typing
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from pathlib import Path
from types import UnionType

import pytest

from rapport.experiments import checks, cli
from rapport.experiments.checks import PLACES, check_command
from rapport.experiments.cli import COMMANDS, main, sentence

NEEDED = {
    "evaluate": ["a.safetensors"],
    "reflections": ["show", "a"],
    "transcript": ["show", "a"],
    "export": ["minari"],
}


def options(kind: type) -> list[tuple[str, str]]:
    """Every option that takes numbers of a kind, with its command."""
    found = []
    for entry in COMMANDS:
        command = entry.load()
        hints = typing.get_type_hints(command)
        for field in fields(command):  # type: ignore[arg-type]
            hint = hints[field.name]
            parts = (
                typing.get_args(hint) if isinstance(hint, UnionType) or typing.get_origin(hint) is tuple else (hint,)
            )
            if kind in parts:
                found.append((entry.name, f"--{field.name.replace('_', '-')}"))
    return found


def refused(capsys: pytest.CaptureFixture[str], command: str, *more: str) -> str:
    assert main([*command.split(), *NEEDED.get(command, []), *more]) == 2
    said = capsys.readouterr()
    assert not said.out
    return " ".join(said.err.split())


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in COMMANDS:
        monkeypatch.setattr(entry.load(), "run", lambda self: pytest.fail("it began"))


@pytest.mark.parametrize(("command", "option"), options(int), ids=str)
def test_numbers_that_cannot_be_meant_are_refused_at_once(command, option, capsys) -> None:
    assert f"{option} -3: it must be at least " in refused(capsys, command, option, "-3")
    assert f"{option} 10^" in refused(capsys, command, option, "1" + "0" * 30)
    name = option[2:].replace("-", "_")
    if name not in checks.SMALLEST:
        assert f"{option} 0: it must be at least 1" in refused(capsys, command, option, "0")


@pytest.mark.parametrize(("command", "option"), options(float), ids=str)
def test_numbers_that_are_not_finite_are_refused_at_once(command, option, capsys) -> None:
    for value in ("nan", "inf"):
        assert f"{option} {value}: it must be a finite number" in refused(capsys, command, option, value)


@pytest.mark.parametrize(
    ("command", "option"), [pair for pair in options(Path) if pair[1][2:].replace("-", "_") in PLACES], ids=str
)
def test_places_that_cannot_be_written_are_refused_at_once(command, option, capsys, tmp_path) -> None:
    (tmp_path / "[bold]file").write_text("mine")
    said = refused(capsys, command, option, str(tmp_path / "[bold]file" / "under"))
    assert said.startswith(f"rapport: {option} ") and "[bold]file" in said
    assert "too long" in refused(capsys, command, option, str(tmp_path / ("x" * 300)))
    assert (tmp_path / "[bold]file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_no_file_and_a_file_no_folder(capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file; give a folder" in refused(capsys, "run", "--out", str(tmp_path / "file"))
    assert "it is a folder; give a file" in refused(capsys, "simulator card", "--out", str(tmp_path))
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)
    assert "cannot be written to; give another place" in refused(capsys, "run", "--out", str(tmp_path / "new"))


def test_what_is_no_dataclass_passes() -> None:
    check_command(object())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/a[/b]"),
            "/a[/b]: No space left on device; make room there",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "the output: No space left on device; make room there"),
        (PermissionError(errno.EACCES, "Permission denied", b"/a"), "/a: Permission denied; make it writable"),
        (FileExistsError(errno.EEXIST, "File exists", "/a"), "/a: File exists; give another place"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/a"), "/a: File name too long; give a shorter name"),
        (OSError(errno.ENOTTY, "Odd", "/a"), "/a: Odd; give another place"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "[Errno 111] Connection refused"),
        (FileNotFoundError("there is no model"), "there is no model"),
        (ValueError("[/x] is wrong"), "[/x] is wrong"),
        (sqlite3.OperationalError("disk I/O error"), "a database could not be read or written: disk I/O error"),
        (MemoryError(), "the memory is not enough"),
        (BrokenProcessPool("terminated"), "a worker process ended abruptly"),
    ],
)
def test_errors_are_one_sentence(error: Exception, said: str, monkeypatch, capsys) -> None:
    found = sentence(error)
    assert found is not None and found.startswith(said)

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "check_command", fail)
    assert main(["data", "list"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_fault_of_our_own_is_raised(monkeypatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(cli, "check_command", fail)
    assert sentence(AssertionError("ours")) is None
    with pytest.raises(AssertionError, match="ours"):
        main(["data", "list"])


def test_escape_sequences_of_a_message_are_not_sent_to_the_terminal(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--out", "\x1b[31mred/" + "x" * 300])
    assert stopped.value.code == 2
    assert "\x1b" not in capsys.readouterr().err


PROGRAM = "import sys; from rapport.experiments.cli import main; sys.exit(main({}))"


@pytest.mark.parametrize("argv", [["data", "list"], ["--help"]], ids=" ".join)
def test_a_full_disk_behind_the_output_is_one_sentence(argv: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(argv)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rapport: the output: No space left on device; make room there and run the same command again: what was "
        "finished is kept"
    ]


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    argv = [sys.executable, "-c", PROGRAM.format(["data", "list"])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(120) in (1, 141)  # Rich ends the process itself, where it was the one to notice
