"""A model with scripted answers, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import Budget, Completion, Sampling, Schema

Script = Iterable[str | Exception] | Callable[[str], str]


class ScriptedLLM(Backend):
    """Answers from a list, one per prompt, or from a function of the prompt. Words count as tokens.

    An exception in the list or of the function becomes a completion with an error, like a failed call.
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
        """All prompts so far, in order."""
        self._function = script if callable(script) else None
        self._answers = iter(()) if callable(script) else iter(script)

    def _complete(
        self, prompts: Sequence[str], schema: Schema | None, max_tokens: int, until: float | None
    ) -> list[Completion]:
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: str) -> Completion:
        self.prompts.append(prompt)
        read = len(prompt.split())
        try:
            answer = self._function(prompt) if self._function else next(self._answers)
        except StopIteration:
            answer = RuntimeError("the script has no more answers")
        except Exception as error:
            answer = error
        if isinstance(answer, Exception):
            return Completion("", read, error=f"{type(answer).__name__}: {answer}")
        return Completion(answer, read, len(answer.split()))
