"""Checkpoints agree with the settings they were made with, whatever a planner was called when they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapport.agents.checkpoint import CheckpointError, check_note
from rapport.agents.planning.build import STORED_TOP_K, TOP_K_PREFERENCE, control_planner
from rapport.datasets.schema import SessionData

PATH = Path("agent.safetensors")


def note(planner: str, **changes: Any) -> dict[str, Any]:
    return {"seed": 0, "planner": {"name": planner, "period": 1, "rest": None, **changes}}


@pytest.mark.parametrize("stored", [STORED_TOP_K, TOP_K_PREFERENCE])
@pytest.mark.parametrize("expected", [STORED_TOP_K, TOP_K_PREFERENCE])
def test_a_planner_may_be_stored_by_either_name(stored: str, expected: str) -> None:
    given = note(stored)
    check_note(PATH, given, note(expected))
    assert given == note(stored)
    with pytest.raises(CheckpointError, match=r"^checkpoint agent.safetensors: made with planner="):
        check_note(PATH, given, note(expected, period=2))
    with pytest.raises(CheckpointError, match=r"^checkpoint agent.safetensors: made with planner="):
        check_note(PATH, given, note("rotation"))


def test_the_stored_name_is_the_one_of_old_files() -> None:
    assert (STORED_TOP_K, TOP_K_PREFERENCE) == ("lasting preference", "top-k preference")


def test_a_planner_is_found_by_either_name(small_data: SessionData) -> None:
    rng = np.random.default_rng(0)
    old, new = (vars(control_planner(name, small_data, rng)) for name in (STORED_TOP_K, TOP_K_PREFERENCE))
    assert old.keys() == new.keys() and all(np.array_equal(old[key], new[key]) for key in old)
    with pytest.raises(ValueError, match=r"planner='luck' is unknown; choose one of none, random, .*top-k preference$"):
        control_planner("luck", small_data, rng)
