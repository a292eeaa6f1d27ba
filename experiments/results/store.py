"""What a run found, one file per method and seed, written so that a crash cannot corrupt it.

A result is one JSON file, ``METHOD-seedN.json``: plain text, no code in it. It is written beside its place, flushed to
the disk and renamed, so a file under its name is whole; it carries a checksum, so a file damaged later is noticed, set
aside and run again. The configuration's hash is kept with it: results of another configuration are never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

FORMAT = 2
"""Version of the file format."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")


class ResultError(ValueError):
    """A result is not consistent or its file is damaged; the message names it and the remedy."""


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method, trained (where it trains) and evaluated with one seed.

    Attributes:
        method: short name, lower case, used in file names, e.g. ``"lerl"``.
        label: name shown in tables, e.g. ``"LERL"``.
        seed: seed of training and evaluation.
        lengths: shape (S,), int64, slates until the user of each evaluated session left.
        returns: shape (S,), float64, undiscounted sum of rewards of each session; reward = mean click of a slate.
        users: shape (S,), int64, index of the user of each session; None where it is not known. Sessions of two
            methods are compared pair by pair when these agree.
        variety: how varied each session was, name -> shape (S,), as in
            :class:`~rapport.experiments.lerl.evaluation.Played`: ``coverage``, ``intra``, ``between``; empty where it
            was not measured.
        meter: what the planner cost while training and evaluating: ``calls``, ``prompt_tokens``,
            ``completion_tokens``, ``cache_hits``, ``retries``, ``failures``, ``decisions``, ``fallbacks``, ``seconds``
            (:class:`rapport.agents.llm.base.interface.Meter`); what it did while
            evaluating: ``plans``, ``surprises``, ``rests_waived``. Empty without a planner.
        train_transitions: transitions the method learned from; 0 where it does not learn.
        train_seconds: wall time of training.
        eval_seconds: wall time of evaluation.
        notes: what a reader has to know about this row.
        curve: how it learned: transitions so far, and mean T_int and R_cum of the training sessions that ended lately.
    """

    method: str
    label: str
    seed: int
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    users: NDArray[np.int64] | None = None
    variety: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    meter: Mapping[str, float] = field(default_factory=dict)
    train_transitions: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    curve: tuple[tuple[int, float, float], ...] = ()

    def __post_init__(self) -> None:
        what = f"result {self.method!r}, seed {self.seed}"
        if not _NAME.fullmatch(self.method):
            raise ResultError(f"{what}: use lower-case letters, digits and _ . + - in the method's name")
        object.__setattr__(self, "lengths", np.asarray(self.lengths, dtype=np.int64))
        object.__setattr__(self, "returns", np.asarray(self.returns, dtype=np.float64))
        if self.lengths.ndim != 1 or not len(self.lengths) or self.lengths.shape != self.returns.shape:
            raise ResultError(
                f"{what}: lengths {self.lengths.shape} and returns {self.returns.shape} need one number per session"
            )
        if (self.lengths < 1).any() or not np.isfinite(self.returns).all():
            raise ResultError(f"{what}: every session needs a length of at least 1 and a finite return")
        object.__setattr__(self, "variety", {k: np.asarray(v, dtype=np.float64) for k, v in self.variety.items()})
        for name, values in self.variety.items():
            if values.shape != self.lengths.shape or not np.isfinite(values).all():
                raise ResultError(f"{what}: {name} {values.shape} needs one finite number per session")
        if self.users is not None:
            object.__setattr__(self, "users", np.asarray(self.users, dtype=np.int64))
            if self.users.shape != self.lengths.shape:
                raise ResultError(f"{what}: users {self.users.shape} need one index per session")

    @property
    def sessions(self) -> int:
        """Number of evaluated sessions, S."""
        return len(self.lengths)

    @property
    def steps_total(self) -> int:
        """Slates shown in all sessions."""
        return int(self.lengths.sum())

    @property
    def t_int(self) -> float:
        """T_int: mean session length [slates]."""
        return float(self.lengths.mean())

    @property
    def r_cum(self) -> float:
        """R_cum: mean over sessions of the summed reward [mean clicks]."""
        return float(self.returns.mean())

    @property
    def r_sin(self) -> float:
        """R_sin: total reward / total slates [mean click of a slate, 0 to 1]."""
        return float(self.returns.sum() / self.lengths.sum())


class ResultStore:
    """The results of one run folder and one configuration.

    Args:
        folder: e.g. ``runs/NAME/results``; made when it is not there.
        config: hash of the configuration (:func:`config_hash`); a file of another one is not returned. None takes any.
    """

    def __init__(self, folder: Path, config: str | None = None) -> None:
        self.folder = Path(folder)
        self.config = config
        self.problems: list[str] = []
        """What was wrong with files met so far, one line each; meant to be shown."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, method: str, seed: int) -> Path:
        """Where the result of ``method`` and ``seed`` belongs."""
        return self.folder / f"{method}-seed{seed}.json"

    def save(self, result: MethodResult) -> Path:
        """Write a result atomically, replacing an older one of the same method and seed."""
        body = _encode(result)
        document = {"format": FORMAT, "config": self.config, "sha256": _digest(body), "result": body}
        path = self.path(result.method, result.seed)
        write_atomically(path, json.dumps(document, allow_nan=False))
        return path

    def load(self, method: str, seed: int) -> MethodResult | None:
        """The complete result of ``method`` and ``seed``, or None when it has to be run (again)."""
        path = self.path(method, seed)
        if not path.exists():
            return None
        result = self._read(path)
        if result is not None and (result.method, result.seed) != (method, seed):
            self._set_aside(path, f"holds {result.method!r}, seed {result.seed}")
            return None
        return result

    def load_all(self) -> list[MethodResult]:
        """Every complete result, by method and seed."""
        results = []
        for path in sorted(self.folder.glob("*-seed*.json")):
            method, _, seed = path.stem.rpartition("-seed")
            result = self.load(method, int(seed)) if seed.isdecimal() else None
            if result is not None:
                results.append(result)
        return sorted(results, key=lambda r: (r.method, r.seed))

    def _read(self, path: Path) -> MethodResult | None:
        try:
            document = json.loads(path.read_bytes())
            body = document["result"]
            if document["format"] != FORMAT:
                raise ResultError(f"format {document['format']!r} is not {FORMAT}")
            if document["sha256"] != _digest(body):
                raise ResultError("its checksum does not match")
            result = _decode(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._set_aside(path, f"{type(error).__name__}: {error}")
            return None
        if self.config is not None and document.get("config") != self.config:
            self.problems.append(f"{path}: of another configuration; it is run again")
            return None
        return result

    def _set_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(path.name + ".broken")
        os.replace(path, aside)
        self.problems.append(f"{path}: {why}; set aside as {aside.name}, run again")


def config_hash(config: object) -> str:
    """Sixteen hex digits that change with any value of a configuration (a dataclass or a mapping)."""
    plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def wrote(console: Console, path: Path, text: str) -> None:
    """Write ``text`` to ``path``, making its folder, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    console.print(f"[green]Wrote[/] {path}", highlight=False, soft_wrap=True)


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that, whatever happens, the path holds the old content or all of the new one."""
    part = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _encode(result: MethodResult) -> dict[str, Any]:
    return {
        "method": result.method,
        "label": result.label,
        "seed": int(result.seed),
        "lengths": result.lengths.tolist(),
        "returns": result.returns.tolist(),
        "variety": {name: np.round(values, 6).tolist() for name, values in result.variety.items()},
        "users": None if result.users is None else result.users.tolist(),
        "meter": {name: float(value) for name, value in result.meter.items()},
        "train_transitions": int(result.train_transitions),
        "train_seconds": float(result.train_seconds),
        "eval_seconds": float(result.eval_seconds),
        "notes": list(result.notes),
        "curve": [[int(at), round(float(t), 4), round(float(r), 4)] for at, t, r in result.curve],
    }


def _decode(body: Mapping[str, Any]) -> MethodResult:
    users = body["users"]
    return MethodResult(
        method=body["method"],
        label=body["label"],
        seed=body["seed"],
        lengths=np.array(body["lengths"], dtype=np.int64),
        returns=np.array(body["returns"], dtype=np.float64),
        variety={name: np.array(values, dtype=np.float64) for name, values in body["variety"].items()},
        users=None if users is None else np.array(users, dtype=np.int64),
        meter=body["meter"],
        train_transitions=body["train_transitions"],
        train_seconds=body["train_seconds"],
        eval_seconds=body["eval_seconds"],
        notes=tuple(body["notes"]),
        curve=tuple((int(at), float(t), float(r)) for at, t, r in body["curve"]),
    )
