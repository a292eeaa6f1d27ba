"""Addresses of servers: checked, apart from the credentials in them, and the proxy on the way to them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import proxy_bypass

from rapport.agents.llm.base.secrets import in_userinfo, scrub

KEY_VARIABLE = "OPENAI_API_KEY"
EXAMPLE = "http://localhost:8080/v1#model"
_LONGEST = 2_000
"""Characters of an address."""


@dataclass(frozen=True)
class Address:
    """A server's address.

    Attributes:
        base: scheme, host, port and path, without credentials.
        model: the server's name of a model; empty where the address names none.
        userinfo: ``user:password`` as the address has it; empty for none.
        query: the parameters after ``?``, which may hold a key.
    """

    base: str
    model: str = ""
    userinfo: str = field(default="", repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def public(self) -> str:
        """The address with the model and without credentials, as it may be shown and written."""
        return f"{self.base}#{self.model}" if self.model else self.base

    @property
    def has_credentials(self) -> bool:
        """Whether `public` leaves something out."""
        return bool(self.userinfo or self.query)

    def secrets(self) -> tuple[str, ...]:
        """What no text may hold."""
        known = in_userinfo(self.userinfo) if self.userinfo else ()
        return (*known, *(value for _, value in self.query))

    def headers(self) -> dict[str, str]:
        """The authorization of ``user:password``, which comes before a key."""
        if not self.userinfo:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(unquote(self.userinfo).encode()).decode()}"}


def is_address(name: str) -> bool:
    """Whether a model's name is the address of a server."""
    return name.strip().lower().startswith(("http://", "https://"))


def parse_address(text: str, argument: str = "a language model's server") -> Address:
    """Take an address apart.

    Args:
        text: ``http://[user:password@]host[:port][/path][?query][#model]``.
        argument: what an error calls it.

    Raises:
        ValueError: it is no address; the message shows it without credentials.
    """
    body, _, model = text.strip().partition("#")
    try:
        problem = _problem(body, parts := urlsplit(body))
    except ValueError as error:  # of urlsplit, or of the port
        problem = str(error)
    if problem:
        shown = re.sub(r"\?.*", "?...", scrub(body))
        raise ValueError(f"{argument} must be an address such as {EXAMPLE}; got {shown!r}: {problem}")
    userinfo, _, place = parts.netloc.rpartition("@")
    base = urlunsplit((parts.scheme, place, parts.path, "", ""))
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    return Address(base, model, userinfo, query)


def split_credentials(name: str) -> tuple[str, str | None]:
    """A model's name as it may be written, and the whole address where that leaves out credentials.

    An address that cannot be taken apart stays as it is: opening it says what is wrong.
    """
    if not is_address(name):
        return name, None
    try:
        address = parse_address(name)
    except ValueError:
        return scrub(name), None
    return (address.public, name) if address.has_credentials else (name, None)


def api_key() -> str | None:
    """The key in the environment; None where there is none.

    Raises:
        ValueError: no header can hold it; the message does not show it.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    wrong = next((place for place, character in enumerate(key) if not "!" <= character <= "~"), None)
    if wrong is not None:
        raise ValueError(
            f"{KEY_VARIABLE} has a character at position {wrong + 1} that no key can have (a key is printable ASCII "
            "without spaces): copy the key again"
        )
    return key or None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, which is asked without a proxy."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def proxy_variable(base: str) -> str | None:
    """The environment variable that sends requests to an address through a proxy; None where none does."""
    parts = urlsplit(base)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    return next(proxy_variables(parts.scheme, "all"), None)


def proxy_variables(*schemes: str) -> Iterator[str]:
    """The environment variables that name a proxy for these schemes, in the order in which they apply."""
    names = (name for scheme in schemes for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()))
    return (name for name in names if os.environ.get(name))


def _problem(text: str, parts: SplitResult) -> str | None:
    """What makes it no address of a server; None where nothing does.

    Raises:
        ValueError: the port is no number, or too large.
    """
    if parts.scheme not in ("http", "https"):
        return "it begins with neither http:// nor https://"
    if not parts.hostname:
        return "it names no host"
    if not text.isprintable() or not text.isascii() or " " in text or len(text) > _LONGEST:
        return f"it has characters that no address has, or more than {_LONGEST:,}"
    if parts.port == 0:
        return "port 0 cannot be asked"
    return None
