"""Help and small commands answer at once: the command line imports a command's module only when it is called."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

from rapport.experiments import commands
from rapport.experiments.cli import COMMANDS, GROUPS, parse

HEAVY = (
    "torch",
    "stable_baselines3",
    "sb3_contrib",
    "pandas",
    "jinja2",
    "plotly",
    "scipy",
    "llama_cpp",
    "ray",
    "pooch",
    "gymnasium",
)
SIMULATED = ("rapport.envs.session", "rapport.agents")


def modules_after(*argv: str) -> set[str]:
    """What a new process has imported when the command has ended."""
    program = f"""
import sys
from rapport.experiments import commands
from rapport.experiments.cli import main
try:
    code = main({list(argv)!r})
except SystemExit as stop:
    code = stop.code
assert code == 0, code
print("modules:", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["bench", "--help"], ["data", "list"], ["data", "list", "--help"], ["twin", "show"]],
    ids=" ".join,
)
def test_help_and_small_commands_import_nothing_heavy(argv: list[str]) -> None:
    imported = modules_after(*argv)
    assert "rapport.experiments.cli" in imported
    assert not imported.intersection(HEAVY)
    assert not [name for name in imported if name.startswith(SIMULATED)]


def test_help_needs_no_arrays() -> None:
    assert "numpy" not in modules_after("--help")


@pytest.mark.parametrize("first", ["rapport", "gymnasium", "gymnasium.envs.registration", "rapport.envs.registration"])
def test_the_ids_are_registered_whatever_is_imported_first(first: str) -> None:
    program = f"""
import {first}
import rapport
import gymnasium
assert "rapport/KuaiRand-v0" in gymnasium.registry
assert type(gymnasium.envs.registration.__spec__.loader).__module__ != "rapport._registration"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_help_names_every_command_without_importing_one() -> None:
    assert not [name for name in modules_after("--help") if name.startswith("rapport.experiments.commands.")]


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_table_says_what_the_classes_say(entry) -> None:
    command = entry.load()
    assert dataclasses.is_dataclass(command)
    assert callable(command.run)
    assert inspect.getdoc(command) == entry.description


def test_every_command_dataclass_is_in_the_table() -> None:
    found = set()
    for info in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{info.name}")
        for name, value in vars(module).items():
            here = inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
            if here and dataclasses.is_dataclass(value) and hasattr(value, "run"):
                found.add(f"{info.name}:{name}")
    assert found == {entry.target for entry in COMMANDS}


def test_groups_are_those_of_the_table() -> None:
    assert list(GROUPS) == list(dict.fromkeys(entry.name.split()[0] for entry in COMMANDS if " " in entry.name))
    assert len({entry.name for entry in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_describes_its_commands(group, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as left:
        parse([group, "--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert GROUPS[group] in printed
    for entry in COMMANDS:
        if entry.name.startswith(f"{group} "):
            assert entry.description in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dat", "list"], "rapport: 'dat' is no command; did you mean 'data'?"),
        (["fly"], "rapport: 'fly' is no command. Choose one of run, evaluate,"),
        (["data", "lst"], "rapport data: 'lst' is no command; did you mean 'list'? Choose one of list, fetch, check;"),
    ],
)
def test_an_unknown_command_is_told_with_the_closest_name(argv, message, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        parse(argv)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_an_option_before_its_command_is_told_where_it_belongs(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--quick", "run"])
    assert left.value.code == 2
    assert "in rapport run --help" in capsys.readouterr().err


def test_shell_completion_knows_the_options_of_every_command(capsys) -> None:
    with pytest.raises(SystemExit):
        parse(["--tyro-print-completion", "bash"])
    printed = capsys.readouterr().out
    for option in ("--plan-period", "--base-url", "--batch-sizes"):
        assert option in printed
