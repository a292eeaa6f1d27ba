"""The click model: its likelihood against scikit-learn's, its memory against a list, and what it learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from rapport.agents.baselines import click_learner as module
from rapport.agents.baselines.click_learner import Answers, Memory, click_learner, click_loss
from rapport.agents.baselines.click_prior import LogModel
from rapport.agents.baselines.task import Lesson
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

Sessions = Callable[..., PlannedVectorEnv]


def numbered(first: int, n: int) -> Answers:
    """Answers each of whose parts tells its number."""
    number = torch.arange(first, first + n)
    return Answers(
        number[:, None],
        number[:, None].expand(n, 3),
        number[:, None, None].expand(n, 3, 2).to(torch.int8),
        number[:, None].expand(n, 6),
        number[:, None].expand(n, 6).float(),
    )


def test_the_loss_is_the_log_loss_of_the_models_scores(log_model: LogModel, sessions: Sessions) -> None:
    env, rng = sessions(5), np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    for _ in range(3):
        observations, *_ = env.step(rng.integers(150, size=(5, 6)))
    slates, clicks = rng.integers(150, size=(5, 6)), rng.integers(2, size=(5, 6))
    answers = Answers(*log_model.read(observations), torch.from_numpy(slates), torch.from_numpy(clicks).float())
    scores = np.take_along_axis(log_model.click_scores(observations).double().numpy(), slates, axis=1)
    expected = log_loss(clicks.ravel(), 1 / (1 + np.exp(-scores.ravel())))
    assert click_loss(log_model.policy, answers).item() == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_memory_is_all_that_was_answered(sizes: list[int], seed: int) -> None:
    memory, total = Memory(sum(sizes) + 5), 0
    for size in sizes:
        memory.add(numbered(total, size))
        total += size
    drawn = memory.draw(400, np.random.default_rng(seed))
    number = drawn.user_features[:, 0]
    assert set(number.tolist()) <= set(range(total))
    if total <= 20:  # the chance that one of 20 is missing in 400 draws is 3e-8
        assert set(number.tolist()) == set(range(total))
    for part in drawn:
        assert torch.equal(part.long(), number.reshape(-1, *[1] * (part.ndim - 1)).expand(part.shape))


def test_it_learns_what_people_like_and_leaves_the_log_model_alone(
    small_data: SessionData, log_model: LogModel, sessions: Sessions
) -> None:
    """Every user likes a third of the items, of all categories, which nothing but their answers tells."""
    liked = np.random.default_rng(3).random(150) < 1 / 3
    chance = np.where(liked, 0.9, 0.05).astype(np.float32)
    table = np.ascontiguousarray(np.broadcast_to(chance[:, None], (200, 150, 7)))
    response = MatrixResponse(table, small_data.log.behaviours)
    weights = {name: value.clone() for name, value in log_model.policy.state_dict().items()}
    chosen = {"learning_rate": 1e-2}
    observations, _ = sessions(100).reset(seed=1)
    shares = []
    for transitions in (0, 3200):
        env = sessions(16, response=response, quit_rule="never")
        act = click_learner(Lesson(env, log_model, transitions, 0, chosen))
        shares.append(liked[act(observations)].mean())
    assert shares[1] > 0.9 > 0.6 > shares[0]
    assert all(torch.equal(value, weights[name]) for name, value in log_model.policy.state_dict().items())


def test_what_reads_plans_and_the_critic_are_not_changed(
    log_model: LogModel, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[LogModel] = []
    monkeypatch.setattr(LogModel, "copy", lambda self, real=LogModel.copy: learned.append(real(self)) or learned[-1])
    click_learner(Lesson(sessions(4), log_model, 64, 0))
    before, after = (dict(model.policy.named_parameters()) for model in (log_model, *learned))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    actor = ("mlp_extractor.policy_net", "action_net")
    assert changed == {n for n in before if "encoder." in n or n.startswith(actor)}


def test_it_serves_the_likeliest_of_what_plans_allow_and_is_its_seeds(log_model: LogModel, sessions: Sessions) -> None:
    def served(seed: int) -> list[object]:
        act = click_learner(Lesson(sessions(4, random_plans=True), log_model, 32, seed))
        observations, _ = sessions(7, random_plans=True).reset(seed=2)
        slates = act(observations)
        assert np.take_along_axis(observations["plan"], log_model.data.catalog.category[slates], axis=1).all()
        assert np.array_equal(act({k: v[:3] for k, v in observations.items()}), slates[:3])
        return [*slates.tolist()]

    assert served(0) == served(0) != served(1)


def test_it_learns_after_every_four_steps(log_model: LogModel, sessions: Sessions, monkeypatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(module, "click_loss", lambda p, a, real=click_loss: sizes.append(len(a.slates)) or real(p, a))
    click_learner(Lesson(sessions(64), log_model, 64 * 9, 0, {"passes": 2.0}))
    assert sizes == [module.BATCH] * 2 * 2  # two lessons of 256 slates, each drawn twice


def test_an_unknown_setting_is_named(log_model: LogModel, sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="there is no setting 'boldness'"):
        click_learner(Lesson(sessions(2), log_model, 0, 0, {"boldness": 2}))


def test_what_is_searched_are_settings(log_model: LogModel, sessions: Sessions) -> None:
    optuna = pytest.importorskip("optuna")
    drawn = module.space(optuna.create_study().ask())
    assert drawn.keys() == module.DEFAULTS.keys()
    click_learner(Lesson(sessions(2), log_model, 0, 0, drawn))
