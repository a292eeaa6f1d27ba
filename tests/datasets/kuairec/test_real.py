"""On the real files, where RAPPORT_DATA_DIR has them; the matrices may be absent."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from rapport.datasets.files.directory import data_directory
from rapport.datasets.kuairec import load as kuairec
from rapport.datasets.kuairec import read as kuairec_read
from rapport.datasets.kuairec.load import load_kuairec
from rapport.datasets.registry.load import available, load

LAYOUT = kuairec.find(data_directory())
PARTS = (kuairec_read.ITEM_FILE, kuairec_read.TAG_FILE, kuairec_read.USER_FILE)


def needs(*names: str) -> pytest.MarkDecorator:
    there = LAYOUT is not None and all((LAYOUT.folder / name).is_file() for name in names)
    return pytest.mark.skipif(not there, reason=f"no {', '.join(names)} of KuaiRec in the data directory")


def folder() -> kuairec.Layout:
    assert LAYOUT is not None
    return LAYOUT


@needs(kuairec_read.ITEM_FILE)
def test_every_video_is_read_in_spite_of_line_breaks_in_captions() -> None:
    path = folder().folder / kuairec_read.ITEM_FILE
    videos, ids = kuairec_read.read_videos(path)
    np.testing.assert_array_equal(ids, np.arange(10_728))
    assert path.read_bytes().count(b"\r") == 4
    lines = path.read_bytes().decode().replace("\r", " ").split("\n")
    plain = list(csv.DictReader(lines))
    for name in ("first_level_category_id", "second_level_category_id"):
        assert videos[name].tolist() == [int(row[name]) for row in plain]


@needs(kuairec_read.ITEM_FILE)
def test_every_category_has_an_english_name_for_the_name_of_the_source() -> None:
    videos, _ = kuairec_read.read_videos(folder().folder / kuairec_read.ITEM_FILE)
    pairs = videos[["first_level_category_id", "first_level_category_name"]].drop_duplicates()
    found = dict(pairs.itertuples(index=False))
    assert len(found) == len(pairs) == 39 and found.pop(kuairec_read.UNKNOWN_ID) == "UNKNOWN"
    table = json.loads(kuairec_read.NAMES_FILE.read_text("utf-8"))
    assert found == {int(identity): entry["source"] for identity, entry in table.items()}
    names = kuairec_read.category_names(list(found), list(found.values()))
    assert len(set(names)) == 38 and all(name.isascii() for name in names)


@needs(*PARTS[:2])
def test_tags_and_catalogue_of_all_videos() -> None:
    videos, ids = kuairec_read.read_videos(folder().folder / kuairec_read.ITEM_FILE)
    tags = kuairec_read.read_tags(folder().folder / kuairec_read.TAG_FILE, ids)
    assert tags.shape == (10_728, 4) and tags.max() == 30
    assert np.bincount((tags >= 0).sum(axis=1)).tolist() == [0, 8_970, 1_562, 185, 11]
    catalog = kuairec_read.make_catalog(videos, ids, tags)
    assert catalog.n_categories == 39 and catalog.category_names[-1] == "Unknown"
    assert catalog.category_sizes[-1] == 40
    assert catalog.category_sizes[catalog.category_names.index("Local news")] == 1_095


@needs(kuairec_read.USER_FILE)
def test_population() -> None:
    population = kuairec_read.read_population(folder().folder / kuairec_read.USER_FILE)
    assert population.n_users == 7_176
    assert max(population.features.cardinalities) == 8


@pytest.mark.skipif(not available("kuairec"), reason="no whole KuaiRec in the data directory")
def test_published_sizes() -> None:
    whole = load_kuairec()
    assert whole.watch_ratio.shape == (1_411, 3_327)
    assert whole.blocked.size - whole.blocked.sum() == 4_676_570
    assert load("kuairec").fingerprint == whole.data.fingerprint
