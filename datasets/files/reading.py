"""One door for damaged files: whatever goes wrong while a file is read becomes one sentence."""

from __future__ import annotations

import binascii
import csv
import gzip
import lzma
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath

from rapport.datasets.schema import DataError

DAMAGE: tuple[type[Exception], ...] = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # encrypted archives, tensors that do not fit, and nesting that is too deep
    MemoryError,
    EOFError,
    binascii.Error,
    csv.Error,
    gzip.BadGzipFile,
    lzma.LZMAError,
    sqlite3.Error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What libraries raise on a damaged file. An error of the operating system is none, so a full disk stays one."""

_CAUGHT: tuple[type[Exception], ...] = (*DAMAGE, OSError)


@contextmanager
def reading(path: str | PathLike[str], what: str, remedy: str, raises: type[ValueError] = DataError) -> Iterator[None]:
    """Turn any error of :data:`DAMAGE` inside the block into one sentence with the file, the reason and the remedy.

    Args:
        path: the file that is read in the block.
        what: it should hold, e.g. ``"the note"``.
        remedy: what to do, e.g. ``"make it again"``.
        raises: class of the error; errors of this class and :class:`DataError` pass through as they are.

    Raises:
        ValueError: of the class ``raises``.
    """
    try:
        yield
    except (DataError, raises):
        raise
    except _CAUGHT as error:
        of_a_library = type(error) is OSError and error.errno is None  # as bz2 says that a stream is damaged
        if not (of_a_library or isinstance(error, DAMAGE)):
            raise
        raise raises(f"{fspath(path)}: {what} cannot be read ({reason(error)}); {remedy}") from error


def reason(error: BaseException) -> str:
    """An error in words that say what is wrong with the file."""
    said = " ".join(str(error).split())
    if len(said) > 300:
        said = f"{said[:300]}…"
    if isinstance(error, KeyError):
        return f"the entry {said} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it is larger than the memory"
    if isinstance(error, UnicodeError):
        return f"it is not UTF-8: {said}"
    if isinstance(error, TypeError | AttributeError):
        return f"a value has the wrong type: {said}"
    return said or type(error).__name__


def visible(text: str) -> str:
    """A text from a file as a terminal may show it: what is no letter, sign, space or line break becomes a sign.

    Escape sequences, and characters that turn the direction of writing, would change what else is seen.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
