"""Several answers of one model, written side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rapport.agents.llm.base.interface import Sampling
from rapport.agents.llm.gguf.context import STEP, ContextFullError, SharedContext, common_length
from rapport.agents.llm.gguf.grammar import Grammar
from rapport.agents.llm.gguf.sampling import FloatArray, IntArray, draw, nucleus


@dataclass(frozen=True)
class Rules:
    """What the answers of a batch have in common.

    Attributes:
        sampling: how tokens are drawn.
        grammar: what the answers must follow; None for free text.
        is_end: says whether a token ends an answer.
        seconds: time limit of one answer.
        until: the `time.monotonic` at which all must be done; None for never.
    """

    sampling: Sampling
    grammar: Grammar | None
    is_end: Callable[[int], bool]
    seconds: float
    until: float | None


class Answer:
    """One answer in the making.

    Attributes:
        prompt: tokens to be answered.
        begun: the model was given at least a part of the prompt.
        sent: the model was to be given it, as long as there was time.
        pending: tokens to be read before the next one can be drawn.
        written: tokens drawn so far.
        error: why there will be no usable answer.
    """

    def __init__(self, prompt: list[int], rules: Rules, max_tokens: int, seed: Sequence[int]) -> None:
        """Nothing is read yet.

        Args:
            prompt: tokens to be answered.
            rules: of the batch.
            max_tokens: longest answer.
            seed: what the draws depend on, whole numbers.
        """
        self.prompt = prompt
        self.begun, self.sent = False, True
        self.pending: list[int] = []
        self.written: list[int] = []
        self.error: str | None = None
        self._rules, self._max_tokens, self._seed = rules, max_tokens, seed

    def begin(self, shared: int) -> None:
        """Start, or start anew, with the first `shared` tokens of the prompt read already."""
        rules = self._rules
        self.begun = True
        self.pending = self.prompt[shared:]
        self.written = []
        self._rng = np.random.default_rng(self._seed)
        self._grammar = None if rules.grammar is None else rules.grammar.copy()
        deadline = time.monotonic() + rules.seconds
        self._deadline = deadline if rules.until is None else min(deadline, rules.until)

    def check_time(self) -> bool:
        """False where time is up, which becomes the answer's error."""
        if time.monotonic() > self._deadline:
            self.error = f"no complete answer within {self._rules.seconds:g} s"
        return self.error is None

    def add(self, logits: FloatArray, tokens: IntArray, weights: FloatArray) -> bool:
        """Draw the next token, as `drawing.draw` does; False where the answer has ended."""
        allowed = None if self._grammar is None else self._grammar.allowed
        token = draw(logits, tokens, weights, allowed, self._rules.sampling, self._rng)
        if token is None:
            self.error = "the model's vocabulary has nothing that the answer could go on with"
            return False
        if self._rules.is_end(token):
            return False
        if self._grammar is not None:
            self._grammar.accept(token)
        self.written.append(token)
        self.pending = [token]
        if len(self.written) < self._max_tokens:
            return True
        if self._grammar is not None:  # Free text may stop anywhere; JSON that was cut off is of no use.
            self.error = f"the answer was cut off after {len(self.written)} tokens"
        return False


class Turns:
    """Lets answers into a context, one after the other as there is room, and writes those that are in it together.

    In a step one prompt at most is read, in pieces, while each of the other answers goes on by a token. So the second
    prompt finds in the context what it has in common with the first, and no answer waits for all of a long prompt.
    """

    def __init__(self, context: SharedContext, n_sequences: int, rules: Rules, *, alone: bool) -> None:
        """Nothing is under way.

        Args:
            context: where answers are written.
            n_sequences: sequences it has.
            rules: of the batch.
            alone: forget what was read before each prompt.
        """
        self._context, self._rules, self._alone = context, rules, alone
        self._free = list(range(n_sequences))[::-1]
        self._running: dict[int, Answer] = {}  # by sequence, the oldest first
        self._waiting: list[Answer] = []
        self._crowded = False

    def write(self, answers: Sequence[Answer]) -> None:
        """Write all answers; every one ends, with an error or without.

        Afterwards the context keeps what all prompts had in common.
        """
        # In this order prompts that have more in common than others follow one another.
        ordered = sorted(answers, key=lambda answer: answer.prompt)
        self._waiting = ordered[::-1]
        while self._waiting or self._running:
            self._let_in()
            self._step()
        common = common_length(ordered[0].prompt, ordered[-1].prompt) if ordered else 0
        for sequence in self._free:
            self._context.forget(sequence, common if sequence == 0 else 0)

    def _let_in(self) -> None:
        """Let one more answer in, where there is room and no prompt is being read."""
        reading = any(len(answer.pending) > 1 for answer in self._running.values())
        if reading or self._crowded or not self._free or not self._waiting:
            return
        answer = self._waiting.pop()
        if self._rules.until is not None and time.monotonic() > self._rules.until:
            answer.error, answer.sent = "not sent: the budget's seconds are spent", False
            return
        if self._alone:
            self._context.clear()
        sequence = self._free.pop()
        answer.begin(self._context.begin(sequence, answer.prompt))
        self._running[sequence] = answer

    def _step(self) -> None:
        """Read what is pending, as much as goes into one step, and draw where all of it is read."""
        for sequence in [s for s, answer in self._running.items() if not answer.check_time()]:
            self._end(sequence)
        if not self._running:
            return
        room = STEP - len(self._running) + 1  # for the one that is reading
        chunks = {sequence: answer.pending[:room] for sequence, answer in self._running.items()}
        try:
            logits = self._context.read(chunks)
        except ContextFullError:
            self._make_room()
            return
        except RuntimeError as failure:
            for sequence in list(self._running):
                self._running[sequence].error = f"llama.cpp failed: {failure}"
                self._end(sequence)
            return
        for sequence, chunk in chunks.items():
            del self._running[sequence].pending[: len(chunk)]
        rows = [row for row, sequence in enumerate(chunks) if not self._running[sequence].pending]
        if rows:
            self._draw(logits[rows], [list(chunks)[row] for row in rows])

    def _draw(self, logits: FloatArray, sequences: Sequence[int]) -> None:
        for sequence, *drawn in zip(sequences, logits, *nucleus(logits, self._rules.sampling), strict=True):
            if not self._running[sequence].add(*drawn):
                self._end(sequence)

    def _end(self, sequence: int) -> None:
        del self._running[sequence]
        self._free.append(sequence)
        self._free.sort(reverse=True)
        self._crowded = False

    def _make_room(self) -> None:
        """Drop what nobody needs any more, or else put the youngest answer back."""
        if stale := [sequence for sequence in self._free if self._context.length(sequence)]:
            for sequence in stale:
                self._context.forget(sequence)
            return
        sequence, answer = list(self._running.items())[-1]
        if len(self._running) == 1:
            answer.error = "llama.cpp failed: the context has no room for the prompt and its answer"
        self._end(sequence)
        self._context.forget(sequence)
        if self._running:
            self._waiting.append(answer)
            self._crowded = True
