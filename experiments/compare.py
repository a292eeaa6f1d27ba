"""``rapport.evaluate`` and ``rapport.compare``: agents of any kind on the same held-out users, in one table.

>>> print(rapport.compare({"mine": MyAgent, "popularity": "popularity"}, "rapport/KuaiRand-v0"))
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from rich.console import Console

from rapport.datasets.registry.licence import licence_note
from rapport.envs.common.preparation import prepare
from rapport.envs.session.env import SessionEnv
from rapport.experiments.core import Act, EnvConfig, Experiment, Row, ServingPolicy, Task, measure
from rapport.experiments.core.own_code import is_own
from rapport.experiments.core.row import Progress
from rapport.experiments.jobs.local import ProgressDisplay
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.environments import IDS, banner, data_of, session_env, worth_of_a_slate
from rapport.experiments.lerl.learners import Control
from rapport.experiments.lerl.metrics import METRICS, R_CUM
from rapport.experiments.lerl.own_agents import OWN, AgentInMemory, distinct, own_learner, own_name
from rapport.experiments.lerl.pages.run import TERMS
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS, NEED_A_MODEL, RowSettings, lerl_row, tuned_settings
from rapport.experiments.report.blocks import Block
from rapport.experiments.report.html import to_html
from rapport.experiments.report.page import Page, Section, to_markdown
from rapport.experiments.report.results_table import curves_of, forest_of, results_table
from rapport.experiments.report.table import WIDTH, Table
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import Result, write_atomically
from rapport.experiments.results.summary import Summary, footer, summarise, verdict

if TYPE_CHECKING:
    import pandas as pd

PLAN_PERIOD = 20
"""Slates that plans hold in rows that are named, as in ``rapport run``."""
OTHER_NAMES = {"oracle-greedy": "oracle", "oracle-look-ahead": "look-ahead"}
"""What rows of the tables are called, too."""
_SPELT_OUT = ("quit_rule", "budget", "slate_size", "profile")


def evaluate(
    agent: Any,
    env: str | EnvConfig,
    *,
    sessions: int = 1_000,
    seeds: int = 5,
    transitions: int = 51_200,
    folder: Path | str | None = None,
    **arguments: Any,
) -> Comparison:
    """Play one agent on complete sessions of held-out users; arguments as of :func:`compare`.

    Returns:
        A comparison with one row: ``print`` it, or see its :meth:`~Comparison.to_frame`.
    """
    name = agent if isinstance(agent, str) else str(getattr(agent, "__name__", type(agent).__name__))
    name = "agent" if name == "<lambda>" else name
    sizes: dict[str, Any] = {"sessions": sessions, "seeds": seeds, "transitions": transitions, "folder": folder}
    return compare({name: agent}, env, **sizes, **arguments)


def compare(
    agents: Mapping[str, Any],
    env: str | EnvConfig,
    *,
    reference: str | None = None,
    sessions: int = 1_000,
    seeds: int = 5,
    transitions: int = 51_200,
    folder: Path | str | None = None,
    **arguments: Any,
) -> Comparison:
    """Play agents on the same complete sessions of held-out users: the protocol of every table of Rapport.

    Args:
        agents: shown name -> agent. An agent is anything that is called with the observations of B sessions and
            returns their slates, shape (B, K); a class of such, which is made as ``NAME(env, data, seed)`` and trained
            by its ``train(env, transitions, seed)`` where it has one, once for each seed; a model of
            Stable-Baselines3; ``"my.py:Agent"`` or ``"model.zip"``; or the name of a row of LERL's tables that needs
            no language model, e.g. ``"popularity"``, ``"random"``, ``"oracle"``, ``"ppo"``.
        env: an id of session environments, or an :class:`~rapport.experiments.core.EnvConfig`.
        reference: name of the agent that all others are compared with; by default the first.
        sessions: complete sessions for each agent and seed.
        seeds: trainings, and draws of users and chance.
        transitions: that agents learn from.
        folder: keeps the checkpoints of rows that learn, so that they are trained once; by default nothing is kept.
        **arguments: of ``gym.make_vec``, e.g. ``data="twin"`` or ``quit_rule="set_overlap"``.

    Raises:
        OwnCodeError: an agent raises an error or returns what cannot be shown; the message says what.
        ValueError: a number is below 1, there are no agents, or there is no row or reference of a name.
        gymnasium.error.NameNotFound: there is no such id.
        DataError: the data is missing or damaged.
    """
    for name, number in {"sessions": sessions, "seeds": seeds, "transitions": transitions}.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name}={number!r}; a whole number of at least 1 is expected")
    if not agents:
        raise ValueError("agents: there are none; give a name and an agent, e.g. {'popularity': 'popularity'}")
    first = next(iter(agents)) if reference is None else reference
    if first not in agents:
        raise ValueError(f"reference={first!r}: there is no such agent; choose of {', '.join(map(repr, agents))}")
    config = environment(env, arguments)
    rows = rows_of(agents, config, transitions)
    protocol = HeldOutSessions(sessions)
    with TemporaryDirectory() as nowhere:
        results = played(rows, range(seeds), protocol, Path(folder or nowhere), transitions)
    return Comparison(config, rows, protocol, transitions, results, first)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Agents on the same held-out users: ``print`` it for the table.

    Attributes:
        env: where they served.
        rows: shown name -> how the agent came to its policy.
        protocol: how many sessions.
        transitions: that agents could learn from.
        results: shown name -> one :class:`~rapport.experiments.results.store.Result` for each seed, with one number
            for each session by the name of what was measured.
        reference: name of the agent that the others are compared with.
    """

    env: EnvConfig
    rows: Mapping[str, Row]
    protocol: HeldOutSessions
    transitions: int
    results: Mapping[str, Sequence[Result]]
    reference: str

    @cached_property
    def summary(self) -> Summary:
        """Interquartile means over seeds with 95 % bootstrap intervals, and paired differences."""
        data = data_of(self.env)
        arguments = ", ".join(f"{name} {value}" for name, value in self.env.kwargs.items())
        facts = (
            f"{self.env.id}{f', {arguments}' if arguments else ''}",
            f"data: {data.name}, {int(data.held_out.sum()):,} held-out users",
        )
        labels = {name: name for name in self.rows}
        return summarise(self.results, labels, METRICS, self.reference, main=R_CUM, facts=facts)

    def difference(self, name: str) -> Estimate:
        """An agent's summed click rate minus the reference's, paired by seed and user.

        Raises:
            KeyError: there is no such agent.
        """
        if name == self.reference:
            return Estimate(0.0, 0.0, 0.0, len(self.results[name]))
        value = {difference.label: difference.value for difference in self.summary.differences}[name]
        return Estimate(-value.point, -value.high, -value.low, value.n_seeds)

    def table(self) -> Table:
        """The table that is printed."""
        plain = results_table(self.summary)
        if len(self.rows) == 1:
            return plain
        place = 1 + len(METRICS)
        column = ("difference", f"{R_CUM.name}, to {self.reference}")
        cells = {name: R_CUM.shown(self.difference(name), signed=True) for name in self.rows}
        cells[self.reference] = "reference"
        rows = [(*row[:place], cells[row[0]], *row[place:]) for row in plain.rows]
        return Table((*plain.columns[:place], column, *plain.columns[place:]), tuple(rows), bold=plain.bold)

    def page(self) -> Page:
        """The same as a page, with intervals and learning curves as figures."""
        blocks: list[Block] = [self.table(), *footer(self.summary)]
        blocks += [forest_of(self.summary, metric) for metric in METRICS]
        curves = curves_of([r for group in self.results.values() for r in group], R_CUM, "Sessions of training users.")
        sections = [Section("Results on held-out users", blocks, "results")]
        sections += [Section("Learning curves", [curves], "curves")] if curves is not None else []
        terms = [term.replace("{worth}", worth_of_a_slate(self.env)) for term in TERMS]
        sections.append(Section("How to read it", terms, "terms"))
        finding, *further = self._findings()
        trusted = banner(self.env)
        licence = licence_note(data_of(self.env))
        return Page("Agents compared", finding, further, self.env.id, sections, licence=licence, banner=trusted)

    def to_frame(self) -> pd.DataFrame:
        """One line for each agent: every metric with the ends of its interval, and the difference to the reference."""
        import pandas as pd

        lines = {}
        for row in self.summary.rows:
            values = dict(row.estimates)
            if len(self.rows) > 1:
                values["difference"] = self.difference(row.name)
            line: dict[str, float] = {}
            for name, value in values.items():
                line |= {name: value.point, f"{name}_low": value.low, f"{name}_high": value.high}
            lines[row.name] = line | {"transitions": row.steps, "seconds": row.seconds}
        return pd.DataFrame.from_dict(lines, orient="index")

    def save(self, path: Path | str) -> Path:
        """Write it to a file: ``.json``, which others can check, ``.html`` or ``.md``.

        Raises:
            ValueError: the name ends in something else.
            ModuleNotFoundError: HTML is wanted and the ``report`` extra is not installed.
        """
        from rapport.experiments.results_file import document

        path = Path(path)
        writers = {
            ".json": lambda: document(self),
            ".html": lambda: to_html(self.page()),
            ".md": lambda: to_markdown(self.page(), None),
        }
        if path.suffix not in writers:
            raise ValueError(f"{path}: the name of the file must end in one of {', '.join(writers)}")
        text = writers[path.suffix]()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        return path

    def __str__(self) -> str:
        """The table, what was found, and what it rests on, as text."""
        text = io.StringIO()
        console = Console(file=text, width=WIDTH)
        console.print(self.table(), crop=False)
        console.print()
        for line in (*(self._findings() if len(self.rows) > 1 else ()), *footer(self.summary)):
            console.print(f"- {line}", highlight=False, markup=False)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip()

    __repr__ = __str__

    def _findings(self) -> list[str]:
        if len(self.rows) > 1:
            return verdict(self.summary)
        (row,) = self.summary.rows
        return [f"{row.label}: {R_CUM.name} {R_CUM.shown(row.estimates[R_CUM.name])} {R_CUM.unit}."]


