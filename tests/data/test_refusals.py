"""What people do not want: the last word on an item decides."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data.catalog import Catalog
from llm4rec.data.refusals import SCHEMA, Refusals

SHOP = Catalog(pl.DataFrame({"item_id": ["a", "b", "c"]}), ())
Told = list[tuple[str, str, bool]]
TOLD = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abx"), st.booleans()), max_size=12)


def events(told: Told) -> pl.DataFrame:
    return pl.DataFrame(told, schema={**SCHEMA, "refused": pl.Boolean()}, orient="row")


def test_what_is_refused_by_hand() -> None:
    told = [("u", "c", True), ("u", "x", True), ("v", "a", True), ("v", "b", False)]
    found = Refusals().after(events(told))
    assert found.said == {"u": {"c", "x"}, "v": {"a"}} and len(found) == 2
    log = found.of(pl.Series(["v", None, "u", "", "w"], dtype=pl.String), SHOP)
    assert log.offsets.tolist() == [0, 1, 1, 2, 2, 2] and log.items.tolist() == [0, 2]  # x is yet to come
    later = Catalog(pl.DataFrame({"item_id": ["a", "b", "c", "x"]}), ())
    assert found.of(pl.Series(["u"]), later).items.tolist() == [2, 3]
    taken = found.after(events([("v", "a", False), ("u", "c", False), ("u", "c", True)]))
    assert taken.said == {"u": {"c", "x"}}
    assert found.without("u").said == {"v": {"a"}}


@given(TOLD, st.integers(0, 12))
def test_the_last_word_decides_however_often_and_in_what_parts_it_is_heard(told: Told, cut: int) -> None:
    last = {(user, item): refused for user, item, refused in told}
    found = Refusals().after(events(told))
    assert {(user, item) for user, items in found.said.items() for item in items} == {
        pair for pair, refused in last.items() if refused
    }
    assert all(found.said.values())
    assert found.after(events(told)) is found
    assert Refusals().after(events(told[:cut])).after(events(told[cut:])) == found
    assert Refusals.from_frame(found.to_frame()) == found


def test_what_was_never_written_is_refused() -> None:
    table = Refusals({"u": frozenset("a")}).to_frame()
    with pytest.raises(ValueError, match="have the columns"):
        Refusals.from_frame(table.rename({"item_id": "item"}))
    for user in (None, ""):
        with pytest.raises(ValueError, match="lacks a value"):
            Refusals.from_frame(table.with_columns(pl.lit(user, dtype=pl.String).alias("user_id")))
