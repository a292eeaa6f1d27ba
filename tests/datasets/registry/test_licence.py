"""What pages say of the rights in their data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rapport.datasets.registry.licence import licence_note
from rapport.datasets.registry.load import DATASETS
from rapport.datasets.twin import twin


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_its_source_and_licence(name: str) -> None:
    note = licence_note(name)
    assert DATASETS[name].citation in note and DATASETS[name].licence in note and DATASETS[name].folder in note


def test_a_twin_names_what_it_was_drawn_from() -> None:
    note = licence_note(twin(n_users=20, n_items=20).name)
    assert note.startswith(
        "Figures computed from a statistical twin drawn from aggregates of KuaiRand-Pure (Gao et al."
    )
    assert note.endswith("shared under the licence CC BY-SA 4.0.")


def test_a_log_of_ones_own_states_its_own_licence() -> None:
    shop = twin(n_users=20, n_items=20)  # named as the twin, but with words of its own
    assert licence_note("shop") == "Figures computed from shop; licence: not stated."
    assert licence_note(replace(shop, licence="")) == "Figures computed from twin; licence: not stated."
    stated = licence_note(replace(shop, name="shop", licence="MIT", citation="Doe (2026)"))
    assert stated == "Figures computed from shop (Doe (2026)), shared under the licence MIT."