def environment(env: str | EnvConfig, arguments: Mapping[str, Any]) -> EnvConfig:
    """The environment that agents are compared in, ready to be made.

    Args:
        env: an id, or a configuration.
        arguments: of ``gym.make_vec``, in place of those that the configuration has.

    Raises:
        ValueError: an argument is the protocol's, or out of range.
        TypeError: an argument is unknown, or the environment is none of sessions.
    """
    for name in ("users", "num_envs", "autoreset_mode"):
        if name in arguments:
            raise ValueError(f"{name}: leave it out; complete sessions of held-out users are played side by side")
    if isinstance(env, EnvConfig):
        moved = {name: arguments[name] for name in ("data", "root") if name in arguments}
        changed = {name: value for name, value in arguments.items() if name not in moved}
        config = replace(env.changed(**changed), local={**env.local, **moved})
    elif isinstance(env, str):
        config = _by_id(env, arguments)
    else:
        raise TypeError(
            f"env: a {type(env).__name__}; give the id of an environment and its arguments, e.g. "
            "'rapport/KuaiRand-v0', data='twin': it is made anew for each agent and seed"
        )
    with ProgressDisplay(Console(stderr=True), 1) as display:  # the first time a simulator may have to be fitted
        name = f"preparing {config.id}"
        prepare(config.id, lambda done, of: display.show(name, done / of), **config.kwargs, **config.local)
    made = gym.make(config.id, **config.kwargs, **config.local).unwrapped
    if not isinstance(made, SessionEnv):
        raise TypeError(f"env={config.id!r}: an environment of sessions is expected, e.g. 'rapport/KuaiRand-v0'")
    return replace(config, data={"dataset": made.core.data.name, "fingerprint": made.core.data.fingerprint})


