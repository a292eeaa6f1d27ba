"""What is written down of a session is what the environment did."""

from __future__ import annotations

import json

import numpy as np

from rapport.agents.baselines.controls import PopularSlates
from rapport.experiments.core import play
from rapport.experiments.lerl.config import PlannerConfig, planned
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.protocol import evaluation_users
from rapport.experiments.report.session_record import RecordedSession, record


def test_a_record_agrees_with_play(twin_env):
    data = data_of(twin_env)
    users = evaluation_users(data, 6, seed=3)
    act = PopularSlates(data, 6)
    played = play(sessions_of(twin_env, 6, "held_out"), act, 3, {"user": users})
    sessions = record(sessions_of(twin_env, 6, "held_out"), act, users, 3, "popularity", "popularity")
    assert [s.user for s in sessions] == users.tolist()
    np.testing.assert_array_equal([len(s.slates) for s in sessions], played["length"])
    np.testing.assert_allclose([sum(x.reward for x in s.slates) for s in sessions], played["return"])
    category = dict(zip(data.catalog.item_ids.tolist(), data.catalog.category.tolist(), strict=True))
    for session in sessions:
        left = twin_env.kwargs["budget"]
        for slate, items in zip(session.slates, act.order[:120].reshape(-1, 6), strict=False):
            assert slate.items == tuple(f"#{i}" for i in data.catalog.item_ids[items])
            shown = [data.catalog.category_names[category[int(name[1:])]] for name in slate.items]
            assert list(slate.categories) == shown
            assert np.isclose(np.mean(slate.clicks), slate.reward)
            left = max(left - slate.cost, 0.0)
            assert slate.budget == left
        assert left < 1 and session.ended == "the budget was used up"
    assert [RecordedSession.from_dict(json.loads(json.dumps(s.to_dict()))) for s in sessions] == sessions


def test_plans_and_overlaps_are_written_down(twin_env):
    data = data_of(twin_env)
    users = evaluation_users(data, 4, seed=1)
    rng = np.random.default_rng(0)
    env = planned(sessions_of(twin_env, 4, "held_out"), data, PlannerConfig("rotation"), None, rng, once=True)
    chosen = []

    def first_allowed(observations):
        allowed = observations["plan"].astype(bool)[:, data.catalog.category]
        chosen.append(observations["plan"].copy())
        return np.argsort(~allowed, axis=1, kind="stable")[:, :6]

    for row, session in enumerate(record(env, first_allowed, users, 1, "rotation", "rotation")):
        for slate, plans in zip(session.slates, chosen, strict=False):
            names = [n for n, there in zip(data.catalog.category_names, plans[row], strict=True) if there]
            assert list(slate.plan) == names
            assert set(slate.categories) <= set(names)
        assert session.overlaps() == [0] * (len(session.slates) - 1)
