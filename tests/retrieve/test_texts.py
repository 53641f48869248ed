"""Which items say alike: by meaning and by words, each beyond what most items share."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.retrieve.texts import ItemTexts, terms

CATALOG = Catalog(
    pl.DataFrame({
        "item_id": list("abcd"),
        "title": ["Red ink, black ink", "black INK", "a pen", None],
        "brand": [["hp"], ["hp", "xy"], [], ["xy"]],
        "notes": ["never read"] * 4,
    }),
    (Field("title", "text"), Field("brand", "categorical")),
)


def test_terms_are_words_and_values_of_the_fields_that_are_read() -> None:
    assert terms(CATALOG) == [
        ["red", "ink", "black", "ink", "brand=hp"],
        ["black", "ink", "brand=hp", "brand=xy"],
        ["a", "pen"],
        ["brand=xy"],
    ]


def test_words_are_bm25_over_that_of_the_item_itself() -> None:
    """Worked by hand for d = 'brand=xy' alone, k1 = 1.5, b = .75, lengths 5, 4, 2, 1 with mean 3."""
    found = ItemTexts(CATALOG, {}, neighbours=4).alike(3)
    assert found.items.tolist() == [1] and found.meaning.tolist() == [0]
    part = [1 / (1 + 1.5 * (1 - 0.75 + 0.75 * length / 3)) for length in (4, 1)]
    assert found.words.tolist() == [pytest.approx(part[0] / part[1], rel=1e-5)]


def test_meaning_is_the_mean_of_the_fields_cosines() -> None:
    vectors = {
        "title": np.array([[2, 0], [3, 0], [1, 1], [0, 0]], dtype=np.float32),
        "photo": np.array([[1, 0], [0, 1], [0, 5], [0, 0]], dtype=np.float32),
    }
    found = ItemTexts(Catalog(CATALOG.table), vectors, neighbours=4).alike(1)
    assert found.items.tolist() == [0, 2]  # nothing is said of the last
    np.testing.assert_allclose(found.meaning, [(1 + 0) / 2, (np.sqrt(0.5) + 1) / 2], rtol=1e-6)


def test_only_what_is_above_the_first_that_is_left_out_counts() -> None:
    angles = np.array([0, 0.1, 0.4, 0.9])
    vectors = {"title": np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)}
    found = ItemTexts(Catalog(CATALOG.table), vectors, neighbours=2).alike(0)
    assert found.items.tolist() == [1, 2]
    np.testing.assert_allclose(found.meaning, np.cos([0.1, 0.4]) - np.cos(0.9), rtol=1e-4)


def test_items_that_say_nothing_find_nothing() -> None:
    assert len(ItemTexts(Catalog(CATALOG.table), {}, neighbours=2).alike(0).items) == 0
