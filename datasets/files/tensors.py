"""Named arrays and a note in one file, which is replaced atomically. Reading it executes nothing.

The format is safetensors: raw numbers, and in the file's metadata the note as JSON, with a SHA-256 of all of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rapport.datasets.files.atomic import write_atomically
from rapport.datasets.files.reading import reading
from rapport.datasets.schema import DataError

Arrays = dict[str, NDArray[Any]]

_SEAL = "sha256"
"""Entry of the note with the checksum of all else."""
AGAIN = "it is damaged or not written by Rapport: delete it and make it again"


def save_arrays(path: Path, arrays: Arrays, note: dict[str, Any]) -> None:
    """Write arrays and a note that JSON can hold to ``path``, completely or not at all.

    Raises:
        OSError: the file cannot be written, e.g. because the disk is full.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    plain = json.loads(json.dumps(note))  # as it will be read
    text = json.dumps({**plain, _SEAL: _checksum(contiguous, plain)})
    content = save(contiguous, metadata={"note": text})  # one entry: the order of several changes from file to file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def load_arrays(path: Path, *, checked: bool = False) -> tuple[Arrays, dict[str, Any]]:
    """Read what :func:`save_arrays` wrote.

    A file of an earlier version has no checksum; only that its numbers are finite is then known.

    Args:
        path: the file.
        checked: refuse a file without a checksum.

    Raises:
        DataError: the file is missing, damaged or of another format, or a number in it is not finite.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    with reading(path, "its arrays", AGAIN):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        note = json.loads(metadata["note"])
        if not isinstance(note, dict):
            raise ValueError(f"its note is a {type(note).__name__}")
        checksum = note.pop(_SEAL, None)
        if checksum is None and checked:
            raise ValueError("it has no checksum")
        if checksum is not None and checksum != _checksum(arrays, note):
            raise ValueError("its content does not match its checksum")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds numbers that are not finite; {AGAIN}")
    return arrays, note


def _checksum(arrays: Arrays, note: dict[str, Any]) -> str:
    """SHA-256 of the note and of the arrays' names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(note, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
