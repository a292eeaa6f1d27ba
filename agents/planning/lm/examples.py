"""Form of the training examples of the embedded planner: the prompts of planner and critic with target completions.

Half of the examples come from synthetic services (:mod:`rapport.agents.planning.lm.synthetic_examples`), the others
from simulated sessions of a log's training users (:mod:`rapport.agents.planning.lm.simulated_examples`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from rapport.agents.llm.scripted import ScriptedLLM
from rapport.agents.lm.example import Example
from rapport.agents.planning.controls import NoPlanner
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.planner import SessionViews
from rapport.agents.planning.preference import FloatArray, IntArray, category_counts
from rapport.agents.planning.reflection import ReflectionPool

MIN_CATEGORIES, MAX_CATEGORIES = 4, 8
"""Fewest and most categories of a target plan."""
PRIOR_STRENGTH = 30.0
"""Impressions that the click rate over all users is worth against a user's own clicks."""


def plan_completion(categories: Sequence[int], names: Sequence[str], rates: FloatArray) -> str:
    """A plan in the form of the planner's schema, in the order of the prompt's list, which is easiest to copy."""
    listed = sorted(categories, key=lambda c: (-rates[c], c))
    return json.dumps({"categories": [names[c] for c in listed]}, ensure_ascii=False)


def reflection_completion(text: str) -> str:
    """A reflection in the form of the critic's schema."""
    return json.dumps({"reflection": text}, ensure_ascii=False)


def is_plan(example: Example) -> bool:
    """Whether the completions are plans; otherwise they are reflections."""
    return example.completions[0].startswith('{"categories"')


def prompt_planner(names: Sequence[str], rates: FloatArray) -> LLMPlanner:
    """A planner without a model, for its prompts and its parser."""
    return LLMPlanner(ScriptedLLM([]), names, rates, NoPlanner(np.ones(len(names), np.int64)))


def prompt_critic(names: Sequence[str]) -> LLMCritic:
    """A critic without a model, for its prompts."""
    return LLMCritic(ScriptedLLM([]), ReflectionPool(), names)


def visible_counts(views: SessionViews, n_categories: int, slates: int = 5, most: int = 8) -> tuple[IntArray, IntArray]:
    """Impressions and clicks that a planner's prompt shows, two arrays of shape (B, C).

    Args:
        views: B sessions.
        n_categories: C.
        slates: newest slates of the session that the prompt shows.
        most: categories of the time before the session that the prompt shows.
    """
    horizon = views.categories.shape[1]
    own = np.minimum(views.step * views.slate_size, horizon)[:, None]
    age = horizon - np.arange(horizon)[None, :]
    before = np.where(age > own, views.categories, -1)
    seen, clicked = category_counts(before, views.clicks, n_categories)
    unnamed = np.argsort(np.lexsort((-clicked, -seen), axis=1), axis=1) >= most
    seen[unnamed], clicked[unnamed] = 0, 0
    newest = np.where(age <= np.minimum(own, slates * views.slate_size), views.categories, -1)
    more = category_counts(newest, views.clicks, n_categories)
    return seen + more[0], clicked + more[1]
