"""Training examples of a language model: prompts with a common prefix, each with its completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """N prompts with a common prefix, which the model reads once, and the completion of each.

    Attributes:
        prefix: the text that all prompts begin with, up to the end of a line.
        suffixes: N texts, the rest of each prompt.
        completions: N texts, what the model should answer.
    """

    prefix: str
    suffixes: list[str]
    completions: list[str]

    @classmethod
    def from_prompts(cls, prompts: Sequence[str], completions: Sequence[str]) -> Example:
        """An example made of N whole prompts and their completions."""
        prefix, suffixes = split_prompts(prompts)
        return cls(prefix, suffixes, list(completions))

    def prompts(self) -> list[str]:
        """The N whole prompts."""
        return [self.prefix + suffix for suffix in self.suffixes]


def split_prompts(prompts: Sequence[str]) -> tuple[str, list[str]]:
    """The common prefix of N prompts, up to the end of a line, and the suffix of each, at least one character."""
    first, last = min(prompts), max(prompts)  # in sorted order these two have least in common
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first) - 1)
    prefix = first[: first.rfind("\n", 0, common) + 1]
    return prefix, [prompt[len(prefix) :] for prompt in prompts]
