"""The Gymnasium face of the engine: checkers, seeds, endings, infos, errors, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import rapport  # noqa: F401 - registers the environments
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.response.learned import SequenceResponse

pytestmark = pytest.mark.filterwarnings("error")

ID = "rapport/KuaiRand-v0"


@pytest.fixture
def make(small_data: SessionData, matrix_response: MatrixResponse) -> Callable[..., gym.Env[Any, Any]]:
    def made(**arguments: Any) -> gym.Env[Any, Any]:
        return gym.make(ID, **{"data": small_data, "response": matrix_response, **arguments})

    return made


@pytest.fixture
def make_vec(small_data: SessionData, matrix_response: MatrixResponse) -> Callable[..., Any]:
    def made(n: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **arguments: Any) -> Any:
        settings = {"data": small_data, "response": matrix_response, **arguments}
        return gym.make_vec(ID, num_envs=n, autoreset_mode=mode, **settings)

    return made


def same(a: Any, b: Any) -> None:
    """Assert that two observations, infos or arrays are equal, down to dtypes."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


# --- checkers ---------------------------------------------------------------------------------------------------------


def test_checkers_find_nothing_with_a_learned_response(
    make: Callable[..., gym.Env[Any, Any]], sequence_response: SequenceResponse
) -> None:
    env = make(response=sequence_response)
    check_env(env.unwrapped)
    sb3_check_env(env)


# --- one seed, one trajectory -----------------------------------------------------------------------------------------


def trajectory(env: gym.Env[Any, Any], seed: int | None, slates: np.ndarray) -> list[Any]:
    """Everything an environment says while it is fed slates, reset as in Gymnasium's NEXT_STEP."""
    out: list[Any] = [env.reset(seed=seed)]
    ended = False
    for slate in slates:
        if ended:
            observation, info = env.reset()
            out.append((observation, 0.0, False, False, info))
            ended = False
        else:
            out.append(env.step(slate))
            ended = out[-1][2] or out[-1][3]
    return out


def test_one_seed_gives_one_trajectory(make: Callable[..., gym.Env[Any, Any]]) -> None:
    slates = np.random.default_rng(0).integers(150, size=(60, 6))
    first, again = trajectory(make(), 7, slates), trajectory(make(), 7, slates)
    used = make()
    trajectory(used, 1, slates)
    for other in (again, trajectory(used, 7, slates)):
        for a, b in zip(first, other, strict=True):
            same(dict(enumerate(a)), dict(enumerate(b)))
    users = {step[-1]["user"] for step in first}
    assert len(users) >= 3
    assert {s[-1]["user"] for s in trajectory(make(), 8, slates)} != users


def test_without_a_seed_sessions_go_on_and_differ(make: Callable[..., gym.Env[Any, Any]]) -> None:
    env = make()
    env.reset(seed=3)
    users = [env.reset()[1]["user"] for _ in range(20)]
    assert len(set(users)) > 10
    assert [make().reset()[1]["user"] for _ in range(8)] != [make().reset()[1]["user"] for _ in range(8)]


