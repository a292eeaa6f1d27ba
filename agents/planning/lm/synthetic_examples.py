"""Examples from synthetic services: random category names, tastes and click rates, from random numbers alone.

They teach the model to read a prompt instead of memorising one catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from rapport.agents.lm.example import Example
from rapport.agents.planning.lm.examples import (
    MAX_CATEGORIES,
    MIN_CATEGORIES,
    PRIOR_STRENGTH,
    plan_completion,
    prompt_critic,
    prompt_planner,
    reflection_completion,
    visible_counts,
)
from rapport.agents.planning.lm.rule_reflection import rule_reflection, standout_categories
from rapport.agents.planning.planner import FinishedSession, SessionViews
from rapport.agents.planning.preference import FloatArray, IntArray
from rapport.agents.planning.wording import describe_categories

REFLECTION_STRENGTH = 10.0
"""Impressions that a reflection is worth."""
MAX_SERVICE = 45
"""Most categories of a synthetic service."""
SLATE, HISTORY = 6, 50
"""Items in a slate and items of a user's visible history, in synthetic services."""


class SyntheticService:
    """A content feed with random category names, users with tastes, and click rates over all users.

    Args:
        rng: source of all randomness.
        largest: most categories.
    """

    def __init__(self, rng: np.random.Generator, largest: int = MAX_SERVICE) -> None:
        self.rng = rng
        n = int(np.exp(rng.uniform(np.log(4), np.log(largest + 1))))
        self.names = synthetic_names(rng, n)
        centre, spread = rng.uniform(0.15, 0.6), rng.uniform(0.2, 0.8)
        logit = np.log(centre / (1 - centre)) + rng.normal(0, spread, n)
        self.rates: FloatArray = 1 / (1 + np.exp(-logit))
        # The listed rates may be out of date, so that reflections add information.
        self.true_logit = logit + rng.normal(0, rng.choice([0.0, 0.0, 0.6, 1.2]), n)
        self.taste = rng.uniform(0.2, 1.0)

    def users(self, n: int) -> FloatArray:
        """Click rates of n random users in each category, shape (n, C)."""
        logit = self.true_logit + self.rng.normal(0, self.taste, (n, len(self.names)))
        rates: FloatArray = 1 / (1 + np.exp(-logit))
        return rates

    def views(self, users: FloatArray) -> SessionViews:
        """What a planner sees of users with click rates (B, C), each at a random step of a session."""
        rng, n = self.rng, len(users)
        step = np.where(rng.random(n) < 0.5, 0, rng.integers(0, 20, n))
        before = self._impressions(users, HISTORY, rng.uniform(0.2, 1.5))
        # New users have a short history.
        before[np.arange(HISTORY) < HISTORY - rng.integers(0, HISTORY + 1, n)[:, None] * 2] = -1
        session = np.repeat(self._impressions(users, -(-2 * HISTORY // SLATE), 0.3), SLATE // 2, axis=1)[:, -HISTORY:]
        own = np.arange(HISTORY) >= HISTORY - (step * SLATE)[:, None]
        # Impressions of the session shift older ones to the left.
        moved = np.take_along_axis(
            before, np.minimum(np.arange(HISTORY) + (step * SLATE)[:, None], HISTORY - 1), axis=1
        )
        categories = np.where(own, session, moved)
        clicks = self.clicks(users, categories)
        return SessionViews(np.arange(n), step, categories, clicks, SLATE)

    def clicks(self, users: FloatArray, categories: IntArray) -> NDArray[np.int8]:
        """Random clicks on items of the categories (B, M): 1, 0, or -1 where nothing was shown; shape (B, M)."""
        chance = np.take_along_axis(users, np.maximum(categories, 0), axis=1)
        return np.where(categories < 0, -1, self.rng.random(categories.shape) < chance).astype(np.int8)

    def session(self, user: FloatArray) -> FinishedSession:
        """A whole session of one user with click rates (C,)."""
        length = int(self.rng.integers(11, 21))
        shown = np.repeat(self._impressions(user[None], 3 * length, 0.5), SLATE // 3, axis=1)
        return FinishedSession(0, shown.reshape(length, SLATE), self.clicks(user[None], shown).reshape(length, SLATE))

    def estimated_rates(self, views: SessionViews, reflected: Sequence[FinishedSession]) -> FloatArray:
        """Click rates (B, C) estimated from prompts: the listed rates, the user's own clicks, and the reflections.

        Args:
            views: B sessions.
            reflected: the sessions that the prompts' reflections are about.
        """
        n_categories = len(self.names)
        told = np.zeros((2, n_categories))
        for session in reflected:
            standout = standout_categories(session, n_categories)
            told[:, list(standout.liked)] += REFLECTION_STRENGTH
            told[0, list(standout.passed_over)] += REFLECTION_STRENGTH
        seen, clicked = visible_counts(views, n_categories)
        rates: FloatArray = (clicked + told[1] + PRIOR_STRENGTH * self.rates) / (seen + told[0] + PRIOR_STRENGTH)
        return rates

    def _impressions(self, users: FloatArray, n: int, sharpness: float) -> IntArray:
        """Categories that a platform with some knowledge of tastes shows, shape (B, n)."""
        guess = np.log(users / (1 - users)) * sharpness * 3 + self.rng.gumbel(size=(1, users.shape[1]))
        keys = guess[:, None, :] + self.rng.gumbel(size=(len(users), n, users.shape[1]))
        shown: IntArray = keys.argmax(axis=2)
        return shown


def synthetic_plans(rng: np.random.Generator, n: int, largest: int = MAX_SERVICE) -> Example:
    """Plans for n users of one synthetic service: the categories of the best estimated click rates."""
    service = SyntheticService(rng, largest)
    names = service.names
    sessions = [service.session(user) for user in service.users(int(rng.choice([0, 1, 2, 3])))]
    reflections = [rule_reflection(session, names) for session in sessions]
    views = service.views(service.users(n))
    prompts = prompt_planner(names, service.rates).prompts_with(views, reflections)
    plans = [top_categories(row) for row in service.estimated_rates(views, sessions)]
    return Example.from_prompts(prompts, [plan_completion(plan, names, service.rates) for plan in plans])


def synthetic_reflections(rng: np.random.Generator, n: int, largest: int = MAX_SERVICE) -> Example:
    """Reflections on n sessions of one synthetic service."""
    service = SyntheticService(rng, largest)
    sessions = [service.session(user) for user in service.users(n)]
    critic = prompt_critic(service.names)
    completions = [reflection_completion(rule_reflection(session, service.names)) for session in sessions]
    return Example.from_prompts([critic.prompt(session) for session in sessions], completions)


def copying(rng: np.random.Generator, n: int, largest: int = 10) -> Example:
    """Short lists of names to copy in their order.

    A model that starts with whole prompts memorises the subjects that names are made of, and copies none.
    """
    prompts, completions = [], []
    for _ in range(n):
        names = synthetic_names(rng, int(rng.integers(3, largest + 1)), nonsense=0.7)
        rates = np.sort(rng.uniform(0, 0.8, len(names)))[::-1]
        prompts.append(f"The categories:\n{describe_categories(names, rates)}\n\nYour choice:\n")
        completions.append(plan_completion(range(min(MAX_CATEGORIES, len(names))), names, rates))
    return Example.from_prompts(prompts, completions)


def top_categories(rates: FloatArray) -> list[int]:
    """The categories within a quarter of the best of the rates (C,), between `MIN_CATEGORIES` and `MAX_CATEGORIES`."""
    order = np.argsort(-rates, kind="stable")
    near = int((rates >= 0.75 * rates[order[0]]).sum())
    fewest, most = min(MIN_CATEGORIES, len(rates)), min(MAX_CATEGORIES, len(rates))
    return [int(c) for c in order[: int(np.clip(near, fewest, most))]]


def topics() -> list[str]:
    """Everyday subjects that synthetic categories are named after."""
    return files(__package__).joinpath("topics.txt").read_text("utf-8").split("\n")[:-1]


def synthetic_names(rng: np.random.Generator, n: int, nonsense: float = 0.25) -> list[str]:
    """Names of n categories, all different: subjects, pairs of subjects and a share of nonsense words."""
    words, names = topics(), dict[str, str]()
    while len(names) < n:
        first, second = (str(word) for word in rng.choice(words, 2, replace=False))
        kind = rng.random()
        if rng.random() < nonsense:
            name = _nonsense(rng)
        elif kind < 0.75:
            name = first
        elif kind < 0.93:
            name = f"{first} and {second}"
        else:
            name = f"{first} (tag {rng.integers(1, 100)})"
        names.setdefault(name.casefold(), name[0].upper() + name[1:] if rng.random() < 0.8 else name)
    return list(names.values())


def _nonsense(rng: np.random.Generator) -> str:
    onsets = [*"bcdfghjklmnprstvwz", "br", "ch", "st", "tr", "sh"]
    vowels = [*"aeiou", "ai", "oo"]
    endings = ["", "n", "r", "s", "l", "t", "ck", "m"]
    syllables = int(rng.integers(2, 4))
    return "".join(str(rng.choice(onsets)) + str(rng.choice(vowels)) for _ in range(syllables)) + str(
        rng.choice(endings)
    )
