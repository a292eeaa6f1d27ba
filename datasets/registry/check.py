"""Comparison of the data directory with the published files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rapport.datasets.files.directory import data_directory
from rapport.datasets.kuairand import large as kuairand_large
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.kuairec import load as kuairec
from rapport.datasets.registry.load import DATASETS
from rapport.datasets.schema import DataError

PUBLISHED_USERS = 27_285
PUBLISHED_VIDEOS = 7_583
PUBLISHED_STANDARD_ROWS = 1_436_609
PUBLISHED_RANDOM_ROWS = 1_186_059

_KUAIREC_ROWS = {
    "small_matrix.csv": 4_676_570,
    "big_matrix.csv": 12_530_806,
    "user_features.csv": 7_176,
    "kuairec_caption_category.csv": 10_728,
    "item_categories.csv": 10_728,
}
_KUAIREC_PAIRS = 1_411 * 3_327


class State(StrEnum):
    """Result of a check."""

    OK = "ok"
    PARTIAL = "partial"
    ABSENT = "absent"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class FileCheck:
    """One line of the table.

    Attributes:
        dataset: name of the data set.
        file: name of the file, or what was checked.
        rows: rows found; None where there is no file or it cannot be read.
        published: rows of the official release; None where it is not stated.
        state: the verdict.
        note: what is wrong and what to do, or empty.
    """

    dataset: str
    file: str
    rows: int | None
    published: int | None
    state: State
    note: str = ""


def check(root: str | Path | None = None) -> list[FileCheck]:
    """Check every known data set in the data directory, without changing anything.

    Returns:
        Lines in the order of :data:`rapport.datasets.registry.load.DATASETS`; a data set that is not there has one
        line.
    """
    directory = data_directory(root)
    lines: list[FileCheck] = []
    for entry in DATASETS.values():
        if entry.name == "kuairand-pure":
            lines += _kuairand_pure(directory)
        elif entry.name in kuairand_large.VERSIONS:
            lines += _kuairand_large(entry.name, directory)
        elif not (directory / entry.folder).is_dir():
            lines.append(FileCheck(entry.name, entry.folder, None, None, State.ABSENT))
        elif entry.name == "kuairec":
            lines += _kuairec(directory)
        else:
            files = [path for path in (directory / entry.folder).rglob("*.csv")]
            state = State.OK if files else State.PARTIAL
            lines.append(
                FileCheck(entry.name, f"{len(files)} CSV file(s)", None, None, state, "not read by this version")
            )
    return lines


def _kuairand_pure(directory: Path) -> list[FileCheck]:
    name = "kuairand-pure"
    layout = kuairand.find(directory)
    if layout is None:
        remedy = "run `rapport data fetch kuairand-pure`"
        return [FileCheck(name, "KuaiRand-Pure", None, None, State.ABSENT, remedy)]
    logs = [_file(name, layout.folder / log, None) for log in kuairand.STANDARD_LOGS]
    return [
        _file(name, layout.folder / kuairand.USER_FILE, PUBLISHED_USERS),
        _file(name, layout.folder / kuairand.ITEM_FILE, PUBLISHED_VIDEOS),
        *logs,
        _total(name, logs, PUBLISHED_STANDARD_ROWS),
        _file(name, layout.folder / kuairand.RANDOM_LOG, PUBLISHED_RANDOM_ROWS, "optional"),
        _readable(name, directory),
    ]


def _kuairand_large(name: str, directory: Path) -> list[FileCheck]:
    """Count the rows of the files, which are too large to be read and joined for a check."""
    version = kuairand_large.VERSIONS[name]
    data = version.find(directory)
    if data is None:
        return [FileCheck(name, version.folder, None, None, State.ABSENT, f"run `rapport data fetch {name}`")]
    logs = [_file(name, data / log, None) for log in version.standard_logs]
    return [
        _file(name, data / version.user_file, version.users),
        _file(name, data / version.item_file, None),
        *logs,
        _total(name, logs, version.standard_rows),
        _file(name, data / version.random_log, version.random_rows, "optional"),
    ]


def _kuairec(directory: Path) -> list[FileCheck]:
    """Compare the files and, if all are there, read them as an environment would."""
    name = "kuairec"
    layout = kuairec.find(directory)
    data = layout.folder if layout is not None else directory / "KuaiRec" / "data"
    remedy = "run `rapport data fetch kuairec`"
    lines = [_file(name, data / file, rows, remedy) for file, rows in _KUAIREC_ROWS.items()]
    if any(line.state is State.ABSENT for line in lines):
        return lines
    pairs = "pairs of the small matrix"
    try:
        parts = kuairec.read(directory, kuairec.CLICK_AT)
    except DataError as error:
        return [*lines, FileCheck(name, pairs, None, _KUAIREC_PAIRS, State.DAMAGED, str(error))]
    users, videos = parts.blocked.shape
    note = f"{users:,} users x {videos:,} videos, {int(parts.blocked.sum()):,} blocked ({parts.blocked.mean():.1%})"
    state = State.OK if parts.blocked.size == _KUAIREC_PAIRS else State.PARTIAL
    kept = f"on these videos; {parts.tables.log.feedback.mean():.1%} clicks at watch ratio {kuairec.CLICK_AT:g}"
    return [
        *lines,
        FileCheck(name, pairs, parts.blocked.size, _KUAIREC_PAIRS, state, note),
        FileCheck(name, "read and joined", len(parts.tables.log), None, State.OK, kept),
    ]


def _total(name: str, logs: list[FileCheck], published: int) -> FileCheck:
    """All standard logs together, because only their sum is published."""
    rows = sum(line.rows or 0 for line in logs)
    state = State.OK if rows == published else State.PARTIAL if rows else State.ABSENT
    return FileCheck(name, "standard logs together", rows, published, state)


def _readable(name: str, directory: Path) -> FileCheck:
    """Read all files, including histories, as training would."""
    try:
        tables = kuairand.read(directory)
    except DataError as error:
        return FileCheck(name, "read and joined", None, None, State.DAMAGED, str(error))
    note = f"{int(tables.log.randomised.sum()):,} at random; repeated reports dropped, earlier exposures added"
    return FileCheck(name, "read and joined", len(tables.log), None, State.OK, note)


def _file(dataset: str, path: Path, published: int | None, absent_note: str = "") -> FileCheck:
    if not path.is_file():
        return FileCheck(dataset, path.name, None, published, State.ABSENT, absent_note)
    rows, whole_line = _lines(path)
    if not whole_line:
        return FileCheck(dataset, path.name, rows, published, State.DAMAGED, "the last line is cut off; get it again")
    whole = published is None or rows == published
    return FileCheck(dataset, path.name, rows, published, State.OK if whole else State.PARTIAL)


def _lines(path: Path) -> tuple[int, bool]:
    """Return the lines below the header, and whether the last one is whole.

    Only line feeds count, because four KuaiRec captions contain carriage returns.
    """
    lines, last = 0, b""
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            lines += piece.count(b"\n")
            last = piece[-1:]
    return max(lines - 1, 0), last == b"\n"
