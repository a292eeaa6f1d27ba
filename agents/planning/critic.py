"""LERL's critic (arXiv 2601.19585): a language model that reflects on finished sessions."""

from __future__ import annotations

from collections.abc import Sequence

from rapport.agents.llm.base.interface import LLM
from rapport.agents.llm.structured import complete_json
from rapport.agents.planning.planner import FinishedSession
from rapport.agents.planning.prompts import Prompt, checked_prompt
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wording import checked_names, describe_slates

_LONGEST = 160
"""Characters in a reflection: somewhat more than 20 words."""

REFLECTION_SCHEMA = {
    "type": "object",
    "properties": {"reflection": {"type": "string", "minLength": 1, "maxLength": _LONGEST}},
    "required": ["reflection"],
    "additionalProperties": False,
}


class LLMCritic:
    """Writes one sentence about each finished session and keeps it in the pool, with that session's own score.

    A session for which the model gives no usable answer is skipped and counted in ``skipped``.
    """

    def __init__(
        self,
        llm: LLM,
        pool: ReflectionPool,
        category_names: Sequence[str],
        *,
        words: int = 20,
        every: int = 1,
        retries: int = 2,
        prompt: Prompt | None = None,
    ) -> None:
        """Prepare the prompt.

        Args:
            llm: the model.
            pool: takes the reflections.
            category_names: C names, all different.
            words: most words in a reflection; further ones are cut off.
            every: one of this many sessions is reflected on; LERL reflects on each, though its pool keeps 200.
            retries: times the model is asked again after an unusable answer.
            prompt: the template; ``load_prompt("reflect")`` where None.
        """
        if words < 1:
            raise ValueError(f"words, the longest reflection, must be at least 1; got {words}")
        if every < 1:
            raise ValueError(f"every, the sessions of which one is reflected on, must be at least 1; got {every}")
        self.llm = llm
        self.skipped = 0
        self._every, self._heard = every, 0
        self._pool = pool
        self._names = checked_names(category_names)
        self._words = words
        self._retries = retries
        self._prompt = checked_prompt("reflect", prompt)

    def reflect(self, sessions: list[FinishedSession]) -> None:
        """Reflect on sessions that just ended."""
        first = -self._heard % self._every
        self._heard += len(sessions)
        sessions = sessions[first :: self._every]
        prompts = [self.prompt(session) for session in sessions]
        texts = complete_json(
            self.llm, prompts, REFLECTION_SCHEMA, self._parse, max_tokens=4 * _LONGEST, retries=self._retries
        )
        for session, text in zip(sessions, texts, strict=True):
            if text is None:
                self.skipped += 1
            else:
                self._pool.add(text, session.score, session.user)

    def prompt(self, session: FinishedSession) -> str:
        """The prompt about one session."""
        return self._prompt.fill(
            words=self._words,
            slates=len(session.categories),
            items=session.categories.size,
            clicks=session.score,
            session=describe_slates(session.categories, session.clicks, self._names),
        )

    def _parse(self, answer: object) -> str:
        text = answer.get("reflection") if isinstance(answer, dict) else answer
        if not isinstance(text, str):
            raise ValueError('it must have the form {"reflection": "..."}')
        words = text.split()
        if not any(character.isalnum() for character in text):
            raise ValueError("the reflection says nothing")
        return " ".join(words[: self._words])
