"""The protocol: whole sessions, the same people and chance for every row, and how varied they were."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.baselines.controls import PopularSlates
from rapport.agents.llm import ScriptedLLM
from rapport.agents.planning.reflection import ReflectionPool
from rapport.experiments.core import Row, ServingPolicy, Task
from rapport.experiments.lerl import config
from rapport.experiments.lerl.config import LLM, LLM_ONLY, PlannerConfig
from rapport.experiments.lerl.environments import data_of, session_env, sessions_of
from rapport.experiments.lerl.learners import Control
from rapport.experiments.lerl.metrics import METRICS
from rapport.experiments.lerl.protocol import HeldOutSessions, Variety, evaluation_users, recorded_sessions

POPULAR = ServingPolicy(lambda env: PopularSlates(env.unwrapped.core.data, env.unwrapped.core.slate_size))


def a_task(env, folder=Path("nowhere"), seed=5, planner=None, name="popularity"):
    row = Row(name, name, env, Control("popularity"), planner=planner)
    return Task(row, row, seed, folder)


def play_one_by_one(env_config, act, users, seed):
    """The slow reference: each session alone in its own environment, stepped until it ends."""
    lengths, returns, shown = [], [], []
    for slot, user in enumerate(users):
        env = sessions_of(env_config, 1, "held_out")
        observations, _ = env.reset(seed=seed + slot, options={"user": np.array([user])})
        length, total, slates, ended = 0, 0.0, [], False
        while not ended:
            observations, reward, terminated, truncated, info = env.step(act(observations))
            length, total, ended = length + 1, total + reward[0], bool(terminated[0] or truncated[0])
            slates.append(info["categories"][0].copy())
        lengths.append(length)
        returns.append(total)
        shown.append(slates)
    return np.array(lengths), np.array(returns), shown


def variety_of(categories: list[np.ndarray], n_categories: int) -> tuple[float, float, float]:
    """The slow reference: one session's slates, each an array of K categories."""
    pairs = [(a != b) for slate in categories for i, a in enumerate(slate) for b in slate[i + 1 :]]
    changes = []
    for old, new in itertools.pairwise(set(slate.tolist()) for slate in categories):
        changes.append(1 - len(old & new) / len(old | new))
    coverage = len(set(np.concatenate(categories).tolist())) / n_categories
    return coverage, float(np.mean(pairs)), float(np.mean(changes)) if changes else 1.0


def test_playing_together_equals_playing_one_by_one(twin_env):
    data = data_of(twin_env)
    users = evaluation_users(data, 12, seed=5)
    together = HeldOutSessions(12)(a_task(twin_env), POPULAR)
    lengths, returns, shown = play_one_by_one(twin_env, PopularSlates(data, 6), users, seed=5)
    np.testing.assert_array_equal(together.arrays["length"], lengths)
    np.testing.assert_allclose(together.arrays["return"], returns)
    variety = np.array([together.arrays[name] for name in ("coverage", "intra", "between")]).T
    np.testing.assert_allclose(variety, [variety_of(slates, data.catalog.n_categories) for slates in shown])
    np.testing.assert_array_equal(together.ids, users)
    assert set(together.units) == set(together.arrays) and together.meter == {} and together.notes == ()
    # T_int, R_cum and R_sin of one seed are these sums.
    rng = np.random.default_rng(0)
    points = [metric.estimate([together.arrays], rng).point for metric in METRICS]
    assert points == pytest.approx([lengths.mean(), returns.mean(), returns.sum() / lengths.sum()])


def count(variety: Variety, categories: np.ndarray, running: np.ndarray) -> None:
    variety.count(np.zeros(len(running)), {"categories": categories}, running)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), n_categories=st.integers(2, 9))
def test_variety_agrees_with_a_plain_loop(seed, size, n_categories):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 8, 5)
    slates = rng.integers(0, n_categories, (lengths.max(), 5, size)).astype(np.int32)
    variety = Variety(5, n_categories)
    for step, shown in enumerate(slates):
        count(variety, shown, lengths > step)
    measured = variety.measured(lengths)
    found = np.array([measured[name] for name in ("coverage", "intra", "between")]).T
    wanted = [variety_of(list(slates[: lengths[row], row]), n_categories) for row in range(5)]
    np.testing.assert_allclose(found, wanted)


def test_single_items_cannot_be_varied_within():
    variety = Variety(2, 5)
    for step in range(3):
        count(variety, np.array([[step], [0]]), np.ones(2, bool))
    measured = variety.measured(np.array([3, 3]))
    np.testing.assert_allclose(measured["coverage"], [0.6, 0.2])
    np.testing.assert_allclose(measured["intra"], 1.0)
    np.testing.assert_allclose(measured["between"], [1.0, 0.0])


def test_evaluation_users_are_held_out_distinct_and_drawn_by_the_seed(twin_env):
    data = data_of(twin_env)
    users = evaluation_users(data, 100, seed=1)
    assert data.held_out[users].all()
    assert len(set(users)) == 100
    assert (users == evaluation_users(data, 100, seed=1)).all()
    assert (users != evaluation_users(data, 100, seed=2)).any()
    assert len(evaluation_users(data, 10_000, seed=1)) == 10_000
    some = np.flatnonzero(data.held_out)[:40]
    assert set(evaluation_users(data, 30, seed=1, among=np.concatenate([some, [0]]))) <= set(some.tolist())


