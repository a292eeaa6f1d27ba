"""The prompts of planner and critic, one text file each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from rapport.agents.llm.prompts import Prompt

__all__ = ["NAMES", "Prompt", "checked_prompt", "load_prompt"]

NAMES = ("plan", "reflect")
"""Names of the prompts."""


@cache
def load_prompt(name: str) -> Prompt:
    """A prompt of Rapport: ``"plan"`` or ``"reflect"``.

    Raises:
        ValueError: there is no prompt of that name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no prompt named {name!r}; there are {', '.join(NAMES)}")
    return Prompt.from_file(files(__name__).joinpath(f"{name}.txt"))


def checked_prompt(name: str, prompt: Prompt | None) -> Prompt:
    """A user's prompt in place of one of Rapport's, or Rapport's own if None.

    Raises:
        ValueError: the user's prompt has other variables.
    """
    default = load_prompt(name)
    if prompt is None:
        return default
    prompt.check(default.variables)
    return prompt
