"""A shop's log: its CSV and Parquet files, its manifest, and the cache of its tables."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.fuzz.inputs import result_of
from tests.fuzz.mutations import altered, damaged, pick, spelt, text
from tests.fuzz.outcome import Attempt, Fault, Outcome

USERS, ITEMS, ROWS, DAY = 12, 8, 240, 86_400
Cells = dict[str, list[list[str]]]
"""Rows of each file, the header first."""

MANIFEST: dict[str, Any] = {
    "name": "shop",
    "interactions": {
        "path": "log.csv",
        "user": "customer",
        "item": "sku",
        "time": "when",
        "time_unit": "s",
        "behaviours": {"click": "clicked", "like": {"column": "rating", "at_least": 4}},
    },
    "items": {"path": "items.csv", "category": "department", "features": ["brand", {"column": "price", "bins": 3}]},
    "users": {"path": "users.csv", "features": ["country"]},
    "splits": {"test_share": 0.2, "seed": 0},
    "environment": {"slate_size": 2, "quit_rule": "positional", "budget": 5, "history": 4, "max_steps": 6},
}
NOTHING = ("NULL", "\\N")
"""Texts for a missing category; ``None`` and ``nan`` may be names."""


def shop() -> Cells:
    """A small valid log of twelve days."""
    rng = np.random.default_rng(0)
    items = [["sku", "department", "brand", "price"]]
    items += [[f"s{i}", f"d{i % 3}", pick(rng, ("Acorn", "Birch")), f"{rng.lognormal():.2f}"] for i in range(ITEMS)]
    users = [["customer", "country"], *([f"{100 + u}", pick(rng, ("DE", "FR"))] for u in range(USERS))]
    log = [["customer", "sku", "when", "clicked", "rating"]]
    for row in range(ROWS):
        who = [f"{100 + int(rng.integers(USERS))}", f"s{int(rng.integers(ITEMS))}"]
        rating = pick(rng, ("", "2", "5"))
        log.append([*who, f"{1_760_000_000 + row * 12 * DAY // ROWS}", f"{int(rng.integers(2))}", rating])
    return {"items": items, "users": users, "log": log}


def write(folder: Path, cells: Cells) -> Path:
    """Write the files and their manifest; its path."""
    for name, rows in cells.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows(rows)
    return write_manifest(folder, MANIFEST)


def write_manifest(folder: Path, content: dict[str, Any]) -> Path:
    """Write a manifest; its path."""
    path = folder / "shop.toml"
    path.write_text(spelt(toml(content)), encoding="utf-8", errors="surrogatepass")
    return path


def toml(content: dict[str, Any]) -> str:
    """Plain data as TOML, tables inline below the first level; what TOML cannot hold, as JSON has it."""
    lines = [f"{_key(key)} = {_inline(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"[{_key(key)}]", *(f"{_key(name)} = {_inline(inner)}" for name, inner in value.items())]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value)


def _key(key: Any) -> str:
    return str(key) if str(key).isidentifier() and str(key).isascii() else json.dumps(str(key))


def digest(data: Any) -> str:
    """Short name of the whole content of a data set."""
    return result_of(data.name, data.catalog, data.population, data.log, data.test_from_ms, data.held_out)


class Csv:
    """The files of a log."""

    name = "csv"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Load the valid shop once, which also imports what is needed."""
        import rapport

        with tempfile.TemporaryDirectory() as folder:
            rapport.from_manifest(write(Path(folder), shop()), use_cache=False)

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A file with damage, a strange cell, or a strange form."""
        cells, name = shop(), pick(rng, ("log", "log", "items", "users"))
        way = pick(rng, ("bytes", "cell", "cell", "cell", "column", "row", "form"))
        if way in ("cell", "column", "row"):
            done = getattr(self, f"_{way}")(rng, cells[name])
        path = write(folder, cells)
        file = folder / f"{name}.csv"
        if way == "bytes":
            content, done = damaged(rng, file.read_bytes())
            file.write_bytes(content)
        if way == "form":
            file, done = self._form(rng, path, name, cells[name])
        return Attempt(f"{name}: {done}", lambda: self._load(path, done), names=(file.name, path.name))

    def _cell(self, rng: Generator, rows: list[list[str]]) -> str:
        row, column, new = int(rng.integers(1, len(rows))), int(rng.integers(len(rows[0]))), text(rng)
        hit = range(1, len(rows), 4) if rng.random() < 0.3 else (row,)
        for at in hit:
            rows[at][column] = new
        return f"{rows[0][column]} is {new!r:.40} in {len(hit)} rows"

    def _column(self, rng: Generator, rows: list[list[str]]) -> str:
        column, way = int(rng.integers(len(rows[0]))), pick(rng, ("missing", "renamed", "twice", "one value", "zeros"))
        name, new = rows[0][column], text(rng)
        for number, row in enumerate(rows):
            if way == "missing":
                del row[column]
            elif way == "twice":
                row.append(row[column])
            elif (way == "renamed" and number == 0) or (way == "one value" and number > 0):
                row[column] = new
            elif way == "zeros" and number > 0:
                row[column] = "0" * int(rng.integers(2)) + row[column]
        return f"column {name} {way} {new if way in ('renamed', 'one value') else ''!r:.40}"

    def _row(self, rng: Generator, rows: list[list[str]]) -> str:
        at, way = int(rng.integers(len(rows))), pick(rng, ("missing", "twice", "short", "long", "blank", "all gone"))
        if way == "missing":
            del rows[at]
        elif way == "all gone":
            del rows[1:]
        else:
            row = rows[at]
            rows.insert(at, {"twice": row, "short": row[:-1], "long": [*row, "1"], "blank": []}[way])
        return f"row {at} {way}"

    def _form(self, rng: Generator, manifest: Path, name: str, rows: list[list[str]]) -> tuple[Path, str]:
        """Write a file in another encoding, with other separators, compressed, or as Parquet."""
        way = pick(rng, ("latin", "utf-16", "bom", "semicolon", "crlf", "gz", "gz cut", "parquet", "lists", "float32"))
        file = manifest.with_name(f"{name}.csv")
        plain = file.read_text("utf-8")
        if way == "latin":
            file.write_bytes(plain.replace("Acorn", "Ácorn").replace("d1", "é").replace("DE", "Ö").encode("latin-1"))
        elif way in ("utf-16", "bom"):
            file.write_bytes(plain.encode("utf-16" if way == "utf-16" else "utf-8-sig"))
        elif way in ("semicolon", "crlf"):
            file.write_text(plain.replace(",", ";") if way == "semicolon" else plain, newline="\r\n")
        else:
            ending = "csv.gz" if way.startswith("gz") else "parquet"
            file = manifest.with_name(f"{name}.{ending}")
            content = json.loads(json.dumps(MANIFEST))
            content["interactions" if name == "log" else name]["path"] = file.name
            write_manifest(manifest.parent, content)
            if ending == "csv.gz":
                packed = gzip.compress(plain.encode())
                file.write_bytes(packed[: int(rng.integers(len(packed)))] if way == "gz cut" else packed)
            else:
                self._parquet(file, rows, int(rng.integers(len(rows[0]))), way)
        return file, way

    def _parquet(self, file: Path, rows: list[list[str]], strange: int, way: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {}
        for place, name in enumerate(rows[0]):
            column = pa.array([row[place] or None for row in rows[1:]])
            if name in ("when", "clicked", "rating", "price"):
                column = column.cast(pa.float64())
            if place == strange and way == "lists":
                column = pa.array([[value] for value in column.to_pylist()])
            if place == strange and way == "float32" and not pa.types.is_string(column.type):
                column = column.cast(pa.float32())
            columns[name] = column
        pq.write_table(pa.table(columns), file)

    def _load(self, path: Path, done: str) -> None:
        import rapport

        compare(path, rapport.from_manifest(path, use_cache=False))


def compare(path: Path, data: Any) -> None:
    """Compare a data set with what a plain CSV reader sees in the files, where it can read them.

    Raises:
        Fault: rows, ids, categories or clicks are others.
    """
    try:
        tables = {name: _plain(path.with_name(f"{name}.csv")) for name in ("log", "items", "users")}
        log, items, users = tables["log"], tables["items"], tables["users"]
        expected = {
            "rows": len(log),
            "items": len({row["sku"] for row in items}),
            "users": len({row["customer"] for row in users}),
            "clicks": sum(row["clicked"].strip() in ("1", "1.0", "true") for row in log),
            "categories": sorted({row["department"] or "Unknown" for row in items}),
        }
    except (ValueError, KeyError, AttributeError, OSError, csv.Error):
        return
    found = {
        "rows": len(data.log),
        "items": data.catalog.n_items,
        "users": data.population.n_users,
        "clicks": int((data.log.feedback[:, 0] == 1).sum()),
        "categories": sorted(data.catalog.category_names),
    }
    for name, value in expected.items():
        if found[name] != value:
            raise Fault(Outcome.SILENT, f"{name}: {found[name]!r:.80} in place of {value!r:.80}", f"csv {name}")
    if told := [name for name in found["categories"] if name in NOTHING]:
        raise Fault(Outcome.SILENT, f"categories: one is called {told[0]}", "csv missing values")


def _plain(file: Path) -> list[dict[str, str]]:
    rows = list(csv.reader(io.StringIO(file.read_text("utf-8")), strict=True))
    header, body = rows[0], [row for row in rows[1:] if row]
    if len(set(header)) < len(header) or any(len(row) != len(header) for row in body):
        raise ValueError("not a plain table")
    return [dict(zip(header, row, strict=True)) for row in body]


class Manifest:
    """The manifest of a log."""

    name = "manifest"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Make an environment once, which imports what is needed."""

        with tempfile.TemporaryDirectory() as folder:
            self._use(write(Path(folder), shop()))

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A manifest with damage or a strange value."""
        path = write(folder, shop())
        if rng.random() < 0.2:
            content, done = damaged(rng, path.read_bytes())
            path.write_bytes(content)
        else:
            content, done = altered(rng, MANIFEST)
            write_manifest(folder, content)
        return Attempt(done, lambda: self._use(path))

    def _use(self, path: Path) -> None:
        """Register the log, and step its environment without fitting anything."""
        import gymnasium as gym

        import rapport
        from rapport.envs.session.response.base import MatrixResponse

        os.environ["RAPPORT_CACHE_DIR"] = str(path.parent / "cache")
        data = rapport.from_manifest(path, use_cache=False)
        chances = np.full((data.population.n_users, data.catalog.n_items, len(data.log.behaviours)), 0.5)
        response = MatrixResponse(chances, data.log.behaviours)
        env = gym.make_vec(rapport.register_log(path), 2, "vector_entry_point", response=response)
        env.reset(seed=0)
        for _ in range(3):
            env.step(env.action_space.sample())


class TableCache:
    """The cache of a log's tables."""

    name = "table-cache"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Fill a cache."""
        import rapport

        self._base = tempfile.TemporaryDirectory(prefix="rapport-fuzz-")
        base = Path(self._base.name)
        os.environ["RAPPORT_CACHE_DIR"] = str(base / "cache")
        self._pristine = digest(rapport.from_manifest(write(base, shop())))

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A cache with a damaged file, or with other values in the file of names."""
        shutil.copytree(self._base.name, folder, dirs_exist_ok=True)
        (kept,) = (folder / "cache" / "tables").iterdir()
        file = pick(rng, sorted(kept.iterdir()))
        if file.name == "meta.json" and rng.random() < 0.7:
            content, done = altered(rng, json.loads(file.read_bytes()))
            file.write_text(spelt(json.dumps(content)))
        else:
            content, done = damaged(rng, file.read_bytes())
            file.write_bytes(content)
        return Attempt(f"{file.name}: {done}", lambda: self._load(folder), self._pristine)

    def _load(self, folder: Path) -> str:
        import rapport

        os.environ["RAPPORT_CACHE_DIR"] = str(folder / "cache")
        return digest(rapport.from_manifest(folder / "shop.toml"))
