"""Keys and passwords, removed from texts before they are shown, logged or written."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
"""Stands where a secret was."""

_SECRET_NAME = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/?#\s'\"]+@")
_SHORTEST, _SHORT = 4, 8
"""Characters: shorter texts are no secrets, and up to `_SHORT` they are removed as whole words only."""


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with every secret replaced by ``***``.

    Secrets are the values of environment variables whose names end in KEY, TOKEN, SECRET, PASSWORD or CREDENTIALS, user
    names and passwords in any address, those of the proxies, and the ones given, each also as JSON, an address or a
    Basic authorization writes it. A text of fewer than four characters is not taken for a secret.
    """
    known = frozenset(secret for secret in (*secrets, *_of_environment()) if len(secret) >= _SHORTEST)
    text = _IN_ADDRESS.sub(f"{HIDDEN}@", text)
    return _pattern(known).sub(HIDDEN, text) if known else text


def in_userinfo(userinfo: str) -> Iterator[str]:
    """The secrets in the ``user:password`` of an address: both together, and the password, or else the user, alone."""
    user, _, password = userinfo.partition(":")
    yield from dict.fromkeys(form for part in (userinfo, password or user) for form in (part, unquote(part)))


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield value.strip()
        elif name.lower().endswith("_proxy") and "@" in value:
            yield from in_userinfo(value.rpartition("@")[0].rpartition("://")[2])


@lru_cache(maxsize=16)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    forms = {form for secret in secrets for form in _forms(secret)}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(_whole(form) for form in longest_first))


def _forms(secret: str) -> Iterator[str]:
    """The ways in which a secret may be written."""
    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    data = secret.encode("utf-8", "replace")
    yield quote(data)
    yield quote(data, safe="")
    yield quote_plus(data)
    yield base64.b64encode(data).decode().rstrip("=")


def _whole(form: str) -> str:
    escaped = re.escape(form)
    return rf"(?<!\w){escaped}(?!\w)" if len(form) < _SHORT else escaped
