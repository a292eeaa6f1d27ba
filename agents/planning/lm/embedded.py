"""The language model that comes with Rapport."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

EMBEDDED = "embedded"
"""What a command line calls it."""


def embedded_model() -> Path:
    """Its GGUF file; what it is and can do stands beside it in ``CARD.md``.

    Raises:
        FileNotFoundError: this copy of Rapport has none.
    """
    path = Path(str(files(__package__).joinpath("planner.gguf")))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install Rapport anew, or make it with `rapport lm train`")
    return path


PACKAGED = {EMBEDDED: embedded_model}
"""What :func:`rapport.agents.llm.open_llm` takes as ``packaged``."""
