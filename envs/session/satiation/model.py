"""People who tire of what they have just seen: a response model around another one, and a rule of when to leave.

Both keep, for every user, how much of the recent past was of each category: a row of C *parts* that sum to the past's
*fullness*, between 0 (rested) and 1. Each item shown fades the past by ``f = exp(-seconds / tau)`` and adds ``1 - f``
to its own category, so boredom builds up while one thing is shown and passes while others are.

Measured in a log (``docs/satiation.md``): the time constant, what a full past takes from click and long view, how much
people differ. Assumed: that sessions begin rested, that one item is on the screen as long as the log's average, and all
of :class:`SatiationQuit`: no log at hand shows when people left and why.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray, SessionData
from rapport.envs.session.engine import counter_rng as noise
from rapport.envs.session.engine.quit_rules import Costs, Slate
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.satiation.parameters import SatiationParameters

TRAIT_SEED = 0x5A71A7E
"""Of the draw of how easily each user tires; a trait of the user, the same in every environment."""


class Boredom:
    """How the parts of the recent past move when slates are shown, and how easily each user tires.

    Args:
        data: items and users.
        parameters: how people tire.

    Attributes:
        category: shape (N,), of each item.
        n_categories: C.
        fade: f, what one item leaves of the past.
        trait: shape (U,), :func:`sensitivity` of each user.
    """

    def __init__(self, data: SessionData, parameters: SatiationParameters) -> None:
        self.parameters = parameters
        self.category, self.n_categories = data.catalog.category, data.catalog.n_categories
        self.fade = parameters.fade
        self.trait = sensitivity(np.arange(data.population.n_users), parameters.spread)

    def rested(self, n: int) -> FloatArray:
        """The parts of ``n`` people who come rested, shape (n, C)."""
        return np.zeros((n, self.n_categories), np.float32)

    def after(self, parts: FloatArray, categories: Int32Array) -> FloatArray:
        """Parts, shape (B, C), after slates whose items have these categories, (B, K), seen in order."""
        places = categories.shape[1]
        result: FloatArray = parts * np.float32(self.fade**places)
        rows = np.arange(len(parts))
        for place in range(places):
            result[rows, categories[:, place]] += np.float32((1.0 - self.fade) * self.fade ** (places - 1 - place))
        return result

    def met(self, parts: FloatArray, categories: Int32Array) -> FloatArray:
        """The part of the past that each item of the slates meets of its own category, shape (B, K)."""
        met: FloatArray = np.take_along_axis(parts, categories.astype(np.int64), axis=1)
        return met


def sensitivity(users: IntArray, spread: float) -> FloatArray:
    """How easily each user tires, shape (B,), float32: log-normal, mean 1, the given standard deviation.

    A trait: the same user has it wherever they are met. Drawn by Box and Muller's rule from SplitMix64.
    """
    if spread == 0:
        return np.ones(len(users), np.float32)
    key = noise.begin(np.full(len(users), TRAIT_SEED, np.uint64), np.asarray(users, np.int64))
    first, second = noise.uniform(key, 2).T
    normal = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    variance = np.log1p(spread**2)
    trait: FloatArray = np.exp(np.sqrt(variance) * normal - variance / 2.0).astype(np.float32)
    return trait


class SatiatedResponse:
    """Another response model's people, who tire.

    ``logit p = logit p_inner - sensitivity_u * (category_b * part of the item's category + overall_b * fullness)`` for
    the behaviours b that boredom was measured on. Items of one slate meet the same past, as they do in the inner model.
    A state is the inner state followed by the C parts; a step costs O(slate + C).

    Args:
        inner: what people do when rested.
        boredom: how they tire.
    """

    def __init__(self, inner: ResponseModel, boredom: Boredom) -> None:
        self.inner, self.boredom = inner, boredom
        self.behaviours = inner.behaviours
        measured = boredom.parameters.behaviours
        self._category_loss = _losses(self.behaviours, measured, boredom.parameters.category)
        self._overall_loss = _losses(self.behaviours, measured, boredom.parameters.overall)

    def initial_state(self, users: IntArray) -> FloatArray:
        """Inner states and a rested past, shape (B, D + C)."""
        return self._rested(self.inner.initial_state(users))

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """The same after histories as of the engine; what they say of time is not known, so people come rested.

        Raises:
            TypeError: the inner model cannot start from a history.
        """
        reader = getattr(self.inner, "state_after", None)
        if reader is None:
            raise TypeError(f"{type(self.inner).__name__} has no state_after; start sessions from users instead")
        return self._rested(reader(users, items, feedback))

    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """Probability of each behaviour for each item, shape (B, K, F)."""
        inner, parts = self.split(state)
        chance = self.inner.probabilities(inner, users, slates)
        met = self.boredom.met(parts, self.boredom.category[slates])
        full = parts.sum(axis=1)[:, None, None]
        loss = met[:, :, None] * self._category_loss + full * self._overall_loss
        loss *= self.boredom.trait[users][:, None, None]
        return _less_likely(chance, loss)

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """States, shape (B, D + C), after slates of shape (B, K)."""
        inner, parts = self.split(state)
        parts = self.boredom.after(parts, self.boredom.category[slates])
        return np.concatenate([self.inner.advance(inner, users, slates, feedback), parts], axis=1)

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """The inner model's, shape (B, N): satiation is left out."""
        return self.inner.click_scores(self.split(state)[0], users)

    def split(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The inner state, shape (B, D), and the parts, shape (B, C)."""
        width = state.shape[1] - self.boredom.n_categories
        return np.ascontiguousarray(state[:, :width]), state[:, width:]

    def _rested(self, inner: FloatArray) -> FloatArray:
        return np.concatenate([inner, self.boredom.rested(len(inner))], axis=1)


class SatiationQuit:
    """A slate costs 1, and more where it meets the boredom it feeds on: a rule of ours, assumed and not measured.

    ``cost = 1 + sensitivity_u * mean over the slate of the part its items meet / tolerance``: a slate whose categories
    make up the share ``tolerance`` of a person's recent past costs an average person double. Boredom passes while other
    things are shown; budget spent does not come back.

    Args:
        boredom: how the past builds up and fades, and how easily each user tires.
        tolerance: the part of the past, in (0, 1], at which the cost doubles; infinite: repetition costs nothing.

    Raises:
        ValueError: the tolerance is not above 0.
    """

    name = "satiation"

    def __init__(self, boredom: Boredom, tolerance: float = 0.25) -> None:
        if not tolerance > 0:
            raise ValueError(f"tolerance={tolerance}; it must be above 0 (infinite: repetition costs nothing)")
        self.boredom, self.tolerance = boredom, tolerance

    def blank(self, users: IntArray) -> FloatArray:
        """A rested past, shape (B, C)."""
        return self.boredom.rested(len(users))

    def cost(self, memory: FloatArray, slate: Slate) -> Costs:
        """At least 1 for each user, shape (B,)."""
        met = self.boredom.met(memory, slate.categories).mean(axis=1, dtype=np.float64)
        memory[...] = self.boredom.after(memory, slate.categories)
        costs: Costs = 1.0 + self.boredom.trait[slate.users] * met / self.tolerance
        return costs


def _losses(behaviours: tuple[str, ...], measured: tuple[str, ...], losses: tuple[float, ...]) -> FloatArray:
    """One loss per behaviour, shape (F,); 0 where none was measured."""
    known = dict(zip(measured, losses, strict=True))
    return np.array([known.get(name, 0.0) for name in behaviours], np.float32)


def _less_likely(chance: FloatArray, loss: NDArray[np.float32]) -> FloatArray:
    """Probabilities after a loss of log-odds: ``p / (p + (1 - p) e^loss)``, exact at 0 and 1."""
    lowered: FloatArray = (chance / (chance + (1.0 - chance) * np.exp(loss))).astype(np.float32, copy=False)
    return lowered
