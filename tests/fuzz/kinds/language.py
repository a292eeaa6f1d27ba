"""What language models leave and say: transcripts, pools of reflections, answers of servers."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.fuzz.inputs import command, result_of
from tests.fuzz.kinds.server import HEADERS, Reply, Server
from tests.fuzz.mutations import TEXTS, VALUES, altered, damaged, pick, spelt, text, value
from tests.fuzz.outcome import SECRET, Attempt

STRANGE_HEADERS = (
    ("Content-Encoding", "gzip"),
    ("Content-Type", "text/html"),
    ("Location", "/x"),
    ("Retry-After", "9999"),
)
PROMPTS = ["Plan for Ann.", "Plan for Bob."]


def changed_rows(rng: Generator, file: Path, table: str, columns: tuple[str, ...]) -> str:
    """Another value in one column of one row, or in all; what was done."""
    column, new = pick(rng, columns), value(rng)
    if not isinstance(new, str | float | int | None) or (isinstance(new, int) and abs(new) >= 2**63):
        new = b"\xff\xfe"
    one = " WHERE id = 1" if rng.random() < 0.5 else ""
    with closing(sqlite3.connect(file)) as db, db:
        statement = f"UPDATE OR IGNORE {table} SET {column} = ?{one}"
        try:
            db.execute(statement, (new,))
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            db.execute(statement, (b"\xff\xfe",))
    return f"{column} = {new!r:.50}{one}"


def changed_tables(rng: Generator, file: Path, table: str, columns: tuple[str, ...]) -> str:
    """A table without a column, without rows, or under another name; what was done."""
    statement = pick(
        rng,
        (
            f"ALTER TABLE {table} RENAME TO other",
            f"ALTER TABLE {table} RENAME COLUMN {columns[-1]} TO other",
            f"DELETE FROM {table}",
            f"DROP TABLE {table}",
            f"CREATE TRIGGER t BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END",
        ),
    )
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("DROP INDEX IF EXISTS of_conversation")
        db.execute(statement)
    return str(statement)


class Transcript:
    """A transcript, as it is shown and replayed."""

    name = "transcript"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Record two batches of a scripted model."""
        from rapport.agents.llm.base.interface import Completion, Meter, Sampling
        from rapport.agents.llm.transcript import RecordedLLM, seal

        class Scripted:
            identity, sampling, meter, refusal = "scripted", Sampling(), Meter(), None

            def complete(self, prompts: Any, *_: Any, **__: Any) -> list[Completion]:
                return [Completion(f"So be it: {prompt}", 5, 7) for prompt in prompts]

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "run.transcript")
            model = RecordedLLM(Scripted(), file)
            for name in ("training", "evaluation"):
                model.begin(name)
                model.complete(PROMPTS)
            model.close()
            seal(file)
            self._content = file.read_bytes()
            self._pristine = self._use(file)

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A file with damage, other values in its rows, or other content in its batches."""
        file = folder / "run.transcript"
        file.write_bytes(self._content)
        way = pick(rng, ("bytes", "bytes", "rows", "tables", "batch", "batch", "batch", "bomb"))
        pristine = None
        if way == "bytes":
            content, done = damaged(rng, self._content)
            file.write_bytes(content)
            pristine = self._pristine
        elif way == "rows":
            done = changed_rows(rng, file, "batches", ("conversation", "content"))
        elif way == "tables":
            done = changed_tables(rng, file, "batches", ("conversation", "content"))
        else:
            done = self._batch(rng, file, way)
        return Attempt(done, lambda: self._use(file), pristine, (file.name,))

    def _batch(self, rng: Generator, file: Path, way: str) -> str:
        with closing(sqlite3.connect(file)) as db, db:
            (packed,) = db.execute("SELECT content FROM batches WHERE id = 1").fetchone()
            content, done = altered(rng, json.loads(zlib.decompress(packed)))
            document = spelt(json.dumps(content)).encode()
            if way == "bomb" and rng.random() < 0.2:
                document, done = b'{"prompts": ["' + bytes(200_000_000) + b'"]}', "200 MB in a batch"
            packed = zlib.compress(document, 1)
            db.execute("UPDATE batches SET content = ? WHERE id = 1", (packed,))
        return done

    def _use(self, file: Path) -> str:
        from rapport.agents.llm.load import open_llm

        command("transcript", "show", file)
        model = open_llm(f"replay:{file}")
        answers = []
        for name in ("training", "evaluation"):
            model.begin(name)  # type: ignore[attr-defined] # a transcript's
            answers.append(model.complete(PROMPTS))
        if any(answer.error for batch in answers for answer in batch):
            print("an answer says that it is missing", file=sys.stderr)
        return result_of(answers)


class Pool:
    """A pool of reflections, as it is shown and drawn from. It has no checksum: texts may be edited by hand."""

    name = "pool"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Keep five reflections."""
        from rapport.agents.planning.reflection import ReflectionPool

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "reflections.sqlite")
            pool = ReflectionPool(file)
            for number in range(5):
                pool.add(f"Users who saw {number} kinds of video stayed {'long ' * number}", float(number), number)
            pool.close()
            with closing(sqlite3.connect(file)) as db:
                db.execute("PRAGMA journal_mode = DELETE")
            self._content = file.read_bytes()
            self._use(file)

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A file with damage, or with other values in its rows."""
        file = folder / "reflections.sqlite"
        file.write_bytes(self._content)
        columns, way = ("text", "score", "user"), pick(rng, ("bytes", "rows", "rows", "tables"))
        if way == "bytes":
            content, done = damaged(rng, self._content)
            file.write_bytes(content)
        else:
            done = (changed_rows if way == "rows" else changed_tables)(rng, file, "reflections", columns)
        return Attempt(done, lambda: self._use(file), names=(file.name,))

    def _use(self, file: Path) -> None:
        from rapport.agents.planning.reflection import ReflectionPool

        command("reflections", "show", file)
        pool = ReflectionPool(file)
        pool.sample(np.random.default_rng(0), 2)
        pool.add("Short slates kept this user.", 3.0, 1)
        pool.close()


class Answer:
    """The answer of a server, to a planner that asks for a plan and keeps cache and transcript."""

    name = "answer"

    def missing(self) -> str | None:
        """The client's package."""
        import importlib.util

        return None if importlib.util.find_spec("openai") else "openai"

    def prepare(self) -> None:
        """Start the server, and ask it once."""
        self._server = Server()
        self._good = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "PLAN"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        self._good["choices"][0]["message"]["content"] = '{"categories": ["Dance", "Music"]}'  # type: ignore[index]
        with tempfile.TemporaryDirectory() as folder:
            address = self._server.address(-1)
            self._server.reply(address, Reply(body=self._good))
            self._ask(Path(folder), address)

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """An answer of another form, status, size or speed."""
        address = self._server.address(int(rng.integers(2**31)))
        reply, done = self._reply(rng)
        self._server.reply(address, reply)
        if rng.random() < 0.2:
            address, form = self._strange(rng, address)
            done = f"{done}; address {form}"
        return Attempt(done, lambda: self._ask(folder, address))

    def _reply(self, rng: Generator) -> tuple[Reply, str]:
        way = pick(
            rng, ("value", "value", "value", "text", "text", "bytes", "status", "echo", "headers", "slow", "large")
        )
        good = json.loads(json.dumps(self._good))
        if way == "value":
            body, done = altered(rng, good)
            return Reply(body=spelt(json.dumps(body))), done
        if way == "text":
            said = pick(rng, (*TEXTS, *map(json.dumps, VALUES[:14]), "<think>[1] {a}</think>" + '{"categories": []}'))
            good["choices"][0]["message"]["content"] = said if rng.random() < 0.8 else f'{{"categories": [{said}'
            return Reply(body=good), f"says {said!r:.40}"
        if way == "bytes":
            content, done = damaged(rng, json.dumps(good).encode())
            return Reply(body=content.decode("latin-1")), done
        status = int(pick(rng, (400, 401, 403, 404, 418, 422, 429, 500, 503, 302, 204)))
        if way in ("status", "echo"):
            error = {"error": {"message": HEADERS if way == "echo" else f"no: {text(rng)[:200]}", "type": "x"}}
            return Reply(status, error, {"Retry-After": "0"}), f"status {status}, {way}"
        if way == "headers":
            name, content_of = pick(rng, STRANGE_HEADERS)
            headers = {name: content_of}
            return Reply(200 if "Retry-After" not in headers else 429, good, headers), f"headers {headers}"
        if way == "slow":
            return Reply(body=json.dumps(good).ljust(2_000), pause=0.3), "0.3 s between pieces"
        large = "[" * 100_000 if rng.random() < 0.3 else json.dumps(good).ljust(20_000_000)
        return Reply(body=large), f"{len(large):,} bytes"

    def _strange(self, rng: Generator, address: str) -> tuple[str, str]:
        """The address with credentials in it, or one that is none."""
        form = pick(rng, ("user", "query", "port", "key"))
        if form == "user":
            return address.replace("//", f"//me:{SECRET}@"), form
        if form == "query":
            return f"{address}?api_key={SECRET}", form
        if form == "port":
            return "http://127.0.0.1:abc/v1", form
        os.environ["OPENAI_API_KEY"] = "sk-é" + SECRET
        return address, form

    def _ask(self, folder: Path, address: str) -> None:
        """Plan for two sessions, as a run does."""
        from rapport.agents.llm.load import open_llm
        from rapport.agents.llm.transcript import RecordedLLM
        from rapport.agents.planning.controls import GreedyRotationPlanner
        from rapport.agents.planning.llm_planner import LLMPlanner
        from rapport.agents.planning.planner import SessionViews

        names = ["Dance", "Music", "News", "Sport"]
        rates = np.full(4, 0.5)
        model = open_llm(f"{address}#m", timeout=2.0, cache=folder / "cache.sqlite")
        recorded = RecordedLLM(model, folder / "run.transcript")
        fallback = GreedyRotationPlanner(np.full(4, 9), rates)
        planner = LLMPlanner(recorded, names, rates, fallback, retries=1)
        views = SessionViews(
            user=np.arange(2),
            step=np.zeros(2, np.int64),
            categories=np.zeros((2, 6), np.int64),
            clicks=np.zeros((2, 6), np.int8),
            slate_size=2,
        )
        planner.plan(views)
        recorded.close()
        print(model.meter)
