"""The prompts as text files, with their variables named and a version that changes with their wording.

A prompt begins with what never changes and ends with what always does, so that models which keep what they have read
need only read the end.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

VARIABLES = {
    "plan": frozenset({"categories", "least", "most", "reflections", "taste", "session"}),
    "reflect": frozenset({"words", "slates", "items", "clicks", "session"}),
}
"""What each prompt must name, as ``$name``."""


@dataclass(frozen=True)
class Prompt:
    """A text with named gaps.

    Attributes:
        name: what it is for.
        text: the text, its variables written ``$name`` as in `string.Template`.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        """Refuse a text whose variables are not the ones that will be given."""
        found, wanted = set(string.Template(self.text).get_identifiers()), VARIABLES[self.name]
        if not string.Template(self.text).is_valid() or found != wanted:
            raise ValueError(
                f"the prompt {self.name!r} must name the variables {', '.join(sorted(wanted))} as $variable; "
                f"it names {', '.join(sorted(found)) or 'none'} (write a dollar sign as $$)"
            )

    @property
    def version(self) -> str:
        """First 12 digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def fill(self, **values: object) -> str:
        """The text with its variables replaced."""
        return string.Template(self.text).substitute(values)


@cache
def load_prompt(name: str) -> Prompt:
    """A prompt that comes with Rapport: ``"plan"`` or ``"reflect"``."""
    if name not in VARIABLES:
        raise ValueError(f"there is no prompt named {name!r}; there are {', '.join(VARIABLES)}")
    return Prompt(name, files(__name__).joinpath(f"{name}.txt").read_text("utf-8"))
