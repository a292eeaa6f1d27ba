"""The simulator's cache: one fit, identical afterwards, refitted where damaged, and never executed."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rapport.datasets.files.tensors import load_arrays, save_arrays
from rapport.datasets.schema import SessionData
from rapport.envs.session import simulator_cache as simulator
from rapport.envs.session.official.fit import OfficialSettings, fit_history_model
from rapport.envs.session.official.response import HistoryResponse
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.simulator_cache import load_official, load_simulator, simulator_path

pytestmark = pytest.mark.filterwarnings("error")

SETTINGS = FitSettings(epochs=1, batch_size=64)


@pytest.fixture(autouse=True)
def fresh_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a user model is fitted."""
    counted: list[int] = []
    original = simulator.fit_user_model

    def counting(*args: object, **kwargs: object) -> object:
        counted.append(1)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(simulator, "fit_user_model", counting)
    return counted


def responses(response: SequenceResponse | HistoryResponse) -> np.ndarray:
    users = np.arange(50)
    slates = np.arange(300).reshape(50, 6).astype(np.int32) % 150
    state = response.initial_state(users)
    for _ in range(3):
        state = response.advance(state, users, slates, np.ones((50, 6, 7), np.int8))
    return response.probabilities(state, users, slates)


def test_the_second_load_is_identical(small_data: SessionData, fits: list[int]) -> None:
    first, fitted = load_simulator(small_data, SETTINGS)
    second, again = load_simulator(small_data, SETTINGS)
    assert len(fits) == 1
    np.testing.assert_array_equal(responses(first), responses(second))
    assert torch.equal(fitted.calibration, again.calibration)
    for name, weight in fitted.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_random_numbers_do_not_depend_on_the_cache(small_data: SessionData) -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        load_simulator(small_data, SETTINGS)
        drawn.append(torch.rand(4).tolist())
    torch.manual_seed(0)
    assert drawn[0] == drawn[1] == torch.rand(4).tolist()


def test_other_data_and_settings_have_files_of_their_own(small_data: SessionData) -> None:
    from dataclasses import replace

    other_users = replace(small_data, held_out=~small_data.held_out)
    paths = {
        simulator_path(small_data, SETTINGS),
        simulator_path(small_data, replace(SETTINGS, profile="official")),
        simulator_path(small_data, replace(SETTINGS, seed=1)),
        simulator_path(other_users, SETTINGS),
    }
    assert len(paths) == 4


@pytest.mark.parametrize(
    "damage", ["truncated", "pickle", "empty", "of another catalogue", "one byte", "no checksum", "not finite"]
)
def test_a_damaged_file_is_fitted_anew_with_a_warning(
    small_data: SessionData, fits: list[int], caplog: pytest.LogCaptureFixture, tmp_path: Path, damage: str
) -> None:
    first, _ = load_simulator(small_data, SETTINGS)
    path = simulator_path(small_data, SETTINGS)
    trap = tmp_path / "executed"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "pickle":

        class Trap:
            def __reduce__(self) -> tuple[object, ...]:
                return os.mkdir, (str(trap),)

        path.write_bytes(pickle.dumps(Trap()))
    elif damage == "one byte":
        changed = bytearray(content)
        changed[-len(content) // 3] ^= 64  # an exponent somewhere among the weights
        path.write_bytes(changed)
    elif damage == "no checksum":
        arrays, note = load_arrays(path)
        save_file(arrays, path, metadata={"note": json.dumps(note)})
    elif damage == "not finite":
        arrays, note = load_arrays(path)
        save_arrays(path, {**arrays, "calibration": np.full_like(arrays["calibration"], np.nan)}, note)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        from rapport.datasets.twin import twin

        other = twin(n_users=60, n_items=40, seed=2)
        load_simulator(other, SETTINGS)
        path.write_bytes(simulator_path(other, SETTINGS).read_bytes())
        fits.pop()
    with caplog.at_level(logging.WARNING, "rapport"):
        caplog.clear()
        second, _ = load_simulator(small_data, SETTINGS)
    assert len(fits) == 2 and not trap.exists()
    assert [r.message for r in caplog.records] == [caplog.records[0].message]
    assert caplog.records[0].message.startswith(f"the cached simulator is fitted anew: {path}: ")
    np.testing.assert_array_equal(responses(first), responses(second))
    load_simulator(small_data, SETTINGS)
    assert len(fits) == 2


def test_lerls_model_is_kept_too(
    small_data: SessionData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = OfficialSettings(epochs=1, length=8)
    first = load_official(small_data, settings)
    monkeypatch.setattr(simulator, "fit_history_model", lambda *_: pytest.fail("fitted again"))
    second = load_official(small_data, settings, dropout=True)
    np.testing.assert_array_equal(responses(first), responses(load_official(small_data, settings)))
    assert second.dropout and not first.dropout and np.abs(responses(first) - responses(second)).max() > 1e-4
    monkeypatch.setattr(simulator, "fit_history_model", fit_history_model)
    path = simulator_path(small_data, settings)
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING, "rapport"):
        caplog.clear()
        third = load_official(small_data, settings)
    np.testing.assert_array_equal(responses(first), responses(third))
    assert caplog.records[0].message.startswith(f"the cached simulator is fitted anew: {path}: ")


def test_a_first_fit_says_that_it_takes_a_while(small_data: SessionData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rapport"):
        load_simulator(small_data, SETTINGS)
    assert [r.message for r in caplog.records] == [
        f"fitting the user model to twin ({len(small_data.log)} rows), once; kept in "
        f"{simulator_path(small_data, SETTINGS)}"
    ]


def test_a_cache_that_cannot_be_written_costs_no_more_than_a_warning(
    small_data: SessionData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "rapport"):
        response, _ = load_simulator(small_data, SETTINGS)
    assert responses(response).shape == (50, 6, 7)
    assert caplog.records[-1].message.startswith("the simulator could not be kept and will be fitted again: ")


def test_a_disk_that_is_full_when_a_fit_is_kept_costs_no_more_than_a_warning(
    small_data: SessionData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with caplog.at_level(logging.WARNING, "rapport"):
        response, _ = load_simulator(small_data, SETTINGS)
    assert responses(response).shape == (50, 6, 7)
    path = simulator_path(small_data, SETTINGS)
    assert caplog.records[-1].message == (
        f"the simulator could not be kept and will be fitted again: [Errno 28] No space left on device: '{path}'"
    )
    assert not list(path.parent.iterdir())


def test_a_long_fit_has_lines_in_the_log(
    small_data: SessionData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(simulator.time, "monotonic", lambda: now[0])
    report = simulator.logged(small_data)
    with caplog.at_level(logging.WARNING, "rapport"):
        for done in range(1, 11):
            now[0] += 15.0
            report(done, 10, 0.5)
    assert [record.message for record in caplog.records] == [
        f"fitting the user model to twin: {done}0 %, {left} min left" for done, left in ((2, 2), (4, 2), (6, 1), (8, 0))
    ]
