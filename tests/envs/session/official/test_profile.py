"""The official profile, step for step against a slow and plain reference of LERL's released environment."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.envs.session.engine.initial_histories import Histories
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core, kuairand_env, kuairand_vector_env
from rapport.envs.session.official.profile import (
    FAULTS,
    SUSPECTED,
    PlainPrior,
    chosen_faults,
    misaligned,
    official_arguments,
    official_response,
    official_settings,
)
from rapport.envs.session.official.response import HistoryResponse
from rapport.envs.session.official.user_model import HistoryModel, HistoryModelSize, new_history_model
from rapport.envs.session.response.base import MatrixResponse, ReadsHistories
from rapport.envs.session.response.fit import balanced_weights

pytestmark = pytest.mark.filterwarnings("error")

LENGTH = 7
NAMES = [*FAULTS, *SUSPECTED]


def _reference() -> ModuleType:
    path = Path(__file__).with_name("reference.py")
    spec = importlib.util.spec_from_file_location("official_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()


@functools.cache
def data() -> SessionData:
    """25 people and 14 items."""
    return twin(n_users=25, n_items=14, seed=1)


@functools.cache
def model(scramble: bool) -> HistoryModel:
    """Random weights, the scoring vectors drawn out so that history and slate matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        made = new_history_model(data(), HistoryModelSize(LENGTH, scramble=scramble)).eval()
    with torch.no_grad():
        made.scoring_norm.weight *= 12
        made.behaviour.weight *= 6
    return made


@functools.cache
def matrix() -> np.ndarray:
    """Chances of 25 people, 14 items and 7 behaviours, as the engine keeps them."""
    return np.random.default_rng(2).random((25, 14, 7), np.float32)


def weights(faults: frozenset[str]) -> list[float]:
    """#did / #did not of each behaviour in the rows learned from."""
    result = []
    log = data().log
    for f in range(7):
        rows = [
            int(feedback[f])
            for feedback, time in zip(log.feedback, log.time_ms, strict=True)
            if feedback[0] >= 0 and ("trained_on_everything" in faults or time < data().valid_from_ms)
        ]
        result.append(rows.count(1) / max(rows.count(0), 1))
    return result


def learned(faults: frozenset[str]) -> tuple[ReadsHistories, Any]:
    """The engine's response model and the reference's."""
    made = model("scrambled_history" in faults)
    histories = Histories.before(data(), data().test_from_ms, LENGTH)
    responses = HistoryResponse(made, histories, data().log.behaviours, dropout="dropout" in faults)

    def masks(user: int, history: list[tuple[int, list[int]]]) -> Any:
        items = np.array([[item for item, _ in history]], np.int32)
        done = np.array([[done for _, done in history]], np.int8)
        return responses._masks(responses.state_after(np.array([user]), items, done), np.array([user]))

    return official_response(data(), responses, faults), REFERENCE.Model(made, faults, weights(faults), masks)


def check_step(env: SessionVectorEnv, people: list[Any], slates: np.ndarray, lost_endings: bool) -> list[bool]:
    """One step of the engine and of every person; whoever is out is replaced. Who left."""
    core = env.core
    chances = core.response.probabilities(core.state, core.user, slates.astype(np.int32))
    expected_chances = [person.chances(slates[b].tolist()) for b, person in enumerate(people)]
    np.testing.assert_allclose(chances, expected_chances, rtol=0, atol=5e-5)
    seen, reward, terminated, truncated, info = env.step(slates)
    for b, person in enumerate(people):
        expected = person.show(slates[b].tolist(), expected_chances[b], info["feedback"][b].tolist())
        assert info["feedback"][b].tolist() == expected["feedback"]
        assert info["categories"][b].tolist() == expected["categories"]
        assert reward[b] == pytest.approx(expected["reward"]) and info["cost"][b] == pytest.approx(expected["cost"])
        assert (bool(terminated[b]), bool(truncated[b])) == (expected["left"], expected["cut"])
        ended = expected["left"] or expected["cut"]
        if ended:
            assert info["final_info"]["budget"][b] == pytest.approx(expected["temper"])
            person.begin()
            final = info["final_obs"][b]
            wanted = person.sees() if lost_endings else expected["last"]
            assert {name: value.tolist() for name, value in final.items()} == wanted
        check_seen(seen, info, b, person)
    return [bool(t) for t in terminated | truncated]


def check_seen(seen: dict[str, Any], info: dict[str, Any], b: int, person: Any) -> None:
    assert {name: value[b].tolist() for name, value in seen.items()} == person.sees()
    assert info["user"][b] == person.user and info["budget"][b] == pytest.approx(max(person.temper, 0.0))


