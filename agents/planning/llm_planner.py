"""LERL's high level (arXiv 2601.19585): a language model chooses the categories of each user's coming slates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapport.agents.llm.base.interface import LLM
from rapport.agents.llm.structured import complete_json, decode_json
from rapport.agents.planning.listener import Listener
from rapport.agents.planning.memory import SimilarSessions
from rapport.agents.planning.planner import BoolArray, Planner, SessionViews
from rapport.agents.planning.preference import FloatArray, category_counts, check_views, checked_prior
from rapport.agents.planning.prompts import Prompt, checked_prompt
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wording import (
    UNKNOWN,
    bullet_list,
    checked_names,
    describe_categories,
    describe_slates,
    describe_taste,
)


class LLMPlanner:
    """Asks a language model which categories come next, and a fallback planner where it gets no usable answer.

    The model sees the categories by name, most clicked first, some reflections on earlier sessions, what the user saw
    and clicked before, and the last slates of the session. Its answer is a list of names that a JSON schema, and with
    GGUF files a grammar, keeps valid. Every row for which the fallback decides is counted in ``llm.meter.fallbacks``.

    :attr:`unanswered` says why.

    One draw of reflections serves a group of sessions, as in LERL; equal prompts in a batch are sent once.
    """

    name = "language model"

    def __init__(
        self,
        llm: LLM,
        category_names: Sequence[str],
        rates: FloatArray,
        fallback: Planner,
        pool: ReflectionPool | None = None,
        rng: np.random.Generator | None = None,
        *,
        fewest: int = 2,
        most: int = 8,
        slates: int = 5,
        taste: int = 8,
        reflections: int = 3,
        alpha: float = 0.1,
        group: int = 12,
        retries: int = 2,
        prompt: Prompt | None = None,
        memory: SimilarSessions | None = None,
    ) -> None:
        """Prepare the prompt and the schema.

        Args:
            llm: the model.
            category_names: C names, all different.
            rates: shape (C,), click rate of each category over all training users.
            fallback: plans where the model gives no usable answer.
            pool: reflections to draw from; None to plan without.
            rng: draws the reflections; needed with a pool.
            fewest: fewest categories in a plan.
            most: most categories in a plan.
            slates: newest slates of the session that the model sees.
            taste: categories in the user's history, those shown most first, that the model sees; 0 for none.
            reflections: reflections the model sees.
            alpha: LERL's Eq. 4, how much more often reflections on good sessions are drawn.
            group: sessions that are shown the same draw of reflections; LERL serves 12 and draws once for all.
            retries: times the model is asked again after an unusable answer.
            prompt: the template; ``load_prompt("plan")`` where None.
            memory: recalls reflections for each session, in place of draws from the pool.
        """
        if pool is not None and rng is None:
            raise ValueError("rng is needed to draw from the pool of reflections: give a numpy Generator")
        if not 1 <= fewest <= most:
            raise ValueError(f"a plan needs at least 1 category and fewest <= most; got fewest={fewest}, most={most}")
        self.llm = llm
        self._listener = Listener(llm)
        self._names = checked_names(category_names)
        self._categories = describe_categories(self._names, checked_prior(rates, len(self._names)))
        self._index = {name: index for index, name in enumerate(self._names)}
        self._fallback = fallback
        self._pool, self._rng, self._memory = pool, rng, memory
        self._fewest, self._most = min(fewest, len(self._names)), min(most, len(self._names))
        self._slates, self._taste = slates, taste
        self._n_reflections, self._alpha, self._group = reflections, alpha, group
        self._retries = retries
        self._prompt = checked_prompt("plan", prompt)
        self._schema = plan_schema(self._names, self._fewest, self._most)
        # Enough for a model that writes byte by byte.
        longest = max(len(name.encode()) for name in self._names)
        self._max_tokens = 32 + self._most * (2 * longest + 6)

    def plan(self, views: SessionViews) -> BoolArray:
        """Categories the model chose, shape (B, C); the fallback's where its answer is unusable."""
        check_views(views, len(self._names))
        prompts = self.prompts(views)
        questions = list(dict.fromkeys(prompts))
        answers = complete_json(
            self._listener, questions, self._schema, self.parse, max_tokens=self._max_tokens, retries=self._retries
        )
        self._listener.count(sum(answer is None for answer in answers), self._usable)
        chosen = dict(zip(questions, answers, strict=True))
        plans = np.zeros((len(views), len(self._names)), dtype=np.bool_)
        missing = []
        for row, prompt in enumerate(prompts):
            if (categories := chosen[prompt]) is None:
                missing.append(row)
            else:
                plans[row, categories] = True
        meter = self.llm.meter
        meter.decisions += len(prompts)
        meter.cache_hits += len(prompts) - len(missing) - sum(answer is not None for answer in answers)
        if missing:
            meter.fallbacks += len(missing)
            plans[missing] = self._fallback.plan(views.rows(np.array(missing)))
        return plans

    @property
    def unanswered(self) -> str | None:
        """Why the fallback planned, in the model's or the server's own words; None as long as it has not."""
        return self._listener.reason

    def prompts(self, views: SessionViews) -> list[str]:
        """The prompt for each of B sessions; draws or recalls the reflections."""
        if self._memory is not None:
            recalled = self._memory.recall(views.user)
            rows = [views.rows(np.array([row])) for row in range(len(views))]
            return [self.prompts_with(row, texts)[0] for row, texts in zip(rows, recalled, strict=True)]
        if self._pool is None:
            return self.prompts_with(views, [])
        groups = [np.arange(first, min(first + self._group, len(views))) for first in range(0, len(views), self._group)]
        return [prompt for rows in groups for prompt in self.prompts_with(views.rows(rows), self._draw())]

    def prompts_with(self, views: SessionViews, reflections: Sequence[str]) -> list[str]:
        """The prompt for each of B sessions with these reflections."""
        taught = bullet_list(reflections)
        tastes = self._tastes(views)
        prompts = []
        for row in range(len(views)):
            categories, clicks = views.session_slates(row, self._slates)
            session = describe_slates(categories, clicks, self._names)
            prompts.append(
                self._prompt.fill(
                    categories=self._categories,
                    least=self._fewest,
                    most=self._most,
                    reflections=taught,
                    taste=tastes[row],
                    session=session,
                )
            )
        return prompts

    def _draw(self) -> list[str]:
        if self._pool is None or self._rng is None:
            return []
        return [entry.text for entry in self._pool.sample(self._rng, self._n_reflections, self._alpha)]

    def _tastes(self, views: SessionViews) -> list[str]:
        """What each user saw and clicked before the session, in words."""
        if self._taste == 0:
            return [UNKNOWN] * len(views)
        horizon = views.categories.shape[1]
        before = np.arange(horizon) < horizon - (views.step * views.slate_size)[:, None]
        seen, clicked = category_counts(np.where(before, views.categories, -1), views.clicks, len(self._names))
        return [describe_taste(seen[row], clicked[row], self._names, self._taste) for row in range(len(views))]

    def parse(self, answer: object) -> list[int]:
        """Indices of the categories in an answer; ValueError tells the model what to correct."""
        names = answer.get("categories") if isinstance(answer, dict) else answer
        if not isinstance(names, list):
            raise ValueError('it must have the form {"categories": ["...", "..."]}')
        if unknown := [name for name in names if not isinstance(name, str) or name not in self._index]:
            raise ValueError(f"{unknown[0]!r:.80} is not in the list of categories")
        chosen = sorted({self._index[name] for name in names})
        if not self._fewest <= len(chosen) <= self._most:
            raise ValueError(f"it names {len(chosen)} different categories, not {self._fewest} to {self._most}")
        return chosen

    def _usable(self, answer: str) -> bool:
        try:
            return bool(self.parse(decode_json(answer)))
        except ValueError:
            return False


def plan_schema(names: Sequence[str], fewest: int, most: int) -> dict[str, object]:
    """JSON schema of a plan: ``{"categories": [...]}`` with `fewest` to `most` of the names."""
    categories = {
        "type": "array",
        "items": {"type": "string", "enum": list(names)},
        "minItems": fewest,
        "maxItems": most,
    }
    return {
        "type": "object",
        "properties": {"categories": categories},
        "required": ["categories"],
        "additionalProperties": False,
    }
