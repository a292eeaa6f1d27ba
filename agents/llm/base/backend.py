"""Base class of backends: meters every call and enforces the budget."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from rapport.agents.llm.base.interface import (
    Budget,
    Completion,
    CompletionOptions,
    Meter,
    SampleRequest,
    Sampling,
    Schema,
)

logger = logging.getLogger(__name__)


class Backend(ABC):
    """A language model with a meter; it sends no more prompts once its budget is spent."""

    def __init__(self, identity: str, sampling: Sampling | None, budget: Budget | None) -> None:
        """Create the meter.

        Args:
            identity: unique name of the model.
            sampling: sampling settings; `Sampling()` if None.
            budget: limits on what the model may cost; no limits if None.
        """
        self.identity = identity
        self.name = identity
        """How messages call it; whoever opens it may set the name that the user gave."""
        self.sampling = sampling or Sampling()
        self.meter = Meter(budget=budget or Budget())
        self.refusal: str | None = None
        """See `rapport.agents.llm.base.interface.LLM.refusal`."""
        self._logged_exhausted = False

    @abstractmethod
    def _complete(
        self, requests: Sequence[SampleRequest], options: CompletionOptions, until: float | None
    ) -> list[Completion]:
        """One completion per request; the budget's seconds end at `until`, a `time.monotonic`."""

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
        """See `rapport.agents.llm.base.interface.LLM.complete`; prompts beyond the budget are not sent.

        Nor are prompts after a `refusal`.
        """
        max_tokens = self.sampling.answer_tokens or max_tokens
        options = CompletionOptions(schema, max_tokens, system, n, logprobs)
        requests = [SampleRequest(prompt, number) for prompt in prompts for number in range(n)]
        texts = [(system or "") + request.prompt for request in requests]
        completions: list[Completion] = []
        while self.refusal is None and (number := self.meter.affordable(texts[len(completions) :], max_tokens)):
            start = time.monotonic()
            seconds_left = self.meter.seconds_left
            until = None if seconds_left is None else start + seconds_left
            batch = requests[len(completions) : len(completions) + number]
            answered = self._complete(batch, options, until)
            self.meter.count(answered, time.monotonic() - start)
            completions += answered
        reason = self.meter.exhausted
        if reason and not self._logged_exhausted:
            logger.warning("%s: %s; the run continues without the model", self.name, reason)
            self._logged_exhausted = True
        unsent = len(requests) - len(completions)
        return completions + [Completion("", error=f"not sent: {self.refusal or reason}", sent=False)] * unsent
