"""The keyword arguments of ``gym.make`` and ``gym.make_vec``, typed.

The entry points of an environment take one of these as ``**arguments: Unpack[...]``, so that type checkers and editors
know each argument. ``docs/kuairand.md`` says more about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from rapport.datasets.schema import Int32Array, IntArray
from rapport.envs.session.engine.quit_rules import EarlyWindow, QuitRule
from rapport.envs.session.engine.reward import RewardChoice
from rapport.envs.session.response.base import Profile, ResponseModel

Users = Literal["train", "held_out", "all"]
Weights = Literal["first", "ratio"] | Sequence[float]


class SessionArguments(TypedDict, total=False):
    """What every session environment takes."""

    users: Users
    """Whose sessions: ``"train"`` (default), ``"held_out"`` or ``"all"``."""
    quit_rule: str | QuitRule
    """When users leave: a name in :data:`~rapport.envs.session.engine.quit_rules.QUIT_RULES`, or a rule."""
    window: int
    """Of ``windowed_count``: items looked back on, at least 1."""
    threshold: int
    """Of ``windowed_count``: occurrences of a label that are tolerated, at least 0."""
    early_window: EarlyWindow
    """Of ``windowed_count``: ``"exact"`` (default) or ``"easyrl4rec"``."""
    weights: Weights
    """Of ``satisfaction``: ``"first"`` (default), ``"ratio"`` or one number per behaviour."""
    budget: float
    """Budget at a session's start, at least 1; default 20."""
    slate_size: int | None
    """K, items in a slate, default 6; None: one item at a time, a ``Discrete`` action."""
    history: int
    """H, items of the past that are observed; default 50."""
    max_steps: int
    """Slates after which a session is truncated; default 50."""
    repeats: bool
    """Whether an item can be responded to again in a session (default); False: it is ignored."""
    start_at_log_rows: bool | Literal["any_day"]
    """Start from random rows of the log instead of from random users; default False."""


class CoreArguments(SessionArguments, total=False):
    """What :func:`~rapport.envs.session.factory.session_core` takes beside data, response model and batch size."""

    among: IntArray | None
    """Shape (S,), the users that can be served; all by default."""
    labels: Int32Array | None
    """Of ``windowed_count``: labels of each item, shape (N, L); by default its category and second tag."""
    reward: RewardChoice
    """Worth of a slate: a behaviour's name, weights by name, F weights, or a function; the first behaviour if None."""


class LogArguments(CoreArguments, total=False):
    """What an environment over a log with a fitted simulator takes."""

    profile: Profile
    """``"corrected"`` (default), or ``"official"``, the environment of LERL's released code."""
    faults: str | Sequence[str] | None
    """With ``profile="official"``: which of its faults: ``"all"`` (default), ``"none"``, or names."""
    response: ResponseModel | None
    """A response model that replaces the simulator."""
    device: str
    """Where torch computes the simulator's responses; default ``"cpu"``."""
