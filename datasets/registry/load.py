"""Loading a data set by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rapport.datasets.files import cache
from rapport.datasets.files.directory import cache_directory, data_directory
from rapport.datasets.kuairand import large as kuairand_large
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.kuairec import load as kuairec
from rapport.datasets.schema import DataError, SessionData, Tables
from rapport.datasets.splits import assemble

READER_VERSION = 2
"""Raise it when the same files give other tables, so that caches are built again."""


@dataclass(frozen=True)
class DatasetInfo:
    """Metadata of a data set."""

    name: str
    """Name for :func:`load` and ``rapport data fetch``."""
    folder: str
    """Its folder in the data directory."""
    url: str
    """The official archive or file."""
    md5: str | None
    """Published checksum; None: that of the first download is recorded and required from then on."""
    contents: str
    """Published size in users, items and rows."""
    licence: str
    """Licence of the publisher."""
    citation: str
    """Citation that the publisher asks for."""
    readable: bool = False
    """Whether :func:`load` reads it; others can only be fetched."""


_ZENODO = "https://zenodo.org/records"
_KUAIRAND = (
    "Gao et al., KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos, CIKM 2022, "
    "doi:10.1145/3511808.3557624"
)
_KUAIREC = (
    "Gao et al., KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems, CIKM 2022, "
    "doi:10.1145/3511808.3557220"
)

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "kuairand-pure",
            "KuaiRand-Pure",
            f"{_ZENODO}/10439422/files/KuaiRand-Pure.tar.gz",
            "0820331067a3784d9691136f772b35a7",
            "27,285 users, 7,583 videos, 1,436,609 standard and 1,186,059 random exposures",
            "CC BY-SA 4.0",
            _KUAIRAND,
            readable=True,
        ),
        DatasetInfo(
            "kuairand-1k",
            "KuaiRand-1K",
            f"{_ZENODO}/10439422/files/KuaiRand-1K.tar.gz",
            "6b0b9c8222d67fcd4c676218edca3f1f",
            "1,000 users, 4,369,953 videos, 11,713,045 standard and 43,028 random exposures",
            "CC BY-SA 4.0",
            _KUAIRAND,
            readable=True,
        ),
        DatasetInfo(
            "kuairand-27k",
            "KuaiRand-27K",
            f"{_ZENODO}/10439422/files/KuaiRand-27K.tar.gz",
            "3e3c799a24e2d23a4d2c757fbf9adf59",
            "27,285 users, 32,038,725 videos, 322,278,385 standard and 1,186,059 random exposures",
            "CC BY-SA 4.0",
            _KUAIRAND,
            readable=True,
        ),
        DatasetInfo(
            "kuairand-captions",
            "KuaiRand-captions",
            f"{_ZENODO}/18159199/files/kuairand_video_captions.csv",
            "9fd4e7587ffd0c8dc289d013858fb229",
            "captions of the KuaiRand videos",
            "CC BY-SA 4.0",
            _KUAIRAND,
        ),
        DatasetInfo(
            "kuairand-categories",
            "KuaiRand-categories",
            f"{_ZENODO}/18159199/files/kuairand_video_categories.csv",
            "8a4c772d3d8f8cf65fa1e1eb896f4177",
            "categories of the KuaiRand videos",
            "CC BY-SA 4.0",
            _KUAIRAND,
        ),
        DatasetInfo(
            "kuairec",
            "KuaiRec",
            f"{_ZENODO}/18164998/files/KuaiRec.zip",
            None,
            "7,176 users, 10,728 videos, 12,530,806 exposures; 1,411 x 3,327 fully observed",
            "CC BY-SA 4.0",
            _KUAIREC,
            readable=True,
        ),
    )
}


def info(name: str) -> DatasetInfo:
    """Return the entry of a data set.

    Raises:
        DataError: the name is unknown.
    """
    if name not in DATASETS:
        raise DataError(f"dataset {name!r} is unknown; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def available(name: str = "kuairand-pure", root: str | Path | None = None) -> bool:
    """Return whether every file that :func:`load` needs exists (it may still be damaged)."""
    if not info(name).readable:
        return False
    directory = data_directory(root)
    if version := kuairand_large.VERSIONS.get(name):
        folder = version.find(directory)
        return folder is not None and all((folder / file).is_file() for file in version.required())
    layout = kuairec.find(directory) if name == "kuairec" else kuairand.find(directory)
    return layout is not None and all(path.is_file() for path in layout.required())


def load(
    name: str = "kuairand-pure",
    root: str | Path | None = None,
    *,
    test_share: float = 0.10,
    valid_share: float = 0.05,
    held_out_share: float = 0.20,
    seed: int = 0,
    histories: bool = True,
    max_items: int | None = kuairand_large.MAX_ITEMS,
    use_cache: bool = True,
) -> SessionData:
    """Load a data set: users, items, interactions and splits.

    Args:
        name: ``"kuairand-pure"``, ``"kuairand-1k"``, ``"kuairand-27k"`` or ``"kuairec"`` (of which
            :func:`rapport.datasets.kuairec.load.load_kuairec` gives more).
        root: the data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder.
        test_share: least share of the log's rows in the test days, in (0, 1).
        valid_share: least share of the remaining rows in the validation days, in (0, 1).
        held_out_share: share of held-out users, from whom no agent learns, in (0, 1).
        seed: of the draw of held-out users.
        histories: also use the optional file of earlier exposures, if present; only KuaiRand-Pure has one.
        max_items: of KuaiRand-1K and KuaiRand-27K keep only the most shown videos and their rows; None keeps all.
        use_cache: keep the encoded tables in the cache directory, and use those that are there. KuaiRand-1K and
            KuaiRand-27K are always kept there, as their arrays are views of those files; False converts them again.

    Returns:
        The data; its arrays are read-only.

    Raises:
        DataError: the data set is unknown, missing, damaged or inconsistent.
    """
    if not info(name).readable:
        raise DataError(f"dataset {name!r} can be fetched but not loaded; load {_readable()}")
    if name in kuairand_large.VERSIONS:
        tables = _large(name, data_directory(root), max_items, use_cache)
        return assemble(name, tables, test_share, valid_share, held_out_share, seed)
    if max_items != kuairand_large.MAX_ITEMS:
        raise DataError(f"max_items={max_items} is for {' and '.join(kuairand_large.VERSIONS)}; {name} is kept whole")
    if name == "kuairec":
        return kuairec.load_kuairec(
            root,
            test_share=test_share,
            valid_share=valid_share,
            held_out_share=held_out_share,
            seed=seed,
            use_cache=use_cache,
        ).data
    directory = data_directory(root)

    def build() -> Tables:
        return kuairand.read(directory, histories)

    layout = kuairand.find(directory)
    if use_cache and layout is not None and all(path.is_file() for path in layout.required()):
        digest = cache.key(layout.sources(histories), name, f"reader {READER_VERSION}")
        tables = cache.cached(cache_directory() / "tables" / f"{name}-{digest}", build)
    else:
        tables = build()
    return assemble(name, tables, test_share, valid_share, held_out_share, seed)


def _large(name: str, directory: Path, max_items: int | None, use_cache: bool) -> Tables:
    tables, found = kuairand_large.read(name, directory, cache_directory() / "tables", max_items, again=not use_cache)
    if found.rows_dropped:
        kuairand_large.LOGGER.warning(
            "%s: only the %d most shown of %d videos are kept (max_items); %d of %d rows are of other videos",
            *(name, found.videos, found.videos_read, found.rows_dropped, found.rows_read),
        )
    return tables


def _readable() -> str:
    return " or ".join(repr(entry.name) for entry in DATASETS.values() if entry.readable)
