"""Catalogues: outside names to dense numbers and back, rows in order, fields by kind."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm4rec.data.catalog import FEW, Catalog, Field
from llm4rec.errors import InputError

# Machines differ in speed: no law depends on a deadline.
law = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
names = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=12)


def catalog_of(ids: list[str]) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": pl.Series(ids, dtype=pl.String), "place": range(len(ids))}))


@pytest.fixture
def golden() -> Catalog:
    table = pl.DataFrame({
        "item_id": ["x", "y", "z"],
        "title": ["Ex", None, "Zed"],
        "kind": [["p"], [], ["q"]],
        "price": [1, 2, None],
    })
    return Catalog(table, (Field("title", "text"), Field("kind", "categorical"), Field("price", "numerical")))


def test_golden(golden: Catalog) -> None:
    assert len(golden) == 3
    assert golden.ids.to_list() == ["x", "y", "z"]
    numbers = golden.numbers(pl.Series(["z", "nobody", None, "x", "z"]))
    assert numbers.tolist() == [2, -1, -1, 0, 2]
    assert numbers.dtype == np.int64
    assert golden.titles.to_list() == ["Ex", "y", "Zed"]
    assert golden.by_modality("categorical") == (Field("kind", "categorical"),)
    assert golden.by_modality("image") == ()


def test_without_leaves_one_kind_of_field_out_and_every_row_in(golden: Catalog) -> None:
    plain = golden.without("text")
    assert [field.name for field in plain.fields] == ["kind", "price"]
    assert plain.ids.to_list() == golden.ids.to_list()
    assert plain.without("image").fields == plain.fields
    assert [field.name for field in golden.fields] == ["title", "kind", "price"]


def test_take_renumbers_in_the_order_given(golden: Catalog) -> None:
    taken = golden.take(np.array([2, 0]))
    assert taken.ids.to_list() == ["z", "x"]
    assert taken.numbers(pl.Series(["x", "y", "z"])).tolist() == [1, -1, 0]
    assert taken.table["kind"].to_list() == [["q"], ["p"]]
    assert taken.fields == golden.fields
    assert len(golden.take(np.array([], dtype=np.int64))) == 0


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", None]])
def test_rows_must_be_named_once_each(ids: list[str | None]) -> None:
    with pytest.raises(InputError, match="'item_id' must name each row once"):
        Catalog(pl.DataFrame({"item_id": ids}))


def test_taking_a_row_twice_is_refused(golden: Catalog) -> None:
    with pytest.raises(InputError, match="once"):
        golden.take(np.array([1, 1]))


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        (pl.Series([["a", "b"], [], None]), ["a, b", "y", "z"]),
        (pl.Series([["a", None], ["b", "c"], ["d", "e"]]), ["a", "b, c", "d, e"]),
        (pl.Series([["a", "b"]] * 3, dtype=pl.Array(pl.String, 2)), ["a, b"] * 3),
        (pl.Series([[1, 2], [3], []]), ["1, 2", "3", "z"]),
        (pl.Series([1987.0, None, 2.5]), ["1987", "y", "2.5"]),
        (pl.Series([1987, None, 1988]), ["1987", "y", "1988"]),
        (pl.Series([b"Ex", b"\xff", None]), ["Ex", "y", "z"]),
        (pl.Series([[b"a"], [b"\xff", b"b"], []]), ["a", "b", "z"]),
        (pl.Series([{"a": 1}, {"a": 2}, None]), ["x", "y", "z"]),
        (pl.Series([[{"a": 1}], [], None]), ["x", "y", "z"]),
        (pl.Series([timedelta(1), None, None]), ["x", "y", "z"]),
        (pl.Series(["", "Why", None]), ["x", "Why", "z"]),
    ],
)
def test_titles_are_text_whatever_their_column_holds(titles: pl.Series, expected: list[str]) -> None:
    found = Catalog(pl.DataFrame({"item_id": ["x", "y", "z"], "title": titles})).titles
    assert found.dtype == pl.String
    assert found.to_list() == expected


def test_people_have_their_own_key() -> None:
    people = Catalog(pl.DataFrame({"user_id": ["u", "v"], "name": ["Una", "Vic"]}), key="user_id")
    assert people.ids.to_list() == ["u", "v"]
    assert people.titles.to_list() == ["Una", "Vic"]
    assert people.take(np.array([1])).key == "user_id"


@pytest.mark.parametrize("times", [1, FEW])
def test_names_given_as_numbers_are_read_as_strings(times: int) -> None:
    found = catalog_of(["10", "7"]).numbers(pl.Series([7, 10, 8, None] * times))
    assert found.tolist() == [1, 0, -1, -1] * times
    assert found.dtype == np.int64


def test_short_queries_build_their_lookup_once(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = catalog_of([str(n) for n in range(50)])
    assert catalog.numbers(pl.Series(["7"])).tolist() == [7]

    def refuse(*_: object) -> pl.Series:
        raise AssertionError("the ids were read again")

    monkeypatch.setattr(Catalog, "ids", property(refuse))
    assert catalog.numbers(pl.Series(["49", "50", None], dtype=pl.String)).tolist() == [49, -1, -1]
    assert catalog.numbers(pl.Series([], dtype=pl.String)).tolist() == []


def test_long_queries_are_answered_as_short_ones() -> None:
    ids = [f"i{n}" for n in range(3 * FEW)]
    catalog = catalog_of(ids)
    asked = pl.Series([*reversed(ids), "stranger", None])
    expected = [*reversed(range(len(ids))), -1, -1]
    assert catalog.numbers(asked).tolist() == expected
    parts = [catalog.numbers(asked[start : start + FEW]) for start in range(0, len(asked), FEW)]
    assert np.concatenate(parts).tolist() == expected


def test_without_a_title_a_row_is_called_by_its_id() -> None:
    blank = pl.DataFrame({"item_id": ["x", "y", "z"], "title": ["", " \t\u00a0", " Zed"]})
    assert Catalog(blank).titles.to_list() == ["x", "y", " Zed"]
    assert catalog_of(["b", "a"]).titles.to_list() == ["b", "a"]


@law
@given(names, st.lists(st.text(max_size=4), max_size=8))
def test_numbers_are_positions_and_strangers_have_none(ids: list[str], asked: list[str]) -> None:
    catalog = catalog_of(ids)
    assert catalog.numbers(catalog.ids).tolist() == list(range(len(ids)))
    expected = [ids.index(name) if name in ids else -1 for name in asked]
    assert catalog.numbers(pl.Series(asked, dtype=pl.String)).tolist() == expected


@law
@given(names, st.data())
def test_taking_twice_is_taking_the_rows_of_rows(ids: list[str], data: st.DataObject) -> None:
    catalog = catalog_of(ids)
    first = np.array(data.draw(st.permutations(range(len(ids)))), dtype=np.int64)
    some = data.draw(st.integers(0, len(ids)))
    second = np.arange(some, dtype=np.int64)[::-1]
    twice = catalog.take(first).take(second)
    assert twice.ids.to_list() == [ids[first[place]] for place in second]
    assert twice.ids.to_list() == catalog.take(first[second]).ids.to_list()
    assert twice.table["place"].to_list() == first[second].tolist()
