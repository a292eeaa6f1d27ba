"""The check of an environment's keyword arguments: an unknown one is an error that says what to use instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SINGLE_ONLY = ("render_mode",)
VECTOR_ONLY = ("num_envs", "autoreset_mode", "render_mode", "copy")

_ELSEWHERE = {
    "max_episode_steps": "use max_steps",
    "time_limit": "use max_steps",
    "horizon": "use max_steps",
    "n_envs": "use num_envs",
    "dataset": "use data",
    "data_dir": "use root",
    "seed": "give it to reset(seed=...)",
    "options": "give them to reset(options=...)",
}
"""Names of other libraries (Gymnasium, Stable-Baselines3, RLlib) and of the command line, and what to use instead."""


def check_arguments(given: Iterable[str], kind: type, more: Sequence[str]) -> None:
    """Check the names of keyword arguments.

    Args:
        given: the names.
        kind: the TypedDict of the known arguments.
        more: further known names.

    Raises:
        TypeError: a name is unknown; the message says what to use instead.
    """
    known = sorted({*kind.__annotations__, *more})
    for name in given:
        if name not in known:
            raise TypeError(f"unknown argument {name!r}; {_advice(name, known)}")


def _advice(name: str, known: Sequence[str]) -> str:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    if name in VECTOR_ONLY:
        return "it is one of gym.make_vec"
    close = difflib.get_close_matches(name, known, 1)
    return f"use {close[0]}, or another of {', '.join(known)}" if close else f"use one of {', '.join(known)}"