def play(
    faults: frozenset[str],
    response: Any,
    responses: Any,
    *,
    seed: int,
    steps: int,
    slate_size: int,
    stays: float,
    n_envs: int = 3,
    **how: Any,
) -> int:
    """Live through random slates in both; items stay where they were with chance ``stays``. Sessions ended."""
    env = kuairand_vector_env(
        n_envs,
        data=data(),
        profile="official",
        faults=tuple(faults),
        response=response,
        users="all",
        history=LENGTH,
        slate_size=slate_size,
        quit_rule=how["rule"],
        budget=how["temper"],
        max_steps=how["max_steps"],
    )
    people = [REFERENCE.Person(data(), responses, seed + b, faults=faults, length=LENGTH, **how) for b in range(n_envs)]
    seen, info = env.reset(seed=seed)
    for b, person in enumerate(people):
        check_seen(seen, info, b, person)
    rng = np.random.default_rng(seed)
    slates, ended = rng.integers(14, size=(n_envs, slate_size)), 0
    for _ in range(steps):
        kept = rng.random(slates.shape) < stays
        slates = np.where(kept, slates, rng.integers(14, size=slates.shape))
        ended += sum(check_step(env, people, slates, "lost_endings" in faults))
    return ended


FAULT_SETS = st.frozensets(st.sampled_from(NAMES))
HOW = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "slate_size": st.integers(1, 6),
        "stays": st.sampled_from([0.0, 0.1, 0.5]),
        "rule": st.sampled_from(["positional", "positional", "set_overlap", "satisfaction", "never"]),
        "temper": st.sampled_from([20, 5, 1]),
        "max_steps": st.sampled_from([50, 6]),
    }
)


@settings(max_examples=30, deadline=None)
@given(FAULT_SETS, HOW)
def test_the_engine_is_the_reference_with_a_matrix(faults: frozenset[str], how: dict[str, Any]) -> None:
    behaviours = data().log.behaviours
    play(faults, MatrixResponse(matrix(), behaviours), REFERENCE.looked_up(matrix()), steps=30, **how)


@settings(max_examples=10, deadline=None)
@given(FAULT_SETS, HOW)
def test_the_engine_is_the_reference_with_its_own_response_model(faults: frozenset[str], how: dict[str, Any]) -> None:
    play(faults, *learned(faults), steps=7, n_envs=2, **how)


@pytest.mark.parametrize("faults", [frozenset(FAULTS), frozenset(NAMES), frozenset()], ids=["all", "suspected", "none"])
def test_whole_sessions_of_the_released_setting(faults: frozenset[str]) -> None:
    how: dict[str, Any] = {"rule": "positional", "temper": 20, "max_steps": 50, "slate_size": 6, "stays": 0.05}
    assert play(faults, *learned(faults), seed=3, steps=24, n_envs=1, **how) >= 1


@pytest.mark.parametrize("name", ["balanced_prior", "dropout", "scrambled_history", "shrunken_penalty"])
def test_each_fault_of_the_responses_changes_them_alone(name: str) -> None:
    """So that agreement with the reference is no accident of faults that do nothing."""
    users, slates = np.arange(25), np.random.default_rng(0).integers(14, size=(25, 6)).astype(np.int32)
    chances = []
    for faults in (frozenset[str](), frozenset([name])):
        response = learned(faults)[0]
        chances.append(response.probabilities(response.initial_state(users), users, slates))
    assert np.abs(chances[0] - chances[1]).max() > 0.01
    assert (chances[1] >= 0).all() and (chances[1] <= 1).all()


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=20, max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_session_lasts_until_slates_and_violations_make_twenty(plan: list[list[int]]) -> None:
    """T is the smallest n with n + violations among the first n slates >= 20; the limit of 20 is never missed."""
    category = data().catalog.category
    of = [int(np.flatnonzero(category == c)[0]) for c in np.unique(category)[:4]]
    env = kuairand_env(data=data(), profile="official", response=MatrixResponse(matrix(), data().log.behaviours))
    env.reset(seed=0)
    violations, lasted = 0, 0
    for n, slate in enumerate(plan, start=1):
        violations += n > 1 and any(a == b for a, b in zip(slate, plan[n - 2], strict=True))
        lasted = n
        left = env.step([of[c] for c in slate])[2]
        assert left == (n + violations >= 20)
        if left:
            break
    assert 11 <= lasted <= 20


def test_more_rows_come_more_often() -> None:
    """With `log_row_start` users come as often as they have rows, without it equally often."""
    response = MatrixResponse(matrix(), data().log.behaviours)
    rows = np.bincount(data().log.user, minlength=25)
    for faults, expected in (
        (("log_row_start", "trained_on_everything"), rows / rows.sum()),
        ("none", np.full(25, 1 / 25)),
    ):
        env = kuairand_vector_env(4000, data=data(), profile="official", faults=faults, response=response, users="all")
        drawn = np.bincount(env.reset(seed=5)[1]["user"], minlength=25)
        excess = (drawn - 4000 * expected) / np.sqrt(4000 * expected * (1 - expected))
        assert np.abs(excess).max() < 4.5


