"""Plackett-Luce slates: probabilities against enumeration, draws against probabilities, and PPO that learns on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stable_baselines3 import PPO

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.plackett_luce_ppo import plackett_luce_ppo
from rapport.agents.baselines.task import TrainingTask
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.plackett_luce import EXCLUDED, PlackettLuce, PlackettLucePolicy
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

ENCODER = EncoderSettings(item_width=8, width=16, feed_forward=16, window=12)


@pytest.fixture
def ctr_model(untrained_model: CTRModel) -> CTRModel:
    return untrained_model


Sessions = Callable[..., PlannedVectorEnv]


def policy_on(env: PlannedVectorEnv, data: SessionData, temperature: float = 0.1) -> PPO:
    torch.manual_seed(0)
    arguments = {
        "encoder": StateEncoder(data, EncoderSettings(item_width=8, width=16, feed_forward=16, window=12, dropout=0.0)),
        "category": data.catalog.category,
        "temperature": temperature,
    }
    return PPO(
        PlackettLucePolicy,
        GymnasiumVecEnv(env),
        n_steps=8,
        batch_size=16,
        n_epochs=2,
        policy_kwargs=arguments,
        seed=0,
        device="cpu",
    )


# --- the distribution -------------------------------------------------------------------------------------------------


def slow_log_prob(logits: torch.Tensor, slate: tuple[int, ...]) -> torch.Tensor:
    """The definition, place by place over a list of the items that are left."""
    left, total = list(range(len(logits))), logits.new_zeros(())
    for item in slate:
        total = total + logits[item] - torch.stack([logits[i] for i in left]).logsumexp(0)
        left.remove(item)
    return total


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 6),
    k=st.integers(1, 3),
    excluded=st.integers(0, 3),
    spread=st.floats(0.1, 30.0),
)
def test_probabilities_of_all_slates_sum_to_one(seed: int, n: int, k: int, excluded: int, spread: float) -> None:
    k = min(k, n)
    excluded = min(excluded, n - k)
    rng = np.random.default_rng(seed)
    row = torch.tensor(rng.normal(size=n) * spread)
    out = rng.choice(n, excluded, replace=False)
    row[out] = EXCLUDED
    inside = [i for i in range(n) if i not in out]
    slates = list(itertools.permutations(inside, k))
    got = PlackettLuce(row.expand(len(slates), n)).log_prob(torch.tensor(slates))
    assert float(got.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    alone = row[inside]  # items that are excluded are as if they were not there
    wanted = [slow_log_prob(alone, tuple(inside.index(i) for i in slate)) for slate in slates]
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outside", [0, 1, 9])
def test_gradients_are_those_of_the_definition(outside: int) -> None:
    """Also where the slate is all there is, and where the items left over weigh next to nothing."""
    rng = np.random.default_rng(outside)
    start = torch.tensor(rng.normal(size=(3, 4 + outside)) * 3)
    start[1, :4] += 60.0
    slates = torch.tensor(np.stack([rng.permutation(4) for _ in range(3)]))
    weigh = torch.tensor([1.0, -2.0, 0.5])
    fast, slow = start.clone().requires_grad_(), start.clone().requires_grad_()
    (PlackettLuce(fast).log_prob(slates) * weigh).sum().backward()
    (torch.stack([slow_log_prob(slow[b], tuple(slates[b].tolist())) for b in range(3)]) * weigh).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-9, atol=1e-12)


def test_excluded_items_have_no_gradient_and_the_others_a_finite_one() -> None:
    logits = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    logits[:, 3:] = EXCLUDED  # three items are left, and shown
    logits.requires_grad_()
    PlackettLuce(logits).log_prob(torch.tensor([[0, 2, 1], [1, 0, 2]])).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad[:, 3:] == 0).all() and (logits.grad[:, :3] != 0).any()


def test_draws_are_as_frequent_as_their_probabilities_say() -> None:
    row = torch.tensor([0.5, -1.0, 1.2, EXCLUDED, 0.0])
    slates = list(itertools.permutations([0, 1, 2, 4], 2))
    expected = PlackettLuce(row.expand(len(slates), 5)).log_prob(torch.tensor(slates)).exp().double().numpy()
    drawn = PlackettLuce(row.expand(20_000, 5)).sample(2, torch.Generator().manual_seed(1)).tolist()
    counts = np.array([sum(1 for d in drawn if tuple(d) == slate) for slate in slates])
    assert counts.sum() == 20_000  # the excluded item is never drawn, nor anything twice
    assert stats.chisquare(counts, 20_000 * expected / expected.sum()).pvalue > 0.01


def test_the_mode_is_the_likeliest_slate() -> None:
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(2))
    slates = torch.tensor(list(itertools.permutations(range(6), 3)))
    best = PlackettLuce(logits.expand(len(slates), 6)).log_prob(slates).argmax()
    assert PlackettLuce(logits).mode(3)[0].tolist() == slates[best].tolist()


# --- the policy -------------------------------------------------------------------------------------------------------


def test_the_logits_are_the_ctr_models_scores_over_the_temperature(
    small_data: SessionData, sessions: Sessions, ctr_model: CTRModel
) -> None:
    env = sessions(4, random_plans=True)
    policy = PlackettLucePolicy(
        env.single_observation_space,
        env.single_action_space,
        lambda _: 1e-3,
        StateEncoder(small_data, ENCODER),
        small_data.catalog.category,
        0.25,
    )
    weights = {k: v for k, v in ctr_model.policy.state_dict().items() if k != "log_std"}
    policy.load_state_dict({**weights, "log_temperature": policy.log_temperature})
    policy.set_training_mode(False)
    observations, _ = env.reset(seed=0)
    seen: Any = policy.obs_to_tensor(observations)[0]
    allowed = torch.from_numpy(observations["plan"] == 1)[:, ctr_model.category]
    assert (~allowed).any()
    with torch.no_grad():
        logits = policy.slates(policy.extract_features(seen), seen["plan"]).logits  # type: ignore[arg-type]
    torch.testing.assert_close(logits[allowed], (ctr_model.click_scores(observations) / 0.25)[allowed])
    assert (logits[~allowed] == EXCLUDED).all()


def test_ppos_ratio_is_one_before_its_first_update(small_data: SessionData, sessions: Sessions) -> None:
    """What was collected, stored as floats and read back has the likelihood it was drawn with."""
    agent = policy_on(sessions(4, random_plans=True), small_data)
    agent.learn(32)
    # and again, with the policy that this has made:
    agent.collect_rollouts(agent.env, agent._init_callback(None), agent.rollout_buffer, 8)  # type: ignore[arg-type]
    agent.policy.set_training_mode(True)
    for batch in agent.rollout_buffer.get(16):
        _, now, _ = agent.policy.evaluate_actions(batch.observations, batch.actions.long())
        torch.testing.assert_close(now, batch.old_log_prob, rtol=0, atol=1e-4)
        assert (batch.old_log_prob < 0).all()


def test_every_slate_keeps_to_the_plan(small_data: SessionData, sessions: Sessions) -> None:
    """Also at a temperature that draws almost uniformly."""
    env = sessions(64, random_plans=True)
    agent = policy_on(env, small_data, temperature=50.0)
    observations, _ = env.reset(seed=0)
    for step in range(12):
        slates, _ = agent.predict(observations, deterministic=step % 2 == 0)
        assert observations["plan"][np.arange(64)[:, None], small_data.catalog.category[slates]].all()
        assert all(len(set(slate)) == 6 for slate in slates.tolist())
        observations, *_ = env.step(slates)


def test_actor_temperature_and_critic_learn(small_data: SessionData, sessions: Sessions) -> None:
    agent = policy_on(sessions(4, random_plans=True), small_data)
    before = {name: p.detach().clone() for name, p in agent.policy.named_parameters()}
    agent.learn(64)
    still = [name for name, p in agent.policy.named_parameters() if torch.equal(p, before[name])]
    assert [name for name in still if not name.endswith("log_std")] == []


# --- the baseline -----------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_slates_for_any_number_of_users(sessions: Sessions, ctr_model: CTRModel) -> None:
    before = {k: v.clone() for k, v in ctr_model.policy.state_dict().items()}
    shown = []
    for seed in (3, 3, 4):
        task = TrainingTask(sessions(4, random_plans=True), ctr_model, 64, seed, {"n_steps": 8, "batch_size": 16})
        act = plackett_luce_ppo(task)
        torch.manual_seed(len(shown))  # what anybody else draws does not matter
        many, _ = sessions(9, random_plans=True).reset(seed=1)
        few, _ = sessions(2, random_plans=True).reset(seed=1)
        shown.append([act(many).tolist(), act(few).tolist()])
        assert [len(slates) for slates in shown[-1]] == [9, 2]
    assert shown[0] == shown[1] != shown[2]
    assert all(torch.equal(v, before[k]) for k, v in ctr_model.policy.state_dict().items())


def test_an_unknown_setting_is_named(sessions: Sessions, ctr_model: CTRModel) -> None:
    with pytest.raises(ValueError, match="there is no setting 'warmth'; choose of: learning_rate"):
        plackett_luce_ppo(TrainingTask(sessions(4, random_plans=True), ctr_model, 64, 0, {"warmth": 1}))


def test_it_learns_which_items_people_click(small_data: SessionData, sessions: Sessions, ctr_model: CTRModel) -> None:
    """Users who click on items of some categories only; the pretrained model knows nothing of it."""
    liked = small_data.catalog.category % 3 == 0
    shape = (small_data.population.n_users, small_data.catalog.n_items, len(small_data.log.behaviours))
    response = MatrixResponse(
        np.broadcast_to(np.where(liked, 0.9, 0.05)[None, :, None], shape), small_data.log.behaviours
    )
    settings = {"temperature": 0.5, "learning_rate": 3e-3, "n_steps": 10, "batch_size": 80, "gamma": 0.0}
    shares = []
    for transitions in (0, 2_400):
        task = TrainingTask(sessions(16, response=response), ctr_model, transitions, 0, settings)
        act = plackett_luce_ppo(task)
        observations, _ = sessions(100, response=response).reset(seed=5)
        shares.append(liked[act(observations)].mean())
    assert shares[1] > shares[0] + 0.2
