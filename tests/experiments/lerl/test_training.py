"""Training: what is interrupted ends the same, what does not fit is set aside, held-out users teach nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rapport.agents.checkpoint import read_checkpoint
from rapport.experiments.lerl.config import PlannerChoice
from rapport.experiments.lerl.training import Training, first_agent, train


class Interrupted(Exception):
    pass


def weights(agent):
    return {name: value.clone() for name, value in agent.policy.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def task(twin_setup, small, tmp_path):
    return Training(twin_setup, "lerl", 3, 600, str(tmp_path / "run"), PlannerChoice(), small)


def test_an_interrupted_training_goes_on_and_makes_the_same_weights(task, tmp_path):
    undisturbed = train(replace(task, folder=str(tmp_path / "other")), lambda _: None)

    def stop(share):
        if share > 0.75:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(task, stop)
    halfway = read_checkpoint(task.checkpoint)[1]["transitions"]
    assert 0 < halfway < 600
    resumed = train(task, lambda _: None)

    assert resumed.agent.num_timesteps == undisturbed.agent.num_timesteps == 600
    assert same(weights(resumed.agent), weights(undisturbed.agent))
    assert resumed.curve == undisturbed.curve
    assert [point[0] for point in resumed.curve] == sorted(point[0] for point in resumed.curve)


def test_a_finished_training_is_not_trained_again(task):
    first = train(task, lambda _: None)
    again = train(task, lambda _: None)
    assert same(weights(first.agent), weights(again.agent))
    assert again.seconds == first.seconds


def test_training_changes_the_actor_but_not_the_meaning_of_its_actions(task):
    before = weights(first_agent(task, lambda _: None))
    after = weights(train(task, lambda _: None).agent)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "action_net.weight" in changed
    assert not {name for name in changed if ".item_" in name}


def test_methods_of_one_seed_start_from_one_policy(task):
    lerl = weights(first_agent(task, lambda _: None))
    ppo = weights(first_agent(replace(task, method="ppo", planner=PlannerChoice("none")), lambda _: None))
    assert same(lerl, ppo)


@pytest.mark.parametrize("damage", ["truncated", "of another seed"])
def test_a_checkpoint_that_cannot_be_used_is_set_aside_and_training_begins_anew(task, damage, caplog):
    expected = weights(train(task, lambda _: None).agent)
    if damage == "truncated":
        content = task.checkpoint.read_bytes()
        task.checkpoint.write_bytes(content[: len(content) // 2])
    else:
        other = replace(task, seed=4)
        train(other, lambda _: None)
        other.checkpoint.replace(task.checkpoint)
    assert same(weights(train(task, lambda _: None).agent), expected)
    assert task.checkpoint.with_suffix(".set-aside").exists()
    assert "training starts anew" in caplog.text


def test_the_curve_holds_finished_sessions_within_the_rule(task):
    for transitions, t_int, r_cum in train(task, lambda _: None).curve:
        assert transitions % (8 * 5) == 0
        assert 11 <= t_int <= 20
        assert 0 <= r_cum <= t_int


def test_sessions_are_of_training_users_only(twin_setup):
    data = twin_setup.session_data()
    assert not data.held_out[twin_setup.sessions(4, "train").core.users].any()
    assert data.held_out[twin_setup.sessions(4, "held_out").core.users].all()
    assert np.array_equal(
        np.sort(np.concatenate([twin_setup.sessions(1, side).core.users for side in ("train", "held_out")])),
        np.arange(data.population.n_users),
    )
