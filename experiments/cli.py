"""The command line: ``rapport COMMAND``, made from the commands' dataclasses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Protocol

import tyro
from rich.console import Console

from rapport.agents.checkpoint import CheckpointError
from rapport.datasets.schema import DataError
from rapport.experiments.commands.bench import BenchEnvironment, BenchPlanner, BenchStreaming, BenchTraining
from rapport.experiments.commands.data import DataCheck, DataFetch, DataList, TwinMeasure, TwinShow
from rapport.experiments.commands.evaluate import Evaluate
from rapport.experiments.commands.export import Export
from rapport.experiments.commands.lm import LmCard, LmImprove, LmTrain
from rapport.experiments.commands.planner import PlannerCost, PlannerReflections
from rapport.experiments.commands.quit_rule import QuitRuleCommand
from rapport.experiments.commands.reflections import Reflections
from rapport.experiments.commands.reproduce import ReproduceLerl, ReproduceSearch
from rapport.experiments.commands.run import Run
from rapport.experiments.commands.satiation import SatiationInside, SatiationMeasure, SatiationSeparate
from rapport.experiments.commands.simulator import SimulatorCardCommand, SimulatorCompare, SimulatorFit
from rapport.experiments.commands.transcript import Transcript
from rapport.experiments.results.store import ResultError

_DESCRIPTION = "Environments of people who come, react, get bored and leave, and agents that learn to serve them."


class Command(Protocol):
    """What the command line runs."""

    def run(self) -> int:
        """Do it; the exit code."""
        ...


def _named(command: type[Any], name: str) -> Any:
    return Annotated[command, tyro.conf.subcommand(name)]


def _group(commands: dict[str, type[Any]], name: str, description: str) -> Any:
    members = reduce(or_, (_named(command, member) for member, command in commands.items()))
    return Annotated[members, tyro.conf.subcommand(name, description=description)]


_COMMANDS = (
    _named(Run, "run"),
    _named(Evaluate, "evaluate"),
    _group(
        {"lerl": ReproduceLerl, "search": ReproduceSearch},
        "reproduce",
        "A paper's tables, made anew; the search for the hyper-parameters they use.",
    ),
    _group({"list": DataList, "fetch": DataFetch, "check": DataCheck}, "data", "List, fetch and check data sets."),
    _group(
        {"fit": SimulatorFit, "card": SimulatorCardCommand, "compare": SimulatorCompare, "quit-rule": QuitRuleCommand},
        "simulator",
        "Fit the simulator; how far to trust it; what else was tried; how a quit rule works out.",
    ),
    _group(
        {"measure": SatiationMeasure, "inside": SatiationInside, "separate": SatiationSeparate},
        "satiation",
        "Boredom in a log, and built in.",
    ),
    _group(
        {"cost": PlannerCost, "reflections": PlannerReflections},
        "planner",
        "What a language model's plans cost, and what its reflections do.",
    ),
    _named(Reflections, "reflections"),
    _named(Transcript, "transcript"),
    _group({"measure": TwinMeasure, "show": TwinShow}, "twin", "The aggregates that statistical twins are drawn from."),
    _group(
        {"train": LmTrain, "card": LmCard, "improve": LmImprove},
        "lm",
        "The embedded planner model: making it, what it can do; a planner that learns.",
    ),
    _named(Export, "export"),
    _group(
        {
            "environment": BenchEnvironment,
            "training": BenchTraining,
            "planner": BenchPlanner,
            "streaming": BenchStreaming,
        },
        "bench",
        "Speed against named references; memory.",
    ),
)


def parse(argv: Sequence[str] | None = None) -> Command:
    """The command that the arguments stand for; exits with a usage message where they stand for none."""
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    commands = reduce(or_, _COMMANDS)
    command: Command = tyro.cli(commands, prog="rapport", description=_DESCRIPTION, args=argv, config=config)
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; expected errors become one message and exit code 2."""
    command = parse(argv)
    errors = Console(stderr=True)
    try:
        return command.run()
    except (
        DataError,
        CheckpointError,
        ResultError,
        ValueError,
        FileNotFoundError,
        ConnectionError,
        ImportError,
    ) as error:
        errors.print(f"rapport: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("rapport: stopped; the same command goes on from the last checkpoint", highlight=False)
        return 130


if __name__ == "__main__":
    sys.exit(main())
