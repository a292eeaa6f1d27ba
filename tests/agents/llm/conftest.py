"""A server that sends bytes as they are, slowly or for ever, whatever it is asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import pytest


@pytest.fixture
def raw_server() -> Callable[..., Any]:
    """As `serve_bytes`."""
    return serve_bytes


@contextlib.contextmanager
def serve_bytes(head: bytes, body: Iterable[bytes] = (), pause: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server on loopback, and the heads of the requests so far.

    Args:
        head: sent byte by byte if there is a pause, else at once.
        body: sent part by part.
        pause: seconds between two parts.
    """
    stop, asked = threading.Event(), list[bytes]()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            asked.append(connection.recv(1 << 16))
            parts = [bytes([byte]) for byte in head] if pause else [head]
            for part in chain(parts, body):
                connection.sendall(part)
                if pause:
                    time.sleep(pause)
                if stop.is_set():
                    return
            connection.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", asked
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
