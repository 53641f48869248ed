import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import build_log
from llm4rec.evaluate import beyond


def test_share_counts_a_person_once_and_only_people_with_events() -> None:
    log = build_log(pl.Series(["a", "a", "a", "b", "c"]), np.array([0, 0, 1, 1, 1]))
    log = log.select(np.array([True, True, True, True, False]))  # c is left without events
    assert beyond.people_share(log, 3).tolist() == [0.5, 1, 0]


def test_coverage_counts_items_shown_and_no_empty_places() -> None:
    shown = beyond.exposure(np.array([[0, 2], [2, -1]]), 4)
    assert shown.tolist() == [1, 0, 2, 0]
    assert beyond.coverage(shown) == 0.5


@pytest.mark.parametrize(
    ("exposure", "value"),
    [([3, 3, 3], 0), ([0, 0, 6], 2 / 3), ([0, 0, 0], 0), ([3, 1], 0.25), ([1, 2, 3, 4], 0.25)],
)
def test_gini_by_hand(exposure: list[int], value: float) -> None:
    assert beyond.gini(np.array(exposure)) == pytest.approx(value)


def test_novelty_in_bits() -> None:
    share = np.array([0.5, 0.25, 0.0])
    lists = np.array([[0, 1], [1, -1], [2, 2], [-1, -1]])
    # an item nobody took counts as taken by one person of eight: 3 bits
    np.testing.assert_allclose(beyond.novelty(lists, share, 8), [1.5, 2, 3, np.nan])


def test_popularity_of_lists_and_of_histories() -> None:
    share = np.array([0.5, 0.25, 0.0])
    np.testing.assert_allclose(
        beyond.popularity(np.array([[0, 1], [2, -1], [-1, -1]]), share), [0.375, 0, np.nan]
    )
    log = build_log(pl.Series(["a", "a", "b"]), np.array([0, 0, 1])).select(np.array([True, True, False]))
    np.testing.assert_allclose(beyond.history_popularity(log, share), [0.5, np.nan])


def test_diversity_by_hand() -> None:
    vectors = np.array([[1, 0], [5, 0], [0, 2], [1, 1], [0, 0]], dtype=np.float32)
    lists = np.array([[0, 1, -1], [0, 2, -1], [0, 2, 3], [0, 4, -1], [0, 2, 4]])
    half = np.sqrt(0.5)  # cosine of item 3 with 0 and with 2; 0 and 2 are at right angles
    np.testing.assert_allclose(
        beyond.diversity(lists, vectors), [0, 1, 1 - 2 * half / 3, np.nan, 1], atol=1e-12
    )


@given(
    vectors=arrays(np.float64, (6, 3), elements=st.floats(-1, 1, width=16)),
    rows=st.permutations(range(6)),
    m=st.integers(2, 6),
)
def test_diversity_is_the_mean_over_pairs(vectors: np.ndarray, rows: list[int], m: int) -> None:
    vectors = vectors + np.eye(6, 3) * 3 + 2  # away from zero
    chosen = vectors[rows[:m]]
    cosine = (chosen @ chosen.T) / np.outer(*[np.linalg.norm(chosen, axis=1)] * 2)
    expected = 1 - cosine[np.triu_indices(m, 1)].mean()
    assert beyond.diversity(np.array([rows[:m]]), vectors)[0] == pytest.approx(expected, abs=1e-9)


def test_category_vectors_put_all_fields_side_by_side() -> None:
    table = pl.DataFrame(
        {
            "item_id": ["x", "y", "z"],
            "genre": [["b", "a", "b"], [], None],
            "brand": [["n"], ["m"], []],
            "title": ["A", "B", "C"],
        },
        schema_overrides={"genre": pl.List(pl.String), "brand": pl.List(pl.String)},
    )
    fields = (Field("genre", "categorical"), Field("title", "text"), Field("brand", "categorical"))
    vectors = beyond.category_vectors(Catalog(table, fields))
    assert vectors.toarray().tolist() == [[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert beyond.category_vectors(Catalog(table, fields[1:2])) is None
    assert beyond.category_vectors(Catalog(table[2:], fields)) is None


@given(exposure=arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 50)), times=st.integers(1, 5))
def test_gini_laws(exposure: np.ndarray, times: int) -> None:
    value = beyond.gini(exposure)
    assert 0 <= value + 1e-12
    assert value <= 1 - 1 / len(exposure) + 1e-12
    assert beyond.gini(exposure * times) == pytest.approx(value)
    assert beyond.gini(exposure[::-1]) == pytest.approx(value)
