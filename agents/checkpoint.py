"""Agents on disk: weights, optimiser state and a note in one safetensors file. Loading one executes no code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO

from rapport.agents.planning.build import planner_name
from rapport.datasets.files.reading import reading
from rapport.datasets.files.tensors import load_arrays, save_arrays
from rapport.datasets.schema import DataError

FORMAT = 1


WHOLE = "give a file that `rapport run` wrote, or train anew"


class CheckpointError(ValueError):
    """A checkpoint was made with other settings or is of another kind; the message says which and what to do."""


def save_agent(path: Path, agent: PPO, note: dict[str, Any]) -> None:
    """Write the policy's weights, Adam's state and a note that JSON can hold, atomically."""
    arrays = {f"policy.{name}": weight.numpy() for name, weight in agent.policy.state_dict().items()}
    for index, state in agent.policy.optimizer.state_dict()["state"].items():
        arrays |= {f"optimiser.{index}.{name}": np.atleast_1d(value.numpy()) for name, value in state.items()}
    save_arrays(path, arrays, {**note, "format": FORMAT, "transitions": agent.num_timesteps})


def read_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the note of a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged or not an agent.
    """
    try:
        arrays, note = load_arrays(path)
    except DataError as error:
        raise CheckpointError(f"checkpoint {error}") from error
    if note.get("format") != FORMAT or not any(name.startswith("policy.") for name in arrays):
        raise CheckpointError(
            f"checkpoint {path}: holds no agent of format {FORMAT}; give a file that `rapport run` wrote"
        )
    transitions = note.get("transitions")
    if type(transitions) is not int or not 0 <= transitions < 1 << 53:
        raise CheckpointError(
            f"checkpoint {path}: its note says transitions={_short(transitions)}, which is no number of them; {WHOLE}"
        )
    return arrays, note


@contextmanager
def reading_note(path: Path) -> Iterator[None]:
    """Turn what a missing or wrong entry of a checkpoint's note leads to into one sentence.

    Raises:
        CheckpointError: something in the block could not be made of the note.
    """
    with reading(f"checkpoint {path}", "its note", WHOLE, CheckpointError):
        yield


def check_note(path: Path, note: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check that the checkpoint was made with these settings.

    Raises:
        CheckpointError: an entry differs; the message names it, both values and the remedy.
    """
    for name, value in expected.items():
        if _present(note.get(name)) != _present(value):
            raise CheckpointError(
                f"checkpoint {path}: made with {name}={_short(note.get(name))}, but here {name}={_short(value)}; "
                "use the data and settings it was trained with, or train anew"
            )


def restore_agent(path: Path, agent: PPO, arrays: dict[str, NDArray[Any]], note: dict[str, Any]) -> None:
    """Load saved weights and Adam's state into an agent of the same shape.

    Raises:
        CheckpointError: the shapes do not fit.
    """
    weights = {k.removeprefix("policy."): torch.tensor(v) for k, v in arrays.items() if k.startswith("policy.")}
    try:
        agent.policy.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]  # PyTorch lists every weight, on a line each
        raise CheckpointError(f"checkpoint {path}: its weights do not fit this agent ({reason}); train anew") from error
    with reading(f"checkpoint {path}", "the optimiser's state", WHOLE, CheckpointError):
        _restore_optimiser(agent.policy.optimizer, arrays)
    agent.num_timesteps = int(note["transitions"])


def _restore_optimiser(optimiser: torch.optim.Optimizer, arrays: dict[str, NDArray[Any]]) -> None:
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in arrays.items():
        if name.startswith("optimiser."):
            _, index, part = name.split(".")
            tensor = torch.tensor(value)
            if part != "step" and tensor.shape != weights[int(index)].shape:
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
            state.setdefault(int(index), {})[part] = tensor[0] if part == "step" else tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _present(value: Any) -> Any:
    """An entry of a note, in which a planner that is stored by its former name has its present one."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return {**value, "name": planner_name(value["name"])}
    return value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
