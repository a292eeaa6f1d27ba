"""Examples: prompts that the planner really writes, answers that it really reads, and the same ones every time."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.lerl import PPOConfig, new_agent, slate_policy
from rapport.agents.lm.example import Example, split_prompts
from rapport.agents.planning.controls import NoPlanner
from rapport.agents.planning.lm.curriculum import COPYING_STEPS, Curriculum
from rapport.agents.planning.lm.examples import (
    MAX_CATEGORIES,
    MIN_CATEGORIES,
    is_plan,
    prompt_planner,
    visible_counts,
)
from rapport.agents.planning.lm.lookahead import FixedPlanPolicy, best_plans, plan_values
from rapport.agents.planning.lm.rule_reflection import rule_reflection, standout_categories
from rapport.agents.planning.lm.simulated_examples import SimulatedExamples
from rapport.agents.planning.lm.synthetic_examples import (
    SyntheticService,
    copying,
    synthetic_names,
    synthetic_plans,
    synthetic_reflections,
)
from rapport.agents.planning.planner import FinishedSession
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse


def listed(example: Example) -> list[str]:
    """Names of the categories as they stand in a prompt's list."""
    return re.findall(r"^- (.+) \d+$", example.prefix, re.MULTILINE)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_synthetic_answers_are_plans_of_listed_categories(seed: int) -> None:
    example = synthetic_plans(np.random.default_rng(seed), 4)
    names = listed(example)
    assert len(set(names)) == len(names) >= 4
    for rest, answer in zip(example.suffixes, example.completions, strict=True):
        chosen = json.loads(answer)["categories"]
        assert set(chosen) <= set(names) and len(set(chosen)) == len(chosen)
        assert min(MIN_CATEGORIES, len(names)) <= len(chosen) <= MAX_CATEGORIES
        assert chosen == [name for name in names if name in chosen]  # in the order of the list
        assert rest.endswith("Your choice:\n")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_what_a_prompt_tells_is_what_the_targets_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    service = SyntheticService(rng)
    views = service.views(service.users(3))
    seen, clicked = visible_counts(views, len(service.names))
    for row, prompt in enumerate(prompt_planner(service.names, service.rates).prompts_with(views, [])):
        told = prompt.split("before this session")[1]
        for category, name in enumerate(service.names):
            mentions = re.findall(rf"(?:^|- |, |: ){re.escape(name)} (\d+)/(\d+)(?=,|$)", told, re.MULTILINE)
            assert sum(int(n) for n, _ in mentions) == clicked[row, category]
            assert sum(int(n) for _, n in mentions) == seen[row, category]


def test_an_example_is_the_same_at_its_step_whatever_came_before() -> None:
    simulated = [synthetic_plans(np.random.default_rng(7), 30), synthetic_reflections(np.random.default_rng(8), 9)]
    first, again = Curriculum(simulated, 3), Curriculum(simulated, 3)
    for step in (COPYING_STEPS + 4, 0, COPYING_STEPS + 9):
        assert first(step) == again(step)
    assert first(1) != first(2)
    assert [len(example.suffixes) for example in first(COPYING_STEPS)] == [4, 8, 8, 8, 8, 8, 24, 8, 6]


def test_copying_repeats_the_list_in_its_order() -> None:
    example = copying(np.random.default_rng(2), 20)
    for rest, answer in zip(example.suffixes, example.completions, strict=True):
        names = re.findall(r"^- (.+) \d+$", example.prefix + rest, re.MULTILINE)
        assert json.loads(answer)["categories"] == names[:8]


def test_reflections_name_what_was_liked_and_what_was_passed_over() -> None:
    names = ["Comedy", "Sport", "News", "Music"]
    categories = np.repeat(np.arange(4), 6).reshape(4, 6)
    clicks = (np.tile(np.arange(6), 4) < np.repeat([5, 4, 0, 1], 6)).astype(np.int8).reshape(4, 6)
    session = FinishedSession(0, categories, clicks)
    assert standout_categories(session, 4).liked == (0, 1) and standout_categories(session, 4).passed_over == (2,)
    assert rule_reflection(session, names) == "Show Comedy and Sport more, clicked most here; show News less."
    flat = FinishedSession(0, categories, np.tile([1, 1, 1, 0, 0, 0], (4, 1)).astype(np.int8))
    assert rule_reflection(flat, names) == "No category stood out; vary the slates."


