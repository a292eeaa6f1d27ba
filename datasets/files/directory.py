"""The folders of data sets and of derived files."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

DATA_VARIABLE = "RAPPORT_DATA_DIR"
CACHE_VARIABLE = "RAPPORT_CACHE_DIR"


def data_directory(root: str | Path | None = None) -> Path:
    """Return the folder of the data sets: ``root``, else ``$RAPPORT_DATA_DIR``, else the user's cache folder."""
    if root is not None:
        return Path(root).expanduser()
    if chosen := os.environ.get(DATA_VARIABLE):
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("rapport")) / "data"


def cache_directory() -> Path:
    """Return the folder for derived files: ``$RAPPORT_CACHE_DIR``, else the user's cache folder.

    It is never the data directory, which may be read-only or shared.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("rapport")) / "derived"
