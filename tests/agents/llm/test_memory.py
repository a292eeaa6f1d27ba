from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rapport.agents.llm.memory import ScoredMemory, ScoredText, gumbel_top_k, read_scored_texts


def exact_draw_probabilities(logits: np.ndarray, n: int) -> dict[tuple[int, ...], float]:
    """Eq. 4 word for word: one after the other, each in proportion to exp(logit) among those that are left."""
    weights = np.exp(logits)
    probabilities = {}
    for draw in itertools.permutations(range(len(logits)), n):
        left, probability = weights.sum(), 1.0
        for index in draw:
            probability *= weights[index] / left
            left -= weights[index]
        probabilities[draw] = probability
    return probabilities


def test_sampling_follows_eq_4() -> None:
    logits = 0.1 * np.array([0, 3, 12, 25, 30])
    expected = exact_draw_probabilities(logits, 3)
    rng = np.random.default_rng(0)
    draws = 40_000
    counts = dict.fromkeys(expected, 0)
    for _ in range(draws):
        counts[tuple(gumbel_top_k(rng, logits, 3).tolist())] += 1
    chi2 = sum((counts[d] - draws * p) ** 2 / (draws * p) for d, p in expected.items())
    assert chi2 < 107  # 59 degrees of freedom: exceeded once in 10,000 times


def test_sampling_takes_huge_scores() -> None:
    assert gumbel_top_k(np.random.default_rng(0), np.array([0.0, 1e6, 2e6]), 2).tolist() == [2, 1]


def test_a_memory_samples_by_its_scores() -> None:
    """How often each text is drawn first, against the softmax itself; and uniformly at alpha 0."""
    memory, scores = ScoredMemory(), np.array([1.0, 5.0, -2.0, 4.0])
    for number, score in enumerate(scores):
        memory.add(f"text {number}", score)
    for alpha in (0.4, 0.0, -0.4):
        rng = np.random.default_rng(1)
        first = [int(memory.sample(rng, 2, alpha)[0].text[-1]) for _ in range(4_000)]
        wanted = np.exp(alpha * scores) / np.exp(alpha * scores).sum()
        np.testing.assert_allclose(np.bincount(first, minlength=4) / 4_000, wanted, atol=0.03)
    assert {entry.text for entry in memory.sample(rng, 9, 1.0)} == {f"text {number}" for number in range(4)}


def test_the_newest_are_kept_and_a_new_text_replaces_those_it_says(tmp_path: Path) -> None:
    memory = ScoredMemory(tmp_path / "m.sqlite", capacity=3, table="hypotheses")
    for number in range(5):
        memory.add(f"  text\n{number}\x00", number, user=number or None)
    assert memory.entries() == [ScoredText(f"text {n}", n, n) for n in (2, 3, 4)] and len(memory) == 3
    memory.add("text 3 again", 0.5, replaces=lambda old: old.startswith("text 3"))
    assert [entry.text for entry in memory.entries()] == ["text 2", "text 4", "text 3 again"]
    memory.close()
    assert read_scored_texts(tmp_path / "m.sqlite", "hypotheses")[-1] == ScoredText("text 3 again", 0.5)
    with pytest.raises(ValueError, match="the table scored_texts cannot be read"):
        read_scored_texts(tmp_path / "m.sqlite")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_scored_texts(tmp_path / "none.sqlite")


def test_two_memories_share_a_file(tmp_path: Path) -> None:
    one, two = (ScoredMemory(tmp_path / "m.sqlite", table=name) for name in ("one", "two"))
    one.add("a", 1)
    two.add("b", 2)
    assert [memory.entries()[0].text for memory in (one, two)] == ["a", "b"]
    with sqlite3.connect(tmp_path / "m.sqlite") as db:
        assert db.execute("SELECT text, score, user FROM one").fetchall() == [("a", 1.0, None)]


@pytest.mark.parametrize("table", ["", "a b", "x; DROP TABLE one"])
def test_a_table_is_an_identifier(table: str) -> None:
    with pytest.raises(ValueError, match="table must be an identifier such as scored_texts"):
        ScoredMemory(table=table)
