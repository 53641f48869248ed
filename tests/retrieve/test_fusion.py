"""Reciprocal rank fusion, worked by hand."""

from __future__ import annotations

import numpy as np

from llm4rec.retrieve.entries import FACTORS, ITEM_TEXT, KINDS, MEMORY, entries, joined
from llm4rec.retrieve.fusion import evidence, fused


def some(kind: int, items: list[int], semantic: list[float], overlap: list[float], weight: float = 1.0):
    numbers = np.array(items)
    return entries(
        kind,
        numbers,
        anchors=numbers,
        sources=numbers,
        weights=np.full(len(items), weight, dtype=np.float32),
        semantic=np.array(semantic, dtype=np.float32),
        overlap=np.array(overlap, dtype=np.float32),
        ages=np.full(len(items), 2.0, dtype=np.float32),
    )


FOUND = joined([
    some(ITEM_TEXT, [5, 7, 9], [0.9, 0.5, 0.1], [0.0, 0.0, 0.8]),
    some(MEMORY, [9, 7, 7], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
])


def test_ranks_of_the_searches_are_added() -> None:
    """By meaning 5, 7, 9; by words 9; memories 7 (two of them), 9.

    5: 1/61; 7: 1/62 + 1/61; 9: 1/63 + 1/61 + 1/62.
    """
    assert fused(FOUND, 9).tolist() == [9, 7, 5]
    assert fused(FOUND, 2).tolist() == [9, 7]
    assert fused(joined([]), 5).tolist() == []


def test_equal_items_come_in_the_order_of_their_numbers() -> None:
    found = joined([some(ITEM_TEXT, [4, 2], [0.5, 0.0], [0.0, 0.5])])
    assert fused(found, 2).tolist() == [2, 4]


def test_nothing_is_evidence_of_nothing() -> None:
    assert evidence(joined([]), np.zeros(0, dtype=np.int64), 0.1).shape == (0, len(KINDS) * len(FACTORS))


def test_evidence_is_the_sum_of_factors_by_kind() -> None:
    told = evidence(FOUND, np.array([7, 9]), gamma=0.5)
    grid = told.reshape(2, len(KINDS), len(FACTORS))
    old = np.exp(-1)  # two days at γ = .5 a day
    np.testing.assert_allclose(grid[0, ITEM_TEXT], [0.5, old, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(grid[0, MEMORY], [2, 2 * old, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(grid[1, ITEM_TEXT], [0.1, old, 0, 0.8], rtol=1e-6)
