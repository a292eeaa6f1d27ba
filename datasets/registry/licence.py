"""What a page says of the rights in the data that its figures were computed from."""

from __future__ import annotations

from rapport.datasets.registry.load import DATASETS
from rapport.datasets.schema import SessionData

_TWIN_OF = "kuairand-pure"
"""The data set whose aggregates :func:`rapport.datasets.twin.twin` is drawn from."""


def licence_note(data: str | SessionData) -> str:
    """Source and licence of a data set, in a sentence: what the data itself states, else what the registry knows.

    Args:
        data: the data set, or its name alone.

    Returns:
        Where neither states a licence the sentence says so.
    """
    if isinstance(data, str):
        name, licence, citation = data, None, None
    else:
        name, licence, citation = data.name, data.licence, data.citation
    drawn, info = "", DATASETS.get(_TWIN_OF if name == "twin" else name)
    if licence is None and info is not None:
        drawn = "a statistical twin drawn from aggregates of " if name == "twin" else ""
        name, licence, citation = info.folder, info.licence, info.citation
    source = f"{name} ({citation})" if citation else name
    if not licence:
        return f"Figures computed from {source}; licence: not stated."
    return f"Figures computed from {drawn}{source}, shared under the licence {licence}."
