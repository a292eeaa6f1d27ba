"""Small data with which every registered environment can be made, from whole numbers alone: no file, no model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rapport.datasets.kuairec.load import KuaiRec
from rapport.datasets.schema import Catalog, Features, InteractionLog, Population, SessionData
from rapport.envs.session.response.base import MatrixResponse

N_USERS, N_ITEMS, N_CATEGORIES, ROWS, DAYS = 40, 60, 8, 30, 10
KUAIRAND_BEHAVIOURS = ("click", "long_view", "like", "comment", "forward", "follow", "hate")
DAY_MS = 86_400_000

Arguments = dict[str, Any]
"""Arguments of ``gym.make``: data that need no file, and responses that need no fitted model."""


def dice(name: str, sides: int, *shape: int) -> NDArray[np.int64]:
    """Numbers in [0, sides) that depend on the name and their position alone, not on a library's generator."""
    word = int.from_bytes(name.encode(), "big") % 2**64
    state = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(word)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return ((state >> np.uint64(33)) % np.uint64(sides)).astype(np.int64).reshape(shape)


def features(name: str, n: int, columns: tuple[str, ...]) -> Features:
    values = ("none", "a", "b", "c")
    codes = dice(f"{name} features", 4, n, len(columns)).astype(np.int32)
    return Features(columns, (values,) * len(columns), codes)


@functools.cache
def session_data(behaviours: tuple[str, ...]) -> SessionData:
    """40 users of whom 8 are held out, 60 items in 8 categories, 30 rows each over 10 days."""
    category = np.concatenate([np.arange(N_CATEGORIES), dice("category", N_CATEGORIES, N_ITEMS - N_CATEGORIES)])
    names = tuple(f"category {c}" for c in range(N_CATEGORIES))
    log = InteractionLog(
        user=np.repeat(np.arange(N_USERS, dtype=np.int32), ROWS),
        item=dice("log items", N_ITEMS, N_USERS * ROWS).astype(np.int32),
        time_ms=np.tile(np.arange(ROWS) * DAYS * DAY_MS // ROWS, N_USERS),
        feedback=(dice("log feedback", 5, N_USERS * ROWS, len(behaviours)) // 2 - 1).clip(-1, 1).astype(np.int8),
        behaviours=behaviours,
        randomised=np.zeros(N_USERS * ROWS, bool),
    )
    data = SessionData(
        name="small",
        catalog=Catalog(
            np.arange(N_ITEMS),
            category.astype(np.int32),
            names,
            features("item", N_ITEMS, ("video_type", "second_tag")),
        ),
        population=Population(np.arange(N_USERS), features("user", N_USERS, ("user_active_degree", "gender", "age"))),
        log=log,
        test_from_ms=8 * DAY_MS,
        valid_from_ms=7 * DAY_MS,
        held_out=np.arange(N_USERS) % 5 == 0,
    )
    catalog, population = data.catalog, data.population
    for array in (
        *(catalog.item_ids, catalog.category, catalog.features.codes),
        *(population.user_ids, population.features.codes, data.held_out),
        *(log.user, log.item, log.time_ms, log.feedback, log.randomised),
    ):
        array.setflags(write=False)
    return data


@functools.cache
def kuairand() -> Arguments:
    """Users without memory, whose probabilities are sixteenths."""
    data = session_data(KUAIRAND_BEHAVIOURS)
    chances = dice("chances", 17, N_USERS, N_ITEMS, len(KUAIRAND_BEHAVIOURS)) / 16
    return {"data": data, "response": MatrixResponse(chances, KUAIRAND_BEHAVIOURS)}


@functools.cache
def kuairec() -> Arguments:
    """25 of the users are fully observed, with watch ratios in sixteenths up to 2."""
    truth_users = np.arange(3, 28)
    watch_ratio = (dice("watch ratios", 33, len(truth_users), N_ITEMS) / 16).astype(np.float32)
    blocked = dice("blocked", 50, len(truth_users), N_ITEMS) == 0
    watch_ratio[blocked] = 0
    data = session_data(("click",))
    second = dice("tags", 3 * N_CATEGORIES, N_ITEMS)
    tags = np.stack([data.catalog.category, np.where(second < N_CATEGORIES, second, -1)], axis=1).astype(np.int32)
    return {"data": KuaiRec(data, truth_users, watch_ratio, blocked, tags)}


SMALL: dict[str, Callable[[], Arguments]] = {"rapport/KuaiRand": kuairand, "rapport/KuaiRec": kuairec}
"""By the beginning of an id. A new kind of environment needs new ones here; those there are must not change, for
golden.json tells what happens in them."""


@pytest.fixture(scope="session")
def small_arguments() -> Callable[[str], Arguments]:
    """Arguments with which an id can be made without any file."""

    def of(env_id: str) -> Arguments:
        found = [make for beginning, make in SMALL.items() if env_id.startswith(beginning)]
        assert found, f"{env_id}: add arguments for it to SMALL in tests/envs/session/conftest.py"
        return dict(found[0]())

    return of
