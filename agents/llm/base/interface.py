"""Interface of a language model: completions, sampling settings, budget and meter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

Schema = Mapping[str, Any]
"""A JSON schema."""


@dataclass(frozen=True)
class Completion:
    """A model's answer to one prompt.

    Attributes:
        text: the answer; empty where there is none.
        prompt_tokens: tokens of the prompt, as the model counts them.
        completion_tokens: tokens of the answer.
        cached: the answer is from a cache and cost nothing.
        error: why there is no usable answer (time limit, refused connection, spent budget); None where there is one.
        sent: the prompt was sent to the model.
        logprobs: natural log-probability of each token of the answer under the model itself, before temperature, top_p
            and grammar; without the end-of-text token. None if they were not requested.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    error: str | None = None
    sent: bool = True
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Sampling:
    """Sampling settings, the same for every backend.

    Attributes:
        temperature: between 0 and 2; 0 takes the likeliest token. LERL's released code uses its server's default, 0.8.
        top_p: probability mass of the likeliest tokens that are sampled from (nucleus sampling), above 0, at most 1.
        seed: random seed; equal prompts with equal seeds get equal answers, where the backend guarantees it.
        answer_tokens: most tokens of every answer, thinking included, in place of the number that a prompt comes with;
            None for that number.
    """

    temperature: float = 0.8
    top_p: float = 0.9
    seed: int = 0
    answer_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings outside the range of a backend."""
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature must be between 0 and 2; got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; got {self.top_p}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be between 0 and 2^32 - 1; got {self.seed}")
        if self.answer_tokens is not None and self.answer_tokens < 1:
            raise ValueError(f"answer_tokens must be at least 1; got {self.answer_tokens}")


@dataclass(frozen=True)
class Budget:
    """Limits on the total cost of a model; None for no limit.

    Attributes:
        calls: prompts sent.
        tokens: tokens of prompts and answers.
        seconds: wall-clock seconds of waiting for answers.
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits below 0."""
        for item in fields(self):
            limit = getattr(self, item.name)
            if limit is not None and not limit >= 0:
                raise ValueError(f"a budget of {limit:g} {item.name} is below 0: give 0 or more, or none for no limit")


@dataclass
class Meter:
    """Cost of a model so far. Meters can be added, and subtracted for the cost of a part of a run.

    Attributes:
        calls: prompts sent to the model.
        prompt_tokens: tokens of the prompts.
        completion_tokens: tokens of the answers.
        seconds: wall-clock seconds of waiting for answers.
        cache_hits: answers from a cache or from an equal prompt of the same batch.
        retries: prompts sent again, because the connection failed or the answer was unusable.
        failures: prompts that were sent and not answered.
        decisions: decisions that the model was asked for.
        fallbacks: decisions of them that a fallback made, because the answer was missing or unusable.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cache_hits: int = 0
    retries: int = 0
    failures: int = 0
    decisions: int = 0
    fallbacks: int = 0
    budget: Budget = field(default_factory=Budget, compare=False)

    def count(self, completions: Iterable[Completion], seconds: float) -> None:
        """Add the cost of a batch; prompts that were not sent cost nothing."""
        self.seconds += seconds
        for completion in completions:
            if not completion.sent:
                continue
            self.calls += 1
            self.prompt_tokens += completion.prompt_tokens
            self.completion_tokens += completion.completion_tokens
            self.failures += completion.error is not None

    def add(self, other: Meter) -> None:
        """Add another meter's counts; the budget does not change."""
        for name, value in (self + other).to_dict().items():
            setattr(self, name, value)

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def exhausted(self) -> str | None:
        """The limit of the budget that is reached, as a sentence; None if none is."""
        limits = (
            ("calls", self.calls, self.budget.calls),
            ("tokens", self.tokens, self.budget.tokens),
            ("seconds", self.seconds, self.budget.seconds),
        )
        for unit, spent, limit in limits:
            if limit is not None and spent >= limit:
                return f"the budget of {limit:,} {unit} is spent".replace(".0 ", " ")
        return None

    def affordable(self, prompts: Sequence[str], max_tokens: int) -> int:
        """Number of first prompts that certainly stay within the budget; at least 1 unless the budget is spent.

        A prompt has at most as many tokens as bytes, except for a few of the chat template, and usually far fewer. The
        bound is therefore loose, and the rest may be affordable once the cost of the first prompts is known.
        """
        if self.exhausted:
            return 0
        number = len(prompts)
        if self.budget.calls is not None:
            number = min(number, self.budget.calls - self.calls)
        if self.budget.tokens is not None:
            longest = max((len(prompt.encode("utf-8", "replace")) for prompt in prompts), default=0)
            number = min(number, max(1, (self.budget.tokens - self.tokens) // (longest + max_tokens)))
        return number

    @property
    def seconds_left(self) -> float | None:
        """Seconds left of the budget; None for no limit."""
        return None if self.budget.seconds is None else max(0.0, self.budget.seconds - self.seconds)

    def to_dict(self) -> dict[str, float]:
        """The counts by name, without the budget."""
        return {name: getattr(self, name) for name in _COUNTS}

    @classmethod
    def from_dict(cls, counts: Mapping[str, float]) -> Meter:
        """A meter from `to_dict`; missing counts are 0."""
        if unknown := sorted(set(counts) - set(_COUNTS)):
            raise ValueError(f"a meter has no count named {unknown[0]!r}; it has {', '.join(_COUNTS)}")
        return _meter({name: counts.get(name, 0) for name in _COUNTS})

    def __add__(self, other: Meter) -> Meter:
        """The sum of the counts, without a budget."""
        return _meter({name: getattr(self, name) + getattr(other, name) for name in _COUNTS})

    def __sub__(self, earlier: Meter) -> Meter:
        """The counts since `earlier`, without a budget."""
        return _meter({name: getattr(self, name) - getattr(earlier, name) for name in _COUNTS})


_COUNTS = tuple(item.name for item in fields(Meter) if item.name != "budget")


def _meter(counts: Mapping[str, float]) -> Meter:
    meter = Meter()
    for name, value in counts.items():
        setattr(meter, name, float(value) if name == "seconds" else int(value))
    return meter


class LLM(Protocol):
    """A language model that completes batches of prompts."""

    @property
    def identity(self) -> str:
        """Unique name of the model: models of equal identity give equal answers."""
        ...

    @property
    def sampling(self) -> Sampling:
        """Sampling settings."""
        ...

    @property
    def meter(self) -> Meter:
        """Cost so far."""
        ...

    @property
    def refusal(self) -> str | None:
        """Why the model is not asked any more, in the server's words: it refuses every request. None where it is."""
        ...

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
        """Answers to N prompts. A prompt that fails gets a completion with an error, and no exception is raised.

        Args:
            prompts: N prompts.
            schema: JSON schema that the answers should follow; None for free text. Some servers cannot enforce it, so
                answers must still be checked (`complete_json`).
            max_tokens: longest answer in tokens.
            system: system message, the same for all prompts; None for none.
            n: samples per prompt. Each has its own random stream and counts as a call. The first is the same for any
                n; at temperature 0 all are equal.
            logprobs: whether completions have log-probabilities of their tokens.

        Returns:
            N x n completions, those of one prompt after the other.

        Raises:
            ValueError: an argument is out of range, or the model does not support it; the message names it.
        """
        ...


@dataclass(frozen=True)
class CompletionOptions:
    """Arguments of `LLM.complete` except the prompts, checked."""

    schema: Schema | None = None
    max_tokens: int = 256
    system: str | None = None
    n: int = 1
    logprobs: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers below 1."""
        for name in ("max_tokens", "n"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    def settings(self, llm: LLM) -> dict[str, Any]:
        """Everything except the prompt and the sample's number that an answer depends on, as JSON values.

        Keys of caches and transcripts depend on it: an argument that is not used must not appear.
        """
        settings: dict[str, Any] = {
            "model": llm.identity,
            "sampling": {name: value for name, value in asdict(llm.sampling).items() if value is not None},
            "schema": self.schema,
            "max_tokens": self.max_tokens,
        }
        if self.system is not None:
            settings["system"] = self.system
        if self.logprobs:
            settings["logprobs"] = True
        return settings


class SampleRequest(NamedTuple):
    """One sample of one prompt."""

    prompt: str
    number: int = 0
    """0 to n - 1."""


def sample_seed(seed: int, number: int) -> int:
    """Seed of a prompt's sample: `seed` itself for number 0, then independent ones in [0, 2^32)."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def printable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot encode, replaced by ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """The text with every run of spaces, line breaks and control characters replaced by one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in printable(text)).split())
