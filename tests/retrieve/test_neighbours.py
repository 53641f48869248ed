"""Which items say alike: by meaning and by words, each beyond what most items share."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.catalog import Catalog, Field
from llm4rec.retrieve.entries import Asked
from llm4rec.retrieve.neighbours import item_texts, similar_items, terms

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
    found = item_texts(CATALOG, {}, neighbours=4).alike(3)
    assert found.documents.tolist() == [1] and found.meaning.tolist() == [0]
    part = [1 / (1 + 1.5 * (1 - 0.75 + 0.75 * length / 3)) for length in (4, 1)]
    assert found.words.tolist() == [pytest.approx(part[0] / part[1], rel=1e-5)]


def test_meaning_is_the_mean_of_the_fields_cosines() -> None:
    vectors = {
        "title": np.array([[2, 0], [3, 0], [1, 1], [0, 0]], dtype=np.float32),
        "photo": np.array([[1, 0], [0, 1], [0, 5], [0, 0]], dtype=np.float32),
    }
    found = item_texts(Catalog(CATALOG.table), vectors, neighbours=4).alike(1)
    assert found.documents.tolist() == [0, 2]  # nothing is said of the last
    np.testing.assert_allclose(found.meaning, [(1 + 0) / 2, (np.sqrt(0.5) + 1) / 2], rtol=1e-6)


def test_only_what_is_above_the_first_that_is_left_out_counts() -> None:
    angles = np.array([0, 0.1, 0.4, 0.9])
    vectors = {"title": np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)}
    found = item_texts(Catalog(CATALOG.table), vectors, neighbours=2).alike(0)
    assert found.documents.tolist() == [1, 2]
    np.testing.assert_allclose(found.meaning, np.cos([0.1, 0.4]) - np.cos(0.9), rtol=1e-4)


def test_items_that_say_nothing_find_nothing() -> None:
    assert len(item_texts(Catalog(CATALOG.table), {}, neighbours=2).alike(0).documents) == 0


def test_similar_items_point_the_same_way_as_those_of_the_history() -> None:
    directions = np.array([[2, 0], [1, 1], [3, 0.3], [-1, 0]], dtype=np.float32)
    retriever = similar_items(directions, neighbours=2)
    asked = Asked(np.array([0]), np.array([0.5], dtype=np.float32), np.array([86_400]), now=3 * 86_400)
    found = retriever.entries(asked)
    assert found.items.tolist() == [1, 2] and found.weights.tolist() == [0.5, 0.5]
    np.testing.assert_allclose(found.semantic, [np.sqrt(0.5), 3 / np.sqrt(9.09)], rtol=1e-4)
    assert found.ages.tolist() == [2, 2] and np.isnan(found.quality).all() and not found.overlap.any()


def test_an_anchor_of_unknown_time_has_no_age() -> None:
    retriever = similar_items(np.eye(2, dtype=np.float32) + 0.5, neighbours=2)
    asked = Asked(np.array([0, 1]), np.ones(2, dtype=np.float32), np.array([-1, 86_400]), now=86_400)
    assert np.isnan(retriever.entries(asked).ages).tolist() == [True, False]


def test_items_that_say_the_same_are_alike_whatever_field_both_lack() -> None:
    vectors = {
        "title": np.array([[2, 0], [3, 0], [1, 1], [0, 0]], dtype=np.float32),
        "photo": np.array([[0, 0], [0, 0], [0, 5], [0, 0]], dtype=np.float32),
    }
    found = item_texts(Catalog(CATALOG.table), vectors, neighbours=4).alike(0)
    assert found.documents.tolist() == [1, 2]
    np.testing.assert_allclose(found.meaning, [1, np.sqrt(0.5) / np.sqrt(2)], rtol=1e-6)


@given(
    times=st.lists(st.integers(-1, 3_000_000_000), min_size=1, max_size=4),
    now=st.integers(0, 3_000_000_000),
    gamma=st.floats(0, 1),
)
def test_temporal_relevance_lies_between_0_and_1(times: list[int], now: int, gamma: float) -> None:
    """Also of what is later than the question, whose age is not known."""
    n = len(times)
    retriever = similar_items(np.eye(n + 1, dtype=np.float32) + 0.5, neighbours=n + 1)
    asked = Asked(np.arange(n), np.ones(n, dtype=np.float32), np.array(times), now=now)
    found = retriever.entries(asked)
    temporal = found.temporal(gamma)
    assert len(temporal) and (temporal >= 0).all() and (temporal <= 1).all()
    later = np.isin(found.anchors, np.flatnonzero((np.array(times) > now) | (np.array(times) < 0)))
    assert (np.isnan(found.ages) == later).all() and not temporal[later].any()
