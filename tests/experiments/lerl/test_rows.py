"""The rows of LERL's tables: each is defined once, can be learned, tuned and placed, and has the planner it names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rapport.agents.llm.base.interface import Budget
from rapport.agents.planning.build import CONSTANT, HELD, RANDOM_HELD, TOP_K_PREFERENCE
from rapport.experiments.core import Experiment, Task
from rapport.experiments.lerl.config import LLM, LLM_ONLY, SIMILAR, PlannerConfig, with_language_model
from rapport.experiments.lerl.learners import BaselineLearner, Control, PPOLearner, PretrainedLearner
from rapport.experiments.lerl.pages.paper import PAPER
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import (
    DEFINITIONS,
    FAMILIES,
    NEED_A_MODEL,
    OLD_NAMES,
    RECORDED,
    RUN_ROWS,
    RowSettings,
    in_words,
    lerl_row,
    lerl_rows,
    tuned_settings,
)
from rapport.experiments.lerl.search import SPACES
from rapport.experiments.lerl.sensitivity import STUDIES

WITH_MODEL = RowSettings(PlannerConfig(LLM, "embedded", period=20))
WITHOUT = RowSettings(PlannerConfig(period=20))


def test_every_row_can_be_trained_tuned_and_placed(twin_env):
    for name, definition in DEFINITIONS.items():
        assert definition.family in FAMILIES
        assert definition.trained_as is None or definition.trained_as in DEFINITIONS
        if definition.baseline is not None and definition.family != "log" and "greedy" not in name:
            assert (definition.tuned_as or name) in SPACES
        row = lerl_row(name, twin_env, WITH_MODEL)
        assert (row.name, row.label, row.family, row.env) == (name, definition.label, definition.family, twin_env)
    assert set(SPACES) <= set(DEFINITIONS)
    assert {m for rows in PAPER.values() for m in rows} <= set(DEFINITIONS)
    assert {m for study in STUDIES.values() for m in study.rows} <= set(DEFINITIONS)
    assert {*RUN_ROWS, *RECORDED, *NEED_A_MODEL, *OLD_NAMES.values()} <= set(DEFINITIONS)
    assert not set(OLD_NAMES) & set(DEFINITIONS)
    labels = [definition.label for definition in DEFINITIONS.values()]
    assert len(set(labels)) == len(labels)


def test_each_row_has_its_planner(twin_env, tmp_path):
    planner = {name: lerl_row(name, twin_env, WITH_MODEL).planner for name in DEFINITIONS}

    def pool(name):
        row = lerl_row(name, twin_env, WITH_MODEL)
        return row.learner.training(Task(row, row, 3, tmp_path)).pool

    assert (planner["lerl"].name, planner["lerl"].period) == (LLM, 20)
    assert planner["lerl"].cools_down and planner["lerl"].learns
    assert pool("lerl") == tmp_path / "reflections-lerl-seed3.sqlite"
    assert planner["no-reflection"].name == LLM_ONLY and not planner["no-reflection"].learns
    published = planner["lerl-published"]
    assert (published.name, published.period, published.cools_down) == (LLM, 1, False)
    assert published.learns and pool("lerl-published") != pool("lerl")
    assert planner["billp"].name == SIMILAR and planner["billp"].learns and pool("billp") != pool("lerl")
    cooled = {name: (planner[name].name, planner[name].cools_down) for name in ("mask", "rotation", "ppo", "top-k")}
    assert cooled == {
        "mask": ("none", True),
        "rotation": ("rotation", False),
        "ppo": ("none", False),
        "top-k": (TOP_K_PREFERENCE, True),
    }
    held = {name: planner[name].period for name in ("mask", "top-k", "lerl-top-k", "rotation", "random-plan", "ppo")}
    assert held == {"mask": 20, "top-k": 20, "lerl-top-k": 20, "rotation": 1, "random-plan": 1, "ppo": 1}
    # Both controls hold their plans under the cooldown, over the policy that LERL has trained.
    for name in (RANDOM_HELD, CONSTANT):
        assert (planner[name].name, planner[name].period, planner[name].cools_down) == (name, 20, True)
        assert DEFINITIONS[name].trained_as == "lerl"
    assert {name for name, given in planner.items() if given is None} == {
        name for name, definition in DEFINITIONS.items() if definition.family in ("control", "bound")
    }
    # A variant of LERL in which one thing differs has all else of LERL.
    for name in ("lerl-pl", "lerl-click", "lerl-best"):
        assert planner[name] == planner["lerl"]
    assert replace(planner["no-reflection"], name=LLM) == planner["lerl"]
    assert planner["lerl-no-rl"] == planner["no-reflection"]


def test_only_planners_whose_plans_hold_cool_down():
    controls = ("none", "random", "rotation", "greedy preference", "greedy rotation", *HELD)
    assert {name for name in controls if PlannerConfig(name).cools_down} == set(HELD)
    assert all(PlannerConfig(name, "script").cools_down for name in (LLM, LLM_ONLY, SIMILAR))
    assert PlannerConfig("rotation", cooldown=True).cools_down and not PlannerConfig(LLM, cooldown=False).cools_down


def test_a_row_without_learning_explores_as_widely_as_the_row_it_is_compared_with(twin_env, small):
    tuned = {"lerl": {"log_std_init": -2.1}, "ppo": {"log_std_init": -0.9, "learning_rate": 1e-4}}
    settings = replace(WITH_MODEL, base=small, tuned=tuned)
    width = {name: lerl_row(name, twin_env, settings).learner.low_level.log_std_init for name in ("lerl", "ppo")}
    assert width == {"lerl": -2.1, "ppo": -0.9}
    for name, other in (("no-rl", "ppo"), ("lerl-no-rl", "lerl"), ("mask-no-rl", "mask")):
        without, learned = (lerl_row(which, twin_env, settings) for which in (name, other))
        assert isinstance(without.learner, PretrainedLearner)
        assert without.learner.low_level == learned.learner.low_level
    assert lerl_row("ppo", twin_env, settings).learner.low_level == replace(small, **tuned["ppo"])
    assert lerl_row("lerl", twin_env, settings).learner.transitions == settings.transitions


def test_baselines_have_the_settings_that_were_found_for_them(twin_env, small):
    tuned = {"lerl-click": {"prior": 3.0}, "click": {"prior": 9.0}, "mmr": {"past": 0.0}}
    settings = replace(WITH_MODEL, tuned=tuned, base=small)
    found = {
        name: dict(lerl_row(name, twin_env, settings).learner.settings)
        for name in ("lerl-click", "mask-click", "top-k-click", "click", "mmr", "thompson")
    }
    assert found == {
        "lerl-click": {"prior": 3.0},
        "mask-click": {"prior": 3.0},
        "top-k-click": {"prior": 3.0},
        "click": {"prior": 9.0},
        "mmr": {"past": 0.0},
        "thompson": {},
    }


def test_kinds_of_learners(twin_env):
    kinds = {name: type(lerl_row(name, twin_env, WITH_MODEL).learner) for name in DEFINITIONS}
    assert {name for name, kind in kinds.items() if kind is Control} == {"random", "popularity", "oracle", "look-ahead"}
    assert {name for name, kind in kinds.items() if kind is PretrainedLearner} == {"no-rl", "lerl-no-rl", "mask-no-rl"}
    for name, definition in DEFINITIONS.items():
        assert (kinds[name] is BaselineLearner) == (definition.baseline is not None)
    best = {name for name in DEFINITIONS if getattr(lerl_row(name, twin_env, WITH_MODEL).learner, "best", False)}
    assert best == {"lerl-best"} and kinds["lerl-best"] is PPOLearner


def test_where_no_model_is_given_every_row_of_lerl_says_so(twin_env):
    rows = {row.name: row for row in lerl_rows(DEFINITIONS, twin_env, WITHOUT)}
    assert set(DEFINITIONS) - set(rows) == set(NEED_A_MODEL)
    assert {name for name, row in rows.items() if row.label.endswith(" (no LLM given)")} == {
        name for name in rows if DEFINITIONS[name].planner.startswith(LLM)
    }
    assert rows["lerl"].planner == PlannerConfig(TOP_K_PREFERENCE, period=20) == rows["lerl-no-rl"].planner
    assert rows["top-k"].label == DEFINITIONS["top-k"].label


def test_rows_go_by_their_former_names_too_and_others_are_refused(twin_env):
    assert [row.name for row in lerl_rows(["heuristic", "heuristic-click"], twin_env, WITH_MODEL)] == [
        "top-k",
        "top-k-click",
    ]
    with pytest.raises(ValueError, match="row 'magic': unknown; choose of lerl, lerl-published,"):
        lerl_rows(["lerl", "magic"], twin_env, WITH_MODEL)


def test_every_row_has_a_key_of_its_own_and_all_of_it_is_plain(twin_env, tmp_path):
    """Two rows with one key would be one row; a setting without a plain form could not be kept apart at all."""
    rows = lerl_rows(DEFINITIONS, twin_env, replace(WITH_MODEL, tuned=tuned_settings()))
    experiment = Experiment(rows, 1, HeldOutSessions(10), tmp_path)
    keys = [experiment.key(row) for row in rows]
    assert len(set(keys)) == len(rows) == len(DEFINITIONS)


def test_no_row_limits_its_language_model_in_seconds_unless_told(twin_env):
    for settings in (WITH_MODEL, WITHOUT, RowSettings()):
        for row in lerl_rows(DEFINITIONS, twin_env, settings):
            if row.planner is not None:
                assert (row.planner.llm_seconds, row.planner.llm_calls, row.planner.llm_tokens) == (None, None, None)
    assert WITH_MODEL.planner.limits() == {"language model may take": "no limit"}
    assert WITHOUT.planner.limits() == {}
    given = with_language_model(PlannerConfig(LLM), "m.gguf", Budget(20, None, 1.5), None)
    assert given.limits() == {"language model may take": "20 calls, 1.5 seconds in each training and each evaluation"}
    told = {row.planner.llm_seconds for row in lerl_rows(["lerl", "no-reflection"], twin_env, RowSettings(given))}
    assert told == {1.5}
    assert PlannerConfig(LLM, "replay:t.sqlite").limits() == {}


def test_what_was_found_by_the_search_is_of_rows_there_are():
    found = tuned_settings()
    assert found and set(found) <= set(SPACES)


def test_hyper_parameters_are_told_in_words():
    assert (
        in_words({"learning_rate": 0.000169123, "n_envs": 8, "prior": "log"})
        == "learning rate 0.0001691, n envs 8, prior log"
    )
    assert in_words({}) == ""
