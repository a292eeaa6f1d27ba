"""``rapport transcript show``: prompts of a language model and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from rapport.agents.llm.base.interface import Completion, Meter
from rapport.agents.llm.transcript import Batch, read_batches
from rapport.datasets.files.reading import reading, visible
from rapport.experiments.commands.options import at_least_one


@dataclass
class Transcript:
    """Print the newest prompts and answers of a transcript, and what the whole of it cost."""

    action: Annotated[Literal["show"], tyro.conf.Positional]
    """What to do; more may follow."""
    file: Annotated[Path, tyro.conf.Positional]
    """A file that `rapport run --llm-record FILE` wrote."""
    last: int = 5
    """How many prompts, the newest ones."""

    def run(self) -> int:
        """Print them; 0."""
        at_least_one(last=self.last)
        with reading(self.file, "the transcript", "it is damaged or no transcript"):
            self._print()
        return 0

    def _print(self) -> None:
        console = Console(highlight=False, soft_wrap=True)
        newest: list[tuple[Batch, int]] = []
        conversations: set[str] = set()
        models: dict[str, None] = {}
        total = Meter()
        for batch in read_batches(self.file):
            newest = [*newest, *((batch, place) for place in range(len(batch.prompts)))][-self.last :]
            conversations.add(batch.conversation)
            models[batch.settings["model"]] = None
            total.add(batch.cost)
        for batch, place in newest:
            for line in entry(batch, place):
                console.print(visible(line), markup=False)
        console.print(visible("\n".join(summary(list(models), len(conversations), total))), markup=False)


def entry(batch: Batch, place: int) -> Iterator[str]:
    """One prompt and its answer, in lines."""
    answer, sampling = batch.answers[place], batch.settings["sampling"]
    how = ", ".join(f"{name} {value:g}" for name, value in sampling.items())
    yield f"{'=' * 80}\n{batch.conversation or '(no conversation named)'}"
    yield f"{batch.settings['model']}\n{how}, at most {batch.settings['max_tokens']:,} tokens"
    yield f"{'-' * 35} prompt {'-' * 37}\n{batch.prompts[place].rstrip()}"
    yield f"{'-' * 35} answer {'-' * 37}"
    if answer.text:
        yield answer.text
    yield f"({outcome(answer)})\n"


def outcome(answer: Completion) -> str:
    """Tokens, cache hit or error of an answer."""
    tokens = f"{answer.prompt_tokens:,} tokens read, {answer.completion_tokens:,} written"
    if answer.error is not None:
        return f"no answer: {answer.error}"
    return f"known before, {tokens} then" if answer.cached else tokens


def summary(models: list[str], conversations: int, total: Meter) -> list[str]:
    """Models, conversations and cost of the transcript."""
    if not models:
        return ["The transcript is empty."]
    return [
        f"{conversations:,} conversations with {', '.join(models)}",
        f"{total.calls:,} calls, {total.prompt_tokens:,} tokens read, {total.completion_tokens:,} written, "
        f"{total.cache_hits:,} cache hits, {total.failures:,} failures, {total.seconds:,.1f} s waited",
    ]
