"""Archives: whole ones are unpacked, and whatever is damaged, encrypted or a bomb is one sentence."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rapport.datasets.files import archive
from rapport.datasets.files.archive import extract
from rapport.datasets.schema import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes()


def tar_gz(path: Path, content: bytes = CONTENT) -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("log.csv")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(plain.getvalue(), 1))
    return path


def zipped(path: Path, content: bytes = CONTENT, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as bundle:
        bundle.writestr("log.csv", content)
    return path


def target(folder: Path) -> Path:
    made = folder / "target"
    made.mkdir()
    return made


@pytest.mark.parametrize("make", [tar_gz, zipped])
def test_a_whole_archive_is_unpacked(make, tmp_path: Path) -> None:
    extract(make(tmp_path / "a"), folder := target(tmp_path))
    assert (folder / "log.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("cut", [1, 4, 8, 30, 1_000])
def test_a_missing_tail_is_noticed(cut: int, tmp_path: Path) -> None:
    path = tar_gz(tmp_path / "a.tar.gz")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"a\.tar\.gz: the archive cannot be read .*fetch it again$"):
        extract(path, target(tmp_path))


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path, folder = tar_gz(tmp_path / "a.tar.gz"), target(tmp_path)
    content = path.read_bytes()
    for place in np.random.default_rng(1).choice(len(content), 60, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            extract(path, folder)
        except DataError as error:
            assert str(path) in str(error)
        else:  # a byte of the header that no content depends on, such as the time
            assert place < 10 and (folder / "log.csv").read_bytes() == CONTENT


def test_an_encrypted_zip_is_one_sentence(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1  # the flag of encryption
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"the archive cannot be read .*encrypted"):
        extract(path, target(tmp_path))


def test_a_zip_of_an_unknown_kind_is_one_sentence(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", kind=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + place] = 97  # a kind of compression that Python does not know
    path.write_bytes(content)
    with pytest.raises(DataError, match="the archive cannot be read"):
        extract(path, target(tmp_path))


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_in_any_compression_is_one_sentence(kind: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", kind=kind)
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match="the archive cannot be read"):
        extract(path, target(tmp_path))


@pytest.mark.parametrize("make", [tar_gz, zipped])
def test_a_bomb_is_refused_before_it_is_unpacked(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 100_000)
    path, folder = make(tmp_path / "bomb", bytes(3_000_000)), target(tmp_path)
    with pytest.raises(DataError, match=r"bomb: becomes more than [\d,]+ bytes, 100 times its size or 100,000"):
        extract(path, folder)
    assert not list(folder.iterdir())


def test_a_bomb_after_the_last_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 100_000)
    path = tar_gz(tmp_path / "bomb")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(20_000_000), 9))
    with pytest.raises(DataError, match="becomes more than"):
        extract(path, target(tmp_path))


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 0)
    with pytest.raises(DataError, match="has more than 0 members"):
        extract(zipped(tmp_path / "a.zip"), target(tmp_path))


def test_a_full_disk_stays_an_error_of_the_system(tmp_path: Path) -> None:
    path, folder = zipped(tmp_path / "a.zip"), target(tmp_path)
    (folder / "log.csv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        extract(path, folder)
