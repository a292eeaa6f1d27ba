"""Everything a model was asked and answered, in one file from which a run can be played again without the model.

A transcript is made of conversations, each a part of a run that is done whole or begun anew: a segment of a training,
an evaluation. Within one the n-th time a prompt is asked it gets its n-th answer, so that failures, answers from a
cache and prompts that were never sent for want of budget come again as they came, and so does what they cost.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from rapport.agents.llm.base.interface import LLM, Budget, Completion, Meter, Sampling, Schema, request_settings
from rapport.agents.llm.sqlite import Store

logger = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS of_conversation ON batches (conversation)
"""


@dataclass(frozen=True)
class Batch:
    """What was asked at once.

    Attributes:
        conversation: the part of the run it belongs to.
        settings: the model's identity, its sampling, the JSON schema and the longest answer allowed.
        prompts: N prompts.
        answers: their N answers.
        cost: what the batch cost.
        budget: what the model could cost in all.
    """

    conversation: str
    settings: dict[str, Any]
    prompts: list[str]
    answers: list[Completion]
    cost: Meter
    budget: Budget

    def packed(self) -> bytes:
        """All but the conversation's name, as JSON that is compressed, for prompts are long and much alike."""
        content = {
            "settings": self.settings,
            "prompts": self.prompts,
            "answers": [asdict(answer) for answer in self.answers],
            "cost": self.cost.to_dict(),
            "budget": asdict(self.budget),
        }
        return zlib.compress(json.dumps(content).encode())

    @classmethod
    def unpacked(cls, conversation: str, content: bytes) -> Batch:
        """The batch in a row of the file."""
        fields = json.loads(zlib.decompress(content))
        answers = [Completion(**answer) for answer in fields["answers"]]
        cost, budget = Meter.from_dict(fields["cost"]), Budget(**fields["budget"])
        return cls(conversation, fields["settings"], fields["prompts"], answers, cost, budget)


class RecordedLLM:
    """A model whose every answer is written down. Several processes may write one file; a crash loses no whole batch.

    What lies outside of any :func:`conversation` is one without a name.
    """

    def __init__(self, llm: LLM, path: str | PathLike[str]) -> None:
        """Put a transcript behind a model; in front of its cache, so that cached answers are written down too.

        Args:
            llm: the model; its meter is also this one's.
            path: the file, added to where it is there, set aside and begun afresh where it is damaged.

        Raises:
            ValueError: the file cannot be made or opened.
        """
        self.llm = llm
        self._conversation = ""
        self._store = Store(path, _TABLES)
        self._store.close()  # opened again when there is something to write

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

    def complete(self, prompts: Sequence[str], schema: Schema | None = None, max_tokens: int = 256) -> list[Completion]:
        """See `rapport.agents.llm.base.interface.LLM.complete`."""
        before = replace(self.meter)
        answers = self.llm.complete(prompts, schema, max_tokens)
        settings = request_settings(self.llm, schema, max_tokens)
        cost = self.meter - before
        self._write(Batch(self._conversation, settings, list(prompts), answers, cost, self.meter.budget))
        return answers

    def begin(self, conversation: str) -> None:
        """What follows is this conversation, and nothing that was written of it before."""
        self._conversation = conversation
        self._change("DELETE FROM batches WHERE conversation = ?", (conversation,))

    def close(self) -> None:
        """Close the file; what follows has no name."""
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


class _Kept(NamedTuple):
    answer: Completion
    cost: Meter | None


class ReplayLLM:
    """Answers from a transcript alone. A prompt that is not there gets an error, and counts as a failure.

    The meter says what the model cost when it was recorded, its seconds too. The recorded budget is reported but not
    enforced: what it left unanswered then stays unanswered.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open a transcript.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no transcript, or holds nothing.
        """
        self.path = Path(fspath(path))
        first = next(read_batches(self.path), None)
        if first is None:
            raise ValueError(f"the transcript {self.path} is empty: record a run with --llm-record first")
        self.identity: str = first.settings["model"]
        self.sampling = Sampling(**first.settings["sampling"])
        self.meter = Meter(budget=first.budget)
        self._conversation = ""
        self._kept: dict[str, deque[_Kept]] | None = None
        self._said_missing = False

    def complete(self, prompts: Sequence[str], schema: Schema | None = None, max_tokens: int = 256) -> list[Completion]:
        """See `rapport.agents.llm.base.interface.LLM.complete`."""
        if self._kept is None:
            self.begin(self._conversation)
        assert self._kept is not None
        return [self._answer(self._kept[_key(prompt, schema, max_tokens)]) for prompt in prompts]

    def begin(self, conversation: str) -> None:
        """What follows is this conversation, from its beginning."""
        self._conversation = conversation
        self._kept = defaultdict(deque)
        self._said_missing = False
        try:
            for batch in read_batches(self.path, conversation):
                self._keep(batch)
        except ValueError as error:
            logger.warning("%s; what could not be read of %r is not answered", error, conversation)

    def close(self) -> None:
        """Forget the conversation; what follows has no name."""
        self._conversation, self._kept = "", None

    def _keep(self, batch: Batch) -> None:
        assert self._kept is not None
        self.sampling, self.meter.budget = Sampling(**batch.settings["sampling"]), batch.budget
        cost: Meter | None = batch.cost
        for prompt, answer in zip(batch.prompts, batch.answers, strict=True):
            key = _key(prompt, batch.settings["schema"], batch.settings["max_tokens"])
            self._kept[key].append(_Kept(answer, cost))
            cost = None  # a batch's cost comes with its first answer

    def _answer(self, kept: deque[_Kept]) -> Completion:
        if kept:
            answer, cost = kept.popleft()
            if cost is not None:
                self.meter.add(cost)
            return answer
        error = (
            f"not in the transcript {self.path}, conversation {self._conversation!r}: replay with the very settings "
            "it was recorded with, or ask a model and record it with --llm-record"
        )
        if not self._said_missing:
            logger.warning("a prompt is %s", error)
            self._said_missing = True
        self.meter.failures += 1
        return Completion("", error=error, sent=False)


@contextmanager
def conversation(llm: LLM | None, name: str) -> Iterator[None]:
    """A part of a run that a transcript keeps, or plays, as a whole; nothing where there is no transcript."""
    if not isinstance(llm, RecordedLLM | ReplayLLM):
        yield
        return
    llm.begin(name)
    try:
        yield
    finally:
        llm.close()


def read_batches(path: Path, conversation: str | None = None) -> Iterator[Batch]:
    """The batches of a transcript, oldest first; the file is left as it is.

    Args:
        path: the file.
        conversation: only this one's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no transcript, or it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no transcript {path}: `rapport run --llm-record FILE` writes one")
    wanted, values = ("", ()) if conversation is None else ("WHERE conversation = ?", (conversation,))
    rows = f"SELECT conversation, content FROM batches {wanted} ORDER BY id"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            for name, content in db.execute(rows, values):
                yield Batch.unpacked(name, content)
    except (sqlite3.DatabaseError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the transcript {path} cannot be read ({type(error).__name__}: {error}): it is damaged or no transcript"
        ) from error


def seal(path: str | PathLike[str]) -> None:
    """Fold what SQLite keeps beside a transcript into it: one plain file, to be handed on."""
    try:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        logger.warning("the transcript %s is in use (%s): the files beside it belong to it", path, error)


def _key(prompt: str, schema: Schema | None, max_tokens: int) -> str:
    return hashlib.sha256(json.dumps([prompt, schema, max_tokens], sort_keys=True).encode()).hexdigest()
