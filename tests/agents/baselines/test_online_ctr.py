"""The online CTR model: its likelihood against scikit-learn's, its buffer against a list, and what it learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from rapport.agents.baselines import online_ctr as module
from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.online_ctr import ClickBatch, ClickBuffer, click_loss, online_ctr_model
from rapport.agents.baselines.task import TrainingTask
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

Sessions = Callable[..., PlannedVectorEnv]


def numbered(first: int, n: int) -> ClickBatch:
    """Slates each of whose parts is their number."""
    number = torch.arange(first, first + n)
    return ClickBatch(
        number[:, None],
        number[:, None].expand(n, 3),
        number[:, None, None].expand(n, 3, 2).to(torch.int8),
        number[:, None].expand(n, 6),
        number[:, None].expand(n, 6).float(),
    )


def test_the_loss_is_the_log_loss_of_the_models_scores(ctr_model: CTRModel, sessions: Sessions) -> None:
    env, rng = sessions(5), np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    for _ in range(3):
        observations, *_ = env.step(rng.integers(150, size=(5, 6)))
    slates, clicks = rng.integers(150, size=(5, 6)), rng.integers(2, size=(5, 6))
    batch = ClickBatch(*ctr_model.read(observations), torch.from_numpy(slates), torch.from_numpy(clicks).float())
    scores = np.take_along_axis(ctr_model.click_scores(observations).double().numpy(), slates, axis=1)
    expected = log_loss(clicks.ravel(), 1 / (1 + np.exp(-scores.ravel())))
    assert click_loss(ctr_model.policy, batch).item() == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_buffer_is_all_that_was_added(sizes: list[int], seed: int) -> None:
    buffer, total = ClickBuffer(sum(sizes) + 5), 0
    for size in sizes:
        buffer.add(numbered(total, size))
        total += size
    drawn = buffer.sample(400, np.random.default_rng(seed))
    number = drawn.user_features[:, 0]
    assert set(number.tolist()) <= set(range(total))
    if total <= 20:  # the chance that one of 20 is missing in 400 draws is 3e-8
        assert set(number.tolist()) == set(range(total))
    for part in drawn:
        assert torch.equal(part.long(), number.reshape(-1, *[1] * (part.ndim - 1)).expand(part.shape))


def test_it_learns_what_people_like_and_leaves_the_pretrained_model_alone(
    small_data: SessionData, ctr_model: CTRModel, sessions: Sessions
) -> None:
    """Every user likes a third of the items, of all categories, which nothing but their clicks tells."""
    liked = np.random.default_rng(3).random(150) < 1 / 3
    chance = np.where(liked, 0.9, 0.05).astype(np.float32)
    table = np.ascontiguousarray(np.broadcast_to(chance[:, None], (200, 150, 7)))
    response = MatrixResponse(table, small_data.log.behaviours)
    weights = {name: value.clone() for name, value in ctr_model.policy.state_dict().items()}
    chosen = {"learning_rate": 1e-2}
    observations, _ = sessions(100).reset(seed=1)
    shares = []
    for transitions in (0, 3200):
        env = sessions(16, response=response, quit_rule="never")
        act = online_ctr_model(TrainingTask(env, ctr_model, transitions, 0, chosen))
        shares.append(liked[act(observations)].mean())
    assert shares[1] > 0.9 > 0.6 > shares[0]
    assert all(torch.equal(value, weights[name]) for name, value in ctr_model.policy.state_dict().items())


def test_what_reads_plans_and_the_critic_are_not_changed(
    ctr_model: CTRModel, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[CTRModel] = []
    monkeypatch.setattr(CTRModel, "copy", lambda self, real=CTRModel.copy: learned.append(real(self)) or learned[-1])
    online_ctr_model(TrainingTask(sessions(4), ctr_model, 64, 0))
    before, after = (dict(model.policy.named_parameters()) for model in (ctr_model, *learned))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    actor = ("mlp_extractor.policy_net", "action_net")
    assert changed == {n for n in before if "encoder." in n or n.startswith(actor)}


def test_it_serves_the_likeliest_of_what_plans_allow_and_is_its_seeds(ctr_model: CTRModel, sessions: Sessions) -> None:
    def served(seed: int) -> list[object]:
        act = online_ctr_model(TrainingTask(sessions(4, random_plans=True), ctr_model, 32, seed))
        observations, _ = sessions(7, random_plans=True).reset(seed=2)
        slates = act(observations)
        assert np.take_along_axis(observations["plan"], ctr_model.data.catalog.category[slates], axis=1).all()
        assert np.array_equal(act({k: v[:3] for k, v in observations.items()}), slates[:3])
        return [*slates.tolist()]

    assert served(0) == served(0) != served(1)


def test_it_learns_after_every_four_steps(ctr_model: CTRModel, sessions: Sessions, monkeypatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(module, "click_loss", lambda p, a, real=click_loss: sizes.append(len(a.slates)) or real(p, a))
    online_ctr_model(TrainingTask(sessions(64), ctr_model, 64 * 9, 0, {"passes": 2.0}))
    assert sizes == [module.BATCH] * 2 * 2  # two updates of 256 slates, each drawn twice


def test_an_unknown_setting_is_named(ctr_model: CTRModel, sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="there is no setting 'boldness'"):
        online_ctr_model(TrainingTask(sessions(2), ctr_model, 0, 0, {"boldness": 2}))


def test_what_is_searched_are_settings(ctr_model: CTRModel, sessions: Sessions) -> None:
    optuna = pytest.importorskip("optuna")
    drawn = module.space(optuna.create_study().ask())
    assert drawn.keys() == module.DEFAULTS.keys()
    online_ctr_model(TrainingTask(sessions(2), ctr_model, 0, 0, drawn))
