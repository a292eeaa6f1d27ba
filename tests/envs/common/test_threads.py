"""One thread a process, unless more are asked for; their number is in the keys of what is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rapport.datasets.schema import SessionData
from rapport.envs.common.threads import more_threads, process_threads, threads, torch_threads
from rapport.envs.session import simulator_cache
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.simulator_cache import load_simulator, simulator_path

SETTINGS = FitSettings(epochs=1, batch_size=64)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAPPORT_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("wanted", "limit", "used"),
    [
        (None, None, 1),
        (None, "8", 1),
        ("3", None, 3),
        ("3", "2", 2),
        ("3", "2,4", 2),
        ("3", "8", 3),
        ("3", "nonsense", 3),
    ],
)
def test_one_thread_unless_more_are_asked_for_and_allowed(
    wanted: str | None, limit: str | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RAPPORT_THREADS", wanted), ("OMP_NUM_THREADS", limit)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert threads() == used
    assert more_threads() == ({} if used == 1 else {"threads": used})


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "", "1.5", "99999"])
def test_a_wrong_number_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_THREADS", wrong)
    with pytest.raises(ValueError, match=f"^RAPPORT_THREADS={wrong}: it must be a number of threads"):
        threads()


def test_a_command_and_its_processes_use_what_was_asked_for() -> None:
    before = torch.get_num_threads()
    with process_threads(3):
        assert torch.get_num_threads() == threads() == 3
        assert (os.environ["RAPPORT_THREADS"], os.environ["OMP_NUM_THREADS"]) == ("3", "3")
        with torch_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    assert "RAPPORT_THREADS" not in os.environ and "OMP_NUM_THREADS" not in os.environ


def test_torch_that_is_imported_later_has_one_thread() -> None:
    program = """
from rapport.envs.common.threads import process_threads
with process_threads(None):
    import torch
    print(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["1"]


def test_a_fit_is_the_same_whatever_torch_was_told_and_others_have_files_of_their_own(
    small_data: SessionData, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    used: list[int] = []
    original = simulator_cache.fit_user_model

    def fit(*args, **kwargs):
        used.append(torch.get_num_threads())
        return original(*args, **kwargs)

    monkeypatch.setattr(simulator_cache, "fit_user_model", fit)
    found = []
    for number in (1, 4):  # as a script that set torch's threads for its own purposes
        monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path / str(number)))
        with torch_threads(number):
            load_simulator(small_data, SETTINGS)
            assert torch.get_num_threads() == number
        found.append(simulator_path(small_data, SETTINGS).read_bytes())
    assert used == [1, 1] and found[0] == found[1]
    one = simulator_path(small_data, SETTINGS)
    monkeypatch.setenv("RAPPORT_THREADS", "2")
    assert simulator_path(small_data, SETTINGS) != one
