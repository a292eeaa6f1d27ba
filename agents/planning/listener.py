"""Why a language model gave no usable answer, in its own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rapport.agents.llm.base.interface import LLM, Completion, Meter, Sampling, Schema

NOT_SENT = "not sent"
"""How the reason begins for prompts that never reached the model."""
LONGEST = 300
"""Letters of a reason at most."""
_FAILED, _UNUSABLE = "failed", "unusable"


class Listener:
    """Passes prompts on to a model and remembers why answers were missing or could not be used.

    Args:
        llm: the model, whose meter is shared.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._counts: Counter[str] = Counter()
        self._said: dict[str, str] = {}
        self._errors = 0
        self._texts: list[str] = []

    @property
    def identity(self) -> str:
        """The model's identity."""
        return self.llm.identity

    @property
    def sampling(self) -> Sampling:
        """The model's sampling settings."""
        return self.llm.sampling

    @property
    def meter(self) -> Meter:
        """The model's meter."""
        return self.llm.meter

    @property
    def refusal(self) -> str | None:
        """Why the model is not asked any more; None where it is, or where it does not say."""
        refusal: str | None = getattr(self.llm, "refusal", None)
        return refusal

    def complete(
        self,
        prompts: Sequence[str],
        schema: Schema | None = None,
        max_tokens: int = 256,
        *,
        system: str | None = None,
        n: int = 1,
        logprobs: bool = False,
    ) -> list[Completion]:
        """See `rapport.agents.llm.base.interface.LLM.complete`."""
        answers = self.llm.complete(prompts, schema, max_tokens, system=system, n=n, logprobs=logprobs)
        self._texts = [answer.text for answer in answers if answer.error is None]
        for answer in answers:
            if answer.error is None:
                continue
            kind = _FAILED if answer.sent else NOT_SENT
            self._errors += 1
            self._counts[kind] += 1
            self._said[kind] = answer.error
        return answers

    def count(self, missing: int, usable: Callable[[str], bool]) -> None:
        """Take in how prompts ended; to be called after each batch of them and its repetitions.

        Args:
            missing: prompts of the batch without a usable answer; those without an error had one that is unusable.
            usable: whether an answer can be used.
        """
        if (unusable := missing - self._errors) > 0:
            text = next((text for text in self._texts if not usable(text)), "")
            self._counts[_UNUSABLE] += unusable
            self._said[_UNUSABLE] = f"its answer cannot be used: {text[:LONGEST]!r}" if text else "its answer is empty"
        self._errors = 0

    @property
    def reason(self) -> str | None:
        """The most frequent reason on one line; None where every answer could be used.

        What a server refuses for good comes first; a prompt that was not sent is the last of reasons, as it follows
        from another.
        """
        if not self._counts:
            return None
        kind = max(self._counts, key=lambda kind: (kind != NOT_SENT, self._counts[kind]))
        text = self.refusal or self._said[kind]
        if kind == NOT_SENT and not text.startswith(NOT_SENT) and not self.refusal:
            text = f"{NOT_SENT}: {text}"
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
