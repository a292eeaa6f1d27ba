"""Planned sessions: hard masks, widened plans, periods, cooldowns, replans, and a critic told of what ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.planning.controls import RandomPlanner
from rapport.agents.planning.no_repeat import NoRepeatMask
from rapport.agents.planning.planner import BoolArray, FinishedSession, SessionViews
from rapport.agents.planning.wrapper import PlannedVectorEnv, widen
from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.hyper_action import BOUND, HyperActionEnv
from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")


class Scripted:
    """Plans as a function of the views says, and keeps the views."""

    name = "scripted"

    def __init__(self, plan: Callable[[SessionViews], BoolArray]) -> None:
        self._plan, self.views = plan, []

    def plan(self, views: SessionViews) -> BoolArray:
        self.views.append(views)
        return self._plan(views)


class Recorder:
    """A critic that keeps what it is handed."""

    def __init__(self) -> None:
        self.heard: list[FinishedSession] = []

    def reflect(self, sessions: list[FinishedSession]) -> None:
        self.heard += sessions


def everything(views: SessionViews) -> BoolArray:
    return np.ones((len(views), 37), bool)


def sessions(data: SessionData, response: MatrixResponse, n: int, **arguments: Any) -> SessionVectorEnv:
    return SessionVectorEnv(kuairand_core(n, data=data, response=response, **arguments), AutoresetMode.SAME_STEP)


@pytest.fixture
def make(small_data: SessionData, matrix_response: MatrixResponse) -> Callable[..., PlannedVectorEnv]:
    def made(
        n: int,
        plan: Any = everything,
        critic: Recorder | None = None,
        period: int = 1,
        cooldown: bool = False,
        replan_threshold: float | None = None,
        once: bool = False,
        **arguments: Any,
    ) -> PlannedVectorEnv:
        env = sessions(small_data, matrix_response, n, **arguments)
        planner = Scripted(plan) if callable(plan) else plan
        return PlannedVectorEnv(env, small_data, planner, critic, period, cooldown, replan_threshold, once)

    return made


# --- observations and views -------------------------------------------------------------------------------------------


def test_plans_stand_in_observations_and_spaces(make: Callable[..., PlannedVectorEnv], small_data: SessionData) -> None:
    env = make(4, RandomPlanner(small_data.catalog.category_sizes, np.random.default_rng(0)))
    observation, _ = env.reset(seed=0)
    slates = np.random.default_rng(0).integers(150, size=(40, 4, 6))
    for step in range(40):
        assert observation in env.observation_space
        assert {k: v[1] for k, v in observation.items()} in env.single_observation_space
        assert observation["plan"].shape == (4, 37) and observation["plan"].dtype == np.int8
        plan = observation["plan"]
        observation, _, terminated, truncated, info = env.step(slates[step])
        for i in np.flatnonzero(terminated | truncated):
            assert info["final_obs"][i] in env.single_observation_space
            np.testing.assert_array_equal(info["final_obs"][i]["plan"], plan[i])


def test_the_planner_sees_the_session_and_the_log(
    make: Callable[..., PlannedVectorEnv], small_data: SessionData
) -> None:
    planner = Scripted(everything)
    env = make(3, planner)
    _, info = env.reset(seed=0)
    served: list[list[tuple[int, int]]] = [[] for _ in range(3)]
    category = small_data.catalog.category
    for step in range(30):
        views = planner.views[-1]
        assert views.user.tolist() == info["user"].tolist() and views.slate_size == 6
        for i in range(3):
            assert views.step[i] == len(served[i]) // 6
            rows = np.flatnonzero(
                (small_data.log.user == views.user[i]) & (small_data.log.time_ms < small_data.test_from_ms)
            )
            past = [(int(category[small_data.log.item[r]]), int(small_data.log.feedback[r, 0])) for r in rows]
            expected = ([(-1, -1)] * 50 + past + served[i])[-50:]
            assert list(zip(views.categories[i].tolist(), views.clicks[i].tolist(), strict=True)) == expected
        slates = np.random.default_rng(step).integers(150, size=(3, 6))
        _, _, terminated, truncated, info = env.step(slates)
        for i in range(3):
            served[i] += zip(category[slates[i]].tolist(), info["feedback"][i, :, 0].tolist(), strict=True)
            if (terminated | truncated)[i]:
                served[i] = []
    assert len(planner.views) == 31


def test_a_long_view_stands_in_for_a_click_that_was_not_recorded(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    from dataclasses import replace

    feedback = small_data.log.feedback.copy()
    feedback[:, 0] = -1
    data = replace(small_data, log=replace(small_data.log, feedback=feedback))
    planner = Scripted(everything)
    PlannedVectorEnv(sessions(data, matrix_response, 20), data, planner).reset(seed=0)
    views = planner.views[0]
    seen = views.categories >= 0
    assert set(views.clicks[seen].tolist()) == {0, 1} and set(views.clicks[~seen].tolist()) == {-1}
    long_views = np.concatenate(
        [feedback[(data.log.user == u) & (data.log.time_ms < data.test_from_ms), 1][-50:] for u in views.user]
    )
    assert views.clicks[seen].sum() == long_views.sum()


# --- periods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [1, 3, 100])
def test_a_plan_holds_for_its_period(
    make: Callable[..., PlannedVectorEnv], small_data: SessionData, period: int
) -> None:
    planner = RandomPlanner(small_data.catalog.category_sizes, np.random.default_rng(0), n=9)
    env = make(5, planner, period=period)
    observation, _ = env.reset(seed=0)
    slates = np.random.default_rng(0).integers(150, size=(50, 5, 6))
    due = 5
    for step in range(50):
        before = observation["plan"]
        observation, _, _, _, _ = env.step(slates[step])
        for i in range(5):
            place = int(observation["step"][i, 0])
            due += place % period == 0
            if place % period:
                np.testing.assert_array_equal(observation["plan"][i], before[i])
            else:
                assert (observation["plan"][i] != before[i]).any()
    assert env.plans_made == due


# --- cooldown ---------------------------------------------------------------------------------------------------------


def test_what_was_just_shown_is_masked_for_one_slate_of_this_session(
    make: Callable[..., PlannedVectorEnv], small_data: SessionData
) -> None:
    sizes, category = small_data.catalog.category_sizes, small_data.catalog.category
    env = make(5, RandomPlanner(sizes, np.random.default_rng(0), n=9), period=100, cooldown=True, budget=12)
    observation, _ = env.reset(seed=0)
    plans, rng, waived = observation["plan"].astype(bool), np.random.default_rng(1), 0
    for _ in range(60):
        slates = np.stack([rng.choice(np.flatnonzero(plans[i][category]), 6, replace=False) for i in range(5)])
        observation, _, terminated, truncated, info = env.step(slates)
        for i in range(5):
            fresh = plans[i].copy()
            fresh[category[slates[i]]] = False
            short = sizes[fresh].sum() < 6
            if (terminated | truncated)[i]:
                np.testing.assert_array_equal(info["final_obs"][i]["plan"], plans[i] if short else fresh)
                plans[i] = observation["plan"][i]  # a new plan, whole
                assert sizes[plans[i]].sum() >= 6
            else:
                np.testing.assert_array_equal(observation["plan"][i], plans[i] if short else fresh)
                waived += short
    assert env.cooldowns_waived == waived > 0
    assert env.plans_made > 5


def test_a_new_session_begins_with_its_whole_plan(make: Callable[..., PlannedVectorEnv]) -> None:
    env = make(2, period=100, cooldown=True, quit_rule="never", max_steps=2)
    observation, _ = env.reset(seed=0)
    masked = []
    for _ in range(5):
        masked.append(int((observation["plan"] == 0).sum()))
        observation, *_ = env.step(np.zeros((2, 6), int))
    assert masked == [0, 2, 0, 2, 0]
    observation, *_ = env.step(np.zeros((2, 6), int))
    assert env.reset()[0]["plan"].all()


# --- replan trigger ---------------------------------------------------------------------------------------------------


def test_a_session_is_planned_anew_when_its_click_rate_changes(make: Callable[..., PlannedVectorEnv]) -> None:
    """Against the formula worked out from what the bare environment reports."""
    n, z, size = 8, 1.5, 6
    env = make(n, planner := Scripted(everything), period=7, replan_threshold=z)
    env.reset(seed=0)
    assert len(planner.views[-1]) == n
    place, before, since, everyone = [0] * n, [(0, 0)] * n, [(0, 0)] * n, [0, 0]
    early = 0
    for step in range(60):
        made = len(planner.views)
        slates = np.random.default_rng(step).integers(150, size=(n, size))
        _, _, terminated, truncated, info = env.step(slates)
        clicks = info["feedback"][:, :, 0].sum(axis=1).tolist()
        everyone = [everyone[0] + sum(clicks), everyone[1] + n * size]
        q = (everyone[0] + 1) / (everyone[1] + 2)
        due = []
        for i in range(n):
            place[i] += 1
            since[i] = (since[i][0] + clicks[i], since[i][1] + size)
            if (terminated | truncated)[i]:
                place[i], before[i], since[i] = 0, (0, 0), (0, 0)
            p = (before[i][0] + 10 * q) / (before[i][1] + 10)
            changed = abs(since[i][0] - since[i][1] * p) > z * np.sqrt(since[i][1] * p * (1 - p))
            if place[i] % 7 == 0 or changed:
                early += place[i] % 7 != 0
                due.append(int(info["user"][i]))
                before[i] = (before[i][0] + since[i][0], before[i][1] + since[i][1])
                since[i] = (0, 0)
        asked = [] if len(planner.views) == made else planner.views[-1].user.tolist()
        assert asked == due
    assert env.replans_triggered == early > 5


def test_a_reset_forgets_what_was_expected(make: Callable[..., PlannedVectorEnv]) -> None:
    env = make(4, period=50, replan_threshold=1.0)
    slates = np.random.default_rng(0).integers(150, size=(10, 4, 6))
    counts = []
    for _ in range(2):
        made = env.plans_made
        env.reset(seed=3)
        for slate in slates:
            env.step(slate)
        counts.append(env.plans_made - made)
    assert counts[0] == counts[1] > 4


# --- one session each -------------------------------------------------------------------------------------------------


def test_what_follows_the_first_session_is_neither_planned_for_nor_told_of(
    make: Callable[..., PlannedVectorEnv],
) -> None:
    """The first sessions are those of an environment that goes on and on, plan for plan."""
    slates = np.random.default_rng(1).integers(150, size=(45, 5, 6))
    seen: dict[bool, list[tuple[int, list[int], bytes]]] = {}
    for once in (False, True):
        planner, critic = Scripted(lambda views: np.arange(37) % 2 == views.step[:, None] % 2), Recorder()
        env = make(5, planner, critic, cooldown=True, once=once, budget=12)
        observation, info = env.reset(seed=0)
        first, lengths, seen[once] = np.ones(5, bool), np.zeros(5, int), []
        for step in range(45):
            masks = observation["plan"]
            assert first.all() or not once or masks[~first].all()
            seen[once].append((step, np.flatnonzero(first).tolist(), masks[first].tobytes()))
            observation, _, terminated, truncated, info = env.step(slates[step])
            assert all(info["final_obs"][i] in env.single_observation_space for i in np.flatnonzero(terminated))
            lengths += first
            first &= ~(terminated | truncated)
        assert not first.any()
        if once:
            assert env.plans_made == lengths.sum() == sum(len(session.clicks) for session in critic.heard)
            assert len(critic.heard) == 5 and sum(len(views) for views in planner.views) == env.plans_made
            assert env.reset(seed=0)[0]["plan"].sum() < 5 * 37
        else:
            assert len(critic.heard) > 5
    assert seen[True] == seen[False]


def test_a_later_session_that_ends_beside_a_first_one_is_kept_from_the_critic(
    make: Callable[..., PlannedVectorEnv], small_data: SessionData
) -> None:
    """A repeated category makes one user leave after two slates; the other sees variety and leaves after the sixth."""
    first = [int(np.flatnonzero(small_data.catalog.category == c)[0]) for c in range(6)]
    critic = Recorder()
    env = make(2, critic=critic, once=True, quit_rule="windowed_count", window=12, threshold=7, max_steps=6)
    env.reset(seed=0)
    ended = []
    for _ in range(6):
        _, _, terminated, truncated, _ = env.step(np.array([[first[0]] * 6, first]))
        ended.append((terminated | truncated).tolist())
    assert ended == [[False, False], [True, False]] * 2 + [[False, False], [True, True]]
    assert [len(session.clicks) for session in critic.heard] == [2, 6]


# --- plans that cannot be served --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data())
def test_widening_matches_a_slow_reference(data: st.DataObject) -> None:
    n_sessions, n_categories = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    bits = st.lists(st.booleans(), min_size=n_categories, max_size=n_categories)
    plans, previous = (np.array(data.draw(st.lists(bits, min_size=n_sessions, max_size=n_sessions))) for _ in range(2))
    sizes = np.array(data.draw(st.lists(st.integers(0, 6), min_size=n_categories, max_size=n_categories)))
    given_plans = plans.copy()
    result = widen(plans, previous, sizes, 6)
    np.testing.assert_array_equal(plans, given_plans)
    for plan, old, got in zip(plans, previous, result, strict=True):
        expected = plan if sizes[plan].sum() >= 6 else old if sizes[old].sum() >= 6 else np.ones_like(plan)
        assert got.tolist() == expected.tolist()


def test_an_empty_plan_gives_way_to_the_one_before_then_to_all(make: Callable[..., PlannedVectorEnv]) -> None:
    """Steps of a session: empty (all categories stand in), category 35 (29 items), empty (35 stays), 12 (one item)."""

    def plan(views: SessionViews) -> BoolArray:
        wanted = np.zeros((len(views), 37), bool)
        for i, step in enumerate(views.step):
            if step in (1, 3):
                wanted[i, 35 if step == 1 else 12] = True
        return wanted

    env = make(2, plan)
    observation, _ = env.reset(seed=0)
    assert observation["plan"].all() and (env.plans_made, env.plans_widened) == (2, 2)
    for widened in (2, 4, 6):
        observation, *_ = env.step(np.zeros((2, 6), int))
        assert [np.flatnonzero(row).tolist() for row in observation["plan"]] == [[35], [35]]
        assert env.plans_widened == widened
    assert env.plans_made == 8


def test_a_new_user_does_not_inherit_a_plan(make: Callable[..., PlannedVectorEnv]) -> None:
    def plan(views: SessionViews) -> BoolArray:
        wanted = np.zeros((len(views), 37), bool)
        wanted[views.step > 0, 35] = True
        return wanted

    env = make(1, plan, budget=2)
    observation, _ = env.reset(seed=0)
    narrow = []
    for _ in range(6):
        narrow.append(int(observation["plan"].sum()))
        observation, *_ = env.step(np.array([[0, 1, 2, 3, 4, 5]]))
    assert narrow == [37, 1, 37, 1, 37, 1]
    observation, _ = env.reset()
    assert observation["plan"].all()


# --- hard masks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> tuple[SessionData, MatrixResponse, StateEncoder]:
    """10,000 items, nobody's history, two behaviours' worth of encoder."""
    data = twin(n_users=30, n_items=10_000, seed=0)
    torch.manual_seed(0)
    encoder = StateEncoder(data, EncoderSettings(item_width=8, width=16, layers=1))
    return data, MatrixResponse(np.full((30, 10_000, 7), 0.5, np.float32), data.log.behaviours), encoder


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n_categories=st.integers(0, 6), scale=st.sampled_from([0.0, 1e-3, 1.0, BOUND, 1e30]))
def test_no_item_outside_the_plan_is_ever_served(
    large: tuple[SessionData, MatrixResponse, StateEncoder], seed: int, n_categories: int, scale: float
) -> None:
    """Whatever the hyper-action: all scores negative, all equal, huge. LERL's multiplied mask fails this at once."""
    data, response, encoder = large
    rng = np.random.default_rng(seed)

    def plan(views: SessionViews) -> BoolArray:
        wanted = np.zeros((len(views), data.catalog.n_categories), bool)
        for row in wanted:
            row[rng.choice(data.catalog.n_categories, n_categories, replace=False)] = True
        return wanted

    planned = PlannedVectorEnv(sessions(data, response, 4), data, Scripted(plan))
    env = HyperActionEnv(planned, encoder, data.catalog.category)
    observation, _ = env.reset(seed=seed)
    for _ in range(4):
        action = (rng.normal(size=(4, 9)) * scale).astype(np.float32)
        action[:, -1] = -abs(action[:, -1])
        allowed = observation["plan"].astype(bool)
        slates = env.slates(action)
        assert slates.shape == (4, 6) and all(len(set(row)) == 6 for row in slates.tolist())
        assert allowed[np.arange(4)[:, None], data.catalog.category[slates]].all()
        observation, _, _, _, info = env.step(action)
        np.testing.assert_array_equal(info["categories"], data.catalog.category[slates])


