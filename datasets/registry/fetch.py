"""Download of an official data set into the data directory: complete and verified, or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch

from rapport.datasets.files.archive import extract
from rapport.datasets.files.atomic import write_atomically
from rapport.datasets.files.directory import data_directory
from rapport.datasets.files.download import ResumingDownloader
from rapport.datasets.files.reading import reading
from rapport.datasets.registry.load import DatasetInfo, info
from rapport.datasets.schema import DataError

logger = logging.getLogger(__name__)

RECORD = "checksums.json"
"""In the data directory: SHA-256 of each archive whose publisher names no checksum, as first downloaded."""


def fetch(
    name: str,
    root: str | Path | None = None,
    *,
    base_url: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    attempts: int = 5,
    wait_s: float = 1.0,
) -> Path:
    """Download a data set, verify it, unpack it, and move it into place in one step.

    The next call resumes an interrupted download. A download with a wrong checksum is discarded.

    Args:
        name: an entry of :data:`rapport.datasets.registry.load.DATASETS`.
        root: the data directory.
        base_url: fetch ``base_url/<archive>`` instead of the official address, e.g. a mirror.
        overwrite: replace an existing folder, which is kept beside it as ``<folder>.replaced-<n>``.
        progress: show a progress bar.
        attempts: attempts of a transfer before giving up.
        wait_s: seconds before the second attempt; doubled each time.

    Returns:
        The folder of the data set.

    Raises:
        DataError: it exists already, cannot be fetched, does not match its checksum, or cannot be unpacked safely.
    """
    entry = info(name)
    directory = data_directory(root)
    target = directory / entry.folder
    if target.exists() and not overwrite:
        raise DataError(
            f"{target}: is there already; `rapport data check` tells whether it is whole, and --overwrite fetches it "
            "anew (the old folder is kept under another name)"
        )
    try:
        downloads = directory / ".downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        filename = Path(entry.url).name
        url = f"{base_url.rstrip('/')}/{filename}" if base_url else entry.url
        part = downloads / f"{filename}.part"
        downloader = ResumingDownloader(part, attempts=attempts, wait_s=wait_s, progress=progress)
        known = f"md5:{entry.md5}" if entry.md5 else _recorded(directory).get(name)
        archive = _download(url, known, downloads / filename, downloader)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=directory) as work:
            folder = _unpack(archive, entry, Path(work))
            if known is None:
                _record(directory, name, f"sha256:{pooch.file_hash(str(archive), alg='sha256')}")
            _install(folder, target)
        archive.unlink()
    except OSError as error:
        raise DataError(f"{directory}: {error}; make room there and make it writable, or choose another") from error
    return target


def _download(url: str, known: str | None, archive: Path, downloader: ResumingDownloader) -> Path:
    """Return the archive, verified if a checksum is known."""
    try:
        with _quiet():
            pooch.retrieve(url, known, fname=archive.name, path=archive.parent, downloader=downloader)
    except DataError:
        raise
    except ValueError as error:  # pooch's error for a wrong checksum; it names both
        raise DataError(
            f"{url}: checksum mismatch: {error} Run the same command again; if it persists, compare address and "
            "checksum with the publisher's page"
        ) from error
    return archive


def _unpack(archive: Path, entry: DatasetInfo, work: Path) -> Path:
    """Unpack under ``work`` and return the folder of the data set."""
    contents = work / entry.folder
    contents.mkdir()
    if archive.suffix == ".csv":
        shutil.copyfile(archive, contents / archive.name)
        return contents
    try:
        extract(archive, contents)
        inside = [path for path in contents.iterdir() if path.name != "__MACOSX"]
        if not inside:
            raise DataError(f"{archive}: the archive is empty; check the address it came from")
    except DataError:
        archive.unlink()  # so that the next call downloads it again
        raise
    # Archives wrap everything in a folder named after the release; here it has a fixed name.
    wrapped = len(inside) == 1 and inside[0].is_dir() and inside[0].name != "data"
    return inside[0] if wrapped else contents


def _install(folder: Path, target: Path) -> None:
    """Move a complete folder into place; an existing one is kept under another name."""
    if target.exists():
        number = 1
        while (aside := target.with_name(f"{target.name}.replaced-{number}")).exists():
            number += 1
        os.rename(target, aside)
        logger.warning("%s: the folder that was there is now %s", target, aside.name)
    os.rename(folder, target)


def _recorded(directory: Path) -> dict[str, str]:
    """Return the checksums recorded on first downloads, by data set."""
    path = directory / RECORD
    if not path.exists():
        return {}
    with reading(path, "the table of checksums", "restore it, or delete it to trust anew"):
        record = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(checksum) for name, checksum in record.items()}


def _record(directory: Path, name: str, checksum: str) -> None:
    path = directory / RECORD
    write_atomically(path, json.dumps(_recorded(directory) | {name: checksum}, indent=2) + "\n")
    logger.warning("%s: its publisher names no checksum; recorded %s in %s", name, checksum, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress pooch's messages, because those here name the file and the remedy."""
    log = pooch.get_logger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
