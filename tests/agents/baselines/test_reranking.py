"""Rerankers agree with plain loops and brute force, keep to plans, repeat no item and leave the sessions alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.reranking import BASELINES, SPACES, greedy_map, marginal_slates, unexplained
from rapport.agents.baselines.task import TrainingTask
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData

pytestmark = pytest.mark.filterwarnings("error")

SEEDS = st.integers(0, 2**31)
Array = NDArray[Any]


@pytest.fixture
def task(ctr_model: CTRModel, sessions: Callable[..., PlannedVectorEnv]) -> Callable[..., TrainingTask]:
    return lambda **chosen: TrainingTask(sessions(4, random_plans=True), ctr_model, 0, 0, chosen)


def observed(env: PlannedVectorEnv, steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    observations, _ = env.reset(seed=0)
    for _ in range(steps):
        observations, *_ = env.step(rng.integers(150, size=(env.num_envs, 6)))
    return observations


def likeness_of(model: CTRModel, one: int, other: int, share: float) -> float:
    a, b = model.items[one].double().numpy(), model.items[other].double().numpy()
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return share * float(model.category[one] == model.category[other]) + (1 - share) * (1 + cosine) / 2


# --- determinantal point process --------------------------------------------------------------------------------------


def some_kernels(seed: int, rank: int, batch: int = 3, n: int = 12) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(batch, n, rank))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return rng.normal(scale=2.0, size=(batch, n)), vectors @ vectors.transpose(0, 2, 1)


def brute_force(log_quality: Array, similarity: Array, k: int) -> list[int]:
    """Every item's determinant, computed from nothing at every step."""
    quality = np.exp(log_quality)
    kernel = quality[:, None] * similarity * quality
    chosen: list[int] = []
    for _ in range(k):
        gains = {
            i: np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1]
            for i in range(len(kernel))
            if i not in chosen and np.isfinite(log_quality[i])
        }
        chosen.append(max(gains, key=lambda i: gains[i]))
    return chosen


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, k=st.integers(1, 6), barred=st.integers(0, 5))
def test_greedy_map_is_brute_force(seed: int, k: int, barred: int) -> None:
    log_quality, similarity = some_kernels(seed, rank=15)
    log_quality[:, np.random.default_rng(seed).permutation(12)[:barred]] = -np.inf
    got = greedy_map(torch.tensor(log_quality), torch.tensor(similarity), k)
    assert got.tolist() == [brute_force(q, s, k) for q, s in zip(log_quality, similarity, strict=True)]


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_once_nothing_adds_volume_quality_decides(seed: int) -> None:
    log_quality, similarity = some_kernels(seed, rank=2)
    got = greedy_map(torch.tensor(log_quality), torch.tensor(similarity), 6)
    for quality, row, alike in zip(log_quality, got.tolist(), similarity, strict=True):
        assert row[:1] == brute_force(quality, alike, 1)
        rest = [i for i in range(12) if i not in row[:2]]
        assert row[2:] == sorted(rest, key=lambda i: -quality[i])[:4]


def test_qualities_of_any_size_do_no_harm() -> None:
    _, similarity = some_kernels(0, rank=15)
    log_quality = torch.linspace(-1e4, 1e4, 12, dtype=torch.float32).expand(3, 12)
    got = greedy_map(log_quality, torch.tensor(similarity, dtype=torch.float32), 3)
    assert got.tolist() == [[11, 10, 9]] * 3


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, gone=st.lists(st.booleans(), min_size=4, max_size=4))
def test_what_is_unexplained_is_the_process_given_items(seed: int, gone: list[bool]) -> None:
    """det(L_{G and A}) = det(L_G) det(L_A given G), whichever of the four items of G there are."""
    _, kernel = some_kernels(seed, rank=20)
    among, to_given, given_items = kernel[:, :8, :8], kernel[:, :8, 8:], kernel[:, 8:, 8:]
    there = ~np.tile(gone, (3, 1))
    tensors = [torch.tensor(part) for part in (among, to_given, given_items, there)]
    got = unexplained(*tensors, weight=1.0).numpy()
    assert np.array_equal(unexplained(*tensors, weight=0.0).numpy(), among)
    kept = [8 + g for g in range(4) if not gone[g]]
    for row, rest in zip(kernel, got, strict=True):
        both = [0, 3, 5, *kept]
        expected = np.linalg.slogdet(row[np.ix_(both, both)])[1] - np.linalg.slogdet(row[np.ix_(kept, kept)])[1]
        assert np.linalg.slogdet(rest[np.ix_([0, 3, 5], [0, 3, 5])])[1] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("steps", [0, 2])
def test_dpp_slates_are_brute_force_on_its_kernel(
    task: Callable[..., TrainingTask], sessions: Callable[..., PlannedVectorEnv], steps: int
) -> None:
    taught = task(quality=0.7, category_share=0.4, memory=0.0, candidates=40)
    observations = observed(sessions(3), steps)
    model = taught.ctr_model
    scores = model.click_scores(observations).double().numpy()
    for row, slate in enumerate(BASELINES["dpp"](taught)(observations)):
        items = np.argsort(-scores[row])[:40]
        similarity = np.array([[likeness_of(model, i, j, 0.4) for j in items] for i in items])
        assert slate.tolist() == items[brute_force(0.7 * scores[row, items], similarity, 6)].tolist()


