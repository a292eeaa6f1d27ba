"""Bandits agree with plain counting, closed forms and loops, and find what users like."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rapport.agents.bandits import RidgeRegression, linucb
from rapport.agents.baselines import bandits, linear_bandits
from rapport.agents.baselines.bandits import (
    leading_items,
    learn_online,
    log_arms,
    unshown,
)
from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.controls import PRIOR, PopularSlates
from rapport.agents.baselines.linear_bandits import features, posterior_draws, prior_mean
from rapport.agents.baselines.reranking import greedy
from rapport.agents.baselines.task import TrainingTask
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse

pytestmark = pytest.mark.filterwarnings("error")

ALL = {**bandits.BASELINES, **linear_bandits.BASELINES}
SEEDS = st.integers(0, 2**31)
Sessions = Callable[..., PlannedVectorEnv]


def observed(env: PlannedVectorEnv, steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    observations, _ = env.reset(seed=0)
    for _ in range(steps):
        observations, *_ = env.step(rng.integers(150, size=(env.num_envs, 6)))
    return observations


# --- arms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_weight", [1.0, 0.25])
def test_arms_begin_with_the_log(small_data: SessionData, log_weight: float) -> None:
    """Counted row by row, of training users' training days."""
    log, category = small_data.log, small_data.catalog.category
    shown, clicked = np.zeros(small_data.catalog.n_categories), np.zeros(small_data.catalog.n_categories)
    for item, user, time, click in zip(log.item, log.user, log.time_ms, log.feedback[:, 0], strict=True):
        if time < small_data.valid_from_ms and not small_data.held_out[user] and click >= 0:
            shown[category[item]] += 1
            clicked[category[item]] += click
    arms = log_arms(small_data, category, log_weight)
    np.testing.assert_allclose(arms.pulls, log_weight * shown + PRIOR)
    np.testing.assert_allclose(arms.rewards, log_weight * clicked + PRIOR * clicked.sum() / shown.sum())


def test_item_bandits_begin_as_popularity(small_data: SessionData, ctr_model: CTRModel, sessions: Sessions) -> None:
    popular = PopularSlates(small_data, 6)
    for learn in (bandits.epsilon_greedy_items, bandits.ucb_items):
        act = learn(TrainingTask(sessions(4), ctr_model, 0, 0))
        env = sessions(5)
        observations, _ = env.reset(seed=0)
        for _ in range(8):
            slates = act(observations)
            rates = log_arms(small_data, np.arange(150)).means
            np.testing.assert_allclose(rates[slates], rates[popular(observations)])
            observations, *_ = env.step(slates)


