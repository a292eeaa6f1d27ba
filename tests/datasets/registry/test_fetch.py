from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rapport.datasets.files.archive import extract
from rapport.datasets.registry import load as store
from rapport.datasets.registry.fetch import fetch
from rapport.datasets.schema import DataError

ARCHIVE = "KuaiRand-Pure.tar.gz"


class Server(ThreadingHTTPServer):
    """Serves one body on the loopback address and can misbehave in the usual ways."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.break_after: list[int] = []  # bytes after which the next answers break off
        self.knows_ranges = True
        self.etag = '"one"'
        self.status = 200
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        fresh = self.headers.get("If-Range") in (None, server.etag)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges and fresh else 0
        if start and start >= len(server.body):
            self.send_error(416)
            return
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        if server.break_after:
            body = body[: server.break_after.pop(0)]
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def tar_of(members: dict[str, bytes], **special: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if special:
            entry = tarfile.TarInfo("KuaiRand-Pure/data/odd")
            for field, value in special.items():
                setattr(entry, field, value)
            tar.addfile(entry)
    return buffer.getvalue()


@pytest.fixture
def archive(kuairand_files: ModuleType, tmp_path: Path) -> bytes:
    """An archive of the official shape, larger than one chunk of the downloader."""
    data = kuairand_files.write_kuairand(tmp_path / "source", n_rows=4_000, n_users=300, tag_names=False)
    return tar_of({f"KuaiRand-Pure/data/{path.name}": path.read_bytes() for path in sorted(data.iterdir())})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def serve(server: Server, body: bytes, monkeypatch: pytest.MonkeyPatch, name: str = "kuairand-pure") -> None:
    """Publish a body under the name of a data set, with its true checksum."""
    server.body = body
    entry = store.DATASETS[name]
    if entry.md5:
        checksum = hashlib.md5(body, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(store.DATASETS, name, replace(entry, md5=checksum))


def get(server: Server, root: Path, name: str = "kuairand-pure", **more: Any) -> Path:
    settings: dict[str, Any] = {"attempts": 3, "wait_s": 0.0, "progress": False}
    return fetch(name, root, base_url=server.url, **(settings | more))


def leftovers(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_fetched_and_loadable(server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(server, archive, monkeypatch)
    folder = get(server, root, progress=True)
    assert folder == root / "KuaiRand-Pure"
    assert store.load(root=root).population.n_users == 300
    assert all(name.startswith("KuaiRand-Pure/data/") for name in leftovers(root))


def test_interrupted_transfer_goes_on_where_it_stopped(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, archive, monkeypatch)
    server.break_after = [10_000, 5_000]
    assert get(server, root).is_dir()
    assert server.asked == [None, "bytes=10000-", "bytes=15000-"]


def test_interrupted_run_goes_on_where_it_stopped(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, archive, monkeypatch)
    server.break_after = [10_000]
    with pytest.raises(DataError, match=r"ended after 10,000 of .* bytes .*it goes on from the 10,000 bytes kept in"):
        get(server, root, attempts=1)
    assert not (root / "KuaiRand-Pure").exists()
    assert get(server, root).is_dir()
    assert server.asked[-1] == "bytes=10000-"


def test_server_without_ranges_starts_over(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, archive, monkeypatch)
    server.break_after, server.knows_ranges = [10_000], False
    assert get(server, root).is_dir()


def test_two_versions_are_never_joined(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, b"x" * 30_000, monkeypatch)
    server.break_after = [10_000]
    with pytest.raises(DataError, match="ended after"):
        get(server, root, attempts=1)
    serve(server, archive, monkeypatch)
    server.etag = '"two"'
    assert get(server, root).is_dir()


def test_part_that_is_longer_than_the_file_starts_over(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, archive, monkeypatch)
    (root / ".downloads").mkdir(parents=True)
    (root / ".downloads" / f"{ARCHIVE}.part").write_bytes(archive + b"more")
    assert get(server, root).is_dir()


def test_bad_checksum(server: Server, archive: bytes, root: Path) -> None:
    server.body = archive
    found = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    expected = store.DATASETS["kuairand-pure"].md5
    with pytest.raises(DataError, match=rf"{ARCHIVE}: checksum mismatch: .*expected md5:{expected} but got {found}"):
        get(server, root)
    assert leftovers(root) == []
    assert not (root / "KuaiRand-Pure").exists()


def test_no_network(root: Path) -> None:
    with pytest.raises(DataError, match=r"no connection: .*check the network and run the same command again"):
        fetch("kuairand-pure", root, base_url="http://127.0.0.1:9", attempts=2, wait_s=0.0, progress=False)


def test_refusal_is_not_repeated(server: Server, root: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="the server answered 404"):
        get(server, root)
    assert len(server.asked) == 1


def test_server_error_is_repeated(server: Server, root: Path) -> None:
    server.status = 503
    with pytest.raises(DataError, match=r"\(3 attempts\)"):
        get(server, root)
    assert len(server.asked) == 3


def test_what_is_there_is_not_touched(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, archive, monkeypatch)
    (root / "KuaiRand-Pure").mkdir(parents=True)
    (root / "KuaiRand-Pure" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        get(server, root)
    assert server.asked == []
    get(server, root, overwrite=True)
    assert (root / "KuaiRand-Pure.replaced-1" / "mine.txt").read_text() == "mine"
    assert (root / "KuaiRand-Pure" / "data").is_dir()


def test_trust_on_first_use(server: Server, root: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("KuaiRec 2.0/data/user_features.csv", "user_id\n1\n")
    server.body = buffer.getvalue()
    folder = get(server, root, "kuairec")
    assert (folder / "data" / "user_features.csv").read_text() == "user_id\n1\n"
    recorded = json.loads((root / "checksums.json").read_text())
    assert recorded == {"kuairec": f"sha256:{hashlib.sha256(server.body).hexdigest()}"}
    server.body += b"another"
    with pytest.raises(DataError, match=f"checksum mismatch: .*expected {recorded['kuairec']}"):
        get(server, root, "kuairec", overwrite=True)
    assert (folder / "data").is_dir()


def test_single_file(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(server, b"id,caption\n1,x\n", monkeypatch, "kuairand-captions")
    folder = get(server, root, "kuairand-captions")
    assert (folder / "kuairand_video_captions.csv").read_bytes() == server.body


@pytest.mark.parametrize(
    "name", ["../evil.csv", "/tmp/evil.csv", "KuaiRand-Pure/../../evil.csv", "C:\\evil", "a\\..\\b"]
)
def test_tar_that_climbs_out(
    server: Server, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    serve(server, tar_of({"KuaiRand-Pure/data/good.csv": b"1", name: b"evil"}), monkeypatch)
    with pytest.raises(DataError, match="would land outside the data directory"):
        get(server, root)
    assert leftovers(root) == []
    assert not (root / "KuaiRand-Pure").exists()
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("special", [{"type": tarfile.SYMTYPE, "linkname": "/etc"}, {"type": tarfile.FIFOTYPE}])
def test_tar_with_links_or_devices(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, special: dict[str, Any]
) -> None:
    serve(server, tar_of({"KuaiRand-Pure/data/good.csv": b"1"}, **special), monkeypatch)
    with pytest.raises(DataError, match="is a link or device"):
        get(server, root)
    assert leftovers(root) == []


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/evil.csv", "a/../../evil.csv"])
def test_zip_slip(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bundle:
        bundle.writestr(name, "evil")
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match="would land outside"):
        extract(tmp_path / "bad.zip", tmp_path / "target")
    assert not list(tmp_path.rglob("evil*"))


def test_zip_with_a_link(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bundle:
        bundle.writestr(entry, "/etc")
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match="'link' is a link"):
        extract(tmp_path / "bad.zip", tmp_path / "target")


@pytest.mark.parametrize("cut", [20, 5_000])
def test_archive_that_is_cut_off(
    server: Server, archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    serve(server, archive[:cut], monkeypatch)
    with pytest.raises(DataError, match="cannot be unpacked"):
        get(server, root)
    assert leftovers(root) == []


def test_empty_archive(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(server, tar_of({}), monkeypatch)
    with pytest.raises(DataError, match="the archive is empty"):
        get(server, root)
    assert leftovers(root) == []


def test_record_that_is_no_record(server: Server, root: Path) -> None:
    root.mkdir()
    (root / "checksums.json").write_text("[1")
    with pytest.raises(DataError, match=r"checksums\.json: the table of checksums cannot be read"):
        get(server, root, "kuairec")
