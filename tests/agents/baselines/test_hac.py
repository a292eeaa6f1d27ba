"""HAC: its losses against plain formulas, what its replay keeps of real sessions, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from rapport.agents.baselines import hac as module
from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.hac import DEFAULTS, Hac, ReplayBuffer, hac, new_hac
from rapport.agents.baselines.task import TrainingTask
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

Sessions = Callable[..., PlannedVectorEnv]
Batch = tuple[torch.Tensor, ...]


@pytest.fixture
def ctr_model(untrained_model: CTRModel) -> CTRModel:
    return untrained_model


@pytest.fixture
def agent(ctr_model: CTRModel) -> Hac:
    """All networks drawn apart, the targets too."""
    agent = new_hac(ctr_model, {**DEFAULTS, "gamma": 0.7, "align": 0.3, "supervise": 0.6, "radius": 0.5}, seed=0)
    torch.manual_seed(1)
    for network in (agent.actor, agent.critic, agent.actor_target, agent.critic_target):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return agent


@pytest.fixture
def batch(ctr_model: CTRModel) -> Batch:
    rng = np.random.default_rng(2)
    n, width, action_width = 5, ctr_model.width, ctr_model.items.shape[1] + 1
    return (
        torch.tensor(rng.normal(size=(n, width)), dtype=torch.float32),
        torch.tensor(rng.uniform(-1, 1, (n, action_width)), dtype=torch.float32),
        torch.tensor(np.stack([rng.choice(150, 6, replace=False) for _ in range(n)])),
        torch.tensor(rng.integers(2, size=(n, 6)), dtype=torch.float32),
        torch.tensor(rng.normal(size=n), dtype=torch.float32),
        torch.tensor(rng.normal(size=(n, width)), dtype=torch.float32),
        torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]),
    )


def slow_z(agent: Hac, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return agent.ctr_model.weights(state[None])[0] + 0.5 * action


def slow_pooled(agent: Hac, state: torch.Tensor, slate: list[int]) -> torch.Tensor:
    log = agent.ctr_model.weights(state[None])[0]
    mean = sum(agent.ctr_model.items[i] for i in slate) / len(slate)
    assert isinstance(mean, torch.Tensor)
    return torch.cat([mean / mean.pow(2).sum().sqrt() * log[:-1].pow(2).sum().sqrt(), log[-1:]])


@torch.no_grad()
def test_the_critics_loss_is_the_one_step_error_of_both_hyper_actions(agent: Hac, batch: Batch) -> None:
    state, action, slate, _, reward, after, going_on = batch
    sent, effect = [], []
    for b in range(5):
        target = reward[b].clone()
        if going_on[b]:
            following = slow_z(agent, after[b], agent.actor_target(after[b]))
            target += 0.7 * agent.critic_target(torch.cat([after[b], following]))[0]
        for z, errors in (
            (slow_z(agent, state[b], action[b]), sent),
            (slow_pooled(agent, state[b], slate[b].tolist()), effect),
        ):
            errors.append((agent.critic(torch.cat([state[b], z]))[0] - target) ** 2)
    wanted = torch.stack(sent).mean() + torch.stack(effect).mean()
    torch.testing.assert_close(agent.critic_loss(batch), wanted)


@torch.no_grad()
def test_the_actors_loss_is_value_alignment_and_clicks(agent: Hac, batch: Batch) -> None:
    state, _, slate, clicks, *_ = batch
    wanted = torch.zeros(())
    for b in range(5):
        z = slow_z(agent, state[b], agent.actor(state[b]))
        wanted -= agent.critic(torch.cat([state[b], z]))[0] / 5
        wanted += 0.3 * (z - slow_pooled(agent, state[b], slate[b].tolist())).pow(2).mean() / 5
        for item, click in zip(slate[b].tolist(), clicks[b].tolist(), strict=True):
            chance = 1 / (1 + torch.exp(-(z[:-1] @ agent.ctr_model.items[item] / 8**0.5 + z[-1])))
            wanted -= 0.6 * torch.log(chance if click else 1 - chance) / 30
    torch.testing.assert_close(agent.actor_loss(batch), wanted)


@torch.no_grad()
def test_what_follows_an_end_does_not_matter(agent: Hac, batch: Batch) -> None:
    *before, after, going_on = batch
    loss = agent.critic_loss(batch)
    changed = after + torch.randn(after.shape, generator=torch.Generator().manual_seed(0))
    elsewhere = torch.where(going_on[:, None] == 0, changed, after)
    torch.testing.assert_close(agent.critic_loss((*before, elsewhere, going_on)), loss)
    assert (agent.critic_loss((*before, changed, going_on)) - loss).abs() > 1e-3


def test_a_gradient_step_moves_each_network_by_its_own_loss(agent: Hac, batch: Batch) -> None:
    networks = {"actor": agent.actor, "critic": agent.critic, "CTR model": agent.ctr_model.policy}
    before = {name: [p.detach().clone() for p in network.parameters()] for name, network in networks.items()}
    target = next(agent.critic_target.parameters()).detach().clone()
    agent.learn(batch)
    moved = {
        name: all(not torch.equal(p, q) for p, q in zip(network.parameters(), before[name], strict=True))
        for name, network in networks.items()
    }
    assert moved["actor"] and moved["critic"]
    assert all(torch.equal(p, q) for p, q in zip(agent.ctr_model.policy.parameters(), before["CTR model"], strict=True))
    online = next(agent.critic.parameters()).detach()
    torch.testing.assert_close(next(agent.critic_target.parameters()).detach(), 0.99 * target + 0.01 * online)


def test_the_first_actions_are_the_logs_own(ctr_model: CTRModel, sessions: Sessions) -> None:
    agent = new_hac(ctr_model, dict(DEFAULTS), seed=0)
    states = ctr_model.states(sessions(9, random_plans=True).reset(seed=0)[0])
    assert agent.actor(states).abs().max() < 0.05


def test_the_replay_keeps_the_newest_in_the_oldests_place() -> None:
    replay = ReplayBuffer(5, 2, 3, 2)
    for start in (0, 3, 6):  # 9 transitions told apart by their rewards
        number = np.arange(start, start + 3, dtype=np.float32)
        wide = [np.repeat(number[:, None], size, axis=1) for size in (2, 3, 2, 2)]
        replay.add(*wide, number, wide[0], np.ones(3, bool))
    state, action, slate, clicks, reward, after, going_on = replay.sample(400, np.random.default_rng(0))
    assert set(reward.tolist()) == {4.0, 5.0, 6.0, 7.0, 8.0}
    assert all(torch.equal(part[:, -1].float(), reward) for part in (state, action, slate, clicks, after))
    assert (going_on == 1).all()


def test_it_remembers_sessions_as_they_were_lived(
    sessions: Sessions, ctr_model: CTRModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state after a slate is the next one's, or, at an end, the last of the old session, which does not go on."""
    added: list[tuple[Any, ...]] = []
    add = ReplayBuffer.add

    def watched(self: ReplayBuffer, *parts: Any) -> None:
        added.append(tuple(np.array(part) for part in parts))
        add(self, *parts)

    monkeypatch.setattr(module.ReplayBuffer, "add", watched)
    hac(TrainingTask(sessions(4, random_plans=True), ctr_model, 4 * 30, 0))
    age = ctr_model.policy.encoder.features_dim
    ends = 0
    for (_, _, slate, clicks, reward, after, going_on), (following, *_) in pairwise(added):
        assert all(len(set(row)) == 6 for row in slate.tolist())
        np.testing.assert_allclose(reward, clicks.mean(1))
        assert (after[going_on] == following[going_on]).all()
        assert (after[~going_on, age] > 0).all() and (following[~going_on, age] == 0).all()
        ends += int((~going_on).sum())
    assert ends >= 4


