"""The language model that is part of Rapport."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

EMBEDDED = "embedded"
"""Its name on a command line."""


def embedded_model() -> Path:
    """Its GGUF file; ``CARD.md`` beside it describes the model.

    Raises:
        FileNotFoundError: this installation of Rapport has no such file.
    """
    path = Path(str(files(__package__).joinpath("planner.gguf")))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install Rapport again, or train the model with `rapport lm train`")
    return path


PACKAGED = {EMBEDDED: embedded_model}
"""Argument ``packaged`` of :func:`rapport.agents.llm.open_llm`."""
