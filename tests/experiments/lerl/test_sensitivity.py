"""Sensitivity: one thing is changed at a time, and what needs a language model is not run without one."""

from __future__ import annotations

from dataclasses import replace

from rapport.experiments.core import Experiment
from rapport.experiments.lerl.config import LLM, PlannerConfig
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS, RowSettings, lerl_rows
from rapport.experiments.lerl.sensitivity import STUDIES, row_name, sensitivity_rows


def study_of(row):
    return row.name.partition(".")[2].partition("-")[0]


def test_language_model_studies_need_one(twin_env):
    rows = lerl_rows(DEFINITIONS, twin_env, RowSettings(PlannerConfig(period=20)))
    assert {study_of(row) for row in sensitivity_rows(rows, with_model=False)} == {"budget"}
    with_model = lerl_rows(DEFINITIONS, twin_env, RowSettings(PlannerConfig(LLM, "embedded", period=20)))
    assert {study_of(row) for row in sensitivity_rows(with_model, with_model=True)} == set(STUDIES)


def test_one_thing_is_changed_and_the_trained_policy_is_played(twin_env):
    rows = {r.name: r for r in lerl_rows(DEFINITIONS, twin_env, RowSettings(PlannerConfig(LLM, "embedded", period=20)))}
    changed = {row.name: row for row in sensitivity_rows(rows.values(), with_model=True)}
    expected = {row_name(s, v, r) for s, study in STUDIES.items() for r in study.rows for v in study.values}
    assert set(changed) == expected
    of = {"size": "most", "reflections": "reflections", "period": "period"}
    for name, study in STUDIES.items():
        for own in study.rows:
            for value in study.values:
                row, trained = changed[row_name(name, value, own)], rows[own]
                assert row.trained_as == own and row.label == trained.label
                same = replace(row, name=trained.name, trained_as=trained.trained_as)
                if name == "budget":
                    assert row.env.kwargs == {**trained.env.kwargs, "budget": float(value)}
                    same = replace(same, env=trained.env)
                else:
                    assert getattr(row.planner, of[name]) == value
                    same = replace(same, planner=trained.planner)
                assert same == trained
                if value == study.usual:
                    assert (row.env, row.planner) == (trained.env, trained.planner)


def test_what_a_row_is_played_in_belongs_to_its_key_and_not_to_that_of_the_row(twin_env, tmp_path):
    rows = lerl_rows(["lerl", "ppo"], twin_env, RowSettings(PlannerConfig(LLM, "embedded", period=20)))
    alone = Experiment(rows, 1, HeldOutSessions(10), tmp_path)
    studied = Experiment(rows + sensitivity_rows(rows, True), 1, HeldOutSessions(10), tmp_path)
    assert [alone.key(row) for row in rows] == [studied.key(row) for row in rows]
    usual = {row_name(name, study.usual, "lerl") for name, study in STUDIES.items()}
    others = [row for row in studied.rows[2:] if row.name not in usual | {row_name("budget", 20, "ppo")}]
    assert len({studied.key(row) for row in others}) == len(others)
    assert len({studied.key(studied.by_name[name]) for name in usual}) == 1


def test_rows_that_are_not_there_are_not_studied(twin_env):
    rows = lerl_rows(["ppo", "random"], twin_env, RowSettings())
    assert [row.name for row in sensitivity_rows(rows, True)] == [row_name("budget", b, "ppo") for b in (10, 20, 40)]
