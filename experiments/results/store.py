"""What experiments found, one file per row, seed and configuration, written so that a crash cannot corrupt it.

A result is one JSON file, ``ROW-seedN-KEY.json``: plain text, no code in it. It is written beside its place, flushed to
the disk and renamed, so a file under its name is whole; it carries a checksum, so a file damaged later is noticed, set
aside and run again. The key changes with all that the result depends on
(:meth:`rapport.experiments.core.Experiment.key`): results of other configurations stand beside it, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from rapport.datasets.files.atomic import write_atomically as write_atomically

FORMAT = 3
"""Version of the file format."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")
_OLD_FILE = re.compile(r".+-seed\d+\.json")
"""Name of a result of an earlier format, which had no key."""


class ResultError(ValueError):
    """A result is not consistent or its file is damaged; the message names it and the remedy."""


@dataclass(frozen=True, eq=False)
class Result:
    """One row with one seed, trained (where it trains) and measured.

    Attributes:
        row: short name, lower case, used in file names, e.g. ``"lerl"``.
        label: name shown in tables, e.g. ``"LERL"``.
        seed: seed of training and measurement.
        arrays: one number per episode, by name, each of shape (E,); ``length`` [steps], at least 1, and ``return``
            always, and whatever else the experiment's protocol measures.
        units: unit of each array.
        ids: shape (E,), int64, whose episode it was, e.g. the user's index; None where it is nobody's. Episodes of two
            rows are compared pair by pair where these agree.
        meter: what was spent while training and measuring, by name; empty where nothing is counted.
        steps: transitions that the row learned from; 0 where it does not learn.
        train_seconds: wall time of training.
        eval_seconds: wall time of the measurement.
        notes: what a reader has to know about this row.
        curve: how it learned: steps so far, and mean length and mean return of the training episodes that ended lately.
    """

    row: str
    label: str
    seed: int
    arrays: Mapping[str, NDArray[Any]]
    units: Mapping[str, str] = field(default_factory=dict)
    ids: NDArray[np.int64] | None = None
    meter: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    curve: tuple[tuple[int, float, float], ...] = ()

    def __post_init__(self) -> None:
        what = f"result {self.row!r}, seed {self.seed}"
        if not _NAME.fullmatch(self.row):
            raise ResultError(f"{what}: use lower-case letters, digits and _ . + - in the row's name")
        arrays = {name: np.asarray(values) for name, values in self.arrays.items()}
        if missing := [name for name in ("length", "return") if name not in arrays]:
            raise ResultError(f"{what}: the array {missing[0]!r} is missing; every episode has a length and a return")
        shape = arrays["length"].shape
        for name, values in arrays.items():
            if values.ndim != 1 or not len(values) or values.shape != shape or not np.isfinite(values).all():
                raise ResultError(
                    f"{what}: {name} {values.shape} needs one finite number per episode, as length {shape}"
                )
        if (arrays["length"] < 1).any():
            raise ResultError(f"{what}: every episode needs a length of at least 1")
        object.__setattr__(self, "arrays", arrays)
        if self.ids is not None:
            object.__setattr__(self, "ids", np.asarray(self.ids, dtype=np.int64))
            if self.ids.shape != shape:
                raise ResultError(f"{what}: ids {self.ids.shape} need one number per episode")

    @property
    def episodes(self) -> int:
        """Number of measured episodes, E."""
        return len(self.arrays["length"])

    @property
    def served(self) -> int:
        """Steps of all measured episodes."""
        return int(self.arrays["length"].sum())


class ResultStore:
    """The results in one folder.

    Args:
        folder: e.g. ``runs/NAME/results``; made when something is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.problems: list[str] = []
        """What was wrong with files met so far, one line each; meant to be shown."""

    def path(self, row: str, seed: int, key: str) -> Path:
        """Where the result of a row, seed and configuration belongs."""
        return self.folder / f"{row}-seed{seed}-{key}.json"

    def save(self, result: Result, key: str) -> Path:
        """Write a result atomically, replacing an older one of the same row, seed and configuration."""
        body = _encode(result)
        document = {"format": FORMAT, "key": key, "sha256": _digest(body), "result": body}
        path = self.path(result.row, result.seed, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, allow_nan=False))
        return path

    def load(self, row: str, seed: int, key: str) -> Result | None:
        """The complete result of a row, seed and configuration, or None when it has to be run (again)."""
        path = self.path(row, seed, key)
        if not path.exists():
            return None
        try:
            document = json.loads(path.read_bytes())
            body = document["result"]
            if document["format"] != FORMAT:
                raise ResultError(f"format {document['format']!r} is not {FORMAT}")
            if document["sha256"] != _digest(body):
                raise ResultError("its checksum does not match")
            if (document["key"], body["row"], body["seed"]) != (key, row, seed):
                raise ResultError(f"it holds row {body['row']!r}, seed {body['seed']}, key {document['key']!r}")
            return _decode(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            aside = path.with_name(path.name + ".broken")
            os.replace(path, aside)
            why = f"{type(error).__name__}: {error}"
            self.problems.append(f"{path}: {why}; set aside as {aside.name}, run again")
            return None

    def load_all(self) -> list[Result]:
        """Every complete result of any configuration, by row and seed."""
        found = []
        for path in sorted(self.folder.glob("*-seed*-*.json")):
            stem, _, key = path.stem.rpartition("-")
            row, _, seed = stem.rpartition("-seed")
            result = self.load(row, int(seed), key) if seed.isdecimal() else None
            if result is not None:
                found.append(result)
        return sorted(found, key=lambda r: (r.row, r.seed))

    def of_earlier_formats(self) -> list[Path]:
        """Results that an earlier version of Rapport wrote: they are left alone, and their rows are run anew."""
        return sorted(path for path in self.folder.glob("*.json") if _OLD_FILE.fullmatch(path.name))


def config_hash(config: object) -> str:
    """Sixteen hex digits that change with any value of a configuration (a dataclass or a mapping)."""
    plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def wrote(console: Console, path: Path, text: str) -> None:
    """Write ``text`` to ``path``, making its folder, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    console.print(Text.assemble(("Wrote", "green"), f" {path}"), soft_wrap=True)


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _encode(result: Result) -> dict[str, Any]:
    def numbers(values: NDArray[Any]) -> list[Any]:
        return [int(value) for value in values] if values.dtype.kind in "iub" else values.astype(np.float64).tolist()

    return {
        "row": result.row,
        "label": result.label,
        "seed": int(result.seed),
        "arrays": {name: numbers(values) for name, values in result.arrays.items()},
        "units": dict(result.units),
        "ids": None if result.ids is None else result.ids.tolist(),
        "meter": {name: float(value) for name, value in result.meter.items()},
        "steps": int(result.steps),
        "train_seconds": float(result.train_seconds),
        "eval_seconds": float(result.eval_seconds),
        "notes": list(result.notes),
        "curve": [[int(at), float(length), float(total)] for at, length, total in result.curve],
    }


def _decode(body: Mapping[str, Any]) -> Result:
    ids, curve = body["ids"], body["curve"]
    return Result(
        **{
            **body,
            "arrays": {name: np.array(values) for name, values in body["arrays"].items()},
            "ids": None if ids is None else np.array(ids, dtype=np.int64),
            "notes": tuple(body["notes"]),
            "curve": tuple((int(at), float(length), float(total)) for at, length, total in curve),
        }
    )
