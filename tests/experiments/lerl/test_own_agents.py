"""Agents and planners of a user's own: rows like every other, and one sentence where they return no slates."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import A2C, PPO

import rapport
from rapport.agents.baselines.controls import PopularSlates
from rapport.experiments.core import EnvConfig, Experiment, Row
from rapport.experiments.core.experiment import RunRow, measure
from rapport.experiments.core.own_code import OwnCodeError
from rapport.experiments.lerl.config import PlannerConfig, planner_by_name
from rapport.experiments.lerl.environments import data_of, session_env
from rapport.experiments.lerl.learners import Control
from rapport.experiments.lerl.own_agents import AgentInMemory, SB3Agent, own_learner, own_row, own_rows, try_out_row
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import RowSettings

POPULAR = """
from rapport.agents.baselines.controls import PopularSlates

class Agent(PopularSlates):
    def __init__(self, env, data, seed):
        super().__init__(data, env.single_action_space.shape[0])
"""
LEARNER = """
import numpy as np

class Agent:
    def __init__(self, env, data, seed):
        self.n_items, self.rng = data.catalog.n_items, np.random.default_rng(seed)
        self.value = np.zeros(self.n_items)

    def train(self, env, transitions, seed):
        observations, info = env.reset(seed=seed)
        assert not env.unwrapped.core.data.held_out[info["user"]].any()
        for _ in range(0, transitions, env.num_envs):
            slates = np.stack([self.rng.choice(self.n_items, 6, replace=False) for _ in range(env.num_envs)])
            observations, rewards, *_ = env.step(slates)
            np.add.at(self.value, slates, rewards[:, None] - 0.3)

    def __call__(self, observations):
        return np.tile(np.argsort(-self.value)[:6], (len(observations["step"]), 1))
"""


@pytest.fixture(scope="module")
def env() -> EnvConfig:
    return session_env("kuairec", "synthetic")


def written(tmp_path: Path, text: str, name: str = "my.py") -> str:
    (tmp_path / name).write_text(text)
    return f"{tmp_path / name}:Agent"


def measured(row: Row, folder: Path, sessions: int = 12, seed: int = 0) -> Any:
    return measure(Experiment((row,), seed + 1, HeldOutSessions(sessions), folder), row, seed)


def assert_equal(first: Any, second: Any) -> None:
    np.testing.assert_array_equal(first.ids, second.ids)
    assert first.arrays.keys() == second.arrays.keys()
    for name, values in first.arrays.items():
        np.testing.assert_array_equal(values, second.arrays[name], err_msg=name)


def test_the_same_policy_by_whatever_door_has_the_controls_figures(env: EnvConfig, tmp_path: Path) -> None:
    """The popularity row is the reference: a class in a file, one in memory, an object and a function equal it."""
    reference = measured(Row("popularity", "popularity", env, Control("popularity")), tmp_path)
    data = data_of(env)

    class Agent(PopularSlates):
        def __init__(self, env: Any, data: Any, seed: int) -> None:
            super().__init__(data, 6)

    slates = PopularSlates(data, 6)
    (tmp_path / "f.py").write_text("from rapport.agents.baselines.controls import *\n" + POPULAR)
    doors = [own_learner(written(tmp_path, POPULAR), 100)]
    doors += [AgentInMemory(agent, "mine", 100) for agent in (Agent, slates, lambda seen: slates(seen))]
    for learner in doors:
        found = measured(own_row(learner, env), tmp_path)
        assert_equal(found, reference)
        assert (found.steps, found.curve) == (0, ())


def test_an_agent_that_learns_is_trained_on_training_users_once_a_seed(env: EnvConfig, tmp_path: Path) -> None:
    row = own_row(own_learner(written(tmp_path, LEARNER), 2_560), env)
    first, again, other = (measured(row, tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.steps == 2_560 and len(first.curve) == 2 and first.train_seconds > 0
    assert_equal(first, again)
    assert (first.ids != other.ids).any()


def test_more_transitions_than_were_given_are_told(env: EnvConfig, tmp_path: Path) -> None:
    text = LEARNER.replace("range(0, transitions,", "range(0, 2 * transitions,")
    result = measured(own_row(own_learner(written(tmp_path, text), 640), env), tmp_path)
    assert result.steps == 1_280 and result.notes == ("took 1,280 transitions to learn from, of 640",)


def test_memory_and_chance_begin_anew_with_each_evaluation(env: EnvConfig, tmp_path: Path) -> None:
    text = """
