"""A comparison as a file that others can check: what was played, on whom, and what every session gave.

``rapport.check_results(path)`` plays it again and says what differs. The file is JSON. It holds no path and no date;
checking one executes no code but that of agents that are given with it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from rapport.datasets.schema import DataError
from rapport.experiments.compare import environment, played, rows_of
from rapport.experiments.core import Row
from rapport.experiments.lerl.own_agents import AgentInMemory, OwnAgent, SB3Agent
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS
from rapport.experiments.results.store import Result, ResultError

if TYPE_CHECKING:
    from rapport.experiments.compare import Comparison

FORMAT, VERSION = "rapport results", 1
"""Name and version of the file's format."""
PROTOCOL_VERSION = 1
"""Raised when an unchanged agent could get other figures: other users, another order of random draws, other sums."""
LIBRARIES = ("rapport-gym", "numpy", "torch", "gymnasium", "stable-baselines3")
"""Packages whose versions a file holds."""


def document(comparison: Comparison) -> str:
    """A comparison as the text of a file that :func:`check_results` reads."""
    results = comparison.results
    first = next(iter(results.values()))
    data = comparison.env.local.get("data")
    body = {
        "format": FORMAT,
        "version": VERSION,
        "protocol": {
            "name": "complete sessions of held-out users",
            "version": PROTOCOL_VERSION,
            "sessions": comparison.protocol.sessions,
            "seeds": [result.seed for result in first],
            "transitions": comparison.transitions,
        },
        "environment": {
            "id": comparison.env.id,
            "arguments": {name: _plain(value) for name, value in comparison.env.kwargs.items()},
            "data": {**comparison.env.data, "given": data if isinstance(data, str) else None},
        },
        "made_with": made_with(),
        "reference": comparison.reference,
        "users": {str(result.seed): [] if result.ids is None else result.ids.tolist() for result in first},
        "agents": {
            name: {**_described(comparison.rows[name]), "results": [_result(result) for result in group]}
            for name, group in results.items()
        },
    }
    return json.dumps({**body, "sha256": _digest(body)}, allow_nan=False) + "\n"


def made_with() -> dict[str, str]:
    """Versions of Python and of the packages that figures rest on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Check:
    """What playing a results file again has shown; true where everything is equal.

    Attributes:
        compared: what was played again, a line each.
        differences: what differs or could not be played again, a line each.
        notes: what may explain a difference, such as other versions of packages.
    """

    compared: tuple[str, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether everything was played again and every figure is the same to the last digit."""
        return not self.differences

    def __bool__(self) -> bool:
        """As :attr:`equal`."""
        return self.equal

    def __str__(self) -> str:
        """A line for the whole, then what was compared, what differs and what may explain it."""
        n = len(self.differences)
        head = "Equal to the last digit." if self.equal else f"Not equal: {n} difference{'s' if n > 1 else ''}."
        marked = [f"  = {line}" for line in self.compared] + [f"  ! {line}" for line in self.differences]
        return "\n".join([head, *marked, *(f"  {line}" for line in self.notes)])


def check_results(path: Path | str, agents: Mapping[str, Any] | None = None, **arguments: Any) -> Check:
    """Play the comparison in a file again and say what differs.

    Args:
        path: a file that ``Comparison.save("NAME.json")`` wrote.
        agents: name in the file -> agent, as of :func:`~rapport.compare`, of all agents that are no rows of LERL's
            tables: code is executed only where it is given here.
        **arguments: of the environment: those that a file cannot hold, e.g. a response model, and where data is.

    Raises:
        ResultError: the file is missing or damaged, or of another version.
        OwnCodeError: an agent raises an error, or returns what cannot be shown.
        DataError: the data is missing or damaged.
    """
    body = _read(Path(path))
    protocol, told, here = body["protocol"], body["environment"], made_with()
    notes = tuple(
        f"made with {name} {value}, here {here.get(name, 'none')}"
        for name, value in body["made_with"].items()
        if here.get(name) != value
    )
    if protocol["version"] != PROTOCOL_VERSION:
        said = f"protocol: version {protocol['version']}, here {PROTOCOL_VERSION}; figures of the two differ"
        return Check((), (said,), notes)
    try:
        env = environment(told["id"], {**_recorded(told, arguments), **arguments})
    except (ResultError, DataError):
        raise
    except (ValueError, TypeError, AttributeError, OverflowError, gym.error.Error) as error:
        raise ResultError(f"{path}: its environment cannot be made here: {error}") from error
    for what in ("dataset", "fingerprint"):
        if env.data[what] != told["data"][what]:
            said = f"data: the file is of {what} {told['data'][what]}, and here it is {env.data[what]}"
            return Check((), (said,), notes)
    given = dict(agents or {})
    if unknown := [name for name in given if name not in body["agents"]]:
        raise ValueError(f"agents: {unknown[0]!r} is not in {path}; it has {', '.join(map(repr, body['agents']))}")
    missing, used = [], {}
    for name, about in body["agents"].items():
        if name in given or about["kind"] == "row":
            used[name] = given.get(name, about["agent"])
        else:
            missing.append(f"{name}: not played again; give it, agents={{{name!r}: ...}}: {about['agent']}")
    rows = rows_of(used, env, protocol["transitions"])
    with TemporaryDirectory() as folder:
        sessions = HeldOutSessions(protocol["sessions"])
        found = played(rows, protocol["seeds"], sessions, Path(folder), protocol["transitions"])
    compared, differences = [], missing
    for name, group in found.items():
        about = body["agents"][name]
        wrong = [*_other_code(name, about, rows[name]), *_differences(name, about["results"], group, body["users"])]
        differences += wrong
        if not wrong:
            compared.append(f"{name}: {sum(result.episodes for result in group):,} sessions")
    return Check(tuple(compared), tuple(differences), notes)


