"""Transcripts: all prompts and answers of a run in one file, which replays the run without the model.

A transcript consists of conversations. A conversation is a part of a run that is finished or started again as a whole:
a segment of a training, or an evaluation. The n-th time that a prompt occurs in a conversation it gets its n-th
recorded answer. Failures, cached answers, prompts beyond the budget, and costs are thus replayed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from rapport.agents.llm.base.interface import LLM, Budget, Completion, CompletionOptions, Meter, Sampling, Schema
from rapport.agents.llm.sqlite import Store
from rapport.datasets.files.reading import DAMAGE

logger = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS of_conversation ON batches (conversation)
"""


_LARGEST = 2**28
"""Bytes of one batch, unpacked."""


@dataclass(frozen=True)
class Batch:
    """One call of `complete`.

    Attributes:
        conversation: the part of the run that it belongs to.
        settings: the model's identity, its sampling settings, and the arguments of `complete`.
        prompts: N prompts, each as often as it was sampled.
        answers: their N answers.
        cost: cost of the batch.
        budget: limits on the total cost of the model.
        refusal: why the model is not asked any more after it; None where it is.
    """

    conversation: str
    settings: dict[str, Any]
    prompts: list[str]
    answers: list[Completion]
    cost: Meter
    budget: Budget
    refusal: str | None = None

    def packed(self) -> bytes:
        """All but the conversation's name as compressed JSON; prompts are long and similar."""
        content = {
            "settings": self.settings,
            "prompts": self.prompts,
            "answers": [_packed(answer) for answer in self.answers],
            "cost": self.cost.to_dict(),
            "budget": asdict(self.budget),
            **({} if self.refusal is None else {"refusal": self.refusal}),
        }
        return zlib.compress(json.dumps(content).encode())

    @classmethod
    def unpacked(cls, conversation: str, content: bytes) -> Batch:
        """The batch of a row of the file.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, zlib.error: it is damaged.
        """
        unpacker = zlib.decompressobj()
        fields = json.loads(unpacker.decompress(content, _LARGEST))
        if unpacker.unconsumed_tail:
            raise ValueError(f"a batch has more than {_LARGEST:,} bytes")
        answers = [_unpacked(answer) for answer in fields["answers"]]
        cost, budget = Meter.from_dict(fields["cost"]), Budget(**fields["budget"])
        refusal = fields.get("refusal")
        Sampling(**fields["settings"]["sampling"])
        texts = (fields["settings"]["model"], *fields["prompts"], *(answer.text for answer in answers), refusal or "")
        if not all(isinstance(text, str) for text in texts) or len(answers) != len(fields["prompts"]):
            raise ValueError("a batch has other things than texts, or another number of answers than prompts")
        return cls(conversation, fields["settings"], fields["prompts"], answers, cost, budget, refusal)


class RecordedLLM:
    """A model that records every answer. Several processes may write one file; a crash loses no finished batch.

    Batches outside a :func:`conversation` belong to one without a name.
    """

    def __init__(self, llm: LLM, path: str | PathLike[str]) -> None:
        """Open or create the transcript.

        Args:
            llm: the model, whose meter is shared; it may have a cache, whose answers are recorded too.
            path: the file; new batches are appended, and a damaged file is replaced by an empty one.

        Raises:
            ValueError: the file cannot be created or opened.
        """
        self.llm = llm
        self._conversation = ""
        self._store = Store(path, _TABLES)
        self._store.close()  # the first write opens it again

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
        """Why the model is not asked any more; None where it is."""
        return self.llm.refusal

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
        before = replace(self.meter)
        answers = self.llm.complete(prompts, schema, max_tokens, system=system, n=n, logprobs=logprobs)
        settings = CompletionOptions(schema, max_tokens, system, n, logprobs).settings(self.llm)
        cost = self.meter - before
        sampled = [prompt for prompt in prompts for _ in range(n)]
        self._write(Batch(self._conversation, settings, sampled, answers, cost, self.meter.budget, self.refusal))
        return answers

    def begin(self, conversation: str) -> None:
        """Start a conversation and delete earlier batches of the same name."""
        self._conversation = conversation
        self._change("DELETE FROM batches WHERE conversation = ?", (conversation,))

    def close(self) -> None:
        """Close the file and end the conversation."""
        self._conversation = ""
        self._store.close()

    def _write(self, batch: Batch) -> None:
        row = (batch.conversation, batch.packed())
        self._change("INSERT INTO batches (conversation, content) VALUES (?, ?)", row)

    def _change(self, statement: str, values: tuple[str | bytes, ...]) -> None:
        try:
            self._store.run(lambda db: db.execute(statement, values), write=True)
        except sqlite3.OperationalError as error:
            logger.warning("the transcript %s cannot be written (%s): it has a gap", self._store.path, error)


