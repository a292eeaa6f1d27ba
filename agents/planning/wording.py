"""Categories and sessions as text for a language model: short, and in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import printable

NONE_YET = "(none yet)"
UNKNOWN = "(nothing known)"


def checked_names(names: Sequence[str]) -> list[str]:
    """Category names on one line each; ValueError where a model could not tell two of them apart."""
    clean = [" ".join(printable(name).split()) for name in names]
    if not clean:
        raise ValueError("category_names is empty: a planner needs at least one category")
    if "" in clean:
        raise ValueError(f"category_names[{clean.index('')}] is blank: give every category a name")
    seen: dict[str, int] = {}
    for index, name in enumerate(clean):
        if name in seen:
            raise ValueError(
                f"category_names[{seen[name]}] and [{index}] are both {name!r}: names must differ, number them apart"
            )
        seen[name] = index
    return clean


def bullet_list(lines: Sequence[str], empty: str = NONE_YET) -> str:
    """The lines as a bulleted list, or ``empty`` where there are none."""
    return "\n".join(f"- {line}" for line in lines) or empty


def describe_slate(categories: NDArray[np.int64], clicks: NDArray[np.int8], names: Sequence[str]) -> str:
    """One slate as ``Comedy 2/3, Sport 0/1``: clicks and items of each category, in the order of the category list.

    Items whose outcome is not recorded count as shown and not clicked; empty positions are left out.

    Args:
        categories: shape (K,), -1 where there is none.
        clicks: shape (K,).
        names: C names.
    """
    shown: dict[int, int] = {}
    clicked: dict[int, int] = {}
    for category, click in zip(categories.tolist(), clicks.tolist(), strict=True):
        if category >= 0:
            shown[category] = shown.get(category, 0) + 1
            clicked[category] = clicked.get(category, 0) + (click > 0)
    return ", ".join(f"{names[c]} {clicked[c]}/{shown[c]}" for c in sorted(shown))


def describe_slates(categories: NDArray[np.int64], clicks: NDArray[np.int8], names: Sequence[str]) -> str:
    """Slates of shape (n, K) line by line, or :data:`NONE_YET`."""
    slates = zip(categories, clicks, strict=True)
    return bullet_list([describe_slate(shown, clicked, names) for shown, clicked in slates])


def describe_taste(seen: NDArray[np.int64], clicked: NDArray[np.int64], names: Sequence[str], most: int) -> str:
    """The categories shown most often, whether clicked or not, as ``Comedy 7/12, Sport 0/4``.

    Args:
        seen: shape (C,), impressions.
        clicked: shape (C,), clicks.
        names: C names.
        most: categories named.
    """
    order = np.lexsort((-clicked, -seen))[:most].tolist()
    return ", ".join(f"{names[c]} {clicked[c]}/{seen[c]}" for c in order if seen[c] > 0) or UNKNOWN


def describe_categories(names: Sequence[str], rates: NDArray[np.float64]) -> str:
    """The categories line by line, highest click rate first, as ``- Comedy 54``: clicks per 100 items shown.

    Args:
        names: C names.
        rates: shape (C,), click rate of each over all users.
    """
    order = np.argsort(-rates, kind="stable").tolist()
    return bullet_list([f"{names[c]} {round(100 * rates[c])}" for c in order])
