"""User satiation: a response model around another one, and a quit rule. Users tire of what they have just seen.

Both keep a satiation state for every user: C loads, one per category, whose sum is the total load, between 0 (no recent
exposure) and 1. Each item shown decays all loads by ``f = exp(-seconds / tau)`` and adds ``1 - f`` to that of its own
category. Satiation with a category therefore builds up while it is shown and decays while others are.

Measured in a log (``docs/satiation.md``): the time constant, the effect of the loads on click and long view, how much
users differ. Assumed: that sessions begin without load, that an item is on the screen as long as the log's average, and
all of :class:`SatiationQuit`, because no log at hand shows when users left and why.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from rapport._deprecation import renamed
from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray, SessionData
from rapport.envs.session.engine import counter_rng
from rapport.envs.session.engine.quit_rules import Costs, Slate
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.satiation.parameters import SatiationParameters

TRAIT_SEED = 0x5A71A7E
"""Seed of the users' sensitivities, which are the same in every environment."""


class SatiationState:
    """How category loads change when slates are shown, and how sensitive each user is to them.

    Args:
        data: items and users.
        parameters: of user satiation.

    Attributes:
        category: shape (N,), of each item.
        n_categories: C.
        fade: f, the share of a load that is left after one more item.
        trait: shape (U,), :func:`sensitivity` of each user.
    """

    def __init__(self, data: SessionData, parameters: SatiationParameters) -> None:
        self.parameters = parameters
        self.category, self.n_categories = data.catalog.category, data.catalog.n_categories
        self.fade = parameters.fade
        self.trait = sensitivity(np.arange(data.population.n_users), parameters.spread)

    def initial(self, n: int) -> FloatArray:
        """Loads of ``n`` users at the start of a session, shape (n, C): zeros."""
        return np.zeros((n, self.n_categories), np.float32)

    def after(self, loads: FloatArray, categories: Int32Array) -> FloatArray:
        """Loads, shape (B, C), after slates whose items have these categories, (B, K), seen in order."""
        places = categories.shape[1]
        result: FloatArray = loads * np.float32(self.fade**places)
        rows = np.arange(len(loads))
        for place in range(places):
            result[rows, categories[:, place]] += np.float32((1.0 - self.fade) * self.fade ** (places - 1 - place))
        return result

    def met(self, loads: FloatArray, categories: Int32Array) -> FloatArray:
        """The load of each item's own category, shape (B, K), for slates of these categories, (B, K)."""
        met: FloatArray = np.take_along_axis(loads, categories.astype(np.int64), axis=1)
        return met


def sensitivity(users: IntArray, spread: float) -> FloatArray:
    """Sensitivity of each user to satiation, shape (B,), float32: log-normal, mean 1, standard deviation ``spread``.

    A user has the same sensitivity in every environment. Drawn by the Box-Muller transform from SplitMix64.
    """
    if spread == 0:
        return np.ones(len(users), np.float32)
    key = counter_rng.new_stream(np.full(len(users), TRAIT_SEED, np.uint64), np.asarray(users, np.int64))
    first, second = counter_rng.uniform(key, 2).T
    normal = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    variance = np.log1p(spread**2)
    trait: FloatArray = np.exp(np.sqrt(variance) * normal - variance / 2.0).astype(np.float32)
    return trait


