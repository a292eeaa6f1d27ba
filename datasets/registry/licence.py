"""What a page says of the rights in the data that its figures were computed from."""

from __future__ import annotations

from rapport.datasets.registry.load import DATASETS

_TWIN_OF = "kuairand-pure"
"""The data set whose aggregates :func:`rapport.datasets.twin.twin` is drawn from."""


def licence_note(name: str) -> str:
    """Source and licence of a data set, in a sentence.

    Args:
        name: of the data set, as :attr:`~rapport.datasets.schema.SessionData.name` gives it.

    Returns:
        Empty for a data set that the registry does not know, such as a log of the user's own.
    """
    info = DATASETS.get(_TWIN_OF if name == "twin" else name)
    if info is None:
        return ""
    drawn = "a statistical twin drawn from aggregates of " if name == "twin" else ""
    return f"Figures computed from {drawn}{info.folder} ({info.citation}), shared under the licence {info.licence}."
