"""Statistics of categories in users' histories, for a whole batch at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapport.agents.planning.planner import BoolArray, SessionViews

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def category_counts(categories: IntArray, clicks: NDArray[np.int8], n_categories: int) -> tuple[IntArray, IntArray]:
    """How often each user saw and clicked each category, without padding and impressions of unknown outcome.

    Args:
        categories: shape (B, H), -1 where there is none.
        clicks: shape (B, H), 1 clicked, 0 not clicked, -1 not recorded (ignored).
        n_categories: C.

    Returns:
        Two arrays of shape (B, C): impressions with a recorded outcome, and clicks.
    """
    n_users = len(categories)
    recorded = (categories >= 0) & (clicks >= 0)
    rows, _ = np.nonzero(recorded)
    cell = rows * n_categories + categories[recorded]
    seen = np.bincount(cell, minlength=n_users * n_categories)
    clicked = np.bincount(cell[clicks[recorded] > 0], minlength=n_users * n_categories)
    return seen.reshape(n_users, n_categories), clicked.reshape(n_users, n_categories)


def smoothed_click_rate(views: SessionViews, prior: FloatArray, strength: float) -> FloatArray:
    """Posterior mean click rate of each user in each category, under a Beta prior.

    The rate is (clicks + strength x prior) / (impressions + strength): `strength` is how many impressions the prior is
    worth.

    Args:
        views: B sessions.
        prior: shape (C,), click rate of each category over all users.
        strength: weight of the prior in impressions, above 0.

    Returns:
        Shape (B, C).
    """
    seen, clicked = category_counts(views.categories, views.clicks, len(prior))
    return (clicked + strength * prior) / (seen + strength)


def mark_categories(categories: NDArray[np.integer], n_categories: int) -> BoolArray:
    """Which categories each row names, shape (B, C), from categories of shape (B, K), -1 where there is none."""
    marks = np.zeros((len(categories), n_categories + 1), dtype=np.bool_)
    np.put_along_axis(marks, categories.astype(np.int64), True, axis=1)  # the last column takes -1
    return marks[:, :-1]


def recent_categories(views: SessionViews, n_categories: int, slates: int) -> BoolArray:
    """Categories shown in the last `slates` slates of the session, shape (B, C); none at the session's start."""
    horizon = views.categories.shape[1]
    newest_first = np.arange(horizon)[::-1]
    shown = newest_first < np.minimum(views.step, slates)[:, None] * views.slate_size
    return mark_categories(np.where(shown, views.categories, -1), n_categories)


def take_best(scores: FloatArray, eligible: BoolArray, sizes: IntArray, n: int, slate_size: int) -> BoolArray:
    """The best `n` eligible categories of each row, and as many more as one slate needs.

    Categories are taken by eligibility first and score second (ties: the lower index), so an ineligible one enters a
    plan only where all eligible ones together hold fewer items than a slate.

    Args:
        scores: shape (B, C), higher is better.
        eligible: shape (B, C).
        sizes: shape (C,), items in each category; a category without items is never taken.
        n: categories wanted in a plan.
        slate_size: items a plan has to hold.

    Returns:
        Plans, shape (B, C).
    """
    has_items = sizes > 0
    preferred = eligible & has_items
    order = np.lexsort((-scores, ~preferred, np.broadcast_to(~has_items, scores.shape)), axis=-1)
    held = sizes[order]
    lacking = np.cumsum(held, axis=1) - held < slate_size
    wanted = (np.arange(scores.shape[1]) < n) & np.take_along_axis(preferred, order, axis=1)
    plans = np.zeros(scores.shape, dtype=np.bool_)
    np.put_along_axis(plans, order, (wanted | lacking) & (held > 0), axis=1)
    return plans


def checked_sizes(category_sizes: ArrayLike) -> IntArray:
    """Category sizes as an array of shape (C,); ValueError says what is wrong with them."""
    sizes = np.asarray(category_sizes)
    if sizes.ndim != 1 or len(sizes) == 0:
        raise ValueError(f"category_sizes must hold one count per category, shape (C,); got shape {sizes.shape}")
    if not np.issubdtype(sizes.dtype, np.integer):
        raise ValueError(f"category_sizes must be whole numbers of items; got dtype {sizes.dtype}")
    if sizes.min() < 0 or sizes.max() == 0:
        raise ValueError(f"category_sizes must be 0 or more, and not all 0; got {sizes.tolist()[:10]}")
    return sizes.astype(np.int64)


def checked_prior(prior: ArrayLike, n_categories: int) -> FloatArray:
    """Click rates as an array of shape (C,); ValueError says what is wrong with them."""
    rates = np.asarray(prior, dtype=np.float64)
    if rates.shape != (n_categories,):
        raise ValueError(f"prior must hold a click rate for each of {n_categories} categories; got shape {rates.shape}")
    if not np.all((rates >= 0) & (rates <= 1)):
        bad = int(np.flatnonzero(~((rates >= 0) & (rates <= 1)))[0])
        raise ValueError(f"prior must be click rates between 0 and 1; got {rates[bad]} for category {bad}")
    return rates


def check_views(views: SessionViews, n_categories: int) -> None:
    """Raise ValueError where views name a category that the planner does not know."""
    if views.categories.size and (highest := int(views.categories.max())) >= n_categories:
        raise ValueError(
            f"the views name category {highest}, but the planner was made for {n_categories} categories "
            f"(0 to {n_categories - 1}): make it with the category sizes of this environment"
        )