def test_the_global_generators_are_left_alone(make: Callable[..., gym.Env[Any, Any]]) -> None:
    np.random.seed(0)  # noqa: NPY002 - the generator that must not be used
    before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    trajectory(make(), None, np.zeros((30, 6), int))
    assert pickle.dumps(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("n", [1, 3, 64])
@pytest.mark.parametrize("learned", [False, True], ids=["matrix", "learned"])
def test_slot_i_is_the_single_environment_of_seed_plus_i(
    make: Callable[..., gym.Env[Any, Any]],
    make_vec: Callable[..., Any],
    sequence_response: SequenceResponse,
    n: int,
    learned: bool,
) -> None:
    arguments = {"response": sequence_response} if learned else {}
    steps = 45
    slates = np.random.default_rng(n).integers(150, size=(steps, n, 6))
    env = make_vec(n, **arguments)
    batch = [env.reset(seed=11)]
    for step in range(steps):
        batch.append(env.step(slates[step]))
    for i in {0, n // 2, n - 1}:
        alone = trajectory(make(**arguments), 11 + i, slates[:, i])
        for (observations, *rest, info), (observation, *expected, own) in zip(batch, alone, strict=True):
            same({k: v[i] for k, v in observations.items()}, observation)
            assert [float(x[i]) for x in rest] == [float(x) for x in expected]
            valid = {k: v[i] for k, v in info.items() if not k.startswith("_") and info[f"_{k}"][i]}
            assert valid.keys() == own.keys()
            for key, value in own.items():
                np.testing.assert_array_equal(valid[key], value)


def test_a_list_of_seeds_seeds_slot_by_slot(make_vec: Callable[..., Any]) -> None:
    a, b = make_vec(3), make_vec(3)
    same(a.reset(seed=[4, 5, 6])[0], b.reset(seed=4)[0])
    a.reset(seed=[4, None, 6])
    same(a.reset(seed=[9, None, None])[0]["history_items"][1], sessions_of(make_vec, 5)[2])


def sessions_of(make_vec: Callable[..., Any], seed: int) -> list[np.ndarray]:
    """Histories at the first three sessions of a slot."""
    env = make_vec(1)
    return [env.reset(seed=seed if i == 0 else None)[0]["history_items"][0] for i in range(3)]


# --- endings ----------------------------------------------------------------------------------------------------------


def test_the_autoreset_modes_agree(make_vec: Callable[..., Any]) -> None:
    """The same slates lead to the same sessions; NEXT_STEP only takes one more step between two of them."""
    n, steps = 8, 90
    slates = np.random.default_rng(1).integers(150, size=(steps, n, 6))
    sessions: dict[AutoresetMode, list[list[Any]]] = {}
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        env = make_vec(n, mode)
        observation, info = env.reset(seed=2)
        heard: list[list[Any]] = [[(info["user"][i], observation["history_items"][i].tolist())] for i in range(n)]
        fed, begun = np.zeros(n, int), np.zeros(n, bool)
        for _ in range(steps - 10):
            action = slates[fed, np.arange(n)]
            observation, reward, terminated, truncated, info = env.step(action)
            ended = terminated | truncated
            for i in range(n):
                if begun[i]:  # NEXT_STEP has just begun a session instead of showing the slate
                    assert not info["_categories"][i] and (info["categories"][i] == -1).all() and reward[i] == 0
                    heard[i].append((info["user"][i], observation["history_items"][i].tolist()))
                    continue
                fed[i] += 1
                same_step = mode == AutoresetMode.SAME_STEP and ended[i]
                last = info["final_obs"][i] if same_step else {k: v[i] for k, v in observation.items()}
                budget = (info["final_info"] if same_step else info)["budget"][i]
                heard[i].append((float(reward[i]), info["categories"][i].tolist(), budget, last["step"].tolist()))
                heard[i].append(last["history_items"].tolist())
                if same_step:
                    heard[i].append((info["user"][i], observation["history_items"][i].tolist()))
            begun = ended if mode == AutoresetMode.NEXT_STEP else np.zeros(n, bool)
        sessions[mode] = heard
    for a, b in zip(*sessions.values(), strict=True):
        assert len(b) > 100
        assert a[: len(b)] == b


def test_the_final_observation_is_of_the_session_that_ended(make_vec: Callable[..., Any]) -> None:
    """Checked against an independent record: the items served since the session began, and the next user's log."""
    n = 6
    env = make_vec(n, AutoresetMode.SAME_STEP)
    observation, info = env.reset(seed=0)
    data = env.core.data
    user, served = info["user"].copy(), [[] for _ in range(n)]
    before = observation["history_items"].copy()
    rng, ended_sessions = np.random.default_rng(3), 0
    for _ in range(80):
        slates = rng.integers(150, size=(n, 6))
        observation, _, terminated, truncated, info = env.step(slates)
        for i in range(n):
            served[i] += (slates[i] + 1).tolist()
            if not (terminated | truncated)[i]:
                continue
            ended_sessions += 1
            final = info["final_obs"][i]
            assert info["_final_obs"][i] and final in env.single_observation_space
            assert final["history_items"].tolist() == (before[i].tolist() + served[i])[-50:]
            assert final["step"].tolist() == [len(served[i]) // 6]
            np.testing.assert_array_equal(final["user_features"], data.population.features.codes[user[i]])
            assert info["final_info"]["user"][i] == user[i] and info["final_info"]["budget"][i] < 1
            assert info["budget"][i] == 20 and observation["step"][i] == 0
            user[i], served[i], before[i] = info["user"][i], [], observation["history_items"][i]
            np.testing.assert_array_equal(before[i], env.core.histories.items[user[i]])
            np.testing.assert_array_equal(observation["user_features"][i], data.population.features.codes[user[i]])
        if "final_obs" in info:
            gone = [i for i in range(n) if info["final_obs"][i] is not None]
            assert (
                gone == np.flatnonzero(info["_final_obs"]).tolist() == np.flatnonzero(terminated | truncated).tolist()
            )
    assert ended_sessions > 20


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_gymnasiums_vector_wrappers_work(make_vec: Callable[..., Any], mode: AutoresetMode) -> None:
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(make_vec(4, mode))
    if mode == AutoresetMode.NEXT_STEP:  # the only one that Gymnasium's observation wrappers take
        wrapped = gym.wrappers.vector.FlattenObservation(wrapped)
    env = gym.wrappers.vector.DictInfoToList(wrapped)
    env.reset(seed=0)
    n_ended, rewards = 0, np.zeros(4)
    slates = np.random.default_rng(0).integers(150, size=(40, 4, 6))
    for step in range(40):
        _, reward, terminated, truncated, infos = env.step(slates[step])
        rewards += reward
        ended = terminated | truncated
        for i in range(4):
            assert (
                ("final_obs" in infos[i])
                == ("final_info" in infos[i])
                == (ended[i] and mode == AutoresetMode.SAME_STEP)
            )
            assert infos[i]["user"] in range(200)
            if ended[i]:
                assert infos[i]["episode"]["r"] == pytest.approx(rewards[i])
                rewards[i], n_ended = 0, n_ended + 1
    assert n_ended > 4


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_make_vec_modes_agree(small_data: SessionData, matrix_response: MatrixResponse, mode: str) -> None:
    """Gymnasium's own loop over single environments and the batch are one environment."""
    env = gym.make_vec(ID, num_envs=3, vectorization_mode=mode, data=small_data, response=matrix_response)
    env.reset(seed=5)
    slates = np.random.default_rng(5).integers(150, size=(40, 3, 6))
    rewards = np.array([env.step(slates[step])[1] for step in range(40)])
    reference = gym.make_vec(ID, num_envs=3, data=small_data, response=matrix_response)
    reference.reset(seed=5)
    np.testing.assert_array_equal(rewards, [reference.step(slates[step])[1] for step in range(40)])


def test_info_and_observations_belong_to_the_caller(make_vec: Callable[..., Any]) -> None:
    """Whatever a caller does to what it was given, the sessions go on untouched."""
    slates = np.random.default_rng(0).integers(150, size=(40, 4, 6))
    rewards, pictures = [], []
    for spoil in (False, True):
        env = make_vec(4, AutoresetMode.SAME_STEP, render_mode="ansi")
        given = [*env.reset(seed=0)]
        total = []
        for step in range(40):
            if spoil:
                for part in given:
                    for value in part.values():
                        if isinstance(value, np.ndarray) and value.dtype != object:
                            value[...] = 0
            observation, reward, _, _, info = env.step(slates[step].copy())
            total.append(reward.copy())
            given = [observation, info]
        rewards.append(total)
        pictures.append(env.render())
    np.testing.assert_array_equal(*rewards)
    assert pictures[0] == pictures[1]


# --- whose session ----------------------------------------------------------------------------------------------------


def test_users_come_from_their_pool(make_vec: Callable[..., Any], small_data: SessionData) -> None:
    held_out = set(np.flatnonzero(small_data.held_out).tolist())
    drawn = {}
    for users in ("train", "held_out", "all"):
        env = make_vec(64, users=users)
        drawn[users] = {u for seed in range(30) for u in env.reset(seed=64 * seed)[1]["user"].tolist()}
    assert drawn["held_out"] == held_out
    assert drawn["train"] == set(range(200)) - held_out
    assert drawn["all"] == set(range(200))


def test_users_are_drawn_uniformly(make_vec: Callable[..., Any]) -> None:
    env = make_vec(1000, users="held_out")
    drawn = np.concatenate([env.reset(seed=1000 * i)[1]["user"] for i in range(20)])
    _, counts = np.unique(drawn, return_counts=True)
    assert abs(((counts - 500) ** 2 / 500).sum() - 40) < 5 * np.sqrt(80)


def test_a_user_can_be_chosen(
    make: Callable[..., gym.Env[Any, Any]], make_vec: Callable[..., Any], small_data: SessionData
) -> None:
    stranger = int(np.flatnonzero(small_data.held_out)[0])
    observation, info = make(users="train").reset(seed=0, options={"user": stranger})
    assert info["user"] == stranger
    np.testing.assert_array_equal(observation["user_features"], small_data.population.features.codes[stranger])
    env = make_vec(3)
    assert env.reset(seed=0, options={"user": [5, 0, 199]})[1]["user"].tolist() == [5, 0, 199]
    assert env.reset(seed=0, options={"user": 9})[1]["user"].tolist() == [9, 9, 9]
    assert env.reset(seed=0, options={})[1]["user"].tolist() == env.reset(seed=0)[1]["user"].tolist()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slate", "message"),
    [
        ([1, 2, 3], r"^action: shape \(3,\) where \(6,\) item indices are needed$"),
        (7, r"^action: shape \(\) where \(6,\) item indices are needed$"),
        ([0, 1, 2, 3, 4, 150], r"^action: item 150 is outside \[0, 150\); a slate holds item indices$"),
        ([0, 1, 2, 3, 4, -1], r"^action: item -1 is outside \[0, 150\); a slate holds item indices$"),
        ([0.5] * 6, r"^action: dtype float64; a slate holds item indices, whole numbers$"),
    ],
)
def test_a_bad_slate_is_refused_and_costs_nothing(
    make: Callable[..., gym.Env[Any, Any]], make_vec: Callable[..., Any], slate: Any, message: str
) -> None:
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(np.array(slate))
    _, _, _, _, info = env.step(np.zeros(6, int))
    assert info["budget"] == 19
    batch = make_vec(2)
    batch.reset(seed=0)
    batched = message.replace(r"\(3,\)", r"\(2, 3\)").replace(r"\(\)", r"\(2,\)").replace(r"\(6,\)", r"\(2, 6\)")
    with pytest.raises(ValueError, match=batched):
        batch.step(np.array([slate, slate]))


def test_a_single_item_is_one_index(make: Callable[..., gym.Env[Any, Any]], make_vec: Callable[..., Any]) -> None:
    env = make(slate_size=None).unwrapped
    env.reset(seed=0)
    assert env.action_space == gym.spaces.Discrete(150)
    for item in (7, np.int64(7), np.array(7)):
        assert env.step(item)[-1]["categories"].shape == (1,)
    with pytest.raises(ValueError, match=r"^action: shape \(1,\) where \(\) item indices are needed$"):
        env.step(np.array([7]))
    with pytest.raises(ValueError, match=r"^action: item 150 is outside \[0, 150\); a slate holds item indices$"):
        env.step(150)
    batch = make_vec(3, slate_size=None)
    batch.reset(seed=0)
    assert batch.action_space == gym.spaces.MultiDiscrete([150] * 3)
    assert batch.step(np.array([1, 2, 3]))[-1]["categories"].shape == (3, 1)
    with pytest.raises(ValueError, match=r"^action: shape \(3, 1\) where \(3,\) item indices are needed$"):
        batch.step(np.array([[1], [2], [3]]))
    core = kuairand_core(1, data=batch.core.data, response=batch.core.response, slate_size=2)
    with pytest.raises(ValueError, match=r"^core.slate_size=2; it must be 1 where an action is a single item$"):
        SessionEnv(core, single_item=True)


def test_a_batch_of_the_wrong_size_is_refused(make_vec: Callable[..., Any]) -> None:
    env = make_vec(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action: shape \(3, 6\) where \(2, 6\) item indices are needed$"):
        env.step(np.zeros((3, 6), int))


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (200, r"^options\['user'\]: 200 is outside \[0, 200\); give indices of users$"),
        (-1, r"^options\['user'\]: -1 is outside \[0, 200\); give indices of users$"),
        (1.5, r"^options\['user'\]: 1.5; give the index of a user, or 1 of them$"),
        ([1, 2], r"^options\['user'\]: \[1, 2\]; give the index of a user, or 1 of them$"),
    ],
)
def test_a_user_who_is_not_there_is_refused(make: Callable[..., gym.Env[Any, Any]], user: Any, message: str) -> None:
    env = make()
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.zeros(6, int))
    with pytest.raises(ValueError, match=message):
        env.reset(options={"user": user})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, r"^budget=0; it must be at least 1$"),
        ({"budget": float("nan")}, r"^budget=nan; it must be at least 1$"),
        ({"budget": float("inf")}, r"^budget=inf; no user would ever leave"),
        ({"slate_size": 0}, r"^slate_size=0; it must be at least 1$"),
        ({"history": 0}, r"^history=0; it must be at least 1$"),
        ({"max_steps": 0}, r"^max_steps=0; it must be at least 1$"),
        ({"quit_rule": "bored"}, r"^quit_rule='bored' is unknown; choose one of positional, set_overlap, windowed"),
        ({"window": 0, "quit_rule": "windowed_count"}, r"^window=0; it must be at least 1$"),
        ({"weights": "best", "quit_rule": "satisfaction"}, r"^weights='best'; give 'first', 'ratio' or 7 numbers, for"),
        ({"users": "new"}, r"^users='new' is unknown; choose one of train, held_out, all$"),
        ({"profile": "best"}, r"^profile='best' is unknown; choose one of corrected, official$"),
        ({"data": "kuairec2"}, r"^dataset 'kuairec2' is unknown; choose one of "),
        ({"render_mode": "human"}, r"^render_mode='human' is unknown; choose one of ansi, rgb_array or None$"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # Gymnasium's own about a render mode that is not declared
def test_bad_arguments_are_named(
    small_data: SessionData, matrix_response: MatrixResponse, arguments: dict[str, Any], message: str
) -> None:
    for maker in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            maker(ID, **{"data": small_data, "response": matrix_response, **arguments})


def test_bad_batches_are_named(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    core = kuairand_core(2, data=small_data, response=matrix_response)
    with pytest.raises(
        ValueError, match=r"^core.n_envs=2; a SessionEnv holds one session: use SessionVectorEnv for mo"
    ):
        SessionEnv(core)
    with pytest.raises(ValueError, match=r"^autoreset_mode=.*; use AutoresetMode.NEXT_STEP or SAME_STEP$"):
        SessionVectorEnv(core, AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match=r"^num_envs=0; it must be at least 1$"):
        kuairand_core(0, data=small_data, response=matrix_response)
    with pytest.raises(ValueError, match=r"^seed: 3 seeds for 2 environments; give one each$"):
        SessionVectorEnv(core).reset(seed=[1, 2, 3])


def test_nothing_steps_without_a_session(make: Callable[..., gym.Env[Any, Any]], make_vec: Callable[..., Any]) -> None:
    env = make(budget=1).unwrapped
    for _ in range(2):  # never begun, then over
        with pytest.raises(ResetNeeded, match=r"^no session is running: call reset\(\) first$"):
            env.step(np.zeros(6, int))
        env.reset(seed=0)
        assert env.step(np.zeros(6, int))[2]
    with pytest.raises(ResetNeeded):
        make_vec(2).step(np.zeros((2, 6), int))


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("learned", [False, True], ids=["matrix", "learned"])
def test_a_copy_lives_the_same_life(
    make: Callable[..., gym.Env[Any, Any]],
    sequence_response: SequenceResponse,
    copied: Callable[[Any], Any],
    learned: bool,
) -> None:
    env = make(**({"response": sequence_response} if learned else {})).unwrapped
    env.reset(seed=1)
    slates = np.random.default_rng(2).integers(150, size=(30, 6))
    env.step(slates[0])
    twin = copied(env)
    for slate in slates[1:9]:
        a, b = env.step(slate), twin.step(slate)
        same(a[0], b[0])
        assert a[1:4] == b[1:4]
    same(env.reset()[0], twin.reset()[0])
