"""The `openai` client on an event loop of its own, so that time limits are total and answers bounded."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from rapport.agents.llm.address import Address, api_key, is_loopback, proxy_variables
from rapport.agents.llm.base.secrets import scrub

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

LARGEST = 2**20
"""Bytes of a server's response; a longer one is cut off there."""
COMPRESSED = "x-compressed-as"
"""Header that takes the place of ``content-encoding``: a response stays compressed, and is no answer."""
NO_KEY = "none"


class _LogFilter(logging.Filter):
    """Removes secrets from the log of the HTTP library, which writes whole addresses."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: set[str] = set()

    def protect(self, secrets: Iterable[str]) -> None:
        """Remove these, too."""
        self._secrets.update(secrets)
        for library in ("httpx", "httpx2"):
            logging.getLogger(library).addFilter(self)  # which does nothing the second time

    def filter(self, record: logging.LogRecord) -> bool:
        """Scrub the message."""
        record.msg, record.args = scrub(record.getMessage(), self._secrets), None
        return True


_LOGS = _LogFilter()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the process's loop for clients and wait for it; works beside another running loop too."""
    future = asyncio.run_coroutine_threadsafe(work, loop_of(os.getpid()))
    try:
        return future.result()
    except BaseException:  # of the waiting thread, e.g. KeyboardInterrupt: requests end with it
        future.cancel()
        raise


@lru_cache(maxsize=1)
def loop_of(process: int) -> asyncio.AbstractEventLoop:
    """The loop of a process, in a thread that ends with it; a fork has none of its parent's threads."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rapport-llm", daemon=True).start()
    return loop


def new_client(address: Address, timeout: float, retries: int) -> AsyncOpenAI:
    """A client that sends the address's credentials, or else the key of the environment.

    This machine is asked without a proxy. Redirects are not followed: a server could send prompts elsewhere.

    Raises:
        ImportError: the `openai` package is not installed.
        ValueError: the key or a proxy in the environment cannot be used.
    """
    try:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient
    except ImportError as error:
        raise ImportError(
            'a server needs the openai package: pip install "rapport-gym[llm]" (or give a GGUF file instead)'
        ) from error
    key = api_key()
    _LOGS.protect(address.secrets())
    try:
        http = DefaultAsyncHttpxClient(
            trust_env=not is_loopback(urlsplit(address.base).hostname or ""),
            event_hooks={"response": [_bound]},
            follow_redirects=False,
        )
    except (ValueError, ImportError) as error:
        raise ValueError(_of_proxies(error)) from None
    try:
        return AsyncOpenAI(
            base_url=address.base,
            api_key=key or NO_KEY,
            timeout=timeout,
            max_retries=retries,
            default_headers={"Accept-Encoding": "identity", **address.headers()},
            default_query=dict(address.query),
            http_client=http,
        )
    except Exception as error:  # of the HTTP library, whose types depend on its version
        raise ValueError(f"a language model's server cannot be asked at {address.base}: {error}") from None


def _of_proxies(error: Exception) -> str:
    named = [f"{name}={scrub(os.environ[name])}" for name in proxy_variables("http", "https", "all")]
    return (
        f"a proxy of the environment cannot be used ({', '.join(named)}: {scrub(str(error))}): give one that begins "
        "with http://, or unset the variable"
    )


async def _bound(response: Any) -> None:
    """Keep a response from being decompressed, or from being read beyond its limit; `openai` reads it whole."""
    if (encoding := response.headers.pop("content-encoding", "identity")) != "identity":
        response.headers[COMPRESSED] = encoding
    stream = response.stream
    # The HTTP library is the one of the installed openai, which has changed its name.
    interface: Any = next(kind for kind in type(stream).__mro__ if kind.__name__ == "AsyncByteStream")

    class Bounded(interface):  # type: ignore[misc]
        """Ends after one byte more than the limit, by which it is told from a response that just fits."""

        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = LARGEST + 1
            async for chunk in stream:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    break

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = Bounded()