import numpy as np
class Agent:
    def __init__(self, env, data, seed):
        self.n_items = data.catalog.n_items
    def begin(self, num_sessions, seed):
        self.rng, self.begun = np.random.default_rng(seed), np.zeros(num_sessions, bool)
    def __call__(self, observations):
        assert len(self.begun) == len(observations["step"])
        return np.stack([self.rng.choice(self.n_items, 6, replace=False) for _ in self.begun])
"""
    row = own_row(own_learner(written(tmp_path, text), 0), env)
    assert_equal(measured(row, tmp_path), measured(row, tmp_path))
    row = own_row(own_learner(written(tmp_path, text.replace("np.random.default_rng(seed)", "np.random")), 0), env)
    assert_equal(measured(row, tmp_path), measured(row, tmp_path))  # NumPy's own generator is the seed's, too


def test_an_edited_agent_is_run_anew_and_another_folder_is_not(env: EnvConfig, tmp_path: Path) -> None:
    def experiment(file: str) -> tuple[Experiment, Row]:
        row = own_row(own_learner(file, 100), env)
        return Experiment((row,), 1, HeldOutSessions(4), tmp_path / "run"), row

    done, row = experiment(written(tmp_path, POPULAR))
    RunRow(done, row, 0)(lambda _: None)
    (tmp_path / "elsewhere").mkdir()
    moved, _ = experiment(written(tmp_path / "elsewhere", POPULAR))
    assert moved.results().keys() == {"own-my-py-agent"}
    edited, _ = experiment(written(tmp_path, POPULAR + "# another\n"))
    assert edited.results() == {}
    assert pickle.loads(pickle.dumps(row)).learner == row.learner  # as a job in another process has it


SLATES = {
    "[[0, 1, 2, 3, 4, 5]]": "it returned an array of shape (1, 6); a slate for each session, shape (2, 6), is expected",
    "None": "it returned an array of shape (); a slate for each session, shape (2, 6), is expected",
    "[[0, 1], [2]]": "turning what it returned into an array raised ValueError: ",
    "[[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 500]]": "it returned [0, 1, 2, 3, 4, 500] for session 1; item indices, "
    "integers from 0 to 499, are expected",
    "[[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, -1]]": "it returned [0, 1, 2, 3, 4, -1] for session 1; item indices",
    "[[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, float('nan')]]": "it returned [0.0, 1.0, 2.0, 3.0, 4.0, nan] for session 1",
    "[[0.5] * 6] * 2": "it returned numbers of type float64; item indices",
    "[['a'] * 6] * 2": "it returned numbers of type <U1; item indices",
    "[[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 4]]": "it returned [0, 1, 2, 3, 4, 4] for session 1, an item twice in one "
    "slate; distinct items are expected, unless the agent has an attribute repeats_items = True",
    "1 / 0": "__call__(observations) raised ZeroDivisionError: division by zero",
}


@pytest.mark.parametrize(("returned", "message"), SLATES.items())
def test_what_cannot_be_shown_is_one_sentence(env: EnvConfig, tmp_path: Path, returned: str, message: str) -> None:
    text = f"class Agent:\n def __init__(self, env, data, seed): pass\n def __call__(self, seen): return {returned}\n"
    learner = own_learner(written(tmp_path, text), 0)
    with pytest.raises(OwnCodeError, match="^" + re.escape(f"my.py:Agent: {message}")):
        learner.try_out(env)


def test_items_may_be_shown_twice_where_the_agent_says_so(env: EnvConfig, tmp_path: Path) -> None:
    text = "class Agent:\n repeats_items = {}\n def __init__(self, *_): pass\n"
    text += " def __call__(self, seen): return [[3] * 6] * 2\n"
    own_learner(written(tmp_path, text.format(True)), 0).try_out(env)
    with pytest.raises(OwnCodeError, match="twice"):
        own_learner(written(tmp_path, text.format(False)), 0).try_out(env)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("repeats_items = 'no'", "repeats_items = 'no'; True or False is expected"),
        ("repeats_items = property(lambda self: 1 / 0)", "its attribute repeats_items raised ZeroDivisionError"),
        ("begin = lambda self: None", "begin(num_sessions, seed) raised TypeError"),
        ("__call__ = lambda self, seen: exit()", "__call__(observations) raised SystemExit"),
    ],
)
def test_attributes_that_are_wrong_are_one_sentence(
    env: EnvConfig, tmp_path: Path, attribute: str, message: str
) -> None:
    text = f"class Agent:\n def __init__(self, *_): pass\n def __call__(self, seen): pass\n {attribute}\n"
    with pytest.raises(OwnCodeError, match="^" + re.escape(f"my.py:Agent: {message}")):
        own_learner(written(tmp_path, text), 0).try_out(env)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Agent: pass\n", "this class has no __call__(observations)"),
        ("class Agent:\n def __call__(self, seen): pass\n", "making it as NAME(env, data, seed) raised TypeError"),
        ("class Agent:\n def __init__(self, *_): self.x\n def __call__(self, s): pass\n", "raised AttributeError"),
    ],
)
def test_what_is_no_agent_is_refused_before_anything_is_trained(
    env: EnvConfig, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(OwnCodeError, match="^my.py:Agent: .*" + re.escape(message)):
        own_learner(written(tmp_path, text), 0).try_out(env)


def test_what_training_raises_is_told_with_its_traceback(env: EnvConfig, tmp_path: Path) -> None:
    row = own_row(own_learner(written(tmp_path, LEARNER.replace("- 0.3)", "- offset)")), 640), env)
    with pytest.raises(OwnCodeError, match=r"^my.py:Agent: train\(env, transitions, seed\) raised NameError: .*\n\nT"):
        measured(row, tmp_path)


def model_of(tmp_path: Path, kind: Any = PPO, **arguments: Any) -> str:
    settings = {"n_steps": 4} | ({"batch_size": 8} if kind is PPO else {})
    sessions = rapport.sb3_env("rapport/KuaiRec-v0", 4, data="synthetic", **arguments)
    model = kind("MultiInputPolicy", sessions, seed=0, device="cpu", **settings).learn(16)
    model.save(tmp_path / "model.zip")
    return str(tmp_path / "model.zip")


@pytest.mark.parametrize("kind", [PPO, A2C])
def test_a_zip_of_stable_baselines3_does_what_its_model_does(env: EnvConfig, tmp_path: Path, kind: Any) -> None:
    place = model_of(tmp_path, kind)
    learner = own_learner(place, 100)
    assert isinstance(learner, SB3Agent) and learner.algorithm == kind.__name__
    assert learner == own_learner(f"{kind.__name__}:{place}", 100)
    model = kind.load(place, device="cpu")
    learner.try_out(env)
    found = measured(own_row(learner, env), tmp_path)
    assert found.steps == model.num_timesteps == 16

    def act(observations: Any) -> Any:
        return model.predict(observations, deterministic=True)[0]

    act.repeats_items = True  # type: ignore[attr-defined]
    assert_equal(found, measured(own_row(AgentInMemory(act, "by hand", 0), env), tmp_path))
    assert_equal(found, measured(own_row(AgentInMemory(model, "model", 0), env), tmp_path))


def test_a_model_of_other_spaces_is_refused(env: EnvConfig, tmp_path: Path) -> None:
    learner = own_learner(model_of(tmp_path, history=10), 0)
    with pytest.raises(OwnCodeError, match=r"model.zip \(PPO\): its observation space has \{'history_f.*\(10,\)"):
        learner.try_out(env)
    learner = own_learner(model_of(tmp_path, slate_size=3), 0)
    with pytest.raises(OwnCodeError, match=r"its action space has MultiDiscrete\(\[500 500 500\]\), and that of this"):
        learner.try_out(env)


def test_what_is_no_zip_of_stable_baselines3_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OwnCodeError, match=r"none.zip cannot be read: No such file"):
        own_learner(str(tmp_path / "none.zip"), 0)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(OwnCodeError, match=r"text.zip is no agent of Stable-Baselines3 .*model.save"):
        own_learner(str(tmp_path / "text.zip"), 0)
    place = model_of(tmp_path)
    with pytest.raises(OwnCodeError, match=r"'POP' is no algorithm of Stable-Baselines3 or sb3-contrib; PPO"):
        own_learner(f"POP:{place}", 0)
    with pytest.raises(OwnCodeError, match=r"RecurrentPPO keeps a state between calls"):
        own_learner(f"RecurrentPPO:{place}", 0)
    whole = Path(place).read_bytes()
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OwnCodeError, match=r"damaged.zip is no agent"):
        own_learner(str(damaged), 0)


ROTATION = """
import numpy as np
from rapport.agents.planning.controls import RotationPlanner

