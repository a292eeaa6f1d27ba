"""What ``gym.make`` takes: typed signatures agree with the engines, and a wrong keyword is told the right one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np
import pytest

import rapport
from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.envs.common.arguments import check_arguments
from rapport.envs.session.arguments import CoreArguments, LogArguments, SessionArguments
from rapport.envs.session.factory import session_core
from rapport.envs.session.kuairand import KuaiRandArguments, kuairand_core, kuairand_env
from rapport.envs.session.kuairand_satiation import SatiationArguments, satiation_core
from rapport.envs.session.kuairec import KuaiRecArguments, kuairec_core


def keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of a function's keyword-only arguments."""
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("kind", "inside", "functions"),
    [
        (CoreArguments, {}, [session_core]),
        (KuaiRandArguments, CoreArguments, [kuairand_core]),
        (SatiationArguments, CoreArguments, [satiation_core]),
        (KuaiRecArguments, SessionArguments, [kuairec_core]),
    ],
)
def test_signatures_are_what_the_engines_take(kind: type, inside: Any, functions: list[Callable[..., Any]]) -> None:
    taken = {} if inside == {} else get_type_hints(inside)
    for function in functions:
        taken |= keywords(function)
    assert get_type_hints(kind) == taken


def test_every_argument_has_a_line_and_no_default_is_wrong() -> None:
    """Defaults that a line names are those of the code."""
    defaults = {
        p.name: p.default
        for function in (session_core, kuairand_core, satiation_core, kuairec_core)
        for p in inspect.signature(function).parameters.values()
    }
    for kind in (SessionArguments, CoreArguments, LogArguments, KuaiRandArguments, SatiationArguments):
        source = inspect.getsource(kind)
        for name in [name for name in kind.__annotations__ if f"\n    {name}: " in source]:
            line = source.split(f"\n    {name}: ")[1].split('"""')[1]
            assert line.endswith(".") and "\n" not in line, name
            if "default " in line and line.rstrip(".").split("default ")[1][0].isdigit():
                assert float(line.split("default ")[1].split(";")[0].split(",")[0].rstrip(".")) == defaults[name], name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("max_episode_steps", "use max_steps$"),
        ("n_envs", "use num_envs$"),
        ("seed", r"give it to reset\(seed=\.\.\.\)$"),
        ("bugdet", "use budget, or another of among, autoreset_mode, budget, copy, data, "),
        ("quit_rules", "use quit_rule, or another of "),
        ("zzz", "use one of among, autoreset_mode, budget, copy, "),
    ],
)
def test_a_wrong_keyword_is_told_the_right_one(name: str, advice: str) -> None:
    with pytest.raises(TypeError, match=f"^unknown argument '{name}'; {advice}"):
        gym.make_vec("rapport/KuaiRand-v0", num_envs=2, **{name: 5})


def test_what_only_a_batch_takes_is_said_to_be_so() -> None:
    with pytest.raises(TypeError, match=r"^unknown argument 'num_envs'; it is one of gym\.make_vec"):
        kuairand_env(num_envs=3)  # type: ignore[call-arg]
    check_arguments(["budget", "copy"], SessionArguments, ["copy"])


@pytest.mark.parametrize("env_id", ["rapport/KuaiRand-v0", "rapport/KuaiRandSatiation-v0", "rapport/KuaiRec-v0"])
def test_no_data_set_is_printed(env_id: str, small_arguments: Callable[[str], dict[str, Any]]) -> None:
    """Gymnasium puts all arguments into its message; the data among them is told in a few words."""
    with pytest.raises(TypeError, match=r"^unknown argument 'foo'; use one of ") as caught:
        gym.make(env_id, foo=1, **small_arguments(env_id))
    message = str(caught.value)
    assert "SessionData('small', 40 users, 60 items, 1200 rows)" in message
    assert len(message) < 700 and "array" not in message
    with pytest.raises(TypeError) as caught:
        gym.make(env_id, foo=1)
    assert len(str(caught.value)) < 400


def test_data_sets_tell_their_sizes() -> None:
    assert repr(rapport.twin(n_users=20, n_items=40)).startswith("SessionData('twin', 20 users, 40 items, ")
    assert repr(synthetic_kuairec(n_users=30, n_truth_users=5, n_items=10)).startswith(
        "KuaiRec(SessionData('kuairec-synthetic', 30 users, 10 items, "
    )


@pytest.mark.parametrize(("limit", "length"), [(5, 5), (500, 7)])
def test_gymnasiums_own_time_limit_comes_on_top(
    limit: int, length: int, small_arguments: Callable[[str], dict[str, Any]]
) -> None:
    """``gym.make`` keeps ``max_episode_steps`` to itself: the session ends at whichever limit comes first."""
    arguments = small_arguments("rapport/KuaiRand")
    env = gym.make("rapport/KuaiRand-v0", max_episode_steps=limit, max_steps=7, quit_rule="never", **arguments)
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(np.zeros(6, np.int64))[2:4] for _ in range(length)]
        assert ends == [(False, False)] * (length - 1) + [(False, True)]
