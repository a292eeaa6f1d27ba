"""What the embedded planner model is taught from: prompts as the planner and the critic write them, and good answers.

Half of the lessons are of invented services, whose categories have invented names: they teach to read a prompt, not a
catalogue. They are made up from nothing but random numbers. The other lessons
(:mod:`rapport.agents.planning.lm.simulated_examples`) are of simulated sessions of a log's training users.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.scripted import ScriptedLLM
from rapport.agents.lm.example import Lesson, lesson_of
from rapport.agents.planning.controls import NoPlanner
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.lm.rule_reflection import composed_reflection, verdict
from rapport.agents.planning.planner import FinishedSession, SessionViews
from rapport.agents.planning.preference import FloatArray, IntArray
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wording import describe_categories

FEWEST, MOST = 4, 8
"""Categories in a taught plan."""
PRIOR = 30.0
"""Items shown that a category's click rate over all users is worth against a user's own clicks."""
HEARD = 10.0
"""Items shown that a reflection is worth."""
LARGEST = 45
"""Most categories of an invented service."""
SPELLING = 400
"""Steps in which nothing but copying names is taught."""
_GROWTH = 20
"""Steps in which the largest invented service grows by a category."""
_REFLECT_EVERY = 4
"""Steps from one lesson on reflections, whose prompts are long, to the next."""
SLATE, HISTORY = 6, 50
"""Of invented services: items in a slate, items of the past that are seen."""


def plan_answer(categories: Sequence[int], names: Sequence[str], rates: FloatArray) -> str:
    """A plan as the planner's schema wants it, in the order of the prompt's list, which a small model can go down."""
    listed = sorted(categories, key=lambda c: (-rates[c], c))
    return json.dumps({"categories": [names[c] for c in listed]}, ensure_ascii=False)


def reflection_answer(text: str) -> str:
    """A reflection as the critic's schema wants it."""
    return json.dumps({"reflection": text}, ensure_ascii=False)


def prompting_planner(names: Sequence[str], rates: FloatArray) -> LLMPlanner:
    """A planner that is only asked for its prompts."""
    return LLMPlanner(ScriptedLLM([]), names, rates, NoPlanner(np.ones(len(names), np.int64)))


def prompting_critic(names: Sequence[str]) -> LLMCritic:
    """A critic that is only asked for its prompts."""
    return LLMCritic(ScriptedLLM([]), ReflectionPool(), names)


def visible_counts(views: SessionViews, n_categories: int, slates: int = 5, most: int = 8) -> tuple[IntArray, IntArray]:
    """Items shown and clicked of each category, shape (B, C), as far as a prompt tells: `LLMPlanner`'s window."""
    from rapport.agents.planning.preference import category_counts

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


