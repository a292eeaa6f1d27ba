"""KuaiRec: users whose response to nearly every short video is known, and the log of many users to learn from.

Layout: ``ROOT/KuaiRec/data/*.csv`` as in the official archive; ROOT may also be the ``KuaiRec`` folder or its ``data``
folder. ``small_matrix.csv`` becomes the truth, ``big_matrix.csv`` the log, ``kuairec_caption_category.csv`` the
categories, ``item_categories.csv`` the tags, ``user_features.csv`` the population.

``item_daily_features.csv``, which has daily counts including the test days, and ``social_network.csv`` are not read.

A click is a watch ratio (play time / video length) of at least ``click_at``, by default 1: the video was watched to its
end. The source records no clicks, and LERL does not publish its threshold (1 is unverified), so the threshold is an
argument. The publisher proposes "more than 2" for a like.

References: Gao et al., *KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems*, CIKM 2022;
Yu et al., *EasyRL4Rec*, SIGIR 2024 (clipping of the truth, tags).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.files import cache
from rapport.datasets.files.directory import cache_directory, data_directory
from rapport.datasets.kuairec import synthetic as kuairec_synthetic
from rapport.datasets.kuairec.matrices import CLIP
from rapport.datasets.kuairec.read import Layout, Parts, find, read
from rapport.datasets.schema import DataError, FloatArray, Int32Array, IntArray, SessionData, Tables
from rapport.datasets.splits import time_split, user_split

__all__ = ["CLICK_AT", "CLIP", "KuaiRec", "Layout", "find", "load_kuairec", "read", "synthetic_kuairec"]

logger = logging.getLogger(__name__)

CLICK_AT = 1.0
"""Default of ``click_at``: watched to the end."""
READER_VERSION = 1
"""Raise it when the same files give other tables, so that caches are built again."""


@dataclass(frozen=True, repr=False)
class KuaiRec:
    """KuaiRec with S fully observed users among U, and a catalogue of the N videos that were shown to them.

    Attributes:
        data: catalogue (the N videos of the small matrix), population (all U users), log (the big matrix's rows on
            those videos; a user may have none).
        truth_users: shape (S,), int64, indices into the population of the fully observed users, increasing.
        watch_ratio: shape (S, N), float32, play time / video length, clipped at :data:`CLIP`; 0 where blocked.
        blocked: shape (S, N), bool, pairs that were not observed because the user had blocked the author (0.4 % of the
            published pairs).
        tags: shape (N, L), int32, the platform's tags of each video, padded with -1 at the end. The quit rule of
            EasyRL4Rec counts these, not the categories.
    """

    data: SessionData
    truth_users: IntArray
    watch_ratio: FloatArray
    blocked: NDArray[np.bool_]
    tags: Int32Array

    def __post_init__(self) -> None:
        shape = (len(self.truth_users), self.data.catalog.n_items)
        for name in ("watch_ratio", "blocked"):
            if (found := getattr(self, name).shape) != shape:
                raise DataError(f"{name}: shape {found} where {shape} is needed; give one entry per pair")
        if self.tags.ndim != 2 or len(self.tags) != shape[1]:
            raise DataError(f"tags: shape {self.tags.shape} does not fit {shape[1]} items; give one row per item")
        if not ((self.watch_ratio >= 0) & (self.watch_ratio <= CLIP)).all() or self.watch_ratio[self.blocked].any():
            raise DataError(f"watch_ratio: must be in [0, {CLIP:g}], and 0 where blocked; clip it")

    def __repr__(self) -> str:
        """Name and sizes, not the arrays."""
        return f"KuaiRec({self.data!r}, {len(self.truth_users)} fully observed users)"


def load_kuairec(
    root: str | Path | None = None,
    *,
    click_at: float = CLICK_AT,
    test_share: float = 0.10,
    valid_share: float = 0.05,
    held_out_share: float = 0.20,
    seed: int = 0,
    use_cache: bool = True,
) -> KuaiRec:
    """Load KuaiRec from its official files.

    Args:
        root: the data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder.
        click_at: least watch ratio that counts as a click in the log, in (0, 5].
        test_share: least share of the log's rows in the test days, in (0, 1).
        valid_share: least share of the remaining rows in the validation days, in (0, 1).
        held_out_share: share of held-out users, from whom no agent learns, in (0, 1); drawn separately among the fully
            observed users and the others, so that both parts have fully observed users.
        seed: of the draw of held-out users.
        use_cache: keep the encoded tables in the cache directory, and use those that are there.

    Returns:
        The data; its arrays are read-only.

    Raises:
        DataError: the data set is missing, damaged or inconsistent, or a setting is out of range.
    """
    if not 0 < click_at <= CLIP:
        raise DataError(f"click_at={click_at} is outside (0, {CLIP:g}]; give a watch ratio such as 1.0")
    directory = data_directory(root)
    parts = _cached(directory, click_at) if use_cache else read(directory, click_at)
    return _assemble("kuairec", parts, test_share, valid_share, held_out_share, seed)


def synthetic_kuairec(n_users: int = 1_000, n_truth_users: int = 200, n_items: int = 500, seed: int = 0) -> KuaiRec:
    """Make synthetic data of the same form, so that everything runs without a download.

    Nothing in it is measured. It is generated from round numbers that were chosen by hand (see
    :mod:`rapport.datasets.kuairec.synthetic`) and is fitted to no data. Results on it say nothing about real users and
    are not comparable with published ones. A warning in the log says so.

    Args:
        n_users: users in the population, at least 10.
        n_truth_users: how many of them are fully observed, at least 3 and at most ``n_users``.
        n_items: videos, at least 2.
        seed: the same seed gives the same data.

    Raises:
        DataError: a size is too small.
    """
    logger.warning(
        "synthetic KuaiRec (%d users, %d items, seed %d) is made up and fitted to no data: use it to try things out, "
        "never for a figure about people",
        *(n_users, n_items, seed),
    )
    parts = kuairec_synthetic.draw(n_users, n_truth_users, n_items, CLICK_AT, np.random.default_rng(seed))
    return _assemble("kuairec-synthetic", parts, 0.10, 0.05, 0.20, seed)


def _cached(directory: Path, click_at: float) -> Parts:
    layout = find(directory)
    if layout is None or not all(path.is_file() for path in layout.required()):
        return read(directory, click_at)  # says what is missing

    def build() -> tuple[Tables, cache.Arrays]:
        parts = read(directory, click_at)._asdict()
        return parts.pop("tables"), parts

    digest = cache.key(layout.required(), "kuairec", f"reader {READER_VERSION}", f"click at {click_at!r}")
    tables, arrays = cache.cached_with_arrays(cache_directory() / "tables" / f"kuairec-{digest}", build)
    return Parts(tables, **arrays)


def _assemble(
    name: str, parts: Parts, test_share: float, valid_share: float, held_out_share: float, seed: int
) -> KuaiRec:
    """Split by days and by users and freeze the arrays."""
    catalog, population, log = parts.tables
    valid_from, test_from = time_split(log, test_share, valid_share)
    held_out = _held_out(population.n_users, parts.truth_users, held_out_share, seed)
    for array in (
        *(catalog.item_ids, catalog.category, catalog.features.codes),
        *(population.user_ids, population.features.codes, held_out),
        *(log.user, log.item, log.time_ms, log.feedback, log.randomised),
        *parts[1:],
    ):
        array.setflags(write=False)
    data = SessionData(name, catalog, population, log, test_from, valid_from, held_out)
    return KuaiRec(data, *parts[1:])


def _held_out(n_users: int, truth_users: IntArray, share: float, seed: int) -> NDArray[np.bool_]:
    """Hold out the share of the fully observed users, and of the others (of whom there may be too few)."""
    held_out = np.zeros(n_users, dtype=np.bool_)
    held_out[truth_users] = user_split(len(truth_users), share, seed)
    others = np.setdiff1d(np.arange(n_users), truth_users)
    chosen = np.random.default_rng([seed, 1]).permutation(others)[: round(share * len(others))]
    held_out[chosen] = True
    return held_out