# --- the critic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{}, {"quit_rule": "never", "max_steps": 7}, {"budget": 1}, {"history": 2}], ids=str
)
@pytest.mark.parametrize("n", [1, 7])
def test_the_critic_hears_of_the_session_that_ended(
    make: Callable[..., PlannedVectorEnv],
    small_data: SessionData,
    matrix_response: MatrixResponse,
    n: int,
    arguments: dict[str, Any],
) -> None:
    """Against a record kept by the test itself on the bare sessions of the same seed, without any wrapper.

    The released code of LERL handed its critic the logged history of the *next* user.
    """
    slates = np.random.default_rng(1).integers(150, size=(70, n, 6))
    bare = sessions(small_data, matrix_response, n, **arguments)
    _, info = bare.reset(seed=4)
    user = info["user"].copy()
    record: list[list[tuple[list[int], list[int]]]] = [[] for _ in range(n)]
    expected: list[tuple[int, list[Any]]] = []
    for step in range(70):
        _, reward, terminated, truncated, info = bare.step(slates[step])
        for i in range(n):
            clicks = info["feedback"][i, :, 0].tolist()
            assert reward[i] == pytest.approx(sum(clicks) / 6)
            record[i].append((small_data.catalog.category[slates[step, i]].tolist(), clicks))
            if (terminated | truncated)[i]:
                expected.append((int(user[i]), record[i]))
                record[i] = []
        user = info["user"].copy()

    critic = Recorder()
    env = make(n, critic=critic, **arguments)
    env.reset(seed=4)
    for step in range(70):
        env.step(slates[step])
    assert len(expected) >= 3
    heard = [(s.user, list(zip(s.categories.tolist(), s.clicks.tolist(), strict=True))) for s in critic.heard]
    assert heard == expected
    assert [s.score for s in critic.heard] == [sum(sum(clicks) for _, clicks in slates) for _, slates in expected]


