"""Items of several categories: quit rules, masks and planners against sets in plain Python."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.vector import AutoresetMode

import rapport
from rapport.agents.planning.controls import GreedyPreferencePlanner, RandomPlanner
from rapport.agents.planning.no_repeat import NoRepeatMask
from rapport.agents.planning.planner import session_views
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.hyper_action import allowed_items
from rapport.datasets.custom.frames import Labels
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.response.user_model import item_features

N_USERS, N_ITEMS, NAMES = 12, 60, [f"genre {i}" for i in range(9)]


@pytest.fixture(scope="module")
def films() -> SessionData:
    rng = np.random.default_rng(0)
    genres = ["|".join(rng.choice(NAMES, rng.integers(1, 4), replace=False)) for _ in range(N_ITEMS)]
    items = pd.DataFrame({"item_id": range(N_ITEMS), "category": genres})
    n = 600
    log = pd.DataFrame({"user_id": rng.integers(0, N_USERS, n), "item_id": rng.integers(0, N_ITEMS, n)})
    log["time"], log["click"] = 1_700_000_000 + np.arange(n) * 1_800, rng.integers(0, 2, n)
    return rapport.from_frames(log, items, name="films", category=Labels("category"))


@pytest.fixture(scope="module")
def response(films: SessionData) -> MatrixResponse:
    clicks = np.random.default_rng(1).integers(0, 2, (N_USERS, N_ITEMS, 1)).astype(float)
    return MatrixResponse(clicks, films.log.behaviours)


def sets(films: SessionData, slate: Any) -> list[set[int]]:
    return [{c for c in films.catalog.labels[item].tolist() if c >= 0} for item in slate]


def positional(films: SessionData, before: list[Any], slate: Any) -> float:
    pairs = zip(sets(films, before[-1]), sets(films, slate), strict=True) if before else ()
    return 1.0 + any(old & new for old, new in pairs)


def set_overlap(films: SessionData, before: list[Any], slate: Any) -> float:
    return 1.0 + bool(before and set().union(*sets(films, before[-1])) & set().union(*sets(films, slate)))


def windowed_count(films: SessionData, before: list[Any], slate: Any) -> float:
    shown = [genres for earlier in before for genres in sets(films, earlier)]
    for genres in sets(films, slate):
        if any(sum(genre in seen for seen in shown[-4:]) > 1 for genre in genres):
            return np.inf
        shown.append(genres)
    return 0.0


@pytest.mark.parametrize("rule", [positional, set_overlap, windowed_count])
@pytest.mark.parametrize("num_envs", [1, 5])
def test_costs_are_those_of_sets(films: SessionData, response: MatrixResponse, rule: Any, num_envs: int) -> None:
    env = gym.make_vec(
        "rapport/KuaiRand-v0",
        num_envs,
        "vector_entry_point",
        data=films,
        response=response,
        quit_rule=rule.__name__,
        window=4,
        threshold=1,
        slate_size=2,
        budget=6,
        history=8,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    env.reset(seed=0)
    rng, before, costs = np.random.default_rng(2), [[] for _ in range(num_envs)], []
    for _ in range(60):
        slates = rng.integers(0, N_ITEMS, (num_envs, 2))
        _, _, terminated, truncated, info = env.step(slates)
        for row, slate in enumerate(slates):
            assert info["cost"][row] == rule(films, before[row], slate)
            before[row].append(slate)
            if terminated[row] or truncated[row]:
                before[row].clear()
        costs += info["cost"].tolist()
    assert len(set(costs)) == 2  # both outcomes were seen


def test_an_item_is_allowed_where_any_of_its_categories_is(films: SessionData) -> None:
    plans = np.random.default_rng(3).random((7, len(NAMES))) < 0.3
    expected = [[any(plan[c] for c in genres) for genres in sets(films, range(N_ITEMS))] for plan in plans]
    assert films.catalog.allowed(plans).tolist() == expected
    assert allowed_items(torch.from_numpy(plans), torch.from_numpy(films.catalog.labels).long()).tolist() == expected
    single = films.catalog.labels[:, :1]
    one = allowed_items(torch.from_numpy(plans), torch.from_numpy(single).long())
    assert one.tolist() == plans[:, single[:, 0]].tolist()


@pytest.mark.parametrize("size", [1, 3, 6])
def test_plans_fill_slates_and_the_cooldown_knows_all_categories(
    films: SessionData, response: MatrixResponse, size: int
) -> None:
    sessions = gym.make_vec(
        "rapport/KuaiRand-v0",
        6,
        "vector_entry_point",
        data=films,
        response=response,
        slate_size=size,
        history=12,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    rng = np.random.default_rng(4)
    planner = RandomPlanner(films.catalog.category_sizes, rng, n=1)
    env = PlannedVectorEnv(NoRepeatMask(sessions, films), films, planner)
    observations, _ = env.reset(seed=0)
    cooled = 0
    for _ in range(40):
        plans = observations["plan"].astype(bool)
        allowed = films.catalog.allowed(plans)
        assert (allowed.sum(axis=1) >= size).all()
        slates = np.stack([rng.choice(np.flatnonzero(row), size, replace=False) for row in allowed])
        waived = env.env.cooldowns_waived
        observations, _, terminated, truncated, _ = env.step(slates)
        if env.env.cooldowns_waived == waived:
            for row in np.flatnonzero(~(terminated | truncated)):
                shown = set().union(*sets(films, slates[row]))
                assert not shown & set(np.flatnonzero(env.env._shown[row] == 0).tolist())
                cooled += 1
    assert cooled


def test_planners_count_an_item_in_each_of_its_categories(films: SessionData, response: MatrixResponse) -> None:
    env = gym.make_vec(
        "rapport/KuaiRand-v0", 4, "vector_entry_point", data=films, response=response, slate_size=2, history=10
    )
    observations, info = env.reset(seed=0)
    rng = np.random.default_rng(5)
    for _ in range(3):
        observations, *_ = env.step(rng.integers(0, N_ITEMS, (4, 2)))
    views = session_views(observations, info["user"], films, 2)
    for row in range(4):
        seen = [item - 1 for item in observations["history_items"][row] if item > 0]
        counted = sorted(c for c in views.categories[row].tolist() if c >= 0)
        assert counted == sorted(c for genres in sets(films, seen) for c in genres)
        last, _ = views.session_slates(row, 1)
        assert {c for c in last.ravel().tolist() if c >= 0} == set().union(*sets(films, seen[-2:]))
    planner = GreedyPreferencePlanner(films.catalog.category_sizes, np.full(len(NAMES), 0.5), n=3)
    assert (films.catalog.allowed(planner.plan(views)).sum(axis=1) >= 2).all()


def test_models_read_every_category(films: SessionData) -> None:
    features = item_features(films)
    assert features.names == ("category 2", "category 3", "category")
    back = [
        [features.values[f][c] for f, c in enumerate(row) if features.values[f][c] != "none"]
        for row in features.codes.tolist()
    ]
    names = films.catalog.category_names
    assert [set(row) for row in back] == [{names[c] for c in genres} for genres in sets(films, range(N_ITEMS))]
