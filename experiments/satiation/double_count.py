"""Is satiation counted twice? How much of it the simulator below the satiation component contains already.

Two measurements. In the log: the simulator's predictions of what users did are regressed on discounted counts of recent
exposures, and so is what they leave unexplained, which is what the component should add. (Most rows are of the days
that the simulator learned from.) In sessions of its own: users are shown items of a few categories at a time, drawn at
random without regard to what they like or do. The click probabilities of a simulator are regressed on the load of the
recent past, and on that of the item's own category, with (user, category) and item means taken out: the regression that
is run on the log, now on the simulator. (Its probabilities may also fall because it learns that a user clicks little of
what is drawn at random: that shows under "all".)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int32Array, IntArray, SessionData
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.response.fit import ALL_TIME, Fitted, predict
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationState
from rapport.experiments.satiation.exposures import Exposures, whole_rows
from rapport.experiments.satiation.fixed_effects import FixedEffects, Floats, least_squares
from rapport.experiments.satiation.measure import loads
from rapport.experiments.satiation.panel import BY_TAB, Effect, Panel

PLAN_SLATES = 5
"""Slates for which a user is shown the same few categories."""
PLAN_CATEGORIES = 3


def inside(
    data: SessionData,
    response: ResponseModel,
    boredom: SatiationState,
    rng: np.random.Generator,
    users: int = 1_000,
    slates: int = 20,
    slate_size: int = 6,
) -> list[Effect]:
    """Effects of a full past on the click probability, in an inner simulator and in the same with satiation added.

    Args:
        data: people and items.
        response: the inner simulator.
        boredom: the satiation component.
        rng: draws users, items and responses.
        users: number of users.
        slates: shown to each.
        slate_size: items in a slate.
    """
    who = rng.integers(data.population.n_users, size=users)
    shown = _slates(data, rng, users, slates, slate_size)
    result = []
    for name, model in (("inner simulator", response), ("with satiation", SatiatedResponse(response, boredom))):
        chance, loads = _play(model, boredom, who, shown, np.random.default_rng(0))
        user = np.repeat(who, slates * slate_size)
        item = shown.reshape(-1).astype(np.int64)
        cell = user * data.catalog.n_categories + data.catalog.category[item]
        effects = FixedEffects(cell, item)
        found = least_squares(effects.residual(chance), effects.residual(loads), user, effects.sizes[1])
        for i, what in enumerate(("same category", "all")):
            figures = len(user), float(found.value[i]), float(found.error[i])
            result.append(Effect("inside", what, "click", name, *figures))
    return result


def in_log(data: SessionData, e: Exposures, fitted: Fitted, tau: float, length: int) -> list[Effect]:
    """Effects of recent exposures on clicks, on the simulator's prediction of them, and on the residual.

    Args:
        data: the log.
        e: its exposures.
        fitted: the inner simulator.
        tau: time constant, minutes.
        length: exposures of a user that it reads.
    """
    rows, logits = predict(fitted.model, data, 0, ALL_TIME, length)
    scale, shift = fitted.calibration[:, 0].tolist()
    chance = np.full(len(data.log), np.nan)
    chance[rows] = 1.0 / (1.0 + np.exp(-(scale * logits[:, 0].astype(np.float64) + shift)))
    predicted = chance[whole_rows(data)]
    known = np.isfinite(predicted)
    predicted = np.where(known, predicted, 0.0)
    click = e.outcome("click")
    panel = Panel(e, BY_TAB, known)
    columns: dict[str, NDArray[Any]] = dict(zip(("same category", "all"), loads(e, tau).T, strict=True))
    asked = {"click": click, "predicted click": predicted, "left over": click - predicted}
    return [x for name, y in asked.items() for x in panel.effects("inside", name, y, columns, ())]


def _slates(data: SessionData, rng: np.random.Generator, users: int, slates: int, size: int) -> Int32Array:
    """Random items of a few categories, which change every few slates; shape (users, slates, size), int32."""
    category = data.catalog.category
    order = np.argsort(category, kind="stable")
    first = np.searchsorted(category[order], np.arange(data.catalog.n_categories))
    plans = -(-slates // PLAN_SLATES)
    plan = rng.integers(data.catalog.n_categories, size=(users, plans, PLAN_CATEGORIES))
    plan = np.repeat(plan, PLAN_SLATES, axis=1)[:, :slates]
    chosen = np.take_along_axis(plan, rng.integers(PLAN_CATEGORIES, size=(users, slates, size)), axis=2)
    place = (rng.random(chosen.shape) * data.catalog.category_sizes[chosen]).astype(np.int64)
    slates_shown: Int32Array = order[first[chosen] + place].astype(np.int32)
    return slates_shown


def _play(
    model: ResponseModel, boredom: SatiationState, users: IntArray, shown: Int32Array, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Chances of a click, (R,), and (part of the item's category, fullness), (R, 2), of all items shown."""
    state, parts = model.initial_state(users), boredom.initial(len(users))
    chances, loads = [], []
    for step in range(shown.shape[1]):
        slate = np.ascontiguousarray(shown[:, step])
        chance = model.probabilities(state, users, slate)
        categories = boredom.category[slate]
        full = np.broadcast_to(parts.sum(axis=1)[:, None], slate.shape)
        chances.append(chance[:, :, 0])
        loads.append(np.stack([boredom.met(parts, categories), full], axis=2))
        feedback = (rng.random(chance.shape) < chance).astype(np.int8)
        state = model.advance(state, users, slate, feedback)
        parts = boredom.after(parts, categories)
    return (
        np.stack(chances, axis=1).reshape(-1).astype(np.float64),
        np.stack(loads, axis=1).reshape(-1, 2).astype(np.float64),
    )
