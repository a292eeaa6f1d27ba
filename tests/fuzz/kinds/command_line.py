"""Command lines with strange options."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from numpy.random import Generator

from tests.fuzz.inputs import command
from tests.fuzz.mutations import pick, text
from tests.fuzz.outcome import Attempt, Fault, Outcome

LEFT_OUT = (
    *("lm train", "lm card", "lm improve", "simulator compare"),
    *("bench training", "bench planner", "bench streaming"),
)
"""Commands whose work has no end within seconds whatever their options are."""
SIZES = ("workers", "sessions", "seeds", "transitions", "last", "best", "plan_period")
"""Options that count something of which at least one is needed."""
LIMITS = ("llm_calls", "llm_tokens", "llm_seconds")
"""Options of which there may be none, but not fewer."""
NUMBERS = ("0", "-1", "-3", "2.5", "1e3", "nan", "inf", "99999999999999999999", "1" + "0" * 30, "0x10", "1_000")
PATHS = ("a-file", "a-file/under", "n" * 300, "x[/y]", "[red]z", "/dev/full", "/proc/x/y", "", " ")
PATIENCE = 4.0
"""Seconds after which a command is taken to work; every complaint about its options must come before."""


class Begun(BaseException):
    """The command has begun to work, so that it has accepted its options."""


class CommandLine:
    """A command with strange values for some of its options."""

    name = "command-line"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Write a small log, fit its simulator, and import all commands."""
        from rapport.experiments.cli import COMMANDS
        from rapport.experiments.lerl.environments import session_env, sessions_of
        from tests.datasets.kuairand_files import write_kuairand

        self._entries = [entry for entry in COMMANDS if entry.name not in LEFT_OUT]
        self._base = tempfile.TemporaryDirectory(prefix="rapport-fuzz-")
        self._data = Path(self._base.name, "data")
        os.environ["RAPPORT_CACHE_DIR"] = f"{self._base.name}/cache"
        write_kuairand(self._data)
        sessions_of(session_env("kuairand", "kuairand-pure", self._data), 1, "all")
        for entry in self._entries:
            entry.load()

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """Words, of which one to three are strange."""
        os.environ["RAPPORT_DATA_DIR"] = str(folder / "data")
        (folder / "a-file").write_text("not a folder", encoding="utf-8")
        entry = pick(rng, self._entries)
        kind = entry.load()
        options = {field.name: field for field in dataclasses.fields(kind)}
        hints = get_type_hints(kind, include_extras=False)
        given = {name: self._usual(name) for name in options if self._usual(name)}
        bad = False
        for name in rng.choice(sorted(options), int(rng.integers(1, 4))) if options else ():
            given[name], unusable = self._strange(rng, str(name), hints[name])
            bad = bad or unusable
        positional = [name for name in options if "Positional" in str(kind.__dataclass_fields__[name].type)]
        words = entry.name.split()
        words += [given.get(name, self._needed(name)) for name in positional if name in given or self._needed(name)]
        for name in (name for name in given if name not in positional):
            words += [f"--{name.replace('_', '-')}", given[name]]
        words = self._shuffled(rng, words)
        full = rng.random() < 0.05
        done = " ".join(word if len(word) < 40 else f"{word[:20]}...({len(word)})" for word in words)
        return Attempt(f"{done}{' >/dev/full' if full else ''}", lambda: self._run(words, bad, full))

    def _usual(self, name: str) -> str:
        """A small value, where the default is large, reaches the network, or is a file of the package."""
        return {
            "data_dir": str(self._data),
            "data": "kuairand-pure",
            "llm": "none",
            "out": "out",
            "output": "out.json",
            "base_url": "http://127.0.0.1:9",
            "workers": "1",
            "seeds": "1",
            "sessions": "3",
            "transitions": "8",
        }.get(name, "")

    def _needed(self, name: str) -> str:
        return {"action": "show", "file": "a-file", "checkpoint": "a-file", "format": "minari"}.get(name, "")

    def _strange(self, rng: Generator, name: str, hint: Any) -> tuple[str, bool]:
        """A value, and whether nothing can be done with it."""
        kinds = {hint, *get_args(hint)}
        if kinds & {int, float} and rng.random() < 0.9:
            number = pick(rng, NUMBERS)
            refused = number in ("nan", "-1", "-3") or len(number) > 15
            unusable = (name in (*SIZES, *LIMITS) and refused) or (name in SIZES and number == "0")
            return number, unusable
        if Path in kinds and rng.random() < 0.7:
            return str(pick(rng, PATHS)), False
        choices = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        return (str(pick(rng, choices)) if choices and rng.random() < 0.3 else text(rng)), False

    def _shuffled(self, rng: Generator, words: list[str]) -> list[str]:
        """Seldom: a word missing, twice, misspelt or in another place."""
        way, at = pick(rng, ("", "", "", "", "missing", "twice", "misspelt", "moved")), int(rng.integers(len(words)))
        word = words[at]
        if way == "missing":
            return words[:at] + words[at + 1 :]
        if way == "twice":
            return [*words[:at], word, *words[at:]]
        if way == "misspelt":
            return [*words[:at], word[:-1], *words[at + 1 :]]
        return [word, *words[:at], *words[at + 1 :]] if way == "moved" else words

    def _run(self, words: list[str], bad: bool, full: bool) -> None:
        for module in [module for name, module in sys.modules.items() if name.startswith("rapport.experiments")]:
            if hasattr(module, "run_jobs"):
                vars(module)["run_jobs"] = _begin
        signal.signal(signal.SIGALRM, _begin)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        if full:
            sys.stdout = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - the process's own
        try:
            command(*words)
        except Begun:
            if bad:
                raise Fault(Outcome.SILENT, "accepted: an option that cannot be used", words[0]) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _begin(*_: Any, **__: Any) -> None:
    raise Begun
