"""What the documents tell a reader to type works: Python blocks run, `rapport` commands parse, `make` targets exist.

A Python block is left out with the info string ``python no-run``. Blocks of one page share their names, in order.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = {"console", "bash", "sh", "shell"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[tuple[list[str], str]]:
    """Info words and body of each fenced block."""
    for match in FENCE.finditer(text):
        yield match["info"].split(), match["body"]


def commands(text: str) -> Iterator[list[str]]:
    """Each simple command of the shell blocks as words, without prompts, variables, redirections and comments."""
    for info, body in blocks(text):
        if not info or info[0] not in SHELL:
            continue
        lines = body.replace("\\\n", " ").splitlines()
        if info[0] == "console":
            lines = [line.lstrip()[2:] for line in lines if line.lstrip().startswith("$ ")]
        for line in lines:
            yield from split(line)


def split(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    command: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            if command:
                yield command
            command, skip = [], False
        elif set(word) <= set("<>"):
            skip = True
        elif not skip and (command or not re.fullmatch(r"[A-Za-z_]\w*=.*", word)):
            command.append(word)
    return


def wanted(program: str) -> list[object]:
    """Arguments of every documented call of ``program``, as pytest parameters."""
    found = []
    for page in PAGES:
        for words in commands(page.read_text("utf-8")):
            if words[:3] == [words[0], "-m", "rapport"]:
                words = ["rapport", *words[3:]]
            if Path(words[0]).name == program:
                found.append(pytest.param(words[1:], id=f"{page.name}: {shlex.join(words)}"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    found = [body for info, body in blocks(page.read_text("utf-8")) if info[:1] == ["python"] and "no-run" not in info]
    if not found:
        pytest.skip("no Python block")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(found)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("argv", wanted("rapport"))
def test_rapport_commands_parse(argv: list[str]) -> None:
    if importlib.util.find_spec("rapport.experiments.cli") is None:
        pytest.skip("no command line yet")
    from rapport.experiments import cli

    try:
        cli.parse(argv)
    except SystemExit as stop:
        assert stop.code in (0, None), f"rapport {shlex.join(argv)} does not parse"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("argv", wanted("make"))
def test_make_targets_exist(argv: list[str]) -> None:
    done = subprocess.run(["make", "-n", *argv], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_are_found_in_shell_blocks() -> None:
    text = r"""
```console
$ A=1 make run ARGS="--quick"  # why
output make no
$ rapport run \
  --seeds 2 > log && make test
```
```bash
python -m rapport data list | head
```
```python
make = 1
```
"""
    assert list(commands(text)) == [
        ["make", "run", "ARGS=--quick"],
        ["rapport", "run", "--seeds", "2"],
        ["make", "test"],
        ["python", "-m", "rapport", "data", "list"],
        ["head"],
    ]
