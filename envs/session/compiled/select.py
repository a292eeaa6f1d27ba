"""The choice between the compiled engine and the NumPy engine."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging

from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.initial_histories import LogRows
from rapport.envs.session.engine.quit_rules import Positional, QuitRule, SetOverlap, WindowedCount
from rapport.envs.session.response.base import MatrixResponse, ResponseModel

LOGGER = logging.getLogger("rapport")


def engine_for(response: ResponseModel, rule: QuitRule, repeats: bool, rows: LogRows | None) -> type[SessionCore]:
    """The fastest engine class for these parts.

    That is :class:`~rapport.envs.session.compiled.core.LookupCore` where numba is installed, responses are looked up
    and certain, the rule is built in, items may repeat, and sessions do not start at log rows.
    """
    certain = type(response) is MatrixResponse and response.certain
    known = (isinstance(rule, Positional) and type(rule) in (Positional, SetOverlap) and rule.labels is None) or (
        type(rule) is WindowedCount and rule.early == "exact"
    )
    if not (certain and known and repeats and rows is None and compiles()):
        return SessionCore
    from rapport.envs.session.compiled.core import LookupCore  # imports numba

    return LookupCore


@functools.cache
def compiles() -> bool:
    """Whether numba, the extra ``fast``, is installed and works. It is first imported here."""
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        importlib.import_module("numba")
    except ImportError as error:  # numba refuses versions of NumPy that it does not know
        LOGGER.warning("numba is installed but does not work, so environments run without it: %s", error)
        return False
    return True
