"""Cache of answers in a file that several processes can share."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from rapport.agents.llm.base.interface import LLM, Completion, CompletionOptions, Meter, Sampling, Schema, printable
from rapport.agents.llm.sqlite import Store

logger = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS logprobs (
    key TEXT PRIMARY KEY,
    content TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paid (
    payer TEXT NOT NULL,
    key TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (payer, key)
) WITHOUT ROWID
"""
# Tables of their own, so that files of earlier versions need no change.
_SELECT = (
    "SELECT text, prompt_tokens, completion_tokens, content FROM answers LEFT JOIN logprobs USING (key) WHERE key = ?"
)
_SELECT_PAID = "SELECT key, seconds FROM paid WHERE payer = ?"
_INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)"
_INSERT_LOGPROBS = "INSERT OR IGNORE INTO logprobs VALUES (?, ?)"
_INSERT_PAID = "INSERT OR REPLACE INTO paid VALUES (?, ?, ?)"


class CachedLLM:
    """A model with a cache: each prompt is sent once.

    The key of an answer is the SHA-256 of the model's identity, the sampling settings, the prompt, the number of the
    sample, and the other arguments of `complete`. Failed calls are not cached. Equal prompts in a batch are sent once.
    A prompt is sent again if any of its n samples is missing.

    The file also keeps who paid for an answer (:meth:`pay_for`), so that work which is stopped and begun again costs
    what it would have cost without the stop.
    """

    def __init__(self, llm: LLM, path: str | PathLike[str]) -> None:
        """Open or create the cache.

        Args:
            llm: the model, whose meter is shared.
            path: the cache file; it is created if it is missing, and replaced by an empty one if it is damaged.
        """
        self.llm = llm
        self._store = Store(path, _TABLES)
        self._payer, self._owed = "", dict[str, float]()

    def pay_for(self, payer: str) -> None:
        """Charge what is asked from now on to a payer: a part of a run that is finished or begun again as a whole.

        An answer that the same payer paid for in an earlier attempt counts as a call again, with its tokens and its
        share of the waiting time, the first time that it is asked for; answers that others paid for are cache hits.

        Args:
            payer: its unique name; empty for nobody.
        """
        self._payer, self._owed = payer, {}
        if payer:
            try:
                rows = self._store.run(lambda db: db.execute(_SELECT_PAID, (payer,)).fetchall())
            except sqlite3.OperationalError as error:
                logger.warning("the cache %s cannot be read (%s): what was paid is not known", self._store.path, error)
                return
            self._owed = dict(rows)

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
        """The model's meter, which also counts cache hits."""
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
        options = CompletionOptions(schema, max_tokens, system, n, logprobs)
        settings = json.dumps(options.settings(self.llm), sort_keys=True)
        keys = {prompt: [_key(settings, prompt, number) for number in range(n)] for prompt in prompts}
        known = self._load({key for own in keys.values() for key in own})
        missing = [prompt for prompt, own in keys.items() if not known.keys() >= set(own)]
        sent = {key for prompt in missing for key in keys[prompt]}
        again = self._pay_again([key for own in keys.values() for key in own if key not in sent], known)
        waited = self.meter.seconds
        answers = self.llm.complete(missing, schema, max_tokens, system=system, n=n, logprobs=logprobs)
        waited = self.meter.seconds - waited
        fresh = dict(zip([key for prompt in missing for key in keys[prompt]], answers, strict=True))
        self._save({key: answer for key, answer in fresh.items() if answer.error is None}, waited)
        completions = []
        for key in [key for prompt in prompts for key in keys[prompt]]:
            answer = fresh.pop(key, None)
            if answer is None:  # from the cache, or the second of two equal prompts
                answer = known[key]
                if key in again:
                    again.remove(key)
                    answer = replace(answer, cached=False)
                else:
                    self.meter.cache_hits += answer.error is None
            else:
                known[key] = replace(answer, cached=answer.error is None)
            completions.append(answer)
        return completions

    def __len__(self) -> int:
        """Number of cached answers."""
        return int(self._store.run(lambda db: db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]))

    def close(self) -> None:
        """Close the cache file."""
        self._store.close()

    def _load(self, keys: set[str]) -> dict[str, Completion]:
        def work(db: sqlite3.Connection) -> dict[str, Completion]:
            rows = {key: db.execute(_SELECT, (key,)).fetchone() for key in keys}
            return {key: _completion(*row) for key, row in rows.items() if row is not None}

        try:
            return self._store.run(work)
        except sqlite3.OperationalError as error:
            logger.warning("the cache %s cannot be read (%s): asking the model", self._store.path, error)
            return {}

    def _pay_again(self, keys: list[str], known: dict[str, Completion]) -> set[str]:
        """Count known answers that the payer paid for in an earlier attempt; their keys."""
        again = [key for key in keys if key in self._owed]
        for key in again:
            self.meter.count([known[key]], self._owed.pop(key))
        return set(again)

    def _save(self, answers: dict[str, Completion], seconds: float) -> None:
        for key in answers:
            self._owed.pop(key, None)
        paid = [(self._payer, key, seconds / len(answers)) for key in answers if self._payer]
        rows = [(key, printable(a.text), a.prompt_tokens, a.completion_tokens) for key, a in answers.items()]
        logprobs = [(key, json.dumps(a.logprobs)) for key, a in answers.items() if a.logprobs is not None]
        if not rows:
            return

        def work(db: sqlite3.Connection) -> None:
            db.executemany(_INSERT, rows)
            db.executemany(_INSERT_LOGPROBS, logprobs)
            db.executemany(_INSERT_PAID, paid)

        try:
            self._store.run(work, write=True)
        except sqlite3.OperationalError as error:
            logger.warning(
                "the cache %s cannot be written (%s): %d answers are not cached", self._store.path, error, len(rows)
            )


def _key(settings: str, prompt: str, number: int) -> str:
    known = [settings, prompt, number] if number else [settings, prompt]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _completion(text: str, prompt_tokens: int, completion_tokens: int, logprobs: str | None) -> Completion:
    values = None if logprobs is None else tuple(json.loads(logprobs))
    return Completion(text, prompt_tokens, completion_tokens, cached=True, logprobs=values)
