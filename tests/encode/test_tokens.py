"""Tokens mean at request time what they meant at fit time, and missing is missing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.data.catalog import Catalog, Field
from llm4rec.encode.tokens import RARE, TokenConfig, Tokens, TokenSpace, cut_notes, fit_tokens
from llm4rec.errors import InputError
from llm4rec.settings import Config

TEXTS = {"title": np.array([[1, 0], [0, 1], [0, 0], [0.6, 0.8]], dtype=np.float32)}


def catalog(**columns: pl.Series) -> Catalog:
    """Items whose fields are read by the type of their columns: lists as categories, numbers as numbers."""
    n = len(next(iter(columns.values())))
    fields = tuple(
        Field(name, "categorical" if isinstance(column.dtype, pl.List) else "numerical")
        for name, column in columns.items()
    )
    return Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(n)], **columns}), fields)


def lists(*values: list[str] | None) -> pl.Series:
    return pl.Series(values, dtype=pl.List(pl.String))


def numbers(*values: float | None) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


def fitted(
    items: Catalog, *, max_values: int = 8, max_vocabulary: int = 100, min_count: int = 1
) -> TokenSpace:
    return fit_tokens(items, {}, max_values=max_values, max_vocabulary=max_vocabulary, min_count=min_count)


def one(space: TokenSpace, items: Catalog, modality: str) -> Tokens:
    return space.transform(items, {})[modality]


# --- categories


GENRES = lists(["war", "art"], ["war"], [], ["art", "war", "sea"], None)


def test_codes_count_up_by_field_commonest_value_first() -> None:
    items = catalog(genre=GENRES, brand=lists(["x"], ["y"], ["y"], ["x"], ["y"]))
    space = fitted(items)
    assert space.vocabularies == {"genre": ("war", "art", "sea", RARE), "brand": ("y", "x", RARE)}
    tokens = one(space, items, "categorical")
    # war 1, art 2, sea 3, rare 4; then y 5, x 6, rare 7
    assert tokens.values.tolist() == [
        [1, 2, 0, 6], [1, 0, 0, 5], [0, 0, 0, 5], [2, 1, 3, 6], [0, 0, 0, 5],
    ]  # fmt: skip
    assert space.n_codes == 8
    assert torch.equal(tokens.mask, tokens.values > 0)


def test_rare_and_unknown_values_share_the_last_code() -> None:
    space = fitted(catalog(genre=GENRES), min_count=2)
    assert space.vocabularies["genre"] == ("war", "art", RARE)
    later = catalog(genre=lists(["sea"], ["never heard of", "war"]))
    assert one(space, later, "categorical").values.tolist() == [[3, 0, 0], [3, 1, 0]]


def test_a_vocabulary_keeps_the_commonest() -> None:
    assert fitted(catalog(genre=GENRES), max_vocabulary=1).vocabularies["genre"] == ("war", RARE)


def test_an_item_keeps_its_first_distinct_values() -> None:
    items = catalog(genre=lists(["a", "a", "b", "c"], ["c"]))
    space = fitted(items, max_values=2)
    names = dict(enumerate(space.vocabularies["genre"], start=1))
    values = one(space, items, "categorical").values.tolist()
    assert [[names.get(code) for code in row] for row in values] == [["a", "b"], ["c", None]]


def test_what_is_cut_is_said_with_the_option_that_cuts_it() -> None:
    tags = lists([f"t{n}" for n in range(1311)], ["t0", "t1", "t2"], ["t0", "t0", "t1"], None)
    items = catalog(tags=tags, brand=lists(["x"], ["y"], ["x"], []), price=numbers(1, 2, 3, 4))
    limits = {"max_values": 2, "max_vocabulary": 100, "min_count": 1}
    assert cut_notes(items, **limits) == [
        "The column tags has up to 1,311 values per item; the first 2 are read, which leaves something out "
        "for 2 items (encode.max_values).",
        "The column tags has 1,311 values that occur at least 1 times; the commonest 100 get a vector of "
        "their own and the rest share one (encode.max_vocabulary).",
    ]
    assert cut_notes(items, max_values=1310, max_vocabulary=1311, min_count=1) == [
        "The column tags has up to 1,311 values per item; the first 1,310 are read, which leaves something "
        "out for 1 item (encode.max_values)."
    ]
    assert cut_notes(items, max_values=1311, max_vocabulary=3, min_count=2) == []  # t0, t1, t2 recur


def test_people_are_called_people() -> None:
    table = pl.DataFrame({"user_id": ["u", "v"], "likes": lists(["a", "b"], ["b", "c"])})
    people = Catalog(table, (Field("likes", "categorical"),), "user_id")
    (note,) = cut_notes(people, max_values=1, max_vocabulary=9, min_count=1)
    assert "2 values per person" in note and "for 2 people" in note


def test_a_limit_that_cuts_nothing_changes_nothing() -> None:
    items = catalog(genre=GENRES, brand=lists(["x"], ["y"], ["y"], ["x"], ["y"]))
    narrow, wide = fitted(items, max_values=3), fitted(items, max_values=64)
    assert narrow == wide
    assert cut_notes(items, max_values=3, max_vocabulary=100, min_count=1) == []


def test_the_limits_are_options_of_the_encode_section() -> None:
    encode = Config().encode
    assert encode.limits == {"max_values": 64, "max_vocabulary": 50_000, "min_count": 2}
    assert all(field.description for field in TokenConfig.model_fields.values())


def test_a_later_item_may_carry_more_values_than_any_before() -> None:
    space = fitted(catalog(genre=lists(["a"], ["b"])))
    assert one(space, catalog(genre=lists(["b", "a", "z"])), "categorical").values.shape == (1, 1)


def test_a_column_without_any_value_masks_everything() -> None:
    items = catalog(genre=lists([], None))
    assert not one(fitted(items), items, "categorical").mask.any()


# --- numbers


def test_numbers_become_their_place_among_the_fitted() -> None:
    items = catalog(price=numbers(*range(101)))
    tokens = one(fitted(items), items, "numerical")
    # cut points 0 … 100, give or take a rounding; p has p cuts below it and p + 1 up to it, of 101
    expected = [(p + 0.5) / 101 for p in range(101)]
    assert tokens.values[:, 0].tolist() == pytest.approx(expected, abs=0.51 / 101)
    later = catalog(price=numbers(-5, 1e9, 50.5))
    assert one(fitted(items), later, "numerical").values[:, 0].tolist() == pytest.approx([0, 1, 51 / 101])


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), -float("inf")])
def test_missing_and_endless_numbers_are_masked_and_spoil_nothing(missing: float | None) -> None:
    items = catalog(price=numbers(1, 2, missing, 3))
    tokens = one(fitted(items), items, "numerical")
    assert tokens.mask[:, 0].tolist() == [True, True, False, True]
    clean = catalog(price=numbers(1, 2, 3))
    there = tokens.values[tokens.mask]
    assert torch.equal(there, one(fitted(clean), clean, "numerical").values[:, 0])


def test_a_column_without_any_number_is_no_field() -> None:
    assert "numerical" not in fitted(catalog(price=numbers(None, None))).fields


FINITE = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60)
@given(st.lists(FINITE, min_size=1, max_size=30), st.lists(FINITE, min_size=1, max_size=10))
def test_quantiles_keep_order_and_ties(known: list[float], asked: list[float]) -> None:
    space = fitted(catalog(price=numbers(*known)))
    places = one(space, catalog(price=numbers(*asked, *asked)), "numerical").values[:, 0].numpy()
    assert ((places >= 0) & (places <= 1)).all()
    assert np.array_equal(places[: len(asked)], places[len(asked) :])
    order = np.argsort(asked, kind="stable")
    assert (np.diff(places[: len(asked)][order]) >= 0).all()


def test_times_are_numbers_too() -> None:
    table = pl.DataFrame({"item_id": ["a", "b"], "released": [100, 200]})
    items = Catalog(table, (Field("released", "time"),))
    values = one(fitted(items), items, "numerical").values[:, 0].tolist()
    assert values[0] < values[1]


# --- vectors


def test_a_zero_vector_is_missing() -> None:
    items = Catalog(pl.DataFrame({"item_id": list("abcd"), "title": list("wxyz")}), (Field("title", "text"),))
    space = fit_tokens(items, TEXTS, max_values=1, max_vocabulary=1, min_count=1)
    assert space.widths == {"text": 2}
    tokens = space.transform(items, TEXTS)["text"]
    assert tokens.values.shape == (4, 1, 2)
    assert tokens.present.tolist() == [True, True, False, True]
    assert tokens.take(torch.tensor([3, 2])).mask.tolist() == [[True], [False]]


def test_a_vector_field_that_later_items_lack_is_missing() -> None:
    items = Catalog(pl.DataFrame({"item_id": list("abcd"), "title": list("wxyz")}), (Field("title", "text"),))
    space = fit_tokens(items, TEXTS, max_values=1, max_vocabulary=1, min_count=1)
    tokens = space.transform(Catalog(pl.DataFrame({"item_id": ["new"]})), {})["text"]
    assert tokens.values.tolist() == [[[0, 0]]] and tokens.mask.tolist() == [[False]]
    with pytest.raises(InputError, match="'title' have 3 values, but the model was fitted with 2"):
        space.transform(items, {"title": np.ones((4, 3), dtype=np.float32)})


# --- later items


def test_an_item_unseen_at_fit_time_gets_tokens_of_the_same_meaning() -> None:
    columns = {"genre": lists(["war"], ["art"], ["war"]), "price": numbers(1, 2, 3)}
    space = fitted(catalog(**columns))
    then = space.transform(catalog(**columns), {})
    late = space.transform(catalog(genre=lists(["art"]), price=numbers(2)), {})
    for modality in ("categorical", "numerical"):
        assert torch.equal(late[modality].values[0], then[modality].values[1])


def test_columns_that_later_items_lack_are_missing() -> None:
    space = fitted(catalog(genre=GENRES, price=numbers(1, 2, 3, 4, 5)))
    bare = Catalog(pl.DataFrame({"item_id": ["new"]}))
    found = space.transform(bare, {})
    assert [found[m].mask.any().item() for m in ("categorical", "numerical")] == [False, False]
    assert found["categorical"].values.shape == (1, 3)
