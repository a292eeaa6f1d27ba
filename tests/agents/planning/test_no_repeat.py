"""The one-slate cooldown: alone, over a planner and under one, against the planned sessions of old in plain Python."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapport.agents.planning.controls import RandomPlanner
from rapport.agents.planning.no_repeat import NoRepeatMask, exclude
from rapport.agents.planning.planner import FinishedSession, SessionViews, session_views
from rapport.agents.planning.preference import mark_categories
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

Composition = Literal["argument", "mask over planner", "planner over mask"]


class Recorder:
    def __init__(self) -> None:
        self.heard: list[tuple[int, list[list[int]], list[list[int]]]] = []

    def reflect(self, sessions: list[FinishedSession]) -> None:
        self.heard += [(s.user, s.categories.tolist(), s.clicks.tolist()) for s in sessions]


def bare(data: SessionData, response: MatrixResponse, n: int, **arguments: Any) -> SessionVectorEnv:
    return SessionVectorEnv(kuairand_core(n, data=data, response=response, **arguments), AutoresetMode.SAME_STEP)


class SlowPlannedSessions:
    """Planned sessions as they were while one class did everything, session by session in plain Python."""

    def __init__(
        self,
        env: SessionVectorEnv,
        data: SessionData,
        planner: Any,
        period: int,
        cooldown: bool,
        z: float | None,
        once: bool,
    ) -> None:
        self.env, self.data, self.planner, self.period, self.cooldown, self.z, self.once = (
            *(env, data, planner, period, cooldown, z, once),
        )
        self.sizes = data.catalog.category_sizes.tolist()
        self.plans_made = self.plans_widened = self.triggered = self.waived = 0
        self.heard: list[tuple[int, list[list[int]], list[list[int]]]] = []

    def reset(self, seed: int) -> list[list[int]]:
        observations, info = self.env.reset(seed=seed)
        n = self.env.num_envs
        self.plan = [[True] * len(self.sizes) for _ in range(n)]
        self.shown: list[set[int]] = [set() for _ in range(n)]
        self.counts, self.user = [True] * n, info["user"].tolist()
        self.record: list[list[tuple[list[int], list[int]]]] = [[] for _ in range(n)]
        self.before, self.since, self.everyone = [(0, 0)] * n, [(0, 0)] * n, (0, 0)
        return self._planned(observations)

    def step(self, slates: Any) -> tuple[list[list[int]], dict[int, list[int]]]:
        """Masks of the next slates, and by row those that followed the last slate of a session."""
        observations, _, terminated, truncated, info = self.env.step(slates)
        last, told = {}, []
        for i in range(self.env.num_envs):
            categories, clicks = info["categories"][i].tolist(), info["feedback"][i, :, 0].tolist()
            self.record[i].append((categories, clicks))
            self.shown[i] = set(categories)
            if self.counts[i]:
                self.since[i] = (self.since[i][0] + sum(clicks), self.since[i][1] + len(clicks))
                self.everyone = (self.everyone[0] + sum(clicks), self.everyone[1] + len(clicks))
        for i in np.flatnonzero(terminated | truncated).tolist():
            last[i] = self._mask(i)[0]
            if self.counts[i]:
                told.append((self.user[i], [c for c, _ in self.record[i]], [k for _, k in self.record[i]]))
            self.record[i], self.plan[i], self.shown[i] = [], [True] * len(self.sizes), set()
            self.before[i] = self.since[i] = (0, 0)
            self.counts[i] = self.counts[i] and not self.once
        self.heard += told
        self.user = info["user"].tolist()
        return self._planned(observations), last

    def _planned(self, observations: dict[str, Any]) -> list[list[int]]:
        due = []
        for i, (step,) in enumerate(observations["step"].tolist()):
            regular = self.counts[i] and step % self.period == 0
            early = self.counts[i] and not regular and self._changed(i)
            self.triggered += early
            if regular or early:
                due.append(i)
                self.before[i] = (self.before[i][0] + self.since[i][0], self.before[i][1] + self.since[i][1])
                self.since[i] = (0, 0)
        if due:
            seen = {name: value[due] for name, value in observations.items()}
            asked = self.planner.plan(session_views(seen, np.array([self.user[i] for i in due]), self.data, 6)).tolist()
            for i, plan in zip(due, asked, strict=True):
                everything = [True] * len(self.sizes)
                plans = [candidate for candidate in (plan, self.plan[i], everything) if self._held(candidate) >= 6]
                self.plans_made += 1
                self.plans_widened += plans[0] != plan
                self.plan[i] = plans[0]
        masks = [self._mask(i) for i in range(self.env.num_envs)]
        self.waived += sum(waived for _, waived in masks)
        return [mask for mask, _ in masks]

    def _changed(self, i: int) -> bool:
        if self.z is None:
            return False
        q = (self.everyone[0] + 1) / (self.everyone[1] + 2)
        p = (self.before[i][0] + 10 * q) / (self.before[i][1] + 10)
        k, n = self.since[i]
        return bool((k - n * p) ** 2 > self.z**2 * n * p * (1 - p))

    def _mask(self, i: int) -> tuple[list[int], bool]:
        if not self.counts[i]:
            return [1] * len(self.sizes), False
        fresh = [allowed and not (self.cooldown and c in self.shown[i]) for c, allowed in enumerate(self.plan[i])]
        waived = self.cooldown and self._held(fresh) < 6
        return [int(allowed) for allowed in (self.plan[i] if waived else fresh)], waived

    def _held(self, plan: list[bool]) -> int:
        return sum(size for size, allowed in zip(self.sizes, plan, strict=True) if allowed)


def composed(
    kind: Composition, env: SessionVectorEnv, data: SessionData, planner: Any, critic: Recorder, *schedule: Any
) -> tuple[Any, PlannedVectorEnv, list[Any]]:
    """The environment an agent sees, the planner's wrapper, and who counts waived cooldowns."""
    period, z, once = schedule
    if kind == "argument":
        planned = PlannedVectorEnv(env, data, planner, critic, period, True, z, once)
        return planned, planned, [planned]
    if kind == "planner over mask":
        planned = PlannedVectorEnv(NoRepeatMask(env, data, once), data, planner, critic, period, False, z, once)
        return planned, planned, [planned]
    planned = PlannedVectorEnv(env, data, planner, critic, period, False, z, once)
    mask = NoRepeatMask(planned, data, once)
    return mask, planned, [mask]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["none", "argument", "mask over planner", "planner over mask"]),
    n=st.integers(1, 4),
    period=st.sampled_from([1, 3, 50]),
    z=st.sampled_from([None, 0.7, 1.5]),
    once=st.booleans(),
    categories=st.integers(1, 12),
    budget=st.integers(1, 12),
    history=st.sampled_from([3, 50]),
    seed=st.integers(0, 2**20),
)
def test_every_composition_is_the_planned_sessions_of_old(
    small_data: SessionData,
    matrix_response: MatrixResponse,
    kind: Any,
    n: int,
    period: int,
    z: float | None,
    once: bool,
    categories: int,
    budget: int,
    history: int,
    seed: int,
) -> None:
    """Masks, last observations, counters and what the critic is told, slate by slate, with the same randomness."""

    def planner() -> Any:
        """Few random categories: some plans cannot fill a slate, and many cannot without those just shown."""
        few = RandomPlanner(small_data.catalog.category_sizes, np.random.default_rng(seed), n=categories)
        few.plan = lambda views, plan=few.plan: plan(SmallSlates(views)) if categories < 4 else plan(views)  # type: ignore
        return few

    arguments: dict[str, Any] = {"budget": budget, "history": history}
    slow = SlowPlannedSessions(
        bare(small_data, matrix_response, n, **arguments), small_data, planner(), period, kind != "none", z, once
    )
    critic, env = Recorder(), bare(small_data, matrix_response, n, **arguments)
    if kind == "none":
        planned = PlannedVectorEnv(env, small_data, planner(), critic, period, False, z, once)
        seen, waiving = planned, [planned]
    else:
        seen, planned, waiving = composed(kind, env, small_data, planner(), critic, period, z, once)
    rng, category = np.random.default_rng(seed), small_data.catalog.category
    for _ in range(2):  # a reset forgets what was running
        masks, observations = slow.reset(seed), seen.reset(seed=seed)[0]
        assert observations["plan"].tolist() == masks and observations in seen.observation_space
        for _ in range(14):
            allowed = [np.flatnonzero(np.array(mask)[category]) for mask in masks]
            slates = np.stack([rng.choice(items, 6, replace=False) for items in allowed])
            masks, last = slow.step(slates)
            observations, _, terminated, truncated, info = seen.step(slates)
            assert observations["plan"].tolist() == masks and observations["plan"].dtype == np.int8
            assert sorted(last) == np.flatnonzero(terminated | truncated).tolist()
            for row, mask in last.items():
                assert info["final_obs"][row]["plan"].tolist() == mask
                assert info["final_obs"][row] in seen.single_observation_space
    assert (planned.plans_made, planned.plans_widened) == (slow.plans_made, slow.plans_widened)
    assert planned.replans_triggered == slow.triggered
    assert [counter.cooldowns_waived for counter in waiving] == [slow.waived]
    assert critic.heard == slow.heard