class _Recorded(NamedTuple):
    answer: Completion
    cost: Meter | None
    refusal: str | None


class ReplayLLM:
    """Replays a transcript. A prompt that is not in it gets an error and counts as a failure.

    The meter shows the recorded costs, seconds included. The recorded budget is reported and not enforced: the prompts
    that it left unanswered stay unanswered.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open a transcript.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no transcript, or it is empty.
        """
        self.path = Path(fspath(path))
        first = next(read_batches(self.path), None)
        if first is None:
            raise ValueError(f"the transcript {self.path} is empty: record a run with --llm-record first")
        self.identity: str = first.settings["model"]
        self.sampling = Sampling(**first.settings["sampling"])
        self.meter = Meter(budget=first.budget)
        self.refusal: str | None = None
        self._conversation = ""
        self._recorded: dict[str, deque[_Recorded]] | None = None
        self._logged_missing = False

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
        settings = CompletionOptions(schema, max_tokens, system, n, logprobs).settings(self)
        if self._recorded is None:
            self.begin(self._conversation)
        assert self._recorded is not None
        return [self._answer(self._recorded[_key(prompt, settings)]) for prompt in prompts for _ in range(n)]

    def begin(self, conversation: str) -> None:
        """Start a conversation from its beginning."""
        self._conversation = conversation
        self._recorded = defaultdict(deque)
        self._logged_missing = False
        try:
            for batch in read_batches(self.path, conversation):
                self._record(batch)
        except ValueError as error:
            logger.warning("%s; what could not be read of %r is not answered", error, conversation)

    def close(self) -> None:
        """End the conversation."""
        self._conversation, self._recorded = "", None

    def _record(self, batch: Batch) -> None:
        assert self._recorded is not None
        self.sampling, self.meter.budget = Sampling(**batch.settings["sampling"]), batch.budget
        cost: Meter | None = batch.cost
        for prompt, answer in zip(batch.prompts, batch.answers, strict=True):
            key = _key(prompt, batch.settings)
            self._recorded[key].append(_Recorded(answer, cost, batch.refusal))
            cost = None  # the cost of a batch counts with its first answer

    def _answer(self, recorded: deque[_Recorded]) -> Completion:
        if recorded:
            answer, cost, self.refusal = recorded.popleft()
            if cost is not None:
                self.meter.add(cost)
            return answer
        error = (
            f"not in the transcript {self.path}, conversation {self._conversation!r}: replay with the settings "
            "it was recorded with, or ask a model and record it with --llm-record"
        )
        if not self._logged_missing:
            logger.warning("a prompt is %s", error)
            self._logged_missing = True
        self.meter.failures += 1
        return Completion("", error=error, sent=False)


@contextmanager
def conversation(llm: LLM | None, name: str) -> Iterator[None]:
    """A part of a run that a transcript records or replays as a whole; no effect on a model without a transcript."""
    if not isinstance(llm, RecordedLLM | ReplayLLM):
        yield
        return
    llm.begin(name)
    try:
        yield
    finally:
        llm.close()


def read_batches(path: Path, conversation: str | None = None) -> Iterator[Batch]:
    """The batches of a transcript, oldest first; the file does not change.

    Args:
        path: the file.
        conversation: only batches of this conversation; None for all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no transcript.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no transcript {path}: `rapport run --llm-record FILE` writes one")
    wanted, values = ("", ()) if conversation is None else ("WHERE conversation = ?", (conversation,))
    rows = f"SELECT conversation, content FROM batches {wanted} ORDER BY id"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            for name, content in db.execute(rows, values):
                yield Batch.unpacked(name, content)
    except DAMAGE as error:
        raise ValueError(
            f"the transcript {path} cannot be read ({type(error).__name__}: {error}): it is damaged or no transcript"
        ) from error


def seal(path: str | PathLike[str]) -> None:
    """Merge SQLite's side files into a transcript, so that it is a single file."""
    try:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        logger.warning("the transcript %s is in use (%s): keep the files -wal and -shm beside it", path, error)


def _key(prompt: str, settings: Mapping[str, Any]) -> str:
    """Key of a prompt and all settings that are arguments of `complete`."""
    arguments = {name: value for name, value in settings.items() if name not in ("model", "sampling")}
    return hashlib.sha256(json.dumps([prompt, arguments], sort_keys=True).encode()).hexdigest()


def _packed(answer: Completion) -> dict[str, Any]:
    """JSON values of an answer; without log-probabilities they are those of earlier versions."""
    content = asdict(answer)
    if answer.logprobs is None:
        del content["logprobs"]
    return content


def _unpacked(content: dict[str, Any]) -> Completion:
    logprobs = content.pop("logprobs", None)
    return Completion(**content, logprobs=None if logprobs is None else tuple(logprobs))
