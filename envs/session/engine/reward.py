"""Rewards: what a slate is worth. A behaviour, weights of behaviours, a table, or a function of one's own."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int8Array, Int32Array, IntArray

Kind = TypeVar("Kind", bound=np.generic)
Reward = Callable[[IntArray, Int32Array, Int8Array], NDArray[np.float64]]
"""(users (B,), items shown (B, K), feedback (B, K, F) in {0, 1}) -> reward (B,), finite.

It keeps no state: what it returns depends on what it is given alone. Its attribute ``name``, or else its own name, is
what tables call the reward.
"""
RewardChoice = str | Mapping[str, float] | Sequence[float] | NDArray[np.floating] | Reward | None
"""What ``reward=`` takes: a behaviour's name, weights by name, F weights, a function, or None: the first behaviour."""


class WeightedReward:
    """The mean over a slate's items of the weighted sum of their behaviours.

    Args:
        weights: shape (F,), of the behaviours.
        name: for tables.
    """

    def __init__(self, weights: NDArray[np.floating], name: str) -> None:
        self.weights, self.name = np.asarray(weights, np.float64), name
        self._terms = [(int(column), float(weights[column])) for column in np.flatnonzero(weights)]

    def __call__(self, users: IntArray, slates: Int32Array, feedback: Int8Array) -> NDArray[np.float64]:
        """Rewards, shape (B,), the same to the last bit in a batch of any size."""
        n_places = feedback.shape[1]
        ones, total = np.ones(n_places), np.zeros(len(feedback))
        for column, weight in self._terms:
            total += weight * (feedback[:, :, column].astype(np.float64) @ ones)  # a sum of whole numbers is exact
        total /= n_places
        return total


class TableReward:
    """The mean of a table's entries over the slate.

    Args:
        table: shape (S, N), reward of each item for each user.
        users: shape (S,), the users of the rows; no other user may be asked about.
        n_users: users in the population.
        name: for tables.
    """

    def __init__(self, table: NDArray[np.floating], users: IntArray, n_users: int, name: str = "table") -> None:
        self.name = name
        self.table = np.ascontiguousarray(table).reshape(-1)
        self.first = np.zeros(n_users, np.int64)
        self.first[users] = np.arange(len(users)) * table.shape[1]

    def __call__(self, users: IntArray, slates: Int32Array, feedback: Int8Array) -> NDArray[np.float64]:
        """Rewards, shape (B,)."""
        shown = self.table.take(self.first.take(users)[:, None] + slates)
        total: NDArray[np.float64] = np.add.reduce(shown, axis=1, dtype=np.float64)
        total /= slates.shape[1]
        return total

    def sums_exactly(self, n: int) -> bool:
        """Whether float64 holds any sum of ``n`` entries exactly, so that their order does not matter."""
        sizes = np.abs(self.table[self.table != 0])
        if not len(sizes):
            return True
        finest = 2.0 ** (int(np.frexp(sizes.min())[1]) - 1 - np.finfo(self.table.dtype).nmant)
        return bool(n * float(sizes.max()) <= 2.0**53 * finest)


class OwnReward:
    """A function of one's own, whose results are checked.

    Args:
        function: as of :data:`Reward`.
    """

    def __init__(self, function: Reward) -> None:
        self.function, self.name = function, reward_name(function)

    def __call__(self, users: IntArray, slates: Int32Array, feedback: Int8Array) -> NDArray[np.float64]:
        """Rewards, shape (B,), a new array. The function is given arrays that it cannot write to.

        Raises:
            ValueError: the function returned something else than B finite numbers.
        """
        worth = np.asarray(self.function(_fixed(users), _fixed(slates), _fixed(feedback)))
        if worth.shape != users.shape or worth.dtype.kind not in "fiub":
            raise ValueError(
                f"reward={self.name}: returned shape {worth.shape}, {worth.dtype}, for {len(users)} user(s); return "
                f"one number for each, shape {users.shape}"
            )
        if not np.isfinite(worth).all():
            bad = int(np.flatnonzero(~np.isfinite(worth))[0])
            raise ValueError(
                f"reward={self.name}: returned {worth[bad]} for user {users[bad]} and items {slates[bad].tolist()}; "
                "rewards must be finite"
            )
        return worth.astype(np.float64)


