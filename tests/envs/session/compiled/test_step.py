"""Where the compiled engine reads clicks off what items are worth, and where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.reward import TableReward
from rapport.envs.session.factory import session_core
from rapport.envs.session.response.base import MatrixResponse

pytest.importorskip("numba")

from rapport.envs.session.compiled.core import LookupCore, tables_of

B, N_USERS, N_SERVED, N_ITEMS = 70, 12, 8, 20
KUAIREC = synthetic_kuairec(N_USERS, N_SERVED, N_ITEMS)
SERVED = KUAIREC.truth_users


def made(worth: np.ndarray, clicks: np.ndarray) -> SessionCore:
    """An engine of those who click on what they do, where each item is worth what it is to them."""
    response, reward = MatrixResponse(clicks, ("click",), SERVED), TableReward(worth, SERVED, N_USERS)
    core = session_core(KUAIREC.data, response, B, users="all", among=SERVED, slate_size=3, reward=reward)
    assert isinstance(core, LookupCore)
    return core


@settings(max_examples=50, deadline=None)
@given(
    worth=arrays(np.float32, (N_SERVED, N_ITEMS), elements=st.sampled_from([0, 0.25, 0.5, 1, 4])),
    click_at=st.sampled_from([0, 0.5, 1, 9]),
    told=st.booleans(),
)
def test_clicks_are_read_off_worth_where_it_tells_them(worth: np.ndarray, click_at: float, told: bool) -> None:
    clicks = worth >= click_at
    if not told:  # two items are worth the same, and one of them is clicked
        worth[0, :2], clicks[0, :2] = 1, (True, False)
    core = made(worth, clicks)
    assert (len(tables_of(core).responses) == 0) == told
    core.begin(np.arange(B))
    rows = np.searchsorted(SERVED, core.user)[:, None]
    slates = np.random.default_rng(0).integers(N_ITEMS, size=(B, 3)).astype(np.int32)
    slates[:, :2] = 0, 1
    result = core.step(slates)
    np.testing.assert_array_equal(result.feedback[:, :, 0], clicks[rows, slates])
    np.testing.assert_array_equal(result.reward, worth[rows, slates].sum(axis=1, dtype=np.float64) / 3)


def test_strangers_are_refused_there_too() -> None:
    worth = np.arange(N_SERVED * N_ITEMS, dtype=np.float32).reshape(N_SERVED, N_ITEMS)
    core = made(worth, worth > 40)
    stranger = np.setdiff1d(np.arange(N_USERS), SERVED)[0]
    core.begin(np.arange(B), np.append(np.full(B - 1, SERVED[0]), stranger))
    with pytest.raises(IndexError, match="serve users of the table"):
        core.step(np.zeros((B, 3), np.int32))
