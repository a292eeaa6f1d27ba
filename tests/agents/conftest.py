"""Models and servers that tests of language-model code run against."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = tuple[int, Any]


class ChatServer:
    """An OpenAI-compatible server on loopback that replies as `reply(request) -> (status, body)` says."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.models = ["tiny"]
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in server.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                self.send(*server.reply(body))

            def send(self, status: int, body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client has hung up

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._running = True
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def hang(self, request: dict[str, Any]) -> Reply:
        """A reply that does not come before the test ends."""
        self.release.wait(30)
        return 500, {}

    def stop(self) -> None:
        self.release.set()
        if self._running:
            self._running = False
            self._http.shutdown()
            self._http.server_close()


def chat_answer(text: str, finish_reason: str = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "t",
        "choices": [choice],
        "usage": usage,
    }


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any]], Reply]], ChatServer]]:
    """Starts chat servers and stops them after the test."""
    started: list[ChatServer] = []

    def start(reply: Callable[[dict[str, Any]], Reply]) -> ChatServer:
        started.append(ChatServer(reply))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def answer() -> Callable[..., Reply]:
    """Builds the body of a chat completion."""
    return chat_answer