def _by_id(env: str, arguments: Mapping[str, Any]) -> EnvConfig:
    """An environment with what the runner's tables spell out, so that their rows are the same."""
    given = dict(arguments)
    data, root = given.pop("data", None), given.pop("root", None)
    name = next((name for name, known in IDS.items() if known == env), None)
    if name is not None and given.get("slate_size", 1) is not None:
        spelt = {argument: given.pop(argument) for argument in _SPELT_OUT if argument in given}
        return session_env(name, data, root, **spelt).changed(**given)
    local = {argument: value for argument, value in {"data": data, "root": root}.items() if value is not None}
    return EnvConfig(env, given, local)


def rows_of(agents: Mapping[str, Any], env: EnvConfig, transitions: int) -> dict[str, Row]:
    """The row of each agent, by its shown name.

    Raises:
        OwnCodeError: an agent cannot be made, or returns what cannot be shown.
        ValueError: there is no row of a name, or it needs a language model.
    """
    rows = []
    for shown, agent in agents.items():
        if not isinstance(shown, str):
            raise ValueError(f"agents: the name {shown!r} is no text; give name -> agent")
        if isinstance(agent, str) and not agent.endswith(".zip") and not is_own(agent):
            rows.append(named_row(agent, env, transitions))
            if [row.name for row in rows].count(rows[-1].name) > 1:
                raise ValueError(f"agents: two are the row {rows[-1].name!r}; leave one out")
            continue
        learner = (
            own_learner(agent, transitions) if isinstance(agent, str) else AgentInMemory(agent, shown, transitions)
        )
        learner.try_out(env)
        rows.append(Row(own_name(shown), shown, env, learner, OWN))
    return {shown: replace(row, label=shown) for shown, row in zip(agents, distinct(rows), strict=True)}


