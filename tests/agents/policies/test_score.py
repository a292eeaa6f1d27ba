"""Scores of items under hyper-actions, against the formula term by term."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.policies.score import score_items, score_pairs


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 5), m=st.integers(1, 7), width=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_scores_are_the_formula(n: int, m: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights, items = (torch.randn(shape, generator=generator) for shape in ((n, width + 1), (m, width)))
    expected = [
        [sum(w * e for w, e in zip(row, item, strict=False)) / math.sqrt(width) + row[-1] for item in items.tolist()]
        for row in weights.tolist()
    ]
    torch.testing.assert_close(score_items(weights, items), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    each = items.expand(n, m, width)
    torch.testing.assert_close(score_pairs(weights[:, None], each), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_pairs_take_any_leading_shape() -> None:
    weights, items = torch.randn(2, 3, 5), torch.randn(2, 3, 4)
    found = score_pairs(weights, items)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[1, 2], score_items(weights[1, 2][None], items[1, 2][None])[0, 0])
