"""Training: what is interrupted ends the same, what does not fit is set aside, held-out users teach nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rapport.agents.checkpoint import read_checkpoint
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.training import Training, pretrained_agent, train


class Interrupted(Exception):
    pass


def weights(agent):
    return {name: value.clone() for name, value in agent.policy.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def task(twin_env, small, tmp_path):
    return Training(twin_env, "lerl", 3, 600, tmp_path / "run", PlannerConfig(), small)


def test_an_interrupted_training_goes_on_and_makes_the_same_weights(task, tmp_path):
    undisturbed = train(replace(task, folder=tmp_path / "other"))

    def stop(share):
        if share > 0.75:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(task, stop)
    halfway = read_checkpoint(task.checkpoint)[1]["transitions"]
    assert 0 < halfway < 600
    resumed = train(task)

    assert resumed.agent.num_timesteps == undisturbed.agent.num_timesteps == 600
    assert same(weights(resumed.agent), weights(undisturbed.agent))
    assert resumed.curve == undisturbed.curve
    assert [point[0] for point in resumed.curve] == sorted(point[0] for point in resumed.curve)


def test_a_finished_training_is_not_trained_again(task):
    first = train(task)
    again = train(task)
    assert same(weights(first.agent), weights(again.agent))
    assert again.seconds == first.seconds


def test_training_changes_the_actor_but_not_the_meaning_of_its_actions(task):
    before = weights(pretrained_agent(task))
    after = weights(train(task).agent)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "action_net.weight" in changed
    assert not {name for name in changed if ".item_" in name}


def test_methods_of_one_seed_start_from_one_policy(task):
    lerl = weights(pretrained_agent(task))
    ppo = weights(pretrained_agent(replace(task, method="ppo", planner=PlannerConfig("none"))))
    assert same(lerl, ppo)


def test_ppos_settings_leave_the_pretrained_policy_as_it_is_but_for_its_exploration(task):
    """It is made once, whoever comes first."""
    first = weights(pretrained_agent(task))
    other = replace(task, low_level=replace(task.low_level, learning_rate=1e-3, log_std_init=-0.7))
    second = weights(pretrained_agent(other))
    assert len(list(task.pretrained_checkpoint.parent.iterdir())) == 1
    assert {name for name in first if not torch.equal(first[name], second[name])} == {"log_std"}
    assert (second["log_std"] == -0.7).all()


@pytest.mark.parametrize("damage", ["truncated", "of another seed"])
def test_a_checkpoint_that_cannot_be_used_is_set_aside_and_training_begins_anew(task, damage, caplog):
    expected = weights(train(task).agent)
    if damage == "truncated":
        content = task.checkpoint.read_bytes()
        task.checkpoint.write_bytes(content[: len(content) // 2])
    else:
        other = replace(task, seed=4)
        train(other)
        other.checkpoint.replace(task.checkpoint)
    assert same(weights(train(task).agent), expected)
    assert task.checkpoint.with_suffix(".set-aside").exists()
    assert "training starts anew" in caplog.text


def test_a_moved_folder_is_gone_on_from(task, tmp_path, caplog):
    """No path is part of what a checkpoint has to agree with."""

    def stop(share):
        if share > 0.75:
            raise Interrupted

    expected = train(replace(task, folder=tmp_path / "other"))
    with pytest.raises(Interrupted):
        train(task, stop)
    moved = replace(task, folder=task.folder.rename(tmp_path / "moved"))
    before = read_checkpoint(moved.checkpoint)[1]["transitions"]
    seen = []
    resumed = train(replace(moved, planner=replace(task.planner, cache=str(tmp_path / "c"), record=None)), seen.append)
    assert seen[0] == before / 600 > 0
    assert same(weights(resumed.agent), weights(expected.agent))
    assert "anew" not in caplog.text


def test_the_curve_holds_finished_sessions_within_the_rule(task):
    curve = train(task).curve
    assert curve
    for transitions, t_int, r_cum in curve:
        assert transitions % (8 * 5) == 0
        assert 11 <= t_int <= 20
        assert 0 <= r_cum <= t_int


def test_sessions_are_of_training_users_only(twin_env):
    data = data_of(twin_env)
    assert not data.held_out[sessions_of(twin_env, 4, "train").core.users].any()
    assert data.held_out[sessions_of(twin_env, 4, "held_out").core.users].all()
    assert np.array_equal(
        np.sort(np.concatenate([sessions_of(twin_env, 1, side).core.users for side in ("train", "held_out")])),
        np.arange(data.population.n_users),
    )