def named_row(name: str, env: EnvConfig, transitions: int) -> Row:
    """A row of LERL's tables, with the settings of ``rapport run`` and no language model.

    Raises:
        ValueError: there is no such row, or it does not serve single items.
    """
    known = OTHER_NAMES.get(name, name)
    if known not in DEFINITIONS or known in NEED_A_MODEL:
        rows = ", ".join(row for row in DEFINITIONS if row not in NEED_A_MODEL)
        raise ValueError(f"{name!r} is no row that plays without a language model; give an agent, or one of {rows}")
    settings = RowSettings(PlannerConfig(period=PLAN_PERIOD), transitions, tuned=tuned_settings())
    row = lerl_row(known, env, settings)
    if env.make_vec(1, users="held_out").single_action_space.shape:
        return row
    if not isinstance(row.learner, Control):
        raise ValueError(f"{name!r} serves slates, and an action of {env.id} is one item; controls serve both")
    return replace(row, learner=SingleItems(row.learner))


@dataclass(frozen=True)
class SingleItems:
    """A control that serves slates of one item, where an action is the item itself."""

    control: Control
    """The control."""

    def __call__(self, task: Task, progress: Progress) -> ServingPolicy:
        """Ready at once."""
        act = self.control(task, progress).act
        return ServingPolicy(lambda env: _first_items(act(env)))


def _first_items(act: Act) -> Act:
    return lambda observations: act(observations)[:, 0]


def played(
    rows: Mapping[str, Row], seeds: Iterable[int], protocol: HeldOutSessions, folder: Path, transitions: int
) -> dict[str, list[Result]]:
    """One result of each row and seed, played in this process on one thread, as ``rapport run`` plays them."""
    drawn = tuple(seeds)
    by_shown: dict[str, list[Result]] = {shown: [] for shown in rows}
    console, threads = Console(stderr=True), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ProgressDisplay(console, len(rows) * len(drawn)) as display:
            for shown, row in rows.items():
                trained = () if row.trained_as is None else (named_row(row.trained_as, row.env, transitions),)
                experiment = Experiment((row, *trained), len(drawn), protocol, folder)
                for seed in drawn:
                    name = f"{shown}, seed {seed}"
                    result = measure(experiment, row, seed, partial(display.show, name))
                    by_shown[shown].append(result)
                    if console.is_terminal:
                        display.finish(name)
    finally:
        torch.set_num_threads(threads)
    return by_shown