class InventedService:
    """A feed that does not exist: named categories, people with tastes, and what all of them clicked.

    Args:
        rng: source of everything.
        largest: most categories.
    """

    def __init__(self, rng: np.random.Generator, largest: int = LARGEST) -> None:
        self.rng = rng
        n = int(np.exp(rng.uniform(np.log(4), np.log(largest + 1))))
        self.names = invented_names(rng, n)
        centre, spread = rng.uniform(0.15, 0.6), rng.uniform(0.2, 0.8)
        logit = np.log(centre / (1 - centre)) + rng.normal(0, spread, n)
        self.rates: FloatArray = 1 / (1 + np.exp(-logit))
        # What is listed may be out of date: then reflections tell something new.
        self.true_logit = logit + rng.normal(0, rng.choice([0.0, 0.0, 0.6, 1.2]), n)
        self.taste = rng.uniform(0.2, 1.0)

    def people(self, n: int) -> FloatArray:
        """Click rates of n people in each category, shape (n, C)."""
        logit = self.true_logit + self.rng.normal(0, self.taste, (n, len(self.names)))
        rates: FloatArray = 1 / (1 + np.exp(-logit))
        return rates

    def views(self, people: FloatArray) -> SessionViews:
        """What a planner sees of them, each somewhere in a session."""
        rng, n = self.rng, len(people)
        step = np.where(rng.random(n) < 0.5, 0, rng.integers(0, 20, n))
        before = self._shown(people, HISTORY, rng.uniform(0.2, 1.5))
        # A new user has seen little.
        before[np.arange(HISTORY) < HISTORY - rng.integers(0, HISTORY + 1, n)[:, None] * 2] = -1
        session = np.repeat(self._shown(people, -(-2 * HISTORY // SLATE), 0.3), SLATE // 2, axis=1)[:, -HISTORY:]
        own = np.arange(HISTORY) >= HISTORY - (step * SLATE)[:, None]
        # The past moves up as the session goes on.
        moved = np.take_along_axis(
            before, np.minimum(np.arange(HISTORY) + (step * SLATE)[:, None], HISTORY - 1), axis=1
        )
        categories = np.where(own, session, moved)
        clicks = self.clicks(people, categories)
        return SessionViews(np.arange(n), step, categories, clicks, SLATE)

    def clicks(self, people: FloatArray, categories: IntArray) -> NDArray[np.int8]:
        """Who clicked what, -1 where nothing was shown; shapes as of ``categories``, (n, M)."""
        chance = np.take_along_axis(people, np.maximum(categories, 0), axis=1)
        return np.where(categories < 0, -1, self.rng.random(categories.shape) < chance).astype(np.int8)

    def session(self, person: FloatArray) -> FinishedSession:
        """A session of one person with rates (C,), from beginning to end."""
        length = int(self.rng.integers(11, 21))
        shown = np.repeat(self._shown(person[None], 3 * length, 0.5), SLATE // 3, axis=1)
        return FinishedSession(0, shown.reshape(length, SLATE), self.clicks(person[None], shown).reshape(length, SLATE))

    def known(self, views: SessionViews, heard: Sequence[FinishedSession]) -> FloatArray:
        """Click rates (B, C) as far as prompts tell: the list, the user's own clicks, and reflections on sessions."""
        n_categories = len(self.names)
        told = np.zeros((2, n_categories))
        for session in heard:
            found = verdict(session, n_categories)
            told[:, list(found.liked)] += HEARD
            told[0, list(found.passed)] += HEARD
        seen, clicked = visible_counts(views, n_categories)
        rates: FloatArray = (clicked + told[1] + PRIOR * self.rates) / (seen + told[0] + PRIOR)
        return rates

    def _shown(self, people: FloatArray, n: int, sharpness: float) -> IntArray:
        """What a platform that knows something of taste shows: categories, shape (len(people), n)."""
        guess = np.log(people / (1 - people)) * sharpness * 3 + self.rng.gumbel(size=(1, people.shape[1]))
        keys = guess[:, None, :] + self.rng.gumbel(size=(len(people), n, people.shape[1]))
        shown: IntArray = keys.argmax(axis=2)
        return shown


def invented_plans(rng: np.random.Generator, n: int, largest: int = LARGEST) -> Lesson:
    """Plans for n people of one invented service: those they most likely click, all that is known considered."""
    service = InventedService(rng, largest)
    names = service.names
    sessions = [service.session(person) for person in service.people(int(rng.choice([0, 1, 2, 3])))]
    reflections = [composed_reflection(session, names) for session in sessions]
    views = service.views(service.people(n))
    prompts = prompting_planner(names, service.rates).prompts_with(views, reflections)
    answers = [plan_answer(best(row), names, service.rates) for row in service.known(views, sessions)]
    return lesson_of(prompts, answers)


def best(score: FloatArray) -> list[int]:
    """Categories of one user: those near the best, at least `FEWEST` and at most `MOST`."""
    order = np.argsort(-score, kind="stable")
    near = int((score >= 0.75 * score[order[0]]).sum())
    fewest, most = min(FEWEST, len(score)), min(MOST, len(score))
    return [int(c) for c in order[: int(np.clip(near, fewest, most))]]


def spelling(rng: np.random.Generator, n: int, largest: int = 10) -> Lesson:
    """Short lists to be repeated in their order: copying names of which no two are alike is all there is to learn.

    A model that starts with whole prompts learns the subjects that names are made of by heart, and copies none.
    """
    prompts, answers = [], []
    for _ in range(n):
        names = invented_names(rng, int(rng.integers(3, largest + 1)), nonsense=0.7)
        rates = np.sort(rng.uniform(0, 0.8, len(names)))[::-1]
        prompts.append(f"The categories:\n{describe_categories(names, rates)}\n\nYour choice:\n")
        answers.append(plan_answer(range(min(MOST, len(names))), names, rates))
    return lesson_of(prompts, answers)


def invented_reflections(rng: np.random.Generator, n: int, largest: int = LARGEST) -> Lesson:
    """Reflections on n sessions at one invented service."""
    service = InventedService(rng, largest)
    sessions = [service.session(person) for person in service.people(n)]
    critic = prompting_critic(service.names)
    answers = [reflection_answer(composed_reflection(session, service.names)) for session in sessions]
    return lesson_of([critic.prompt(session) for session in sessions], answers)


@dataclass(frozen=True)
class Curriculum:
    """The lessons of each step: a function of seed and step alone, so that teaching can be resumed.

    Attributes:
        lived: lessons from simulated sessions; none of them: invented ones alone.
        seed: source of everything else.
    """

    lived: Sequence[Lesson]
    seed: int

    def __call__(self, step: int) -> list[Lesson]:
        """The lessons of a step: of several services, so that none is learned by heart."""
        rng = np.random.default_rng([self.seed, step])
        if step < SPELLING:
            return [spelling(rng, 48, largest=min(10, 4 + step // 50))]
        largest = min(LARGEST, 8 + (step - SPELLING) // _GROWTH)
        lessons = [spelling(rng, 4)] + [invented_plans(rng, 8, largest) for _ in range(5)]
        plans, reflections = ([lesson for lesson in self.lived if lesson.is_plan == kind] for kind in (True, False))
        if plans:
            lessons.append(_some(plans[int(rng.integers(len(plans)))], 24, rng))
        if step % _REFLECT_EVERY == 0:
            lessons.append(invented_reflections(rng, 8, largest))
            if reflections:
                lessons.append(_some(reflections[int(rng.integers(len(reflections)))], 6, rng))
        return lessons


def _some(lesson: Lesson, n: int, rng: np.random.Generator) -> Lesson:
    rows = rng.permutation(len(lesson.rests))[:n].tolist()
    return Lesson(lesson.start, [lesson.rests[row] for row in rows], [lesson.answers[row] for row in rows])


def lesson_texts(lessons: Sequence[Lesson], rows: int = 8) -> list[str]:
    """Some of the texts of lessons, for a vocabulary to be learned from."""
    parts = [(lesson.start, *lesson.rests[:rows], *lesson.answers[:rows]) for lesson in lessons]
    return [text for texts in parts for text in texts]


def topics() -> list[str]:
    """Everyday subjects, of which invented categories are named."""
    return files(__package__).joinpath("topics.txt").read_text("utf-8").split("\n")[:-1]


def invented_names(rng: np.random.Generator, n: int, nonsense: float = 0.25) -> list[str]:
    """Different names of n categories: subjects, pairs of them and, as a share, words that do not exist."""
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
    starts = [*"bcdfghjklmnprstvwz", "br", "ch", "st", "tr", "sh"]
    middles = [*"aeiou", "ai", "oo"]
    ends = ["", "n", "r", "s", "l", "t", "ck", "m"]
    syllables = int(rng.integers(2, 4))
    return "".join(str(rng.choice(starts)) + str(rng.choice(middles)) for _ in range(syllables)) + str(rng.choice(ends))