class SmallSlates:
    """Views of sessions whose planner thinks that one item fills a slate."""

    def __init__(self, views: SessionViews) -> None:
        self.slate_size, self._n = 1, len(views)

    def __len__(self) -> int:
        return self._n


@settings(deadline=None)
@given(data=st.data())
def test_exclusion_matches_a_slow_reference(data: st.DataObject) -> None:
    n_sessions, n_categories = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    bits = st.lists(st.booleans(), min_size=n_categories, max_size=n_categories)
    plans, shown = (np.array(data.draw(st.lists(bits, min_size=n_sessions, max_size=n_sessions))) for _ in range(2))
    sizes = np.array(data.draw(st.lists(st.integers(0, 6), min_size=n_categories, max_size=n_categories)))
    masks, waived = exclude(plans, shown, sizes, 6)
    for plan, last, mask, whole in zip(plans, shown, masks, waived, strict=True):
        fresh = [allowed and not seen for allowed, seen in zip(plan.tolist(), last.tolist(), strict=True)]
        held = sum(size for size, allowed in zip(sizes.tolist(), fresh, strict=True) if allowed)
        assert (mask.tolist(), bool(whole)) == ((plan.tolist(), True) if held < 6 else (fresh, False))


@given(data=st.data())
def test_marks_are_the_categories_that_a_row_names(data: st.DataObject) -> None:
    n, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    row = st.lists(st.integers(-1, n - 1), min_size=width, max_size=width)
    categories = data.draw(st.lists(row, min_size=1, max_size=4))
    marks = mark_categories(np.array(categories), n)
    assert marks.shape == (len(categories), n)
    assert [set(np.flatnonzero(m).tolist()) for m in marks] == [set(row) - {-1} for row in categories]


