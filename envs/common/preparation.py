"""What an environment needs before it can be made, such as a fitted simulator, made once and ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""
Maker = TypeVar("Maker", bound=Callable[..., Any])
Preparation = Callable[..., None]
"""(progress or None, **arguments of the entry point): makes the expensive parts that are not in the cache yet."""


def prepared_by(preparation: Preparation) -> Callable[[Maker], Maker]:
    """Decorate a vector entry point with its preparation, which :func:`prepare` finds as its attribute ``prepare``.

    Args:
        preparation: takes the arguments of the entry point.
    """

    def mark(maker: Maker) -> Maker:
        vars(maker)["prepare"] = preparation
        return maker

    return mark


def prepare(env_id: str, progress: Progress | None = None, **arguments: Any) -> None:
    """Make what ``gym.make`` and ``gym.make_vec`` would have to make first with these arguments, and keep it.

    Environments over a log fit their simulator, which takes minutes, and keep it in the cache folder. Where it is there
    already, and for environments that need none, this returns at once. Call it before several processes make the same
    environment, so that not each of them fits its own.

    An environment of your own takes part by an attribute ``prepare`` of its vector entry point, see
    :func:`prepared_by`; one without it needs no preparation.

    Args:
        env_id: a registered id.
        progress: called with (steps done, steps in all) while something is made.
        **arguments: as of ``gym.make_vec``.

    Raises:
        gymnasium.error.Error: there is no such id.
        TypeError: an argument is unknown.
        ValueError: an argument is out of range.
        DataError: the data is missing or damaged.

    >>> rapport.envs.prepare("rapport/KuaiRec-v0")
    """
    spec = gym.spec(env_id)
    entry_point = spec.vector_entry_point
    maker = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    preparation = getattr(maker, "prepare", None)
    if preparation is not None:
        preparation(progress, **{**spec.kwargs, **arguments})