def test_the_same_seed_makes_the_same_slates_within_the_plans(
    small_data: SessionData, sessions: Sessions, ctr_model: CTRModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WARM_UP", 40)
    before = {k: v.clone() for k, v in ctr_model.policy.state_dict().items()}
    shown = []
    for seed in (3, 3, 4):
        act = hac(
            TrainingTask(
                sessions(4, random_plans=True), ctr_model, 100, seed, {"learning_rate": 1e-2, "batch_size": 16}
            )
        )
        observations, _ = sessions(20, random_plans=True).reset(seed=1)
        slates = act(observations)
        assert observations["plan"][np.arange(20)[:, None], small_data.catalog.category[slates]].all()
        shown.append(slates.tolist())
    assert shown[0] == shown[1] != shown[2]
    assert all(torch.equal(v, before[k]) for k, v in ctr_model.policy.state_dict().items())


def test_an_unknown_setting_is_named(sessions: Sessions, ctr_model: CTRModel) -> None:
    with pytest.raises(ValueError, match="there is no setting 'warmth'; choose of: learning_rate"):
        hac(TrainingTask(sessions(4, random_plans=True), ctr_model, 64, 0, {"warmth": 1}))


def test_it_learns_which_items_people_click(
    small_data: SessionData, sessions: Sessions, ctr_model: CTRModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users who click on the items of some categories only; the pretrained model knows nothing of it."""
    monkeypatch.setattr(module, "WARM_UP", 160)
    liked = small_data.catalog.category % 3 == 0
    shape = (small_data.population.n_users, small_data.catalog.n_items, len(small_data.log.behaviours))
    table = np.broadcast_to(np.where(liked, 0.9, 0.05)[None, :, None], shape)
    response = MatrixResponse(table, small_data.log.behaviours)
    settings = {"learning_rate": 3e-3, "gamma": 0.0, "noise": 0.5, "supervise": 1.0, "batch_size": 64}
    shares = []
    for transitions in (0, 1_600):
        act = hac(TrainingTask(sessions(16, response=response), ctr_model, transitions, 0, settings))
        shares.append(liked[act(sessions(100, response=response).reset(seed=5)[0])].mean())
    assert shares[1] > shares[0] + 0.3
