"""What callers give to ``reset`` and ``step``, checked: each error says in a sentence what is wanted."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rapport.datasets.schema import Int32Array, IntArray
from rapport.envs.session.engine.core import SessionCore


def seeds_of(seed: Any, n: int) -> list[int | None]:
    """A seed, or None, for each of ``n`` slots.

    Raises:
        ValueError: it is no whole number, and no list of ``n``.
    """
    if isinstance(seed, list | tuple):
        if len(seed) != n:
            raise ValueError(f"seed: {len(seed)} seeds for {n} environments; give one each")
        return list(seed)
    if seed is not None and not isinstance(seed, int):
        raise ValueError(f"seed={reprlib.repr(seed)}; give an int, a list of {n}, or None")
    return [None if seed is None else seed + i for i in range(n)]


def checked_slates(action: Any, shape: tuple[int, ...], core: SessionCore) -> Int32Array:
    """Slates, shape (B, K), int32.

    Raises:
        ValueError: wrong shape, dtype or index.
    """
    try:
        slates = np.asarray(action)
    except ValueError as error:  # a list of lists of different lengths
        raise ValueError(f"action: {reprlib.repr(action)} is no array; give {shape} item indices") from error
    if slates.shape != shape:
        raise ValueError(f"action: shape {slates.shape} where {shape} item indices are needed")
    if slates.dtype.kind not in "iu":
        raise ValueError(f"action: dtype {slates.dtype}; a slate holds item indices, whole numbers")
    n_items = core.n_items
    if slates.size <= 64:  # Python's own are faster for a few numbers
        values = slates.ravel().tolist()
        narrow = slates.astype(np.int32).reshape(core.n_envs, core.slate_size)
        lowest, highest = min(values), max(values)
    else:
        narrow, lowest, highest = core.narrowed(slates)
    if lowest < 0 or highest >= n_items:
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"action: item {bad} is outside [0, {n_items}); a slate holds item indices")
    return narrow


def chosen_users(options: dict[str, Any] | None, core: SessionCore) -> IntArray | None:
    """The users that ``options`` choose, shape (B,), or None.

    Raises:
        ValueError: an option is unknown, or they are not indices of users that can be served.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f'options={reprlib.repr(options)}; give a dict, {{"user": index}}, or None')
    for name in options or {}:
        if name != "user":
            raise ValueError(f'options: {name!r} is unknown; the only option is "user"')
    chosen = (options or {}).get("user")
    if chosen is None:
        return None
    try:
        users = np.asarray(chosen)
    except ValueError:  # a list of lists of different lengths
        users = np.asarray(None)
    if users.shape not in ((), (core.n_envs,)) or users.dtype.kind not in "iu":
        raise ValueError(f"options['user']: {reprlib.repr(chosen)}; give the index of a user, or {core.n_envs} of them")
    n_users = core.data.population.n_users
    lowest, highest = users.min(), users.max()
    if lowest < 0 or highest >= n_users:
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"options['user']: {bad} is outside [0, {n_users}); give indices of users")
    if core.served is not None and not np.isin(users, core.served).all():
        bad = users.ravel()[~np.isin(users, core.served).ravel()][0]
        raise ValueError(
            f"options['user']: the responses of user {bad} are not known; choose one of {len(core.served)} in "
            "env.unwrapped.core.served"
        )
    return np.broadcast_to(users.astype(np.int64), core.n_envs)
