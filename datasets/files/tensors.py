"""Named arrays and a note in one file, which is replaced atomically. Reading it executes nothing.

The format is safetensors: raw numbers, and the note as JSON in the file's metadata.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rapport.datasets.schema import DataError


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]], note: dict[str, Any]) -> None:
    """Write arrays and a note that JSON can hold to ``path``, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        contiguous = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        save_file(contiguous, name, metadata={"note": json.dumps(note)})
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def load_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        DataError: the file is missing, truncated or of another format.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            note = json.loads((file.metadata() or {})["note"])
            return {name: file.get_tensor(name) for name in file.keys()}, note  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged or not written by Rapport ({error}); delete it and make it again") from error
