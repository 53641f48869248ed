import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm4rec.data.events import EventLog
from llm4rec.errors import LLM4RecError
from llm4rec.topn import top_n


def log_of(*rows: list[int]) -> EventLog:
    return EventLog(
        user_ids=pl.Series([f"u{row}" for row in range(len(rows))], dtype=pl.String),
        offsets=np.cumsum([0, *(len(row) for row in rows)]),
        items=np.array([item for row in rows for item in row], dtype=np.int64),
    )


def test_takes_the_best_and_breaks_ties_by_number() -> None:
    scores = np.array([[1, 5, 3, 5, 0], [2, 2, 2, 2, 2]], dtype=np.float32)
    ranked = top_n(scores, 3, None)
    assert ranked.items.tolist() == [[1, 3, 2], [0, 1, 2]]
    assert ranked.scores.tolist() == [[5, 5, 3], [2, 2, 2]]


def test_excluded_and_impossible_items_do_not_come_back_and_the_list_gets_shorter() -> None:
    scores = np.array([[1, 5, 3], [1, 5, -np.inf], [3, 2, 1]], dtype=np.float32)
    ranked = top_n(scores, 3, log_of([1], [], [0, 1, 2, 2]))
    assert ranked.items.tolist() == [[2, 0, -1], [1, 0, -1], [-1, -1, -1]]
    assert ranked.scores.tolist() == [[3, 1, -np.inf], [5, 1, -np.inf], [-np.inf] * 3]


def test_asks_for_more_than_the_catalogue_holds() -> None:
    ranked = top_n(np.array([[0.0, 1.0]], dtype=np.float32), 4, None)
    assert ranked.items.tolist() == [[1, 0, -1, -1]]
    assert ranked.scores.tolist() == [[1, 0, -np.inf, -np.inf]]
    assert ranked.items.dtype == np.int64
    assert ranked.scores.dtype == np.float32


def test_leaves_the_scores_as_they_were() -> None:
    scores = np.array([[1.0, 2.0]], dtype=np.float32)
    top_n(scores, 1, log_of([0]))
    assert scores.tolist() == [[1, 2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_scores_without_an_order(bad: float) -> None:
    with pytest.raises(LLM4RecError, match="NaN or infinite"):
        top_n(np.array([[0.0, bad]], dtype=np.float32), 1, None)


def test_no_rows_and_no_places() -> None:
    assert top_n(np.empty((0, 4), dtype=np.float32), 3, None).items.shape == (0, 3)
    assert top_n(np.ones((2, 4), dtype=np.float32), 0, None).items.shape == (2, 0)


@given(
    scores=arrays(np.float32, (3, 9), elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0])),
    n=st.integers(1, 12),
    seen=st.lists(st.integers(0, 8), max_size=9),
)
def test_is_a_full_stable_sort_cut_at_n(scores: np.ndarray, n: int, seen: list[int]) -> None:
    ranked = top_n(scores, n, log_of(seen, [], seen))
    for row in range(3):
        gone = set(seen) if row != 1 else set()
        legal = [item for item in range(9) if item not in gone and scores[row, item] > -np.inf]
        best = sorted(legal, key=lambda item: (-scores[row, item], item))[:n]
        assert ranked.items[row].tolist() == best + [-1] * (n - len(best))
        assert ranked.scores[row].tolist() == [scores[row, i] for i in best] + [-np.inf] * (n - len(best))
