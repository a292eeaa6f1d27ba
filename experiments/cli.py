"""The command line: ``rapport COMMAND``.

:data:`COMMANDS` names every command and says in which module it is. Only the module of the command that was called is
imported, so that help and small commands answer at once.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated, Any, NamedTuple, Protocol

import tyro

from rapport.envs.common.threads import process_threads
from rapport.experiments.checks import check_command

_DESCRIPTION = "Environments of people who come, react, get bored and leave, and agents that learn to serve them."

_SIGPIPE = 13
_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)
"""Errors of standard output, which has no name."""
_REMEDIES = {
    errno.ENOSPC: "make room there and run the same command again: what was finished is kept",
    errno.EDQUOT: "make room there and run the same command again: what was finished is kept",
    errno.EACCES: "make it writable, or give another place",
    errno.EPERM: "make it writable, or give another place",
    errno.EROFS: "give a place that can be written to",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "give a place whose folders are none of them a file",
    errno.EEXIST: "give another place",
    errno.EISDIR: "give a file",
    errno.ENOENT: "check the path",
    errno.EMFILE: "allow more open files (ulimit -n), or give fewer --workers",
    errno.ENOMEM: "give smaller sizes or fewer --workers",
}


class Command(Protocol):
    """A dataclass of a command's options."""

    def run(self) -> int:
        """Run the command; the exit code."""
        ...


class Entry(NamedTuple):
    """A command that has not been imported yet.

    Attributes:
        name: the words that call it, e.g. ``"data list"``; the first of two words is its group's.
        target: ``module:Class`` under :mod:`rapport.experiments.commands`.
        description: the docstring of the class.
    """

    name: str
    target: str
    description: str

    def load(self) -> type[Command]:
        """Import the class."""
        module, _, name = self.target.partition(":")
        command: type[Command] = getattr(import_module(f"rapport.experiments.commands.{module}"), name)
        return command


COMMANDS = (
    Entry(
        "run",
        "run:Run",
        "Train LERL and a planner-less PPO on simulated sessions of real people, and compare them with the controls.",
    ),
    Entry("evaluate", "evaluate:Evaluate", "Play a trained agent on sessions of held-out users."),
    Entry(
        "reproduce lerl",
        "reproduce:ReproduceLerl",
        "Make LERL's main table, ablations, sensitivity studies and case study anew, paper beside ours.",
    ),
    Entry(
        "reproduce search",
        "reproduce:ReproduceSearch",
        "Search hyper-parameters with an equal budget for every method, on training users alone.",
    ),
    Entry("data list", "data:DataList", "List the data sets that Rapport knows, and which of them are here."),
    Entry(
        "data fetch",
        "data:DataFetch",
        "Download a data set, verify its checksum and unpack it; an interrupted download goes on where it stopped.",
    ),
    Entry(
        "data check",
        "data:DataCheck",
        "Compare the files in the data directory with what was published, and read what can be read.",
    ),
    Entry(
        "simulator fit",
        "simulator:SimulatorFit",
        "Fit the user model that people in the environment respond by, once; it is kept in the cache.",
    ),
    Entry(
        "simulator card",
        "simulator:SimulatorCardCommand",
        "Say how far the simulator can be trusted, measured on later days beside predictors that only count.",
    ),
    Entry(
        "simulator compare",
        "simulator:SimulatorCompare",
        "Fit counting, factorisation, GRU and transformer alike, and compare them on later days, with intervals.",
    ),
    Entry(
        "simulator quit-rule",
        "quit_rule:QuitRuleCommand",
        "How long sessions last when slates repeat the categories before them at a given rate.",
    ),
    Entry(
        "satiation measure",
        "satiation:SatiationMeasure",
        "Measure user satiation in a log: by gap, place, dose, time and group, with placebos.",
    ),
    Entry(
        "satiation inside",
        "satiation:SatiationInside",
        "Measure satiation inside the simulator, without and with the satiation component: is it counted twice?",
    ),
    Entry(
        "satiation separate",
        "satiation:SatiationSeparate",
        "Play whole sessions with users who satiate, and under LERL's rule: do the methods separate?",
    ),
    Entry(
        "planner cost",
        "planner:PlannerCost",
        "Return against calls: plans that hold for 1 to 20 slates, or until a replan trigger.",
    ),
    Entry(
        "planner reflections",
        "planner:PlannerReflections",
        "What reflections do: as LERL draws them, none, with shuffled scores, and those on the worst sessions.",
    ),
    Entry(
        "reflections",
        "reflections:Reflections",
        "List a pool of reflections: each text with the clicks of the session it is about.",
    ),
    Entry(
        "transcript",
        "transcript:Transcript",
        "Print the newest prompts and answers of a transcript, and what the whole of it cost.",
    ),
    Entry(
        "twin measure",
        "data:TwinMeasure",
        "Compute from a real log the figures that the statistical twin is drawn from, and write them as JSON.",
    ),
    Entry("twin show", "data:TwinShow", "Show the figures that the statistical twin is drawn from."),
    Entry(
        "lm train",
        "lm:LmTrain",
        "Train the embedded planner model from scratch: examples, vocabulary, weights, GGUF file.",
    ),
    Entry(
        "lm card",
        "lm:LmCard",
        "Evaluate the model and the controls: on its training data, under synthetic names, and on other data.",
    ),
    Entry(
        "lm improve",
        "lm:LmImprove",
        "Fine-tune the planner by policy gradient on the tokens of its plans; learning curves on held-out users.",
    ),
    Entry("export", "export:Export", "Play sessions and write them as a data set for offline reinforcement learning."),
    Entry(
        "bench environment",
        "bench:BenchEnvironment",
        "User-steps per second of the session environments, beside bare NumPy loops in the same run.",
    ),
    Entry(
        "bench training",
        "bench:BenchTraining",
        "Training transitions per second with updates, beside Stable-Baselines3's stock policy in the same run.",
    ),
    Entry(
        "bench planner",
        "bench:BenchPlanner",
        "Plans per second of a language model in this process, beside plain llama-cpp-python in the same run.",
    ),
    Entry(
        "bench streaming",
        "bench:BenchStreaming",
        "Memory and speed of converting a made-up KuaiRand-27K that does not fit into memory.",
    ),
)

