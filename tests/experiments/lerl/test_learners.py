"""Learners: who serves, what their training took, and that bounds are above the controls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rapport.agents.baselines import bandits, reranking
from rapport.agents.checkpoint import read_checkpoint
from rapport.agents.llm import ScriptedLLM
from rapport.agents.planning.reflection import ReflectionPool
from rapport.experiments.core import Row, Task
from rapport.experiments.lerl import config, learners
from rapport.experiments.lerl.config import LLM, PlannerConfig, planned
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.learners import BaselineLearner, Control, PPOLearner, PretrainedLearner, control
from rapport.experiments.lerl.protocol import HeldOutSessions


def a_task(env, learner, folder=Path("nowhere"), seed=0, name="row", planner=None):
    row = Row(name, name, env, learner, planner=planner)
    return Task(row, row, seed, folder)


def silent(share):
    assert 0 <= share <= 1


def test_the_oracle_beats_random(twin_env):
    returns = {}
    for name in ("oracle", "random"):
        task = a_task(twin_env, Control(name))
        policy = task.row.learner(task, silent)
        assert (policy.steps, policy.seconds, policy.meter, policy.curve) == (0, 0.0, {}, ())
        returns[name] = HeldOutSessions(200)(task, policy).arrays["return"].mean()
    assert returns["oracle"] > 1.5 * returns["random"]


def test_controls_are_what_they_are_called_and_others_are_refused(twin_env):
    core = sessions_of(twin_env, 2, "held_out").core
    kinds = {
        "random": "RandomSlates",
        "popularity": "PopularSlates",
        "oracle": "OracleSlates",
        "look-ahead": "LookAhead",
    }
    assert {name: type(control(name, core, 0)).__name__ for name in kinds} == kinds
    with pytest.raises(ValueError, match="name='best': only random, popularity, oracle and look-ahead serve without"):
        control("best", core, 0)


def test_chance_begins_anew_at_every_call(twin_env):
    """The same row played twice, as when its sessions are recorded, is served alike."""
    task = a_task(twin_env, Control("random"), seed=4)
    policy = task.row.learner(task, silent)
    first, second = (HeldOutSessions(6)(task, policy).arrays["return"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_ppo_tells_what_its_training_took(twin_env, small, tmp_path):
    task = a_task(twin_env, PPOLearner(small, 160), tmp_path, planner=PlannerConfig("rotation"))
    needed = task.row.learner.prerequisite(task)
    needed.make(silent)
    assert Path(needed.key).exists() and needed.name == "pretrained policy, seed 0"
    policy = task.row.learner(task, silent)
    assert policy.steps == 160 and policy.seconds > 0 and policy.notes == ()
    assert policy.meter == {}  # nothing was asked of a model, so nothing is counted
    assert policy.curve == tuple(
        map(tuple, read_checkpoint(tmp_path / "checkpoints" / "row-seed0.safetensors")[1]["curve"])
    )


def test_a_row_that_is_trained_as_another_plays_its_checkpoint(twin_env, small, tmp_path, monkeypatch):
    base = a_task(twin_env, PPOLearner(small, 80), tmp_path, name="base", planner=PlannerConfig("rotation"))
    base.row.learner(base, silent)
    monkeypatch.setattr("rapport.experiments.lerl.training.learn", lambda *_: pytest.fail("trained again"))
    row = Row(
        "other", "other", twin_env, PPOLearner(small, 80, best=True), planner=PlannerConfig("none"), trained_as="base"
    )
    policy = row.learner(Task(row, base.row, 0, tmp_path), silent)
    assert policy.steps == 80
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("*-seed0.safetensors")) == [
        "base-seed0.safetensors",
        "pretrained-twin-seed0.safetensors",
    ]


def test_the_pretrained_policy_is_shared_and_explores_as_widely_as_it_is_told(twin_env, small, tmp_path):
    wide = PretrainedLearner(replace(small, log_std_init=-0.5))
    narrow = PretrainedLearner(replace(small, log_std_init=-2.1))
    tasks = [a_task(twin_env, learner, tmp_path, name=name) for name, learner in (("wide", wide), ("narrow", narrow))]
    assert len({task.row.learner.prerequisite(task).key for task in tasks}) == 1
    agents = [learners.pretrained_agent(task.row.learner.training(task)) for task in tasks]
    states = [agent.policy.state_dict() for agent in agents]
    assert {name for name in states[0] if not torch.equal(states[0][name], states[1][name])} == {"log_std"}
    assert [float(state["log_std"].min()) for state in states] == pytest.approx([-0.5, -2.1])
    assert [float(state["log_std"].max()) for state in states] == pytest.approx([-0.5, -2.1])
    policy = tasks[0].row.learner(tasks[0], silent)
    assert policy.steps == 0 and policy.curve == () and policy.meter == {}


def test_a_baseline_learns_from_as_many_transitions_and_one_of_the_log_from_none(twin_env, small, tmp_path):
    learns = a_task(
        twin_env, BaselineLearner(bandits.ucb_items, {}, small, 160), tmp_path, planner=PlannerConfig("none")
    )
    policy = learns.row.learner(learns, silent)
    assert policy.steps == 160 and policy.seconds > 0 and policy.meter == {}
    log = a_task(twin_env, BaselineLearner(reranking.greedy, {}, small, 160), tmp_path, planner=PlannerConfig("none"))
    policy = log.row.learner(log, silent)
    assert (policy.steps, policy.seconds, policy.curve) == (0, 0.0, ())


def test_a_baselines_settings_reach_it(twin_env, small, tmp_path):
    seen = []

    def baseline(lesson):
        seen.append((dict(lesson.settings), lesson.transitions, lesson.seed, lesson.sessions.num_envs))
        return lambda observations: np.zeros((len(observations["step"]), 6), int)

    task = a_task(twin_env, BaselineLearner(baseline, {"x": 3}, small, 160), tmp_path, 2, planner=PlannerConfig("none"))
    task.row.learner(task, silent)
    assert seen == [({"x": 3}, 160, 2, small.n_envs)]


def test_a_stopped_baseline_begins_with_an_empty_pool(twin_env, small, tmp_path, monkeypatch):
    names = list(data_of(twin_env).catalog.category_names[:8])

    def answer(prompt):
        if "has ended" in prompt:
            return json.dumps({"reflection": "new lesson"})
        return json.dumps({"categories": names})

    monkeypatch.setattr(
        config,
        "open_llm",
        lambda source, *, sampling, budget, **_: ScriptedLLM(answer, sampling=sampling, budget=budget),
    )
    task = a_task(
        twin_env,
        BaselineLearner(bandits.ucb_items, {}, small, 400),
        tmp_path,
        planner=PlannerConfig(LLM, "scripted", period=20, llm_calls=20),
    )
    file = tmp_path / "reflections-row-seed0.sqlite"
    old = ReflectionPool(file)
    old.add("left by a training that was stopped", 1.0)
    old.close()
    policy = task.row.learner(task, silent)
    texts = [entry.text for entry in ReflectionPool(file).entries()]
    assert "left by a training that was stopped" not in texts and "new lesson" in texts
    assert policy.meter["calls"] == 20
    assert policy.notes[0].startswith("in training the budget of 20 calls is spent, then ")


def test_a_control_planner_is_what_it_is_called(twin_env):
    data = data_of(twin_env)
    env = planned(sessions_of(twin_env, 4, "train"), data, PlannerConfig("none"), None, np.random.default_rng(0))
    observations, _ = env.reset(seed=0)
    for _ in range(30):
        assert np.all(observations["plan"])
        observations, *_ = env.step(np.tile(np.arange(6), (4, 1)))
