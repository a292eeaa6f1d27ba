"""Quit rules and response models of one's own: what they lack is said in a sentence when an environment is made."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.envs.session.response.base import MatrixResponse


class Rule:
    """A quit rule that is right: 1 per slate, and 1 for each slate before it."""

    name = "dearer and dearer"

    def initial_memory(self, users: np.ndarray) -> Any:
        return np.zeros((len(users), 1))

    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        memory += 1
        return memory[:, 0].copy()


class Nameless(Rule):
    name = None  # type: ignore[assignment]


class Vast(Rule):
    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        return memory


class Paid(Rule):
    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        return np.full(len(memory), -1.0)


class Undecided(Rule):
    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        return np.zeros(len(memory)) / 0


class Listing(Rule):
    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        return [1.0] * len(memory)


class Failing(Rule):
    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        return np.ones(len(memory)) * slate.patience


class Forgetful(Rule):
    def initial_memory(self, users: np.ndarray) -> Any:
        return None


class Few(Rule):
    def initial_memory(self, users: np.ndarray) -> Any:
        return np.zeros((1, 1))


class Objects(Rule):
    def initial_memory(self, users: np.ndarray) -> Any:
        return np.full(len(users), None)


class Sharing(Rule):
    rows = np.zeros((9, 1))

    def initial_memory(self, users: np.ndarray) -> Any:
        return self.rows[: len(users)]


class Costly:
    name = "costly"

    def cost(self, memory: np.ndarray, slate: Any) -> Any:
        return np.ones(len(memory))


RULES = [
    (Costly(), r"^quit_rule=Costly: has no method initial_memory\(users\); docs/kuairand\.md shows all that it needs$"),
    (object(), r"^quit_rule=object: has no method initial_memory\(users\); "),
    (7, r"^quit_rule=int: has no method initial_memory\(users\); "),
    (Rule, r"^quit_rule=Rule: is a class; give an object of it, Rule\(\.\.\.\)$"),
    (Nameless(), r"^quit_rule=Nameless: has no name; give it the attribute name, a text for tables and rendered sess"),
    (Vast(), r"^quit_rule=Vast: cost returned shape \(1, 1\), float64 for 1 user\(s\); return .* shape \(1,\)$"),
    (Paid(), r"^quit_rule=Paid: cost returned -1\.0; a slate costs at least 0, or inf where the user leaves at once$"),
    (Undecided(), r"^quit_rule=Undecided: cost returned nan; a slate costs at least 0, or inf "),
    (Listing(), r"^quit_rule=Listing: cost returned list for 1 user\(s\); return an array of one number for each, sha"),
    (
        Failing(),
        r"^quit_rule=Failing: cost was called with the memory \(1, 1\) and a slate \(1, 6\), and raised ",
    ),
    (
        Forgetful(),
        r"^quit_rule=Forgetful: initial_memory returned NoneType for 1 user\(s\); return an array",
    ),
    (Few(), r"^quit_rule=Few: initial_memory returned shape \(1, 1\), float64 for 2 user\(s\); return an a"),
    (
        Objects(),
        r"^quit_rule=Objects: initial_memory returned an array of object; return numbers, which sessions",
    ),
    (Sharing(), r"^quit_rule=Sharing: initial_memory returned the same memory again; return a new array, which the se"),
]


@pytest.mark.parametrize(("rule", "message"), RULES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_a_quit_rule_lacks_is_said(
    rule: Any, message: str, small_data: SessionData, matrix_response: MatrixResponse
) -> None:
    for maker in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            maker("rapport/KuaiRand-v0", data=small_data, response=matrix_response, quit_rule=rule)


def test_a_quit_rule_that_is_right_is_taken(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    env = gym.make("rapport/KuaiRand-v0", data=small_data, response=matrix_response, quit_rule=Rule(), budget=15)
    for _ in range(2):  # its trial leaves no trace
        env.reset(seed=0)
        ends = [env.step(np.zeros(6, int))[2] for _ in range(5)]
        assert ends == [False] * 4 + [True]  # 1 + 2 + 3 + 4 + 5


def test_costs_are_checked_as_sessions_go_on(small_data: SessionData, matrix_response: MatrixResponse) -> None:
    class Late(Rule):
        def cost(self, memory: np.ndarray, slate: Any) -> Any:
            memory += 1
            return np.where(memory[:, 0] > 3, np.nan, 1.0)

    env = gym.make_vec("rapport/KuaiRand-v0", num_envs=2, data=small_data, response=matrix_response, quit_rule=Late())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^quit_rule=Late: cost returned nan; a slate costs at least 0"):
        for _ in range(5):
            env.step(np.zeros((2, 6), int))


class Response:
    """A response model that is right: users get used to it, whatever it is."""

    behaviours = ("click", "long_view", "like", "comment", "forward", "follow", "hate")

    def initial_state(self, users: np.ndarray) -> Any:
        return np.zeros((len(users), 1), np.float32)

    def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> Any:
        chance = np.minimum(state / 4, 1)[:, :, None]
        return np.broadcast_to(chance, (*slates.shape, 7)).astype(np.float32)

    def advance(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> Any:
        return state + 1


class Certain(Response):
    def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> Any:
        return super().probabilities(state, users, slates) + 1.5


class Unknown(Response):
    def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> Any:
        return super().probabilities(state, users, slates) * np.nan


class Flat(Response):
    def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> Any:
        return np.zeros(slates.shape)


class Strange(Response):
    behaviours = ("click",)


class Silent(Response):
    behaviours = None  # type: ignore[assignment]


class Stateless(Response):
    def initial_state(self, users: np.ndarray) -> Any:
        return np.zeros(len(users))


class Growing(Response):
    def advance(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> Any:
        return np.concatenate([state, feedback.mean(axis=1)], axis=1)


class Gone(Response):
    def advance(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray, feedback: np.ndarray) -> Any:
        state += 1


class Frozen(Response):
    def initial_state(self, users: np.ndarray) -> Any:
        return np.broadcast_to(np.float32(0), (len(users), 1))


class Stuck:
    behaviours = Response.behaviours
    initial_state = Response.initial_state
    probabilities = Response.probabilities


RESPONSES = [
    (
        Stuck(),
        r"^response=Stuck: has no method advance\(state, users, slates, feedback\); docs/kuairand\.md shows all ",
    ),
    (0.5, r"^response=float: has no method initial_state\(users\); "),
    (Response, r"^response=Response: is a class; give an object of it, Response\(\.\.\.\)$"),
    (
        Strange(),
        r"^response=Strange: its behaviours are \('click',\); give it the attribute behaviours=\('click', ",
    ),
    (Silent(), r"^response=Silent: its behaviours are None; give it the attribute behaviours=\('click', 'long_view"),
    (Certain(), r"^response=Certain: probabilities returned 1\.5; they must lie in \[0, 1\]$"),
    (Unknown(), r"^response=Unknown: probabilities returned nan; they must lie in \[0, 1\]$"),
    (Flat(), r"^response=Flat: probabilities returned shape \(1, 6\), float64; return one .* shape \(1, 6, 7\)$"),
    (
        Stateless(),
        r"^response=Stateless: initial_state returned shape \(1,\), float64 for 1 user\(s\); return an arr",
    ),
    (Growing(), r"^response=Growing: advance returned shape \(1, 8\), float\d+ for a state of shape \(1, 1\); return "),
    (Gone(), r"^response=Gone: advance returned NoneType for a state of shape \(1, 1\); return "),
    (Frozen(), r"^response=Frozen: initial_state returned the same memory again; return a new array"),
]


@pytest.mark.parametrize(("response", "message"), RESPONSES)
def test_what_a_response_model_lacks_is_said(response: Any, message: str, small_data: SessionData) -> None:
    for maker in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            maker("rapport/KuaiRand-v0", data=small_data, response=response)
    with pytest.raises(ValueError, match=message):  # before satiation is put around it
        gym.make("rapport/KuaiRandSatiation-v0", data=small_data, response=response)


def test_a_response_model_that_is_right_is_taken(small_data: SessionData) -> None:
    env = gym.make("rapport/KuaiRand-v0", data=small_data, response=Response(), quit_rule="never", max_steps=6)
    for _ in range(2):
        env.reset(seed=0)
        rewards = [env.step(np.arange(6))[1] for _ in range(6)]
        assert rewards[0] == 0 and rewards[4:] == [1, 1]


def test_probabilities_are_checked_as_sessions_go_on(small_data: SessionData) -> None:
    class Rising(Response):
        def probabilities(self, state: np.ndarray, users: np.ndarray, slates: np.ndarray) -> Any:
            return np.broadcast_to((state / 4)[:, :, None], (*slates.shape, 7))

    env = gym.make("rapport/KuaiRand-v0", data=small_data, response=Rising(), quit_rule="never")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^response=Rising: probabilities returned 1\.25; they must lie in \[0, 1\]$"):
        for _ in range(6):
            env.step(np.arange(6))


def test_a_matrix_that_does_not_fit_is_refused(small_data: SessionData) -> None:
    behaviours = small_data.log.behaviours
    few_items = MatrixResponse(np.zeros((200, 149, 7)), behaviours)
    with pytest.raises(ValueError, match=r"^response: a matrix of 149 items where the data has 150; give one col"):
        gym.make("rapport/KuaiRand-v0", data=small_data, response=few_items)
    few_users = MatrixResponse(np.zeros((100, 150, 7)), behaviours)
    with pytest.raises(ValueError, match=r"^response: the matrix has no row for \d+ users that sessions are drawn"):
        gym.make("rapport/KuaiRand-v0", data=small_data, response=few_users)
    env = gym.make("rapport/KuaiRand-v0", data=small_data, response=few_users, among=np.arange(100))
    with pytest.raises(ValueError, match=r"^options\['user'\]: the responses of user 100 are not known; choose one of"):
        env.reset(options={"user": 100})