def _read(path: Path) -> dict[str, Any]:
    """The file's content, checked.

    Raises:
        ResultError: it is missing, damaged or of another version.
    """
    try:
        body = json.loads(path.read_bytes())
        known = body.pop("sha256")
        if (body["format"], body["version"]) != (FORMAT, VERSION):
            raise ResultError(
                f"{path}: {body['format']!r}, version {body['version']!r}; {FORMAT!r}, version {VERSION} is expected"
            )
        if known != _digest(body):
            raise ResultError(f"{path}: damaged or edited: its checksum does not match; save the comparison again")
        _check_parts(body)
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror or error}; give a file that Comparison.save wrote") from error
    except ResultError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ResultError(f"{path}: no file of results ({type(error).__name__}: {error})") from error
    return dict(body)


def _check_parts(body: Mapping[str, Any]) -> None:
    """See that everything that is read later is there and of its kind.

    Raises:
        ValueError: a part has a wrong value; KeyError, TypeError or AttributeError: it is missing or of another kind.
    """
    protocol, told = body["protocol"], body["environment"]
    sessions, seeds = protocol["sessions"], protocol["seeds"]
    for number in (sessions, protocol["transitions"], *seeds):
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} where a whole number is expected")
    if not seeds or seeds != [*range(len(seeds))]:
        raise ValueError(f"seeds {seeds}")
    given = told["data"]["given"]
    texts = [told["id"], told["data"]["dataset"], told["data"]["fingerprint"], "" if given is None else given]
    if any(not isinstance(text, str) for text in (*texts, *body["made_with"].values())):
        raise TypeError(f"environment: {texts}")
    _ = protocol["version"], told["arguments"].keys()
    shown = [np.asarray(body["users"][str(seed)], np.int64) for seed in seeds]
    for name, about in body["agents"].items():
        if about["kind"] == "row" and about["agent"] not in DEFINITIONS:
            raise ValueError(f"agent {name!r}: there is no row {about['agent']!r}")
        if len(about["results"]) != len(seeds):
            raise ValueError(f"agent {name!r}: {len(about['results'])} results for {len(seeds)} seeds")
        shown += [np.asarray(values, np.float64) for r in about["results"] for values in r["arrays"].values()]
    if wrong := [values.shape for values in shown if values.shape != (sessions,)]:
        raise ValueError(f"{wrong[0]} numbers for {sessions} sessions")


def _recorded(told: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's arguments as they stand in the file, less those that are given.

    Raises:
        ResultError: one has to be given, because the file does not hold it or it would name code.
    """
    if ":" in told["id"]:
        raise ResultError(f"environment: the id {told['id']!r} names a module to import; check it by its plain id")
    recorded = {name: value for name, value in told["arguments"].items() if name not in given}
    for name, value in recorded.items():
        if (isinstance(value, dict) and value.keys() == {"object"}) or (isinstance(value, str) and ":" in value):
            raise ResultError(f"environment: give the argument {name}=..., which the file does not hold: {value}")
    if told["data"]["given"] is not None and "data" not in given:
        recorded["data"] = told["data"]["given"]
    return recorded


def _described(row: Row) -> dict[str, str]:
    """What an agent is, in a file."""
    learner = row.learner
    if isinstance(learner, OwnAgent):
        return {"kind": "file", "agent": learner.shown, "digest": learner.code.digest}
    if isinstance(learner, SB3Agent):
        return {"kind": "zip", "agent": f"{learner.algorithm}:{learner.path.name}", "digest": learner.digest}
    if isinstance(learner, AgentInMemory):
        kind = learner.agent if isinstance(learner.agent, type) else type(learner.agent)
        return {"kind": "memory", "agent": f"a Python object, {kind.__qualname__}"}
    return {"kind": "row", "agent": row.name}


def _other_code(name: str, about: Mapping[str, Any], row: Row) -> Iterator[str]:
    here = _described(row)
    if about.get("digest") and here.get("digest") and about["digest"] != here["digest"]:
        yield f"{name}: the file is of {about['agent']} with digest {about['digest']}, here it is {here['digest']}"


def _differences(
    name: str, told: list[dict[str, Any]], found: list[Result], users: Mapping[str, list[int]]
) -> Iterator[str]:
    """What differs in the sessions of an agent, a line for each seed and array."""
    for old, new in zip(told, found, strict=True):
        where = f"{name}, seed {new.seed}"
        if new.ids is not None and new.ids.tolist() != users[str(new.seed)]:
            yield f"{where}: other users were served"
            continue
        unequal = {}
        for array, values in new.arrays.items():
            before = np.asarray(old["arrays"].get(array, ()), np.float64)
            if before.shape != values.shape or (before != values).any():
                unequal[array] = np.inf if before.shape != values.shape else float(np.abs(before - values).max())
        if unequal:
            most = ", ".join(f"{array} by up to {by:.3g}" for array, by in unequal.items())
            yield f"{where}: sessions differ: {most}"


def _result(result: Result) -> dict[str, Any]:
    arrays = {name: values.tolist() for name, values in result.arrays.items()}
    return {"seed": result.seed, "steps": result.steps, "arrays": arrays, "notes": list(result.notes)}


def _plain(value: Any) -> Any:
    """An argument as JSON; of what has no such form its name."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return {"object": str(getattr(value, "__qualname__", type(value).__name__))}


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
