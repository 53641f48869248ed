"""New and changed rows of a catalogue: numbers stay, missing is missing, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.upsert import upserted
from llm4rec.errors import InputError

SHOP = Catalog(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["Sea", None, "Town"],
            "tags": [["wet"], [], ["dry", "loud"]],
            "price": [1.0, 2.0, None],
            "photo": [[0.5, 1.0], None, [0.0, 1.0]],
            "made": [1_600_000_000, None, 1_500_000_000],
            "shelf": [1, 2, 3],
        },
        schema_overrides={"photo": pl.List(pl.Float32)},
    ),
    (
        Field("title", "text"),
        Field("tags", "categorical"),
        Field("price", "numerical"),
        Field("photo", "image"),
        Field("made", "time"),
    ),
    retired=np.array([1]),
)


def put(**columns: Any) -> tuple[Catalog, list[str]]:
    said: list[str] = []
    catalog, _ = upserted(SHOP, pl.DataFrame(columns), said.append)
    return catalog, said


def test_values_take_the_kinds_of_the_catalogue() -> None:
    rows = pl.DataFrame({
        "item_id": [7, 8],
        "tags": ["wet|loud", None],
        "price": ["3.5", ""],
        "photo": ["[0.5, 0.25]", None],
        "made": ["2020-09-13", None],
        "title": [12, None],
        "shelf": ["4", "high"],
    })
    catalog, numbers = upserted(SHOP, rows, lambda _: None)
    assert numbers.tolist() == [3, 4]
    assert catalog.table.schema == SHOP.table.schema
    assert catalog.table[:3].equals(SHOP.table)
    assert catalog.table.row(3, named=True) == {
        "item_id": "7", "title": "12", "tags": ["wet", "loud"], "price": 3.5, "photo": [0.5, 0.25],
        "made": 1_599_955_200, "shelf": 4,
    }  # fmt: skip
    assert catalog.table.row(4, named=True) == {
        "item_id": "8", "title": None, "tags": [], "price": None, "photo": None, "made": None, "shelf": None,
    }  # fmt: skip


def test_columns_that_are_not_given_stay_or_are_missing() -> None:
    catalog, said = put(item_id=["d", "a"], price=[9.0, None], colour=["red", "blue"])
    assert said == ["Columns the model was fitted without are not read: colour."]
    changed = catalog.table.row(0, named=True)
    assert changed == SHOP.table.row(0, named=True) | {"price": None}
    fresh = catalog.table.row(3, named=True)
    assert (fresh["item_id"], fresh["price"], fresh["title"], fresh["tags"]) == ("d", 9.0, None, [])


def test_a_retired_row_comes_back_in_its_place() -> None:
    catalog, numbers = upserted(SHOP, pl.DataFrame({"item_id": ["b"]}), lambda _: None)
    assert numbers.tolist() == [1] and len(catalog) == 3
    assert catalog.retired.tolist() == []
    assert put(item_id=["d"])[0].retired.tolist() == [1]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5), max_size=5))
def test_numbers_once_given_stay(tables: list[list[str]]) -> None:
    """Law: however items arrive, each id has one number, and no number changes its id."""
    catalog, place = SHOP, dict(zip(SHOP.ids.to_list(), range(3), strict=True))
    for names in tables:
        rows = pl.DataFrame({
            "item_id": pl.Series(names, dtype=pl.String),
            "price": np.arange(len(names)) + 0.5,
        })
        catalog, numbers = upserted(catalog, rows, lambda _: None)
        assert catalog.table["price"][numbers].to_list() == rows["price"].to_list()
        place |= {name: int(number) for name, number in zip(names, numbers, strict=True) if name not in place}
    assert catalog.ids.to_list() == sorted(place, key=place.__getitem__)
    assert sorted(place.values()) == list(range(len(catalog)))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["x"]}, "no column 'item_id'. Its columns: id. Rename"),
        ({"item_id": [["x"]]}, "'item_id' must hold texts"),
        ({"item_id": ["x", None]}, "Row 2 of the items, column 'item_id': the row has no id"),
        ({"item_id": ["x", "x"]}, "Row 2 of the items, column 'item_id': the id occurs in an earlier row"),
        ({"item_id": [1.0, 1.5]}, "Row 2 .*: the id is a number with a fraction"),
        (
            {"item_id": ["x", "y"], "price": ["1", "cheap"]},
            r"Row 2 .* 'price': 'cheap' can't be read\. Give a fin",
        ),
        ({"item_id": ["x"], "price": [[1.0]]}, r"Row 1 of the items, column 'price'"),
        ({"item_id": ["x"], "made": ["soon"]}, "Row 1 .* 'made': 'soon' can't be read. Give a date"),
        ({"item_id": ["x"], "photo": ["a.jpg"]}, "'photo' of the items holds String: give a vector"),
        (
            {"item_id": ["x"], "tags": [{"a": 1}]},
            r"'tags' of the items holds Struct.*: give one value or a list",
        ),
    ],
)
def test_what_can_t_be_read_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        put(**columns)


def test_missing_numbers_may_be_written_as_nan() -> None:
    assert put(item_id=["x"], price=[float("nan")])[0].table["price"][3] is None


def test_a_catalogue_of_names_alone_takes_names() -> None:
    bare = Catalog(pl.DataFrame({"item_id": ["a"]}))
    catalog, _ = upserted(replace(bare), pl.DataFrame({"item_id": ["b"]}), lambda _: None)
    assert catalog.ids.to_list() == ["a", "b"]