# --- maximal marginal relevance ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, relevance=st.floats(0, 1), k=st.integers(1, 6))
def test_marginal_slates_are_a_plain_loop(seed: int, relevance: float, k: int) -> None:
    rng = np.random.default_rng(seed)
    gains, before, alike = rng.random((3, 10)), rng.random((3, 10)), rng.random((10, 10))
    gains[:, rng.integers(10, size=3)] = -np.inf
    table = torch.tensor(alike)
    got = marginal_slates(torch.tensor(gains), torch.tensor(before), lambda item: table[item], k, relevance)
    for row in range(3):
        chosen: list[int] = []
        for _ in range(k):
            worth = {
                i: relevance * gains[row, i] - (1 - relevance) * max([before[row, i], *(alike[j, i] for j in chosen)])
                for i in range(10)
                if i not in chosen and np.isfinite(gains[row, i])
            }
            chosen.append(max(worth, key=lambda i: worth[i]))
        assert got[row].tolist() == chosen


@pytest.mark.parametrize("steps", [0, 2])
def test_mmr_counts_the_slate_just_shown(
    task: Callable[..., TrainingTask], sessions: Callable[..., PlannedVectorEnv], steps: int
) -> None:
    taught = task(relevance=0.6, category_share=0.3, memory=0.8)
    observations = observed(sessions(3), steps)
    model = taught.ctr_model
    chance = torch.sigmoid(model.click_scores(observations).double()).numpy()
    slates = BASELINES["mmr"](taught)(observations)
    for row in range(3):
        last = (observations["history_items"][row, -6:] - 1).tolist() if steps else []
        alike = np.array([[likeness_of(model, i, j, 0.3) for j in range(150)] for i in [*last, *slates[row]]])
        redundancy = 0.8 * alike[: len(last)].max(axis=0) if last else np.zeros(150)
        for place, item in enumerate(slates[row]):
            worth = 0.6 * chance[row] - 0.4 * redundancy
            worth[slates[row, :place]] = -np.inf
            assert worth[item] == pytest.approx(worth.max(), abs=1e-6)
            redundancy = np.maximum(redundancy, alike[len(last) + place])


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chosen"), [*((name, {}) for name in BASELINES), ("mmr", {"relevance": 0.0}), ("dpp", {"quality": 0.0})]
)
def test_slates_keep_to_plans_and_repeat_nothing(
    name: str,
    chosen: dict[str, float],
    task: Callable[..., TrainingTask],
    sessions: Callable[..., PlannedVectorEnv],
    small_data: SessionData,
) -> None:
    act = BASELINES[name](task(**chosen))
    for n in (1, 7):
        env = sessions(n, random_plans=True)
        observations, _ = env.reset(seed=0)
        for _ in range(25):
            slates = act(observations)
            assert slates.shape == (n, 6) and all(len(set(slate)) == 6 for slate in slates.tolist())
            assert np.take_along_axis(observations["plan"], small_data.catalog.category[slates], axis=1).all()
            assert np.array_equal(slates, act(observations))
            observations, *_ = env.step(slates)


@pytest.mark.parametrize("name", BASELINES)
def test_sessions_are_left_alone(name: str, task: Callable[..., TrainingTask], monkeypatch: pytest.MonkeyPatch) -> None:
    taught = task()
    for verb in ("reset", "step"):
        monkeypatch.setattr(taught.sessions, verb, lambda *_, **__: pytest.fail("the sessions were touched"))
    BASELINES[name](taught)


@pytest.mark.parametrize(("name", "chosen"), [("mmr", {"relevance": 1.0}), ("dpp", {"quality": 1e4})])
def test_relevance_alone_is_greedy(
    name: str, chosen: dict[str, float], task: Callable[..., TrainingTask], sessions: Callable[..., PlannedVectorEnv]
) -> None:
    observations = observed(sessions(5), 3)
    got, best = BASELINES[name](task(**chosen))(observations), BASELINES["greedy"](task())(observations)
    assert np.array_equal(got, best)
    varied = BASELINES[name](task())(observations)
    assert not np.array_equal(varied, best)


def test_rerankers_show_more_categories(
    task: Callable[..., TrainingTask], sessions: Callable[..., PlannedVectorEnv], small_data: SessionData
) -> None:
    observations = observed(sessions(16), 3)
    category = small_data.catalog.category

    def kinds(name: str, **chosen: float) -> float:
        slates = BASELINES[name](task(**chosen))(observations)
        return float(np.mean([len(set(category[slate])) for slate in slates]))

    assert kinds("mmr", relevance=0.2, category_share=1.0) > kinds("greedy") + 0.5
    assert kinds("dpp", quality=0.1, category_share=1.0) > kinds("greedy") + 0.5


@pytest.mark.parametrize("name", BASELINES)
def test_an_unknown_setting_is_named(name: str, task: Callable[..., TrainingTask]) -> None:
    with pytest.raises(ValueError, match="there is no setting 'boldness'"):
        BASELINES[name](task(boldness=2))


def test_what_is_searched_are_settings(task: Callable[..., TrainingTask]) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, space in SPACES.items():
        drawn = space(optuna.create_study().ask())
        assert drawn
        BASELINES[name](task(**drawn))
