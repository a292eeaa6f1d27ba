"""What every backend shares: the meter and the budget around the call itself."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from rapport.agents.llm.base.interface import Budget, Completion, Meter, Sampling, Schema

logger = logging.getLogger(__name__)


class Backend(ABC):
    """A model that is called, timed and stopped when its budget is spent."""

    def __init__(self, identity: str, sampling: Sampling | None, budget: Budget | None) -> None:
        """Start with an empty meter.

        Args:
            identity: names the model exactly.
            sampling: how tokens are drawn; `Sampling()` where None.
            budget: what the model may cost; no limit where None.
        """
        self.identity = identity
        self.sampling = sampling or Sampling()
        self.meter = Meter(budget=budget or Budget())
        self._said_exhausted = False

    @abstractmethod
    def _answer(
        self, prompts: Sequence[str], schema: Schema | None, max_tokens: int, until: float | None
    ) -> list[Completion]:
        """One completion per prompt; `until` is the `time.monotonic` at which the budget's seconds end."""

    def complete(self, prompts: Sequence[str], schema: Schema | None = None, max_tokens: int = 256) -> list[Completion]:
        """See `rapport.agents.llm.base.interface.LLM.complete`; prompts beyond the budget are not sent."""
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1; got {max_tokens}")
        completions: list[Completion] = []
        while number := self.meter.affordable(prompts[len(completions) :], max_tokens):
            start = time.monotonic()
            seconds_left = self.meter.seconds_left
            until = None if seconds_left is None else start + seconds_left
            batch = prompts[len(completions) : len(completions) + number]
            answers = self._answer(batch, schema, max_tokens, until)
            self.meter.count(answers, time.monotonic() - start)
            completions += answers
        reason = self.meter.exhausted
        if reason and not self._said_exhausted:
            logger.warning("%s: %s; the run goes on without the model", self.identity, reason)
            self._said_exhausted = True
        unsent = len(prompts) - len(completions)
        return completions + [Completion("", error=f"not sent: {reason}", sent=False)] * unsent
