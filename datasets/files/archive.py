"""Unpacking an archive that may be damaged or malicious: every member stays inside the target folder."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from rapport.datasets.files.reading import reading
from rapport.datasets.schema import DataError

LARGEST_RATIO = 100
"""Bytes that one byte of an archive may become; logs become about ten."""
FREE_BYTES = 100_000_000
"""Bytes that any archive may become."""
MOST_MEMBERS = 100_000
"""Files and folders in an archive."""


def extract(archive: Path, target: Path) -> None:
    """Unpack a ``.tar.gz`` or ``.zip`` into the existing folder ``target``.

    An archive is read to its end, so that its own checksums are compared.

    Raises:
        DataError: the archive is damaged, encrypted or of another kind, a member would land outside ``target`` or is
            not a plain file or folder, or it becomes larger than :data:`LARGEST_RATIO` and :data:`FREE_BYTES` allow.
    """
    with reading(archive, "the archive", "it cannot be unpacked: fetch it again"):
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, target)
        else:
            _extract_tar(archive, target)


def _extract_tar(archive: Path, target: Path) -> None:
    limits = _Limits(archive)
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            _check_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise DataError(f"{archive}: member {member.name!r} is a link or device; refusing to unpack it")
            limits.add(member.size)
            tar.extract(member, target, filter="data")
        assert tar.fileobj is not None
        while rest := tar.fileobj.read(1 << 20):  # the checksum of a compressed file is at its end
            limits.add(len(rest), members=0)


def _extract_zip(archive: Path, target: Path) -> None:
    limits = _Limits(archive)
    with zipfile.ZipFile(archive) as bundle:
        for member in bundle.infolist():
            _check_name(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(f"{archive}: member {member.filename!r} is a link; refusing to unpack it")
            limits.add(member.file_size)
            path = target.joinpath(*PurePosixPath(member.filename).parts)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with bundle.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)


class _Limits:
    """Counts what an archive becomes."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.size, self.members = archive, 0, 0
        self.largest = max(FREE_BYTES, LARGEST_RATIO * archive.stat().st_size)

    def add(self, size: int, members: int = 1) -> None:
        """Count a member before it is unpacked."""
        self.size, self.members = self.size + size, self.members + members
        if self.size > self.largest:
            raise DataError(
                f"{self.archive}: becomes more than {self.largest:,} bytes, {LARGEST_RATIO} times its size or "
                f"{FREE_BYTES:,}, which no log does; do not use this archive"
            )
        if self.members > MOST_MEMBERS:
            raise DataError(f"{self.archive}: has more than {MOST_MEMBERS:,} members; do not use this archive")


def _check_name(archive: Path, name: str) -> None:
    """Refuse absolute paths, drive letters and ``..`` as either kind of system would read them."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts:
        raise DataError(f"{archive}: member {name!r} would land outside the data directory; do not use this archive")
