"""A server on loopback that speaks OpenAI's chat API as badly as it is told to."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fuzz.outcome import SECRET

HEADERS = "@headers@"
"""Stands in a body for the headers of the request."""


@dataclass
class Reply:
    """What it answers.

    Attributes:
        status: HTTP status.
        body: a text with one character per byte, or what is sent as JSON.
        headers: besides length and type.
        pause: seconds before each piece of 100 bytes.
    """

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_PUT(self) -> None:
        self.server.replies[self.name] = Reply(**json.loads(self.read()))
        self.answer(Reply())

    def do_GET(self) -> None:
        asked = self.server.asked[self.name]
        if self.path.endswith("/told"):
            self.answer(Reply(body=asked))
            return
        asked.append(str(self.headers))
        self.answer(Reply(body={"object": "list", "data": [{"id": "m", "object": "model"}]}))

    def do_POST(self) -> None:
        self.read()
        self.server.asked[self.name].append(str(self.headers))
        self.answer(self.server.replies[self.name])

    @property
    def name(self) -> str:
        return self.path.split("/")[1]

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def answer(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        content = body.replace(HEADERS, json.dumps(str(self.headers))[1:-1]).encode("latin-1", "replace")
        size = 100 if reply.pause else max(1, len(content))
        try:
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), size):
                time.sleep(reply.pause)
                self.wfile.write(content[start : start + size])
        except (OSError, ValueError):
            pass  # the client has hung up, or the header cannot be sent

    def log_message(self, *args: Any) -> None:
        pass


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, Reply] = defaultdict(Reply)
        self.asked: dict[str, list[str]] = defaultdict(list)


class Server:
    """A server in a thread; each address under it is a server of its own, with its own reply and its own memory.

    Forks talk to the thread of their parent: what to reply is told by ``PUT``, what was asked is read by ``GET`` of
    ``/told``.
    """

    def __init__(self) -> None:
        self._http = _Http()
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def address(self, number: int) -> str:
        """The address of a server that nobody has asked yet."""
        return f"http://127.0.0.1:{self._http.server_port}/{number}/v1"

    def reply(self, address: str, reply: Reply) -> None:
        """Say what the server at an address answers."""
        self._send(address, "PUT", json.dumps(asdict(reply)).encode())

    def told(self, address: str) -> bool | None:
        """Whether the server at an address was told the planted key; None if it was not asked at all."""
        asked = self._send(f"{address}/told", "GET", None)
        return None if asked == b"[]" else SECRET.encode() in asked

    def _send(self, address: str, method: str, content: bytes | None) -> bytes:
        request = urllib.request.Request(address, data=content, method=method)
        opener: Callable[..., Any] = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        with opener(request, timeout=10) as answer:
            return bytes(answer.read())
