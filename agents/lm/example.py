"""A training example: prompts that begin alike, and the completion of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """Prompts that begin alike, and what to answer.

    Attributes:
        start: what all prompts begin with, up to the end of a line.
        rests: how each goes on.
        answers: what to answer each.
    """

    start: str
    rests: list[str]
    answers: list[str]

    @property
    def is_plan(self) -> bool:
        """Whether plans are asked for, or reflections."""
        return self.answers[0].startswith('{"categories"')


def lesson_of(prompts: Sequence[str], answers: Sequence[str]) -> Lesson:
    """A lesson from whole prompts."""
    start, rests = split_prompts(prompts)
    return Lesson(start, rests, list(answers))


def split_prompts(prompts: Sequence[str]) -> tuple[str, list[str]]:
    """What all prompts begin with, up to the end of a line, and how each goes on, by at least one character."""
    first, last = min(prompts), max(prompts)  # in sorted order these two have least in common
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first) - 1)
    start = first[: first.rfind("\n", 0, common) + 1]
    return start, [prompt[len(start) :] for prompt in prompts]
