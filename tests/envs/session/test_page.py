"""The class docstrings are the environments' pages, and say what is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import rapport  # noqa: F401 - registers the environments
from rapport.envs.registration import ENVIRONMENTS
from rapport.envs.session.arguments import LogArguments, SessionArguments
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.kuairand import KuaiRandArguments
from rapport.envs.session.kuairec import KuaiRecArguments

DOCS = Path(__file__).resolve().parents[3] / "docs"
SECTIONS = [
    *("Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End", "Arguments"),
    *("Version History", "References"),
]


def sections(page: type) -> dict[str, str]:
    """Text of each section of a class docstring."""
    parts = re.split(r"^ *## (.+)$", page.__doc__ or "", flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def names(table: str) -> list[str]:
    """First column of a Markdown table, in which names stand in backticks."""
    return re.findall(r"^ *\| `(\w+)`", table, re.MULTILINE)


@pytest.mark.parametrize("page", [SessionEnv, SessionVectorEnv])
def test_sections_are_gymnasiums(page: type) -> None:
    assert list(sections(page)) == SECTIONS


def test_spaces_are_the_environments(small_arguments: Callable[[str], dict[str, Any]]) -> None:
    page = sections(SessionEnv)
    env = gym.make("rapport/KuaiRand-v0", **small_arguments("rapport/KuaiRand"))
    observation, _ = env.reset(seed=0)
    assert sorted(names(page["Observation Space"])) == list(env.observation_space) == list(observation)
    rows = re.findall(r"^ *\| `(\w+)` +\| \(.*?\) +\| (\w+)", page["Observation Space"], re.MULTILINE)
    assert dict(rows) == {name: str(space.dtype) for name, space in env.observation_space.items()}
    info = env.step(env.action_space.sample())[4]
    assert all(f"``{name}``" in page["Episode End"] for name in info)


def test_every_id_is_in_the_history() -> None:
    told = set(re.findall(r"`(rapport/\w+)`", sections(SessionEnv)["Version History"]))
    assert {f"{name}-v0" for name in told} == {name for name, *_ in ENVIRONMENTS}


def test_the_written_page_has_every_argument() -> None:
    arguments = (DOCS / "kuairand.md").read_text("utf-8").partition("## Arguments")[2].partition("\n## ")[0]
    told = set(names(arguments))
    wanted = SessionArguments.__annotations__.keys() | KuaiRandArguments.__annotations__.keys()
    assert told == (wanted | {"render_mode", "autoreset_mode", "copy"})
    own = set(names((DOCS / "kuairec.md").read_text("utf-8").partition("## Arguments")[2].partition("\n## ")[0]))
    assert own <= KuaiRecArguments.__annotations__.keys()
    assert own | SessionArguments.__annotations__.keys() | {"root"} == KuaiRecArguments.__annotations__.keys()
    assert LogArguments.__annotations__.keys() <= told
