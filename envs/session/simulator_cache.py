"""The cache of fitted simulators."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rapport.datasets.files.directory import cache_directory
from rapport.datasets.files.tensors import load_arrays, save_arrays
from rapport.datasets.schema import DataError, SessionData
from rapport.envs.common.preparation import Progress
from rapport.envs.common.threads import threads, torch_threads
from rapport.envs.session.engine.initial_histories import Histories
from rapport.envs.session.official.fit import OfficialSettings, fit_history_model
from rapport.envs.session.official.response import HistoryResponse
from rapport.envs.session.official.user_model import HistoryModel, new_history_model
from rapport.envs.session.response.fit import FitSettings, Fitted, Report, fit_user_model, states_after
from rapport.envs.session.response.learned import SequenceResponse
from rapport.envs.session.response.user_model import UserModelSize, new_user_model

Arrays = dict[str, NDArray[np.generic]]
Kept = TypeVar("Kept")

LOGGER = logging.getLogger("rapport")

LINE_SECONDS = 30.0
"""Time between two lines in the log during a fit that nobody shows [s]."""
VERSION = 6
"""Raise it when the user model or its fit changes, so that cached simulators are fitted again."""


def simulator_path(data: SessionData, settings: FitSettings | OfficialSettings) -> Path:
    """Path in the cache of the simulator of this data with these settings, fitted on as many threads as are in use."""
    recipe = json.dumps([VERSION, data.fingerprint, asdict(settings), threads()], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()[:24]
    kind = "-lerl" if isinstance(settings, OfficialSettings) else ""
    return cache_directory() / "simulators" / f"{data.name}{kind}-{key}.safetensors"


def load_simulator(
    data: SessionData,
    settings: FitSettings | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> tuple[SequenceResponse, Fitted]:
    """The simulator of a data set: read from the cache, or fitted (two processor-minutes for KuaiRand-Pure) and cached.

    Initial states are those after all rows before ``data.test_from_ms``. A damaged cache file is replaced.

    Args:
        data: the data to fit to.
        settings: of the fit; by default :class:`~rapport.envs.session.response.fit.FitSettings`.
        report: called after each batch of a fit.
        device: where torch computes the response; fitting is done on the CPU.
    """
    settings = settings or FitSettings()
    path = simulator_path(data, settings)
    kept = _from_cache(path, data, report, lambda arrays: _restore(arrays, data, settings, device))
    if kept is not None:
        return kept
    with torch_threads(threads()):
        fitted = fit_user_model(data, settings, report=report or logged(data))
        start = states_after(fitted.model, data, data.test_from_ms, settings.length)
    arrays = {f"model.{name}": weight.numpy() for name, weight in fitted.model.state_dict().items()}
    _keep(path, {**arrays, "calibration": fitted.calibration.numpy(), "start": start}, data, settings)
    return SequenceResponse(fitted, start, data.log.behaviours, device), fitted


def load_official(
    data: SessionData,
    settings: OfficialSettings | None = None,
    *,
    dropout: bool = False,
    seed: int = 0,
    report: Report | None = None,
) -> HistoryResponse:
    """LERL's response model of a data set: read from the cache, or fitted and cached.

    Args:
        data: the data to fit to.
        settings: of the fit; by default :class:`~rapport.envs.session.official.fit.OfficialSettings`.
        dropout: released fault: dropout stays on in simulation.
        seed: of the dropout masks.
        report: called after each batch of a fit.
    """
    settings = settings or OfficialSettings()
    path = simulator_path(data, settings)
    model = _from_cache(path, data, report, lambda arrays: _restore_official(arrays, data, settings))
    if model is None:
        with torch_threads(threads()):
            model = fit_history_model(data, settings, report or logged(data))
        _keep(path, {name: weight.numpy() for name, weight in model.state_dict().items()}, data, settings)
    histories = Histories.before(data, data.test_from_ms, settings.length)
    return HistoryResponse(model, histories, data.log.behaviours, dropout=dropout, seed=seed)


def prepare_simulator(data: SessionData, settings: FitSettings | OfficialSettings, progress: Progress | None) -> None:
    """Fit the simulator of a data set and cache it, unless it is cached already."""
    report: Report | None = None if progress is None else lambda done, total, _: progress(done, total)
    if isinstance(settings, OfficialSettings):
        load_official(data, settings, report=report)
    else:
        load_simulator(data, settings, report)


def _from_cache(path: Path, data: SessionData, report: Report | None, restore: Callable[[Arrays], Kept]) -> Kept | None:
    """The simulator in a cache file; None, with a warning in the log, if it has to be fitted."""
    if path.exists():
        try:
            arrays, _ = load_arrays(path, checked=True)
            return restore(arrays)
        except DataError as error:
            LOGGER.warning("the cached simulator is fitted anew: %s", error)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            LOGGER.warning(
                "the cached simulator is fitted anew: %s: does not hold a simulator of %s (%s)", path, data.name, error
            )
    elif report is None:
        LOGGER.warning("fitting the user model to %s (%d rows), once; kept in %s", data.name, len(data.log), path)
    return None


def logged(data: SessionData) -> Report:
    """Says at intervals in the log how far a fit is, where nobody else shows it."""
    begun = told = time.monotonic()

    def report(done: int, total: int, _: float) -> None:
        nonlocal told
        if time.monotonic() - told >= LINE_SECONDS and done < total:
            told = time.monotonic()
            left = (told - begun) * (total - done) / done / 60
            LOGGER.warning("fitting the user model to %s: %.0f %%, %.0f min left", data.name, 100 * done / total, left)

    return report


def _keep(path: Path, arrays: Arrays, data: SessionData, settings: FitSettings | OfficialSettings) -> None:
    note: dict[str, Any] = {"version": VERSION, "data": data.fingerprint, "settings": asdict(settings)}
    try:
        save_arrays(path, arrays, note)
    except OSError as error:
        LOGGER.warning("the simulator could not be kept and will be fitted again: %s", error)


def _restore(arrays: Arrays, data: SessionData, settings: FitSettings, device: str) -> tuple[SequenceResponse, Fitted]:
    with torch.random.fork_rng(devices=[]):  # drawing weights must not advance torch's generator
        size = UserModelSize.of(data, settings.encoder)
        model = new_user_model(data, size)
    calibration, start = arrays["calibration"], np.asarray(arrays["start"], np.float32)
    shapes = {"calibration": (2, size.n_behaviours), "start": (data.population.n_users, size.state_width)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape} in place of {shape}")
    weights = {k.removeprefix("model."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("model.")}
    model.load_state_dict(weights)
    fitted = Fitted(model.eval(), torch.from_numpy(calibration))
    return SequenceResponse(fitted, start, data.log.behaviours, device), fitted


def _restore_official(arrays: Arrays, data: SessionData, settings: OfficialSettings) -> HistoryModel:
    with torch.random.fork_rng(devices=[]):
        model = new_history_model(data, settings.size)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()
