"""A fitted simulator, from the cache where it has been fitted before."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rapport.datasets.directory import cache_directory
from rapport.datasets.schema import DataError, SessionData
from rapport.datasets.tensors import load_arrays, save_arrays
from rapport.envs.session.fit import FitSettings, Fitted, Report, fit_user_model, states_after
from rapport.envs.session.sequence_response import SequenceResponse
from rapport.envs.session.user_model import new_user_model

LOGGER = logging.getLogger("rapport")

VERSION = 3
"""Raise it when the user model or its fit changes, so that cached simulators are fitted anew."""


def simulator_path(data: SessionData, settings: FitSettings) -> Path:
    """Where the simulator fitted to this data with these settings is kept."""
    recipe = json.dumps([VERSION, data.fingerprint, asdict(settings)], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()[:24]
    return cache_directory() / "simulators" / f"{data.name}-{key}.safetensors"


def load_simulator(
    data: SessionData, settings: FitSettings | None = None, report: Report | None = None
) -> tuple[SequenceResponse, Fitted]:
    """The simulator of a data set: read from the cache, or fitted (about a minute for KuaiRand-Pure) and cached.

    Sessions begin after all rows before ``data.test_from_ms``. A damaged cache file is fitted anew.
    """
    settings = settings or FitSettings()
    path = simulator_path(data, settings)
    if path.exists():
        try:
            return _restore(path, data)
        except DataError as error:
            LOGGER.warning("the cached simulator is fitted anew: %s", error)
    elif report is None:
        LOGGER.warning("fitting the user model to %s (%d rows), once; kept in %s", data.name, len(data.log), path)
    fitted = fit_user_model(data, settings, report=report)
    start = states_after(fitted.model, data, data.test_from_ms, settings.length)
    arrays = {f"model.{name}": weight.numpy() for name, weight in fitted.model.state_dict().items()}
    note: dict[str, Any] = {"version": VERSION, "data": data.fingerprint, "settings": asdict(settings)}
    try:
        save_arrays(path, {**arrays, "calibration": fitted.calibration.numpy(), "start": start}, note)
    except OSError as error:
        LOGGER.warning("the simulator could not be kept and will be fitted again: %s", error)
    return SequenceResponse(fitted, start, data.log.behaviours), fitted


def _restore(path: Path, data: SessionData) -> tuple[SequenceResponse, Fitted]:
    arrays, _ = load_arrays(path)
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and nobody's luck should depend on a cache
        model = new_user_model(data)
    weights = {k.removeprefix("model."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
        fitted = Fitted(model.eval(), torch.from_numpy(arrays["calibration"]))
        return SequenceResponse(fitted, arrays["start"], data.log.behaviours), fitted
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{path}: does not hold a simulator of {data.name} ({error})") from error