class SatiatedResponse:
    """Another response model, with user satiation on top.

    ``logit p = logit p_inner - sensitivity_u * (category_b * load of the item's category + overall_b * total load)``
    for the behaviours b on which satiation was measured. All items of a slate are judged under the same loads, as they
    are under the same inner state. A state is the inner state followed by the C loads; a step costs O(slate + C).

    Args:
        inner: how users respond without satiation.
        satiation: how loads change.
    """

    def __init__(self, inner: ResponseModel, satiation: SatiationState) -> None:
        self.inner, self.satiation = inner, satiation
        self.behaviours = inner.behaviours
        measured = satiation.parameters.behaviours
        self._category_loss = _losses(self.behaviours, measured, satiation.parameters.category)
        self._overall_loss = _losses(self.behaviours, measured, satiation.parameters.overall)

    @property
    def boredom(self) -> SatiationState:
        """The old name of :attr:`satiation`, until version 0.2."""
        warnings.warn("SatiatedResponse.boredom is called satiation now", DeprecationWarning, stacklevel=2)
        return self.satiation

    def initial_state(self, users: IntArray) -> FloatArray:
        """Inner states and zero loads, shape (B, D + C)."""
        return self._without_load(self.inner.initial_state(users))

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """The same after histories as of the engine. Histories have no times, so loads are zero.

        Raises:
            TypeError: the inner model cannot start from a history.
        """
        reader = getattr(self.inner, "state_after", None)
        if reader is None:
            raise TypeError(f"{type(self.inner).__name__} has no state_after; start sessions from users instead")
        return self._without_load(reader(users, items, feedback))

    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """Probability of each behaviour for each item, shape (B, K, F)."""
        inner, loads = self.split(state)
        chance = self.inner.probabilities(inner, users, slates)
        met = self.satiation.met(loads, self.satiation.category[slates])
        total = loads.sum(axis=1)[:, None, None]
        loss = met[:, :, None] * self._category_loss + total * self._overall_loss
        loss *= self.satiation.trait[users][:, None, None]
        return _less_likely(chance, loss)

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """States, shape (B, D + C), after slates of shape (B, K)."""
        inner, loads = self.split(state)
        loads = self.satiation.after(loads, self.satiation.category[slates])
        return np.concatenate([self.inner.advance(inner, users, slates, feedback), loads], axis=1)

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """The inner model's, shape (B, N): satiation is left out."""
        return self.inner.click_scores(self.split(state)[0], users)

    def split(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The inner state, shape (B, D), and the loads, shape (B, C)."""
        width = state.shape[1] - self.satiation.n_categories
        return np.ascontiguousarray(state[:, :width]), state[:, width:]

    def _without_load(self, inner: FloatArray) -> FloatArray:
        return np.concatenate([inner, self.satiation.initial(len(inner))], axis=1)


class SatiationQuit:
    """A slate costs 1, and more the higher the load of its categories: an assumed rule, not a measured one.

    ``cost = 1 + sensitivity_u * mean over the slate's items of their category's load / tolerance``. A slate whose
    categories have the load ``tolerance`` costs an average user double. Loads decay while other categories are shown;
    budget that is spent does not come back.

    Args:
        satiation: how loads change.
        tolerance: the load, in (0, 1], at which the cost doubles; infinite: repetition costs nothing.

    Raises:
        ValueError: the tolerance is not above 0.
    """

    name = "satiation"

    def __init__(self, satiation: SatiationState, tolerance: float = 0.25) -> None:
        if not tolerance > 0:
            raise ValueError(f"tolerance={tolerance}; it must be above 0 (infinite: repetition costs nothing)")
        self.satiation, self.tolerance = satiation, tolerance

    def initial_memory(self, users: IntArray) -> FloatArray:
        """Zero loads, shape (B, C)."""
        return self.satiation.initial(len(users))

    def cost(self, memory: FloatArray, slate: Slate) -> Costs:
        """At least 1 for each user, shape (B,)."""
        met = self.satiation.met(memory, slate.categories).mean(axis=1, dtype=np.float64)
        memory[...] = self.satiation.after(memory, slate.categories)
        costs: Costs = 1.0 + self.satiation.trait[slate.users] * met / self.tolerance
        return costs


def _losses(behaviours: tuple[str, ...], measured: tuple[str, ...], losses: tuple[float, ...]) -> FloatArray:
    """Loss of log-odds per behaviour, shape (F,); 0 where none was measured."""
    known = dict(zip(measured, losses, strict=True))
    return np.array([known.get(name, 0.0) for name in behaviours], np.float32)


def _less_likely(chance: FloatArray, loss: NDArray[np.float32]) -> FloatArray:
    """Probabilities after a loss of log-odds, ``p / (p + (1 - p) e^loss)``; exact at 0 and 1."""
    lowered: FloatArray = (chance / (chance + (1.0 - chance) * np.exp(loss))).astype(np.float32, copy=False)
    return lowered


__getattr__ = renamed(__name__, {"Boredom": "SatiationState"})
