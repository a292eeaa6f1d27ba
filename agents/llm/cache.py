"""Cache of answers in a file that several processes can share."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from rapport.agents.llm.base.interface import LLM, Completion, Meter, Sampling, Schema, printable, request_settings
from rapport.agents.llm.sqlite import Store

logger = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
) WITHOUT ROWID
"""

_INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)"


class CachedLLM:
    """A model with a cache: each prompt is sent once.

    The key of an answer is the SHA-256 of the model's identity, the prompt, the schema, the sampling settings and
    ``max_tokens``. Failed calls are not cached. Equal prompts in a batch are sent once.
    """

    def __init__(self, llm: LLM, path: str | PathLike[str]) -> None:
        """Open or create the cache.

        Args:
            llm: the model, whose meter is shared.
            path: the cache file; it is created if it is missing, and replaced by an empty one if it is damaged.
        """
        self.llm = llm
        self._store = Store(path, _TABLES)

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

    def complete(self, prompts: Sequence[str], schema: Schema | None = None, max_tokens: int = 256) -> list[Completion]:
        """See `rapport.agents.llm.base.interface.LLM.complete`."""
        settings = json.dumps(request_settings(self.llm, schema, max_tokens), sort_keys=True)
        keys = [hashlib.sha256(json.dumps([settings, prompt]).encode()).hexdigest() for prompt in prompts]
        known = self._load(set(keys))
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        fresh = dict(zip(missing, self.llm.complete(list(missing.values()), schema, max_tokens), strict=True))
        self._save({key: answer for key, answer in fresh.items() if answer.error is None})
        completions = []
        for key in keys:
            answer = fresh.pop(key, None)
            if answer is None:  # from the cache, or the second of two equal prompts
                answer = known[key]
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
        query = "SELECT text, prompt_tokens, completion_tokens FROM answers WHERE key = ?"

        def work(db: sqlite3.Connection) -> dict[str, Completion]:
            rows = {key: db.execute(query, (key,)).fetchone() for key in keys}
            found = {key: row for key, row in rows.items() if row is not None}
            return {key: Completion(text, read, written, cached=True) for key, (text, read, written) in found.items()}

        try:
            return self._store.run(work)
        except sqlite3.OperationalError as error:
            logger.warning("the cache %s cannot be read (%s): asking the model", self._store.path, error)
            return {}

    def _save(self, answers: dict[str, Completion]) -> None:
        rows = [(key, printable(a.text), a.prompt_tokens, a.completion_tokens) for key, a in answers.items()]
        if not rows:
            return
        try:
            self._store.run(lambda db: db.executemany(_INSERT, rows), write=True)
        except sqlite3.OperationalError as error:
            logger.warning(
                "the cache %s cannot be written (%s): %d answers are not cached", self._store.path, error, len(rows)
            )
