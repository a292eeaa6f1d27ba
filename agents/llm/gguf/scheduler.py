"""Continuous batching: several completions generated in one context, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rapport.agents.llm.base.interface import Sampling
from rapport.agents.llm.gguf.context import STEP, ContextFullError, SharedContext, common_length
from rapport.agents.llm.gguf.grammar import Grammar
from rapport.agents.llm.gguf.sampling import FloatArray, IntArray, log_probability, nucleus, sample


@dataclass(frozen=True)
class GenerationParams:
    """What all requests of a batch have in common.

    Attributes:
        sampling: temperature and top_p.
        grammar: grammar of the completions; None for free text.
        is_end: tells whether a token ends a completion.
        seconds: time limit of one request; infinite for none.
        until: the `time.monotonic` at which the batch must end; None for no limit.
        logprobs: whether requests keep the log-probabilities of their tokens.
    """

    sampling: Sampling
    grammar: Grammar | None
    is_end: Callable[[int], bool]
    seconds: float
    until: float | None
    logprobs: bool = False


class Request:
    """One prompt and the state of its completion.

    Attributes:
        prompt: tokens of the prompt.
        started: the model has decoded at least a part of the prompt.
        sent: the request was admitted before the batch's time limit.
        pending: tokens to decode before the next one can be sampled.
        generated: tokens sampled so far.
        logprobs: their log-probabilities under the model; None if they are not kept.
        error: why there is no usable completion; None where there is one.
        is_late: it exceeded its time limit.
    """

    def __init__(self, prompt: list[int], params: GenerationParams, max_tokens: int, seed: Sequence[int]) -> None:
        """Create a request that has not started.

        Args:
            prompt: tokens of the prompt.
            params: of the batch.
            max_tokens: longest completion.
            seed: seed of the random stream, whole numbers.
        """
        self.prompt = prompt
        self.started, self.sent, self.is_late = False, True, False
        self.pending: list[int] = []
        self.generated: list[int] = []
        self.logprobs: list[float] | None = [] if params.logprobs else None
        self.error: str | None = None
        self._params, self._max_tokens, self._seed = params, max_tokens, seed

    def start(self, cached: int) -> None:
        """Start, or start again, where the first `cached` tokens of the prompt are in the context."""
        params = self._params
        self.started = True
        self.pending = self.prompt[cached:]
        self.generated = []
        self.logprobs = [] if params.logprobs else None
        self._rng = np.random.default_rng(self._seed)
        self._grammar = None if params.grammar is None else params.grammar.copy()
        deadline = time.monotonic() + params.seconds
        self._deadline = deadline if params.until is None else min(deadline, params.until)

    def check_time(self) -> bool:
        """False where the time limit is exceeded, which sets the error."""
        self.is_late = time.monotonic() > self._deadline
        if self.is_late:
            self.error = f"no complete answer within {self._params.seconds:g} s"
        return self.error is None

    def add_token(self, logits: FloatArray, tokens: IntArray, weights: FloatArray) -> bool:
        """Sample the next token, with the arguments of `sample`; False where the completion ends."""
        allowed = None if self._grammar is None else self._grammar.allowed
        token = sample(logits, tokens, weights, allowed, self._params.sampling, self._rng)
        if token is None:
            self.error = "the model's vocabulary has no token that the grammar allows next"
            return False
        if self._params.is_end(token):
            return False
        if self._grammar is not None:
            self._grammar.accept(token)
        self.generated.append(token)
        if self.logprobs is not None:
            self.logprobs.append(log_probability(logits, token))
        self.pending = [token]
        if len(self.generated) < self._max_tokens:
            return True
        if self._grammar is not None:  # Free text may stop anywhere; truncated JSON is unusable.
            self.error = f"the answer was cut off after {len(self.generated)} tokens"
        return False


class Scheduler:
    """Admits requests to a context as there is room, and generates their completions side by side.

    Each step decodes a chunk of at most one prompt, and one token of every other running request. The second prompt
    thus finds its common prefix with the first in the context, and no request waits for the whole of a long prompt.
    """

    def __init__(self, context: SharedContext, n_sequences: int, params: GenerationParams, *, alone: bool) -> None:
        """Create a scheduler without requests.

        Args:
            context: the context.
            n_sequences: its number of sequences.
            params: of the batch.
            alone: clear the context before each prompt.
        """
        self._context, self._params, self._alone = context, params, alone
        self._free = list(range(n_sequences))[::-1]
        self._running: dict[int, Request] = {}  # by sequence, the oldest first
        self._waiting: list[Request] = []
        self._context_is_full = False

    def run(self, requests: Sequence[Request]) -> None:
        """Generate all completions; every request ends, with or without an error.

        The context keeps the common prefix of all prompts for the next batch.
        """
        # In sorted order, prompts with long common prefixes follow one another.
        ordered = sorted(requests, key=lambda request: request.prompt)
        self._waiting = ordered[::-1]
        while self._waiting or self._running:
            self._admit()
            self._step()
        common = common_length(ordered[0].prompt, ordered[-1].prompt) if ordered else 0
        for sequence in self._free:
            self._context.forget(sequence, common if sequence == 0 else 0)

    def _admit(self) -> None:
        """Admit one more request if there is room and no prompt is being decoded."""
        prefilling = any(len(request.pending) > 1 for request in self._running.values())
        if prefilling or self._context_is_full or not self._free or not self._waiting:
            return
        request = self._waiting.pop()
        if self._params.until is not None and time.monotonic() > self._params.until:
            request.error, request.sent = "not sent: the budget's seconds are spent", False
            return
        if self._alone:
            self._context.clear()
        sequence = self._free.pop()
        request.start(self._context.begin(sequence, request.prompt))
        self._running[sequence] = request

    def _step(self) -> None:
        """Decode as many pending tokens as one call takes, and sample for the requests without any left."""
        for sequence in [s for s, request in self._running.items() if not request.check_time()]:
            self._finish(sequence)
        if not self._running:
            return
        room = STEP - len(self._running) + 1  # for the prompt that is being decoded
        chunks = {sequence: request.pending[:room] for sequence, request in self._running.items()}
        try:
            logits = self._context.decode(chunks)
        except ContextFullError:
            self._make_room()
            return
        except RuntimeError as failure:
            for sequence in list(self._running):
                self._running[sequence].error = f"llama.cpp failed: {failure}"
                self._finish(sequence)
            return
        for sequence, chunk in chunks.items():
            del self._running[sequence].pending[: len(chunk)]
        rows = [row for row, sequence in enumerate(chunks) if not self._running[sequence].pending]
        if rows:
            self._sample(logits[rows], [list(chunks)[row] for row in rows])

    def _sample(self, logits: FloatArray, sequences: Sequence[int]) -> None:
        for sequence, *arrays in zip(sequences, logits, *nucleus(logits, self._params.sampling), strict=True):
            if not self._running[sequence].add_token(*arrays):
                self._finish(sequence)

    def _finish(self, sequence: int) -> None:
        del self._running[sequence]
        self._free.append(sequence)
        self._free.sort(reverse=True)
        self._context_is_full = False

    def _make_room(self) -> None:
        """Drop cached tokens that no request uses; if there are none, preempt the youngest request."""
        if stale := [sequence for sequence in self._free if self._context.length(sequence)]:
            for sequence in stale:
                self._context.forget(sequence)
            return
        sequence, request = list(self._running.items())[-1]
        if len(self._running) == 1:
            request.error = "llama.cpp failed: the context has no room for the prompt and its answer"
        self._finish(sequence)
        self._context.forget(sequence)
        if self._running:
            self._waiting.append(request)
            self._context_is_full = True