def test_what_the_critic_was_handed_stays(make: Callable[..., PlannedVectorEnv]) -> None:
    critic = Recorder()
    env = make(2, critic=critic, budget=1)
    env.reset(seed=0)
    env.step(np.zeros((2, 6), int))
    first = critic.heard[0].categories.copy()
    env.step(np.full((2, 6), 77))
    np.testing.assert_array_equal(critic.heard[0].categories, first)


def test_a_reset_forgets_sessions_that_did_not_end(make: Callable[..., PlannedVectorEnv]) -> None:
    critic = Recorder()
    env = make(1, critic=critic, quit_rule="never", max_steps=3)
    env.reset(seed=0)
    env.step(np.zeros((1, 6), int))
    env.reset()
    for item in (1, 2, 3):
        env.step(np.full((1, 6), item))
    assert [s.categories.shape for s in critic.heard] == [(3, 6)]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_planned_for_is_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    core = kuairand_core(1, data=small_data, response=matrix_response)
    with pytest.raises(
        ValueError, match=r"^env: make it with autoreset_mode=AutoresetMode.SAME_STEP; ended sessions are"
    ):
        PlannedVectorEnv(SessionVectorEnv(core), small_data, Scripted(everything))
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match=r"^period=0; a plan holds at least one step$"):
        PlannedVectorEnv(env, small_data, Scripted(everything), period=0)
    with pytest.raises(
        ValueError, match=r"^replan_threshold=0; give a number of standard deviations above 0, or None$"
    ):
        PlannedVectorEnv(env, small_data, Scripted(everything), replan_threshold=0)
    large = sessions(small_data, matrix_response, 1, slate_size=151)
    with pytest.raises(ValueError, match=r"^slate_size=151, but there are only 150 items$"):
        PlannedVectorEnv(large, small_data, Scripted(everything))
    wrong = PlannedVectorEnv(env, small_data, Scripted(lambda views: np.ones((len(views), 36), bool)))
    with pytest.raises(
        ValueError, match=r"^planner 'scripted': a plan of shape \(1, 36\) for 1 sessions; \(1, 37\) is ne"
    ):
        wrong.reset(seed=0)


def test_old_names_keep_working_and_say_so(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    with pytest.warns(DeprecationWarning) as told:
        env = PlannedVectorEnv(
            sessions(small_data, matrix_response, 2),
            small_data,
            Scripted(everything),
            period=9,
            rest=True,
            surprise=0.5,
        )
        env.reset(seed=0)
        for step in range(8):
            env.step(np.random.default_rng(step).integers(150, size=(2, 6)))
        assert env.surprises == env.replans_triggered > 0 and env.rests_waived == env.cooldowns_waived
    said = " ".join(str(warning.message) for warning in told)
    for old, new in {"rest": "cooldown", "surprise": "replan_threshold", "rests_waived": "cooldowns_waived"}.items():
        assert f"PlannedVectorEnv: {old} is called {new} now" in said
    assert isinstance(env.env, NoRepeatMask)