def test_rows_of_a_seed_meet_the_same_people(twin_env):
    planned = HeldOutSessions(8)(a_task(twin_env, planner=PlannerConfig("none", cooldown=True)), POPULAR)
    bare = HeldOutSessions(8)(a_task(twin_env), POPULAR)
    np.testing.assert_array_equal(planned.ids, bare.ids)
    # Who heeds no plan is served alike with and without one.
    for name in bare.arrays:
        np.testing.assert_array_equal(planned.arrays[name], bare.arrays[name])


# --- the language model and its reflections ---------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, twin_env):
    """What a scripted model was asked, model by model."""
    opened = []
    names = list(data_of(twin_env).catalog.category_names[:8])

    def open_llm(source, *, sampling, budget, **_):
        opened.append(ScriptedLLM(lambda _: json.dumps({"categories": names}), sampling=sampling, budget=budget))
        return opened[-1]

    monkeypatch.setattr(config, "open_llm", open_llm)
    return opened


def pool(folder, name, text):
    made = ReflectionPool(folder / f"reflections-{name}.sqlite")
    made.add(text, 5.0)
    made.close()


def test_a_row_reads_the_reflections_of_whom_it_plays(twin_env, asked, tmp_path):
    for name in ("lerl-seed0", "lerl-seed1", "best-seed0", "study-seed0"):
        pool(tmp_path, name, f"taught by {name}")
    lerl = Row("lerl", "LERL", twin_env, Control("popularity"), planner=PlannerConfig(LLM, "scripted", period=20))
    best = Row("best", "best", twin_env, Control("popularity"), planner=lerl.planner, trained_as="lerl")

    def told(task, **protocol):
        episodes = HeldOutSessions(3, **protocol)(task, POPULAR)
        assert episodes.meter["plans"] == 3 and episodes.meter["calls"] > 0
        prompts = "".join(asked[-1].prompts)
        return {name for name in ("lerl-seed0", "lerl-seed1", "best-seed0", "study-seed0") if name in prompts}

    assert told(Task(lerl, lerl, 0, tmp_path)) == {"lerl-seed0"}
    assert told(Task(best, lerl, 0, tmp_path)) == {"lerl-seed0"}
    assert told(Task(lerl, lerl, 1, tmp_path)) == {"lerl-seed1"}
    elsewhere = tmp_path / "reflections-lerl-seed1.sqlite"
    assert told(Task(lerl, lerl, 7, tmp_path / "else"), pool_file=elsewhere) == {"lerl-seed1"}
    assert told(Task(best, lerl, 0, tmp_path), shared_pool="study") == {"study-seed0"}


def test_without_reflection_nothing_is_read_or_kept(twin_env, asked, tmp_path):
    pool(tmp_path, "lerl-seed0", "taught by lerl-seed0")
    planner = PlannerConfig(LLM_ONLY, "scripted", period=20)
    HeldOutSessions(3)(a_task(twin_env, tmp_path, 0, planner, "lerl"), POPULAR)
    assert asked[-1].prompts and "taught by" not in "".join(asked[-1].prompts)
    assert [p.name for p in tmp_path.iterdir()] == ["reflections-lerl-seed0.sqlite"]


def test_a_limit_that_is_reached_is_said(twin_env, asked, tmp_path):
    planner = PlannerConfig(LLM_ONLY, "scripted", period=1, llm_calls=4)
    episodes = HeldOutSessions(3)(a_task(twin_env, tmp_path, 0, planner), POPULAR)
    assert episodes.meter["calls"] == 4
    assert len(episodes.notes) == 1
    assert episodes.notes[0].startswith("in evaluation the budget of 4 calls is spent, then ")


# --- sessions to look at ----------------------------------------------------------------------------------------------


def test_sessions_of_seed_0_are_recorded_and_change_nothing(twin_env, tmp_path):
    protocol = HeldOutSessions(10, recorded=("popularity",))
    recorded = protocol(a_task(twin_env, tmp_path, 0), POPULAR)
    plain = HeldOutSessions(10)(a_task(twin_env, tmp_path, 0), POPULAR)
    for name in plain.arrays:
        np.testing.assert_array_equal(recorded.arrays[name], plain.arrays[name])
    protocol(a_task(twin_env, tmp_path, 1, name="popularity"), POPULAR)
    protocol(a_task(twin_env, tmp_path, 0, name="other"), POPULAR)
    assert [p.name for p in (tmp_path / "sessions").iterdir()] == ["popularity.json"]
    sessions = recorded_sessions(tmp_path, ("other", "popularity"))
    assert [s.method for s in sessions] == ["popularity"] * 6
    assert [s.user for s in sessions] == evaluation_users(data_of(twin_env), 6, seed=0).tolist()


def test_single_items_are_played_too():
    env = session_env("kuairand", "twin", slate_size=1)
    episodes = HeldOutSessions(4)(a_task(env, seed=0), POPULAR)
    np.testing.assert_array_equal(episodes.arrays["intra"], 1.0)
    assert (episodes.arrays["length"] >= 1).all()