def reward_of(reward: RewardChoice, behaviours: tuple[str, ...]) -> Reward | None:
    """The reward that ``reward=`` chooses; None is the mean of the first behaviour, which the engine computes itself.

    Args:
        reward: a behaviour's name, weights by name, F weights in the log's order, a function, or None.
        behaviours: F names, those of the log.

    Raises:
        ValueError: a name is unknown, the number of weights is wrong, or one is not finite.
    """
    known = ", ".join(behaviours)
    if reward is None or isinstance(reward, WeightedReward | TableReward | OwnReward):
        return reward
    if isinstance(reward, str):
        if reward not in behaviours:
            raise ValueError(f"reward={reward!r} is unknown; choose one of {known}, or give weights or a function")
        weights = np.array([float(name == reward) for name in behaviours])
        return None if reward == behaviours[0] else WeightedReward(weights, reward)
    if callable(reward):
        return OwnReward(reward)
    if isinstance(reward, Mapping):
        for name in reward:
            if name not in behaviours:
                raise ValueError(f"reward: {name!r} is no behaviour of this log; weigh some of {known}")
        if not reward:
            raise ValueError(f"reward={{}}: nothing is weighted; weigh some of {known}")
        reward = [reward.get(name, 0.0) for name in behaviours]
    weights = finite_weights("reward", reward, behaviours, "a behaviour's name, weights by name, a function")
    return WeightedReward(weights, weights_name(weights, behaviours))


def parsed_reward(text: str) -> str | dict[str, float]:
    """A reward as written on a command line: a name, ``long_view``, or weights, ``click=1,like=0.5,hate=-1``.

    Raises:
        ValueError: a weight is no number.
    """
    if "=" not in text:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            raise ValueError(f"reward={text!r}: {part.strip()!r} is no NAME=WEIGHT, e.g. click=1,like=0.5") from None
    return weights


def finite_weights(argument: str, weights: object, behaviours: tuple[str, ...], others: str) -> NDArray[np.float64]:
    """Weights of the F behaviours, shape (F,).

    Args:
        argument: its name, for the message.
        weights: as given.
        behaviours: F names.
        others: what else could be given, for the message.

    Raises:
        ValueError: they are not F finite numbers.
    """
    try:
        array = np.asarray(weights)
        usable = array.shape == (len(behaviours),) and array.dtype.kind in "fiub"
    except ValueError:  # a list of lists of different lengths
        usable = False
    if not usable:
        raise ValueError(
            f"{argument}={reprlib.repr(weights)}; give {others} or {len(behaviours)} numbers, for "
            f"{', '.join(behaviours)}"
        )
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        bad = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"{argument}: the weight of {behaviours[bad]} is {numbers[bad]}; weights must be finite")
    return numbers


def weights_name(weights: NDArray[np.float64], behaviours: tuple[str, ...]) -> str:
    """Weights in words, e.g. ``click + 0.5 like - hate``; ``0`` where all are 0."""
    name = ""
    for weight, behaviour in zip(weights.tolist(), behaviours, strict=True):
        if weight:
            sign = (" - " if weight < 0 else " + ") if name else ("-" if weight < 0 else "")
            name += f"{sign}{behaviour}" if abs(weight) == 1 else f"{sign}{abs(weight):g} {behaviour}"
    return name or "0"


def reward_name(reward: Reward) -> str:
    """What tables call a reward: its attribute ``name``, or else the name of the function or of its class."""
    name = getattr(reward, "name", None) or getattr(reward, "__name__", None) or type(reward).__name__
    return str(name)


def _fixed(array: NDArray[Kind]) -> NDArray[Kind]:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