# --- without a planner ------------------------------------------------------------------------------------------------


def test_the_mask_alone_is_everything_but_what_was_just_shown(
    small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    env = NoRepeatMask(bare(small_data, matrix_response, 3, quit_rule="never", max_steps=4), small_data)
    plain = bare(small_data, matrix_response, 3, quit_rule="never", max_steps=4)
    observations, _ = env.reset(seed=5)
    other, _ = plain.reset(seed=5)
    rng, category = np.random.default_rng(0), small_data.catalog.category
    for step in range(10):
        assert {name: value.tolist() for name, value in observations.items() if name != "plan"} == {
            name: value.tolist() for name, value in other.items()
        }
        assert observations in env.observation_space
        begins = step % 4 == 0
        assert all(mask.all() == begins for mask in observations["plan"])
        slates = rng.integers(150, size=(3, 6))
        observations, rewards, _, truncated, info = env.step(slates)
        other, expected, *_ = plain.step(slates)
        assert rewards.tolist() == expected.tolist()
        for row in range(3):
            mask = info["final_obs"][row]["plan"] if truncated[row] else observations["plan"][row]
            assert set(np.flatnonzero(mask == 0)) == set(category[slates[row]])
    assert env.cooldowns_waived == 0


def test_a_cooldown_that_leaves_no_slate_is_waived(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    """Slates of almost all items: what is left cannot fill another one."""
    env = NoRepeatMask(bare(small_data, matrix_response, 2, slate_size=140, quit_rule="never"), small_data)
    env.reset(seed=0)
    slates = np.stack([np.random.default_rng(i).permutation(150)[:140] for i in range(2)])
    observations, *_ = env.step(slates)
    assert observations["plan"].all() and env.cooldowns_waived == 2


def test_sessions_that_cannot_be_masked_are_refused(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    core = kuairand_core(1, data=small_data, response=matrix_response)
    with pytest.raises(
        ValueError, match=r"^env: make it with autoreset_mode=AutoresetMode.SAME_STEP; ended sessions are"
    ):
        NoRepeatMask(SessionVectorEnv(core), small_data)
    large = bare(small_data, matrix_response, 1, slate_size=151)
    with pytest.raises(ValueError, match=r"^slate_size=151, but there are only 150 items$"):
        NoRepeatMask(large, small_data)
