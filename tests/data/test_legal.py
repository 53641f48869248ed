"""Which items may come back: lists and masks say the same, and what can't be asked for is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog
from llm4rec.data.legal import Legal, Listed, legal_for, legal_items, only_items
from llm4rec.errors import InputError
from llm4rec.types import Query

N = 12
SHOP = Catalog(
    pl.DataFrame({
        "item_id": [f"i{i}" for i in range(N)],
        "genre": [["drama"] if i % 2 else ["comedy", "war"] if i % 4 else ["comedy"] for i in range(N)],
        "country": [[] if i == 5 else [["fr", "it", "us"][i % 3]] for i in range(N)],
        "price": [float(i) for i in range(N)],
    }),
    (Field("genre", "categorical"), Field("country", "categorical"), Field("price", "numerical")),
)
NONE = EventLog(pl.Series([""]), np.array([0, 0]), np.zeros(0, dtype=np.int64))
numbers = st.lists(st.integers(0, N - 1), max_size=N)


def ascending(values: list[int]) -> np.ndarray:
    return np.unique(np.array(values, dtype=np.int64))


@given(rows=st.lists(st.tuples(numbers, st.none() | numbers), min_size=1, max_size=4), retired=numbers)
def test_lists_masks_and_blanked_scores_agree(
    rows: list[tuple[list[int], list[int] | None]], retired: list[int]
) -> None:
    """Law: a row's list, the mask and what is left of the scores name the same items."""
    out = [item for left_out, _ in rows for item in left_out]
    owners = [row for row, (left_out, _) in enumerate(rows) for _ in left_out]
    legal = Legal(
        (len(rows), N),
        np.array(owners, dtype=np.int64),
        np.array(out, dtype=np.int64),
        {row: ascending(only) for row, (_, only) in enumerate(rows) if only is not None},
        ascending(retired),
    )
    scores = np.zeros((len(rows), N), dtype=np.float32)
    legal.blank(scores)
    for row, (left_out, only) in enumerate(rows):
        expected = (set(range(N)) if only is None else set(only)) - set(left_out) - set(retired)
        listed = legal.row(row)
        assert len(listed) == len(expected)
        assert set(np.flatnonzero(listed.among(np.arange(N))).tolist()) == expected
        assert set(np.flatnonzero(legal.mask()[row]).tolist()) == expected
        assert set(np.flatnonzero(np.isfinite(scores[row])).tolist()) == expected


def test_fields_narrow_down_together_and_values_widen() -> None:
    assert only_items(SHOP, None, {}) is None
    found = only_items(SHOP, None, {"genre": ("war", "drama")})
    assert found is not None and found.tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    both = only_items(SHOP, ("i1", "i2", "i6", "gone"), {"genre": ("war",), "country": ("fr", "us")})
    assert both is not None and both.tolist() == [2, 6]
    nothing = only_items(SHOP, None, {"genre": ("opera",)})
    assert nothing is not None and not len(nothing)


def test_a_query_s_wishes_are_joined() -> None:
    history = replace(NONE, offsets=np.array([0, 2]), items=np.array([2, 6]))
    query = Query(("i2", "i6"), exclude=("i10", "ghost"), where={"genre": ("war",)})
    assert len(legal_for(SHOP, query, history).row(0)) == 0
    kept = legal_for(SHOP, replace(query, keep_seen=True), history).row(0)
    assert kept.only and kept.items.tolist() == [2, 6]
    retired = replace(SHOP, retired=np.array([6]))
    assert legal_for(retired, replace(query, keep_seen=True), history).row(0).items.tolist() == [2]
    assert legal_items(retired, 1, [history]).row(0).items.tolist() == [2, 6]


@pytest.mark.parametrize(
    ("field", "said"),
    [("price", "'price', which is numerical, not categorical"), ("studio", "'studio', which is no field")],
)
def test_only_categorical_fields_choose(field: str, said: str) -> None:
    with pytest.raises(InputError, match=said + r".* Fields for that: genre, country\."):
        only_items(SHOP, None, {field: ("x",)})


def test_nothing_is_among_nothing() -> None:
    items = np.array([0, 3])
    assert not Listed(np.zeros(0, dtype=np.int64), only=True, n_items=N).among(items).any()
    assert Listed(np.zeros(0, dtype=np.int64), only=False, n_items=N).among(items).all()


def test_what_is_retired_moves_along() -> None:
    retired = replace(SHOP, retired=np.array([2, 6]))
    assert retired.take(np.array([6, 1, 2, 3])).retired.tolist() == [0, 2]