# --- from arms to slates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [14, 130])
def test_unshown_is_what_the_session_did_not_show(sessions: Sessions, history: int) -> None:
    env = sessions(6, history=history)
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    shown: list[list[int]] = [[] for _ in range(6)]
    for _ in range(30):
        free = unshown(observations, 150, 6)
        for row in range(6):
            seen = set(shown[row][-history:])
            assert set(np.flatnonzero(~free[row])) == seen
        slates = rng.integers(150, size=(6, 6))
        observations, _, terminated, truncated, _ = env.step(slates)
        for row in range(6):
            shown[row] = [] if terminated[row] or truncated[row] else [*shown[row], *slates[row]]


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, n=st.integers(1, 20), share=st.floats(0, 1))
def test_leading_items_are_a_plain_loop(seed: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    category, order = rng.integers(5, size=n), rng.permutation(n)
    available = rng.random((3, n)) < share
    got = leading_items(available, category, order)
    for row in range(3):
        firsts: dict[int, int] = {}
        for item in order.tolist():
            if available[row, item]:
                firsts.setdefault(int(category[item]), item)
        assert set(np.flatnonzero(got[row])) == set(firsts.values())


@pytest.mark.parametrize("learn", [bandits.epsilon_greedy_categories, bandits.ucb_categories])
def test_category_bandits_serve_the_best_item_of_each(
    learn: Callable[[TrainingTask], Any], small_data: SessionData, ctr_model: CTRModel, sessions: Sessions
) -> None:
    category = small_data.catalog.category
    items, kinds = (log_arms(small_data, arms).means for arms in (np.arange(150), category))
    act, env = learn(TrainingTask(sessions(4), ctr_model, 0, 0)), sessions(5)
    observations, _ = env.reset(seed=0)
    for _ in range(15):
        slates, free = act(observations), unshown(observations, 150, 6)
        for row in range(5):
            still = [c for c in np.argsort(-kinds) if (free[row] & (category == c)).any()]
            assert category[slates[row]][: len(still)].tolist() == still[:6]
            for item in slates[row][: len(still)]:
                rivals = free[row] & (category == category[item])
                assert items[item] == items[rivals].max()
        observations, *_ = env.step(slates)


# --- linear bandits ---------------------------------------------------------------------------------------------------


def plain_features(ctr_model: CTRModel, observations: dict[str, Any], row: int, item: int) -> NDArray[Any]:
    weights = ctr_model.weights(ctr_model.states(observations))[row].numpy()
    category = ctr_model.data.catalog.category
    last = observations["history_items"][row, -6:] - 1 if observations["step"][row, 0] else []
    one_hot = np.zeros(ctr_model.data.catalog.n_categories)
    one_hot[category[item]] = 1.0
    again = float(category[item] in set(category[last])) if len(last) else 0.0
    products = weights[:-1] * ctr_model.items[item].numpy() / math.sqrt(8)
    return np.concatenate([products, weights[-1:], one_hot, [again, 1]])


@pytest.mark.parametrize("steps", [0, 3])
def test_features_are_what_they_say(ctr_model: CTRModel, sessions: Sessions, steps: int) -> None:
    observations = observed(sessions(3), steps)
    weights = ctr_model.weights(ctr_model.states(observations))
    items = torch.tensor(np.random.default_rng(0).integers(150, size=(3, 10)))
    got = features(ctr_model, weights, observations, items)
    for row in range(3):
        for place, item in enumerate(items[row].tolist()):
            expected = plain_features(ctr_model, observations, row, item)
            np.testing.assert_allclose(got[row, place], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[:, :, :9].sum(dim=2), ctr_model.click_scores(observations).gather(1, items))
    again = got[:, :, -2]
    assert again.any() == (steps > 0) and not again.all()


def some_ridge() -> RidgeRegression:
    rng = np.random.default_rng(1)
    ridge = RidgeRegression(rng.normal(size=5), 2.0)
    ridge.update(rng.normal(size=(30, 5)) * [3, 1, 1, 0.2, 1], rng.integers(2, size=30))
    return ridge


def test_bounds_are_linucbs_in_single_precision() -> None:
    ridge, x = some_ridge(), np.random.default_rng(2).normal(size=(3, 4, 5))
    got = linear_bandits.upper_bounds(ridge, 0.6)(torch.tensor(x).float())
    np.testing.assert_allclose(got, linucb(ridge, x, 0.6), rtol=1e-4, atol=1e-5)


def test_every_session_has_a_draw_of_its_own() -> None:
    """Features that are the basis vectors show the weights that were drawn."""
    ridge, n = some_ridge(), 6
    rule = posterior_draws(ridge, 0.5, np.random.default_rng(0))
    drawn = ridge.sample(2 * n, 0.5, np.random.default_rng(0))
    for first in (0, n):
        worth = rule(torch.eye(5).expand(n, 5, 5)).numpy()
        np.testing.assert_allclose(worth, drawn[first : first + n], rtol=1e-6)


def test_linucb_begins_as_greedy(ctr_model: CTRModel, sessions: Sessions) -> None:
    task = TrainingTask(sessions(4), ctr_model, 0, 0)
    observations = observed(sessions(6, random_plans=True), 2)
    assert np.array_equal(linear_bandits.lin_ucb(task)(observations), greedy(task)(observations))


def test_linucb_learns_the_closed_form_of_its_sessions(
    ctr_model: CTRModel, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what went in and out of the environment alone: the features, clicks and slates of every step."""
    env, ridges = sessions(4), []
    monkeypatch.setattr(linear_bandits, "RidgeRegression", lambda *a: ridges.append(RidgeRegression(*a)) or ridges[-1])
    rows, targets = [], []
    seen: dict[str, Any] = {}
    reset, step = env.reset, env.step

    def watched_reset(**arguments: Any) -> Any:
        observations, info = reset(**arguments)
        seen.update(observations)
        return observations, info

    def watched_step(slates: Any) -> Any:
        result = step(slates)
        for row in range(4):
            for place, item in enumerate(slates[row]):
                rows.append(plain_features(ctr_model, seen, row, int(item)))
                targets.append(result[4]["feedback"][row, place, 0])
        seen.update(result[0])
        return result

    monkeypatch.setattr(env, "reset", watched_reset)
    monkeypatch.setattr(env, "step", watched_step)
    linear_bandits.lin_ucb(TrainingTask(env, ctr_model, 60, 0, {"strength": 5.0}))
    x = np.array(rows)
    assert x.shape == (15 * 4 * 6, 8 + 1 + ctr_model.data.catalog.n_categories + 2)
    np.testing.assert_allclose(ridges[0].precision, 5.0 * np.eye(x.shape[1]) + x.T @ x, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(ridges[0].moment, 5.0 * prior_mean(ctr_model) + x.T @ targets, rtol=1e-3, atol=1e-2)


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transitions", "steps"), [(0, 0), (1, 1), (8, 2), (9, 3)])
def test_the_loop_stops_at_the_first_whole_step_that_reaches_its_transitions(
    ctr_model: CTRModel, sessions: Sessions, small_data: SessionData, transitions: int, steps: int
) -> None:
    """What is learned from is what was chosen on: sure answers tell whose slate it was."""
    table = (np.random.default_rng(0).random((200, 150, 7)) < 0.5).astype(np.float32)
    env = sessions(4, response=MatrixResponse(table, small_data.log.behaviours))
    rng, chosen, told = np.random.default_rng(0), [], []

    def choose(observations: dict[str, Any]) -> NDArray[np.int64]:
        users = env.unwrapped.core.user.copy()  # type: ignore[attr-defined]
        chosen.append((users, {k: v.copy() for k, v in observations.items()}))
        return rng.integers(150, size=(4, 6))

    learn_online(TrainingTask(env, ctr_model, transitions, 0), choose, lambda *learned: told.append(learned), rng)
    assert len(chosen) == len(told) == steps
    for (users, observations), (learned_on, slates, clicks) in zip(chosen, told, strict=True):
        assert np.array_equal(clicks, table[users[:, None], slates, 0])
        assert all(np.array_equal(learned_on[k], v) for k, v in observations.items())


@pytest.mark.parametrize("name", ALL)
def test_slates_keep_to_plans_and_repeat_nothing(
    name: str, ctr_model: CTRModel, sessions: Sessions, small_data: SessionData
) -> None:
    act = ALL[name](TrainingTask(sessions(4, random_plans=True), ctr_model, 40, 0))
    category = small_data.catalog.category
    for n in (1, 7):
        env = sessions(n, random_plans=True)
        observations, _ = env.reset(seed=0)
        for _ in range(25):
            slates = act(observations)
            assert slates.shape == (n, 6) and all(len(set(slate)) == 6 for slate in slates.tolist())
            assert np.take_along_axis(observations["plan"], category[slates], axis=1).all()
            if name in bandits.BASELINES:
                fresh = unshown(observations, 150, 6)
                enough = (fresh & observations["plan"].astype(bool)[:, category]).sum(axis=1) >= 6
                assert np.take_along_axis(fresh, slates, axis=1)[enough].all()
            observations, *_ = env.step(slates)


@pytest.mark.parametrize("name", bandits.BASELINES)
def test_context_free_bandits_show_nothing_twice_in_a_session(
    name: str, ctr_model: CTRModel, sessions: Sessions
) -> None:
    act, env = ALL[name](TrainingTask(sessions(4), ctr_model, 80, 0)), sessions(5)
    observations, _ = env.reset(seed=0)
    seen: list[set[int]] = [set() for _ in range(5)]
    for _ in range(30):
        slates = act(observations)
        assert not any(shown & set(slate) for shown, slate in zip(seen, slates.tolist(), strict=True))
        observations, _, terminated, truncated, _ = env.step(slates)
        ended = terminated | truncated
        seen = [set() if end else shown | set(s) for end, shown, s in zip(ended, seen, slates.tolist(), strict=True)]


@pytest.mark.parametrize("name", ALL)
def test_they_find_what_people_like(
    name: str, ctr_model: CTRModel, sessions: Sessions, small_data: SessionData
) -> None:
    """Everybody clicks on six categories that the log has as no better than the others, and on nothing else."""
    category = small_data.catalog.category
    worst = np.argsort(log_arms(small_data, category).means)
    liked = np.isin(category, worst[:6])
    table = np.broadcast_to(liked[:, None].astype(np.float32), (200, 150, 7))
    response = MatrixResponse(np.ascontiguousarray(table), small_data.log.behaviours)
    chosen: dict[str, Any] = {"log_weight": 0.01} if name in bandits.BASELINES else {"strength": 1.0}
    chosen |= {"width": 0.5} if "ucb" in name else {"epsilon": 0.3} if "epsilon" in name else {"scale": 0.5}
    before = ALL[name](TrainingTask(sessions(8), ctr_model, 0, 0, chosen))
    env = sessions(8, response=response, quit_rule="never")
    after = ALL[name](TrainingTask(env, ctr_model, 1600, 0, chosen))
    observations, _ = sessions(8).reset(seed=1)
    assert liked[after(observations)].mean() > 0.9 > 0.7 > liked[before(observations)].mean()


@pytest.mark.parametrize("name", ALL)
def test_draws_depend_on_the_seed_alone_and_learning_ends(name: str, ctr_model: CTRModel, sessions: Sessions) -> None:
    def served(seed: int) -> NDArray[Any]:
        act = ALL[name](TrainingTask(sessions(4), ctr_model, 60, seed))
        return np.concatenate([act(observed(sessions(n), 2)) for n in (3, 5)])

    first = served(0)
    assert np.array_equal(first, served(0))
    act = ALL[name](TrainingTask(sessions(4), ctr_model, 60, 0))
    observations = observed(sessions(3), 2)
    again = [act(observations) for _ in range(5)]
    alike = all(np.array_equal(slates, again[0]) for slates in again)
    assert alike == (name != "thompson")


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_setting_is_named(name: str, ctr_model: CTRModel, sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="there is no setting 'boldness'"):
        ALL[name](TrainingTask(sessions(2), ctr_model, 0, 0, {"boldness": 2}))


def test_what_is_searched_are_settings(ctr_model: CTRModel, sessions: Sessions) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {**bandits.SPACES, **linear_bandits.SPACES}
    assert spaces.keys() == ALL.keys()
    for name, space in spaces.items():
        drawn = space(optuna.create_study().ask())
        assert drawn
        ALL[name](TrainingTask(sessions(2), ctr_model, 0, 0, drawn))