GROUPS = {
    "reproduce": "A paper's tables, made anew; the search for the hyper-parameters they use.",
    "data": "List, fetch and check data sets.",
    "simulator": "Fit the simulator; how far to trust it; what else was tried; how a quit rule works out.",
    "satiation": "User satiation in a log, and as an environment.",
    "planner": "What a language model's plans cost, and what its reflections do.",
    "twin": "The aggregates that statistical twins are drawn from.",
    "lm": "The embedded planner model: making it, what it can do; a planner that learns.",
    "bench": "Speed against named references; memory.",
}


@dataclass
class _NotImported:
    """Stands in help for a command that was not called; its options are not needed there."""


def parse(argv: Sequence[str] | None = None) -> Command:
    """The command that the arguments stand for; exits with a usage message where they stand for none."""
    argv = list(sys.argv[1:] if argv is None else argv)
    _refuse_unknown(argv)
    called = [entry for entry in COMMANDS if entry.name in (" ".join(argv[:1]), " ".join(argv[:2]))]
    if not called and any(word.startswith("-") and word not in ("-h", "--help") for word in argv):
        called = list(COMMANDS)  # shell completion, and the hint where an option stands before its command
    members: dict[str, Any] = {}
    for entry in COMMANDS:
        group, _, name = entry.name.rpartition(" ")
        command: Any = entry.load() if entry in called else _NotImported
        member = Annotated[command, tyro.conf.subcommand(name, description=entry.description)]
        members[group or name] = members[group] | member if group in members else member
    commands: list[Any] = [
        Annotated[member, tyro.conf.subcommand(name, description=GROUPS[name])] if name in GROUPS else member
        for name, member in members.items()
    ]
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    union: Any = reduce(or_, commands)
    parsed: Command = tyro.cli(union, prog="rapport", description=_DESCRIPTION, args=argv, config=config)
    return parsed


def _refuse_unknown(argv: list[str]) -> None:
    """Exit with the reason where an argument is not printable or the first words are no command's."""
    for word in argv:
        if hidden := [letter for letter in word if not letter.isprintable() and letter not in "\n\t"]:
            code = f"U+{ord(hidden[0]):04X}"
            print(f"rapport: an argument holds the unprintable character {code}; write it without", file=sys.stderr)
            sys.exit(2)
    names = [entry.name.split() for entry in COMMANDS]
    program, known = "rapport", list(dict.fromkeys(name[0] for name in names))
    for word in argv[:2]:
        if word.startswith("-"):
            return
        if word not in known:
            close = get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            print(
                f"{program}: {word!r} is no command{hint} Choose one of {', '.join(known)}; "
                f"`{program} --help` describes them.",
                file=sys.stderr,
            )
            sys.exit(2)
        if word not in GROUPS:
            return
        program, known = f"rapport {word}", [name[1] for name in names if name[0] == word]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; expected errors become one sentence and exit code 2."""
    try:
        return _run(argv)
    except BrokenPipeError:  # whoever read the output has left, as `head` does
        _drop_output()
        return 128 + _SIGPIPE
    except KeyboardInterrupt:
        _print_error("rapport: stopped; the same command goes on from the last checkpoint")
        return 130
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        _print_error(f"rapport: {said}", style="bold red")
        _drop_output()
        return 2


def _run(argv: Sequence[str] | None) -> int:
    try:
        command = parse(argv)
        check_command(command)
        number = getattr(command, "threads", None)
        with process_threads(number if isinstance(number, int) else None):
            return command.run()
    finally:
        sys.stdout.flush()  # so that a full disk behind it is told here


def sentence(error: Exception) -> str | None:
    """What went wrong, in one sentence for the terminal; None for a fault of Rapport's own."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        where = error.filename2 or error.filename
        if where is None and error.errno not in _OF_OUTPUT:
            return str(error)
        place = "the output" if where is None else os.fsdecode(where) if isinstance(where, bytes) else str(where)
        return f"{place}: {error.strerror}; {_REMEDIES.get(error.errno, 'give another place')}"
    if isinstance(error, ValueError | OSError | ImportError):
        return str(error)
    if isinstance(error, sqlite3.Error):
        return f"a database could not be read or written: {error}. What was finished is kept"
    if isinstance(error, MemoryError):
        return f"the memory is not enough: {error or 'nothing is left'}. Give smaller sizes or fewer --workers"
    if isinstance(error, BrokenExecutor):
        return (
            "a worker process ended abruptly, perhaps for want of memory. What was finished is kept: run the same "
            "command again, with fewer --workers"
        )
    return None


def _drop_output() -> None:
    """Throw away what could not be written to standard output, so that Python does not try again as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _print_error(message: str, style: str | None = None) -> None:
    from rich.console import Console

    from rapport.datasets.files.reading import visible

    with suppress(OSError):
        Console(stderr=True).print(visible(message), style=style, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
