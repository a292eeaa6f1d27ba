"""A model with scripted answers, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import Budget, Completion, CompletionOptions, SampleRequest, Sampling

Answer = str | Completion
Script = Iterable[Answer | Exception] | Callable[[str], Answer]


class ScriptedLLM(Backend):
    """Answers from a list, one per sample, or from a function of the prompt, called once per sample.

    An answer is a text, whose words count as tokens, or a `Completion`, which may have log-probabilities. An exception
    in the list or of the function becomes a completion with an error, like a failed call.
    """

    def __init__(
        self,
        script: Script,
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        identity: str = "scripted",
    ) -> None:
        """Create the model.

        Args:
            script: answers in their order, or a function from prompt to answer.
            sampling: reported as the model's settings, otherwise unused.
            budget: limits on what the model may cost.
            identity: name of the model.
        """
        super().__init__(identity, sampling, budget)
        self.prompts: list[str] = []
        """The prompt of every sample so far, in order."""
        self.systems: list[str | None] = []
        """The system message of each."""
        self._function = script if callable(script) else None
        self._answers = iter(()) if callable(script) else iter(script)

    def _complete(
        self, requests: Sequence[SampleRequest], options: CompletionOptions, until: float | None
    ) -> list[Completion]:
        return [self._one(request.prompt, options) for request in requests]

    def _one(self, prompt: str, options: CompletionOptions) -> Completion:
        self.prompts.append(prompt)
        self.systems.append(options.system)
        read = len(f"{options.system or ''} {prompt}".split())
        try:
            answer = self._function(prompt) if self._function else next(self._answers)
        except StopIteration:
            answer = RuntimeError("the script has no more answers")
        except Exception as error:
            answer = error
        if isinstance(answer, Exception):
            return Completion("", read, error=f"{type(answer).__name__}: {answer}")
        if isinstance(answer, str):
            answer = Completion(answer, read, len(answer.split()))
        if options.logprobs and answer.logprobs is None and answer.error is None:
            raise ValueError(
                f"logprobs=True: the script of {self.identity!r} answers with a text; let it answer with a Completion "
                "that has logprobs"
            )
        return answer if options.logprobs else replace(answer, logprobs=None)
