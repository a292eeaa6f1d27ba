"""Models on the Hugging Face Hub, fetched from a stand-in for it on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rapport.agents.llm import open_llm
from rapport.agents.llm.gguf.hub import fetch, parse

COMMIT = "a" * 40


def hub_of(files: dict[str, bytes]) -> ThreadingHTTPServer:
    """A server of what the Hub's clients ask for one repository, ``me/tiny``."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if self.path.startswith("/api/models/me/tiny"):
                tree: list[dict[str, Any]] = [{"type": "directory", "path": "sub", "oid": "sub"}]
                tree += [{"type": "file", "path": n, "size": len(d), "oid": n} for n, d in files.items()]
                info = {"id": "me/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                return self.send(json.dumps(tree if "/tree/" in self.path else info).encode(), {})
            data = files.get(self.path.removeprefix("/me/tiny/resolve/main/"))
            if data is None:
                code = "EntryNotFound" if self.path.startswith("/me/tiny/") else "RepoNotFound"
                return self.send(b"", {"X-Error-Code": code}, 404)
            etag = hashlib.sha256(data).hexdigest()
            return self.send(data, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

        def send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def hub(tiny_gguf: Path) -> Iterator[ThreadingHTTPServer]:
    data = tiny_gguf.read_bytes()
    server = hub_of({"tiny.gguf": data, "sub/other-q4_0.gguf": data, "README.md": b"# Tiny", "broken.gguf": b"<html>"})
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


_SCRIPT = """
import sys
from rapport.agents.llm import open_llm
for source in sys.argv[1:]:
    try:
        print(open_llm(source).complete(["hello"], None, 4)[0].error)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def opened(sources: list[str], **variables: str) -> list[str]:
    """What a fresh process prints on opening models: the Hub's client reads its settings when it is imported."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, *sources],
        env=os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout.splitlines()


@pytest.mark.slow
def test_models_are_fetched_from_the_hub(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    there = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path)}
    exact, pattern = "hf:me/tiny/tiny.gguf", "hf:me/tiny:*q4_0.gguf"
    wrong = ["hf:me/tiny/none.gguf", "hf:me/tiny:*.gguf", "hf:me/tiny/broken.gguf"]
    found = opened([exact, pattern, "hf:me/tiny/sub/other-q4_0.gguf", *wrong], **there)
    assert found[:3] == ["None"] * 3, found
    assert found[3].startswith("ValueError No file found in me/tiny that match none.gguf")
    assert found[4].startswith("ValueError Multiple files found in me/tiny matching *.gguf")
    assert found[5].startswith("ValueError") and "broken.gguf is no GGUF file" in found[5]
    offline = opened([exact, pattern], **there, HF_HUB_OFFLINE="1")
    assert offline[0] == "None"  # what was fetched once is found again
    assert offline[1].startswith(f"ConnectionError {pattern} cannot be fetched from the Hub")
    assert offline[1].endswith("set HF_ENDPOINT to a mirror, or give the path of a GGUF file")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("hf:me/tiny/tiny.gguf", ("me/tiny", "tiny.gguf")),
        ("hf:me/tiny/sub/tiny.GGUF", ("me/tiny", "sub/tiny.GGUF")),
        ("hf:me/tiny:*q4_0.gguf", ("me/tiny", "*q4_0.gguf")),
        ("hf:me/tiny:*", ("me/tiny", "*")),
    ],
)
def test_references_are_read(reference: str, parts: tuple[str, str]) -> None:
    assert parse(reference) == parts


@pytest.mark.parametrize(
    "reference", ["hf:", "hf:tiny.gguf", "hf:me/tiny", "hf:me/tiny/", "hf:me/tiny/x.bin", "hf:/a/b.gguf"]
)
def test_other_references_are_refused(reference: str) -> None:
    with pytest.raises(ValueError, match=r"names no model on the Hub: write hf:OWNER/REPOSITORY/FILE\.gguf or"):
        open_llm(reference)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"rapport-gym\[llm,hub\].*download the GGUF file and give its path"):
        fetch("hf:me/tiny/tiny.gguf")