def test_the_days_that_are_kept_apart() -> None:
    """Only `trained_on_everything` begins sessions on the test days or learns from them."""
    for names, any_day in ((["log_row_start"], False), (["log_row_start", "trained_on_everything"], True)):
        faults = frozenset(names)
        response = MatrixResponse(matrix(), data().log.behaviours)
        core = kuairand_core(1, data=data(), profile="official", faults=names, response=response)
        assert core.log_rows is not None
        assert (data().log.time_ms[core.log_rows.rows] >= data().test_from_ms).any() == any_day
        assert official_settings(faults).all_days == any_day
    assert kuairand_core(1, data=data(), profile="official", faults="none", response=response).log_rows is None


def test_the_plain_prior_undoes_the_weighting() -> None:
    """Whoever minimises the weighted loss says pi / (pi + w (1 - pi)); that is led back to pi."""
    truth = np.random.default_rng(0).uniform(0.01, 0.99, (25, 14, 7)).astype(np.float32)
    w = np.array([0.8, 0.4, 0.02, 0.01, 0.001, 3.0, 1.0], np.float32)
    weighted = MatrixResponse(truth / (truth + w * (1 - truth)), data().log.behaviours)
    users, slates = np.arange(25), np.tile(np.arange(14, dtype=np.int32), (25, 1))
    np.testing.assert_allclose(
        PlainPrior(weighted, w).probabilities(np.zeros((25, 0)), users, slates), truth, atol=1e-4
    )
    counted = balanced_weights(data().log.feedback[data().log.feedback[:, 0] >= 0])[1].tolist()
    assert weights(frozenset(["trained_on_everything"])) == pytest.approx(counted)


def test_misaligned_categories_are_the_same_ones_elsewhere() -> None:
    wrong = misaligned(data())
    assert wrong.catalog.category.tolist() == REFERENCE.released_categories(data())
    assert sorted(wrong.catalog.category) == sorted(data().catalog.category)
    assert (wrong.catalog.category != data().catalog.category).any() and not wrong.catalog.category.flags.writeable
    assert wrong.fingerprint != data().fingerprint and wrong.log is data().log
    few = dataclasses.replace(data(), log=dataclasses.replace(data().log, item=np.minimum(data().log.item, 3)))
    assert misaligned(few).catalog.category.tolist() == REFERENCE.released_categories(few)


# --- switches ---------------------------------------------------------------------------------------------------------


def test_faults_by_name() -> None:
    assert chosen_faults(None, "official") == chosen_faults("all", "official") == set(FAULTS)
    assert chosen_faults("none", "official") == chosen_faults(None, "corrected") == frozenset()
    assert chosen_faults((), "corrected") == chosen_faults("none", "corrected") == frozenset()
    for name in NAMES:
        assert chosen_faults(name, "official") == chosen_faults([name], "official") == {name}


def test_bad_switches_are_named() -> None:
    with pytest.raises(ValueError, match=r"^faults: there is no 'drop'; choose 'all', 'none' or some of bal"):
        kuairand_core(1, data=data(), profile="official", faults=["dropout", "drop"])
    with pytest.raises(ValueError, match=r"^faults='all' with profile='corrected', which has none; give profile='off"):
        kuairand_core(1, data=data(), faults="all")
    with pytest.raises(ValueError, match=r"^profile='oficial' is unknown; choose one of corrected, official$"):
        kuairand_core(1, data=data(), profile="oficial")  # type: ignore[arg-type]


def test_what_the_profile_sets_and_what_is_given() -> None:
    response = MatrixResponse(matrix(), data().log.behaviours)
    core = kuairand_core(1, data=data(), profile="official", response=response)
    assert (core.length, core.slate_size, core.start_budget, core.quit_rule.name) == (100, 6, 20, "positional")
    other = kuairand_core(
        1, data=data(), profile="official", response=response, history=9, start_at_log_rows=False, quit_rule="never"
    )
    assert (other.length, other.log_rows, other.quit_rule.name) == (9, None, "never")
    assert official_arguments(frozenset()) == {"history": 100, "start_at_log_rows": False}


def test_who_leaves_is_replaced_at_once() -> None:
    response = MatrixResponse(matrix(), data().log.behaviours)
    for profile, mode in (("official", AutoresetMode.SAME_STEP), ("corrected", AutoresetMode.NEXT_STEP)):
        env = kuairand_vector_env(2, data=data(), profile=profile, response=response)
        assert env.autoreset_mode == mode and env.lost_endings == (profile == "official")
    asked = kuairand_vector_env(2, AutoresetMode.NEXT_STEP, data=data(), profile="official", response=response)
    assert asked.autoreset_mode == AutoresetMode.NEXT_STEP
