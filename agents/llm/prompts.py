"""Prompts as texts with named variables, from files, with a version that changes with their wording.

A prompt should begin with the parts that never change and end with those that always do, because models reuse the
longest common prefix of two prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from os import PathLike, fspath
from pathlib import Path
from string import Template


@dataclass(frozen=True)
class Prompt:
    """A text with variables.

    Attributes:
        name: its name in error messages.
        text: the text, with variables as ``$name`` and dollar signs as ``$$`` (`string.Template`).
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        """Refuse a text with a dollar sign that begins no variable."""
        if not Template(self.text).is_valid():
            raise ValueError(f"the prompt {self.name!r} has a $ without a variable's name: write a dollar sign as $$")

    @classmethod
    def from_file(cls, path: str | PathLike[str] | Traversable) -> Prompt:
        """A prompt in a UTF-8 text file, named after the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the text is not UTF-8, or has a dollar sign that begins no variable.
        """
        file = path if isinstance(path, Traversable) else Path(fspath(path))
        try:
            return cls(Path(file.name).stem, file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"the prompt {file} is not UTF-8 ({error}): save it as UTF-8") from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables in the text."""
        return frozenset(Template(self.text).get_identifiers())

    @property
    def version(self) -> str:
        """First 12 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def check(self, variables: Iterable[str]) -> None:
        """Refuse a text with other variables than these.

        Raises:
            ValueError: one of them is missing in the text, or the text has another one.
        """
        wanted = frozenset(variables)
        if wanted != self.variables:
            raise ValueError(
                f"the prompt {self.name!r} must have the variables {_listed(wanted)}; "
                f"missing: {_listed(wanted - self.variables)}; unknown: {_listed(self.variables - wanted)} "
                "(write a dollar sign as $$)"
            )

    def fill(self, **values: object) -> str:
        """The text with its variables replaced by values.

        Raises:
            ValueError: a variable has no value, or a value no variable.
        """
        self.check(values)
        return Template(self.text).substitute(values)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in sorted(names)) or "none"