class Agent:
    period, cooldown = 1, False
    def __init__(self, data, seed):
        self.inner = RotationPlanner(data.catalog.category_sizes, np.random.default_rng(0))
    def plan(self, views):
        return self.inner.plan(views)
"""


def test_a_planner_has_the_schedule_of_lerls_rows_unless_it_says_otherwise(tmp_path: Path) -> None:
    own = planner_by_name(written(tmp_path, ROTATION), 20)
    assert (own.period, own.cools_down) == (1, False)
    held = planner_by_name(written(tmp_path, ROTATION.replace("period, cooldown = 1, False", "pass")), 20)
    assert (held.period, held.cools_down) == (20, True) and held.name != own.name
    assert planner_by_name("rotation", 20) == PlannerConfig("rotation", period=1)
    assert planner_by_name("top-k preference", 20) == PlannerConfig("top-k preference", period=20)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            "np.ones((1, 2))",
            r"its plans have shape \(1, 2\); one row for each session and one column for each",
        ),
        ("self.inner.plan(views) * np.nan", "nan in its plans; True or 1 for an allowed category"),
        ("self.inner.plan(views) * 2.5", "2.5 in its plans; True or 1"),
        ("None", r"its plans have shape \(\)"),
        ("views.plan", r"plan\(views\) raised AttributeError: .*\n\nTraceback"),
    ],
)
def test_what_is_no_plan_is_one_sentence(env: EnvConfig, tmp_path: Path, returned: str, message: str) -> None:
    given = written(tmp_path, ROTATION.replace("self.inner.plan(views)", returned))
    (row,) = own_rows([], [given], env, RowSettings())
    with pytest.raises(OwnCodeError, match=f"^my.py:Agent: {message}"):
        try_out_row(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("period, cooldown = 0, True", "period = 0; a number of slates"),
        ("period, cooldown = 1, 'no'", "cooldown = 'no'; True or False"),
        ("plan = None", r"it is no class with a method plan\(views\)"),
    ],
)
def test_what_is_no_planner_is_refused(env: EnvConfig, tmp_path: Path, change: str, message: str) -> None:
    text = ROTATION.replace("period, cooldown = 1, False", change)
    text = text.replace("def plan(", "def other(") if "plan =" in change else text
    with pytest.raises(OwnCodeError, match=f"^my.py:Agent: {message}"):
        planner_by_name(written(tmp_path, text), 20)


def test_rows_are_named_apart_and_a_control_needs_no_second_row(env: EnvConfig, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    agents = [written(tmp_path / folder, POPULAR + f"# {folder}") for folder in ("a", "b")]
    rows = own_rows([*agents, agents[0]], [written(tmp_path, ROTATION)], env, RowSettings())
    assert [row.name for row in rows] == ["own-my-py-agent", "own-my-py-agent-2", "own-my-py-agent-3"]
    assert [row.label for row in rows][1:] == ["my.py:Agent (2)", "my.py:Agent over LERL's policy (3)"]
    with pytest.raises(ValueError, match=r"--planner rotation: give FILE.py:NAME; the controls' rows are"):
        own_rows([], ["rotation"], env, RowSettings())
