"""A reward named on the command line: what is made of it, where it is told, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rapport.envs.session.engine.reward import parsed_reward
from rapport.experiments.commands.run import Run
from rapport.experiments.lerl.environments import (
    checkpoint_note,
    env_of_note,
    reward_label,
    session_env,
    with_reward,
    worth_of_a_slate,
)


@pytest.mark.parametrize(
    ("text", "choice", "label", "worth"),
    [
        ("click", "click", "click", "the share of its items that were clicked"),
        ("long_view", "long_view", "long_view", "the mean of long_view over its items"),
        (
            "click=1, like=0.5,hate=-1",
            {"click": 1, "like": 0.5, "hate": -1},
            "click + 0.5 like - hate",
            "the mean of click + 0.5 like - hate over its items",
        ),
    ],
)
def test_a_reward_is_read_told_and_found_again(text: str, choice: object, label: str, worth: str) -> None:
    assert parsed_reward(text) == choice
    plain = session_env("kuairand", "twin")
    env = with_reward(plain, text)
    assert env.kwargs["reward"] == choice and env.identity() != plain.identity()
    assert (reward_label(env), worth_of_a_slate(env)) == (label, worth)
    assert env.title == f"{plain.title}, reward {label}"
    note = json.loads(json.dumps(checkpoint_note(env)))
    assert env_of_note(note, "twin", None).kwargs == env.kwargs
    assert with_reward(plain, None) is plain and (reward_label(plain), "reward" in plain.kwargs) == ("click", False)


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    planned = Run(out=tmp_path, reward="long_view", quick=True).planned("twin")
    assert planned.told()["reward"] == "long_view"
    assert {row.env.kwargs["reward"] for row in planned.experiment.rows} == {"long_view"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stars", r"^reward='stars' is unknown; choose one of click, long_view, "),
        ("click=1,stars=2", r"^reward: 'stars' is no behaviour of this log; weigh some of click, long_view, "),
        ("click=much", r"^reward='click=much': 'click=much' is no NAME=WEIGHT, e\.g\. click=1,like=0\.5$"),
        ("click=nan", r"^reward: the weight of click is nan; weights must be finite$"),
    ],
)
def test_what_is_no_reward_is_refused_at_once(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Run(out=tmp_path, reward=text, quick=True).planned("twin")