def test_names_are_told_apart_even_without_capitals() -> None:
    names = synthetic_names(np.random.default_rng(0), 200)
    assert len({name.casefold() for name in names}) == 200


@given(st.lists(st.text(alphabet="ab\n", min_size=1, max_size=8), min_size=1, max_size=5))
def test_prompts_are_split_at_a_line_and_can_be_put_together(prompts: list[str]) -> None:
    start, suffixes = split_prompts(prompts)
    assert [start + rest for rest in suffixes] == prompts
    assert all(suffixes) and (not start or start.endswith("\n"))


@pytest.fixture(scope="module")
def low_level(small_data: SessionData, matrix_response: MatrixResponse) -> tuple[SessionVectorEnv, SlatePolicy]:
    def sessions(n: int) -> SessionVectorEnv:
        core = kuairand_core(n, data=small_data, response=matrix_response, users="train")
        return SessionVectorEnv(core, AutoresetMode.SAME_STEP)

    tiny = PPOConfig(encoder=EncoderSettings(window=6), warm_start=None, n_envs=2, n_steps=2, batch_size=4)
    planner = NoPlanner(small_data.catalog.category_sizes)
    agent = new_agent(PlannedVectorEnv(sessions(2), small_data, planner), tiny, seed=0)
    return sessions(12), slate_policy(agent)


def held(data: SessionData, policy: SlatePolicy) -> FixedPlanPolicy:
    return FixedPlanPolicy(policy, data.catalog.category, data.catalog.category_sizes, 6)


def test_look_ahead_counts_what_a_real_session_would_bring(
    small_data: SessionData, matrix_response: MatrixResponse, low_level: tuple[SessionVectorEnv, SlatePolicy]
) -> None:
    env, policy = low_level
    env.reset(seed=1)
    serve, core = held(small_data, policy), env.core
    plans = np.random.default_rng(0).random((12, 37)) < 0.4
    plans[:, :3] = True
    found = plan_values(core, serve, plans, 4)
    wanted = np.zeros(12)
    for _ in range(4):  # nobody leaves within four slates
        slates = serve.slates(core, plans)
        assert plans[np.arange(12)[:, None], small_data.catalog.category[slates]].all()
        wanted += [matrix_response.matrix[u, s, 0].mean() for u, s in zip(core.user, slates, strict=True)]
        core.step(slates)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_look_ahead_leaves_the_engine_as_it_is_and_takes_the_best(
    small_data: SessionData, low_level: tuple[SessionVectorEnv, SlatePolicy]
) -> None:
    env, policy = low_level
    env.reset(seed=2)
    before = {key: value.copy() for key, value in env.core.observation().items()}
    rng = np.random.default_rng(0)
    tried = [rng.random((12, 37)) < 0.5 for _ in range(3)]
    best, values = best_plans(env.core, held(small_data, policy), tried, 3)
    assert values.shape == (12, 3)
    for row, choice in enumerate(values.argmax(axis=1)):
        np.testing.assert_array_equal(best[row], tried[choice][row])
    for key, value in env.core.observation().items():
        np.testing.assert_array_equal(value, before[key])


def test_simulated_examples_are_of_training_users_and_can_be_read(
    small_data: SessionData, low_level: tuple[SessionVectorEnv, SlatePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapport.agents.planning.lm.simulated_examples.CANDIDATES", 2)
    monkeypatch.setattr("rapport.agents.planning.lm.simulated_examples.HORIZON", 2)
    env, policy = low_level

    def examples() -> list[Example]:
        maker = SimulatedExamples(env, small_data, policy, np.random.default_rng(4))
        return list(maker.rounds(2))

    made = examples()
    assert made == examples()
    assert not small_data.held_out[env.core.user].any()
    assert [is_plan(example) for example in made] == [True, True, False] * 2
    assert "(none yet)" in made[0].prefix and "- Show " in made[3].prefix + made[4].prefix
    planner = prompt_planner(small_data.catalog.category_names, np.full(37, 0.5))
    for example in made:
        for answer in example.completions:
            value = json.loads(answer)
            if is_plan(example):
                assert MIN_CATEGORIES <= len(planner.parse(value)) <= 37
            else:
                assert len(value["reflection"].split()) <= 25
