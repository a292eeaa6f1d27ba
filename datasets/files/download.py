"""A downloader for pooch that resumes interrupted transfers.

Received bytes are kept in ``<file>.part``. The next attempt asks the server for the rest with an HTTP ``Range``
header, and with ``If-Range`` if the server had named a version, so that parts of two versions are never joined. If a
server ignores the range and sends everything, the file starts over.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from rapport.datasets.schema import DataError

LINE_SECONDS = 30.0
"""Time between two lines about a transfer where there is no terminal [s]."""
_CHUNK = 1 << 18
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
_SERVER_ERRORS = 500


class TransferDisplay(AbstractContextManager["TransferDisplay"]):
    """How far a transfer is, while the block runs: a bar in a terminal, plain lines at intervals elsewhere.

    Args:
        name: of the file.
        console: where it is shown.
        clock: tells the time [s].
    """

    def __init__(self, name: str, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        off = console.quiet or not console.is_terminal
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=off)
        self._task = self._bar.add_task(name, total=None)
        self._name, self._console, self._clock, self._told = name, console, clock, clock()
        self._have, self._total = 0, 0

    def __enter__(self) -> TransferDisplay:
        """Begin to show."""
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End showing."""
        self._bar.stop()

    def begin(self, have: int, total: int | None) -> None:
        """Say how many bytes are there already, and how many there will be where that is known."""
        self._have, self._total = have, total or 0
        self._bar.update(self._task, total=total, completed=have)

    def advance(self, received: int) -> None:
        """Take in received bytes."""
        self._have += received
        self._bar.advance(self._task, received)
        if not self._console.is_terminal and self._clock() - self._told >= LINE_SECONDS:
            self._told = self._clock()
            of = f" of {self._total / 1e6:,.0f}" if self._total else ""
            self._console.print(f"  {self._name}: {self._have / 1e6:,.0f}{of} MB", highlight=False, markup=False)


class ResumingDownloader:
    """Callable with pooch's signature ``(url, output_file, pooch)``.

    Args:
        part: path of the unfinished file between attempts.
        attempts: attempts before giving up.
        wait_s: seconds before the second attempt; doubled each time.
        timeout_s: seconds without a byte after which a transfer counts as broken.
        progress: show a progress bar.
    """

    def __init__(
        self, part: Path, attempts: int = 5, wait_s: float = 1.0, timeout_s: float = 30.0, progress: bool = True
    ) -> None:
        self.part = part
        self.version = part.with_name(part.name + ".version")
        self.attempts = attempts
        self.wait_s = wait_s
        self.timeout_s = timeout_s
        self.progress = progress

    def __call__(self, url: str, output_file: str | Path, pooch: Any = None) -> None:
        """Download ``url`` to ``output_file``, which appears only when complete.

        Raises:
            DataError: the server refused, or the transfer kept breaking; received bytes stay in ``part``.
        """
        with TransferDisplay(url.rsplit("/", 1)[-1], Console(quiet=not self.progress)) as shown:
            self._repeat(url, shown)
        self.part.replace(output_file)
        self.version.unlink(missing_ok=True)

    def _repeat(self, url: str, shown: TransferDisplay) -> None:
        for attempt in range(1, self.attempts + 1):
            try:
                return self._transfer(url, shown)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < _SERVER_ERRORS:
                    raise DataError(
                        f"{url}: the server answered {error.code} {error.reason}; check the address, or download the "
                        "file by hand and unpack it into the data directory"
                    ) from error
                if attempt == self.attempts:
                    kept = self.part.stat().st_size if self.part.exists() else 0
                    raise DataError(
                        f"{url}: {_reason(error)} ({attempt} attempts); check the network and run the same command "
                        f"again: it goes on from the {kept:,} bytes kept in {self.part}"
                    ) from error
                time.sleep(self.wait_s * 2 ** (attempt - 1))

    def _transfer(self, url: str, shown: TransferDisplay) -> None:
        """Fetch the missing bytes; raise OSError or HTTPException when the transfer breaks."""
        have = self.part.stat().st_size if self.part.exists() else 0
        try:
            response = urllib.request.urlopen(self._request(url, have), timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != _RANGE_NOT_SATISFIABLE or not have:
                raise
            # There are no more bytes: the part is complete or of another file, which only a fresh start can tell.
            self.part.unlink()
            return self._transfer(url, shown)
        with response:
            resumed = response.status == _PARTIAL_CONTENT and _starts_at(response.headers, have)
            if response.status == _PARTIAL_CONTENT and not resumed:
                self.part.unlink(missing_ok=True)
                raise OSError("the server sent another part than was asked for")
            if not resumed:
                have = 0
                self.version.write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            shown.begin(have, total)
            with self.part.open("ab" if resumed else "wb") as file:
                have += _copy(response, file, shown)
        if total is not None and have != total:
            raise OSError(f"the connection ended after {have:,} of {total:,} bytes")

    def _request(self, url: str, have: int) -> urllib.request.Request:
        headers = {"Accept-Encoding": "identity", "User-Agent": "rapport-gym"}
        if have:
            headers["Range"] = f"bytes={have}-"
            version = self.version.read_text() if self.version.exists() else ""
            if version and not version.startswith("W/"):  # weak tags are not allowed in If-Range
                headers["If-Range"] = version
        return urllib.request.Request(url, headers=headers)


def _copy(response: IO[bytes], file: IO[bytes], shown: TransferDisplay) -> int:
    copied = 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        copied += len(chunk)
        shown.advance(len(chunk))
    return copied


def _starts_at(headers: http.client.HTTPMessage, offset: int) -> bool:
    return (headers.get("Content-Range") or "").startswith(f"bytes {offset}-")


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return f"no connection: {reason}" if isinstance(error, urllib.error.URLError) else str(reason)
