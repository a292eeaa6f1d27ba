"""What is written down of a session is what the environment did, and a training's curve is of its own sessions."""

from __future__ import annotations

import json

import numpy as np

from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.experiments.lerl.config import PlannerChoice, planned
from rapport.experiments.lerl.evaluation import evaluation_users, play
from rapport.experiments.lerl.learning_curve import POINT_EVERY, Watched
from rapport.experiments.lerl.user_groups import ACTIVITY, TENURE, groupings
from rapport.experiments.report.session_record import RecordedSession, record


def test_a_record_agrees_with_play(twin_setup):
    data = twin_setup.session_data()
    users = evaluation_users(data, 6, seed=3)
    act = PopularSlates(data, 6)
    played = play(twin_setup.sessions(6, "held_out"), act, users, seed=3)
    sessions = record(twin_setup.sessions(6, "held_out"), act, users, 3, "popularity", "popularity")
    assert [s.user for s in sessions] == users.tolist()
    np.testing.assert_array_equal([len(s.slates) for s in sessions], played.lengths)
    np.testing.assert_allclose([sum(x.reward for x in s.slates) for s in sessions], played.returns)
    category = dict(zip(data.catalog.item_ids.tolist(), data.catalog.category.tolist(), strict=True))
    for session in sessions:
        left = twin_setup.budget
        for slate, items in zip(session.slates, act.order[:120].reshape(-1, 6), strict=False):
            assert slate.items == tuple(f"#{i}" for i in data.catalog.item_ids[items])
            shown = [data.catalog.category_names[category[int(name[1:])]] for name in slate.items]
            assert list(slate.categories) == shown
            assert np.isclose(np.mean(slate.clicks), slate.reward)
            left = max(left - slate.cost, 0.0)
            assert slate.budget == left
        assert left < 1 and session.ended == "the budget was used up"
    assert [RecordedSession.from_dict(json.loads(json.dumps(s.to_dict()))) for s in sessions] == sessions


def test_plans_and_overlaps_are_written_down(twin_setup):
    data = twin_setup.session_data()
    users = evaluation_users(data, 4, seed=1)
    rng = np.random.default_rng(0)
    env = planned(twin_setup.sessions(4, "held_out"), data, PlannerChoice("rotation"), None, rng, once=True)
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


def test_a_watched_training_has_the_curve_of_its_sessions(twin_setup):
    told: list[int] = []
    watched = Watched(twin_setup.sessions(64, "train"), told.append)
    act = RandomSlates(twin_setup.session_data().catalog.n_items, 6, np.random.default_rng(0))
    observations, _ = watched.reset(seed=0)
    lengths, totals, running, ended = np.zeros(64, int), np.zeros(64), [], []
    for step in range(1, 41):
        observations, rewards, terminated, truncated, _ = watched.step(act(observations))
        lengths, totals = lengths + 1, totals + rewards
        over = terminated | truncated
        running += list(zip(lengths[over], totals[over], strict=True))
        lengths[over], totals[over] = 0, 0.0
        if step * 64 % POINT_EVERY == 0:
            ended.append((step * 64, *np.mean(running, axis=0)))
            running = []
    assert watched.transitions == 40 * 64 and told == [at for at, *_ in ended]
    np.testing.assert_allclose(watched.curve, ended)


def test_groups_cover_the_held_out_users(twin_setup):
    data = twin_setup.session_data()
    activity, *others = groupings(data)
    seen = np.bincount(data.log.user[data.log.time_ms < data.test_from_ms], minlength=data.population.n_users)
    sizes = np.bincount(activity.of_user[data.held_out], minlength=3)
    assert activity.groups == ACTIVITY and sizes.sum() == data.held_out.sum() and sizes.min() > 0
    for low in (0, 1):
        assert seen[activity.of_user == low].max() < seen[activity.of_user == low + 1].min()
    for tenure in others:
        column = data.population.features.names.index("register_days_range")
        values = data.population.features.values[column]
        codes = data.population.features.codes[:, column]
        for code, value in enumerate(values):
            first = int("".join(c if c.isdigit() else " " for c in value).split()[0])
            expected = max(i for i, day in enumerate(TENURE) if day <= first)
            assert (tenure.of_user[codes == code] == expected).all()
