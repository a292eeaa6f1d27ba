"""Curriculum of the embedded planner: the examples of each training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapport.agents.lm.example import Example
from rapport.agents.planning.lm.examples import is_plan
from rapport.agents.planning.lm.synthetic_examples import (
    MAX_SERVICE,
    copying,
    synthetic_plans,
    synthetic_reflections,
)

COPYING_STEPS = 400
"""First steps, in which the model only learns to copy names."""
_GROWTH = 20
"""Steps after which the largest synthetic service has one category more."""
_REFLECT_EVERY = 4
"""Steps between two examples of reflections, whose prompts are long."""


@dataclass(frozen=True)
class Curriculum:
    """The examples of each step, a function of seed and step alone, so that training can resume.

    Attributes:
        simulated: examples from simulated sessions; may be empty.
        seed: random seed.
    """

    simulated: Sequence[Example]
    seed: int

    def __call__(self, step: int) -> list[Example]:
        """The examples of a step, from several services."""
        rng = np.random.default_rng([self.seed, step])
        if step < COPYING_STEPS:
            return [copying(rng, 48, largest=min(10, 4 + step // 50))]
        largest = min(MAX_SERVICE, 8 + (step - COPYING_STEPS) // _GROWTH)
        examples = [copying(rng, 4)] + [synthetic_plans(rng, 8, largest) for _ in range(5)]
        plans, reflections = ([e for e in self.simulated if is_plan(e) == kind] for kind in (True, False))
        if plans:
            examples.append(_subset(plans[int(rng.integers(len(plans)))], 24, rng))
        if step % _REFLECT_EVERY == 0:
            examples.append(synthetic_reflections(rng, 8, largest))
            if reflections:
                examples.append(_subset(reflections[int(rng.integers(len(reflections)))], 6, rng))
        return examples


def _subset(example: Example, n: int, rng: np.random.Generator) -> Example:
    rows = rng.permutation(len(example.suffixes))[:n].tolist()
    suffixes, completions = ([texts[row] for row in rows] for texts in (example.suffixes, example.completions))
    return Example(example.prefix, suffixes, completions)


def example_texts(examples: Sequence[Example], rows: int = 8) -> list[str]:
    """Prefixes, suffixes and completions of the first rows of examples, a corpus for the tokenizer."""
    parts = [(example.prefix, *example.suffixes[:rows], *example.completions[:rows]) for example in examples]
    return [text for texts in parts for text in texts]
