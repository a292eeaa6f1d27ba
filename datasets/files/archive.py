"""Unpacking an archive that may be damaged or malicious: every member stays inside the target folder."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from rapport.datasets.schema import DataError


def extract(archive: Path, target: Path) -> None:
    """Unpack a ``.tar.gz`` or ``.zip`` into the existing folder ``target``.

    Raises:
        DataError: the archive is damaged, or a member would land outside ``target`` or is not a plain file or folder.
    """
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, target)
        else:
            _extract_tar(archive, target)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); fetch it again") from error


def _extract_tar(archive: Path, target: Path) -> None:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            _check_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise DataError(f"{archive}: member {member.name!r} is a link or device; refusing to unpack it")
            tar.extract(member, target, filter="data")


def _extract_zip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        for member in bundle.infolist():
            _check_name(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(f"{archive}: member {member.filename!r} is a link; refusing to unpack it")
            path = target.joinpath(*PurePosixPath(member.filename).parts)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with bundle.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _check_name(archive: Path, name: str) -> None:
    """Refuse absolute paths, drive letters and ``..`` as either kind of system would read them."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts:
        raise DataError(f"{archive}: member {name!r} would land outside the data directory; do not use this archive")
