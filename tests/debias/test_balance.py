"""Exposure of categories held equal while a model serves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.debias.balance import Balance, ParityConfig, balanced, grouped
from llm4rec.debias.parity import Parity
from llm4rec.errors import InputError
from llm4rec.evaluate.groups import by_category
from llm4rec.types import Rankings

SHELVES = [["left"], ["left", "right"], ["right"], []]


def shop(shelves: list[list[str]] = SHELVES) -> Catalog:
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(len(shelves))],
        "shelf": pl.Series(shelves, dtype=pl.List(pl.String)),
    })
    return Catalog(table, (Field("shelf", "categorical"),))


def people(values: list[str | None]) -> Catalog:
    table = pl.DataFrame({"user_id": [f"u{row}" for row in range(len(values))], "gender": values})
    return Catalog(table, (), "user_id")


def made() -> Balance:
    items = by_category(shop())
    assert items is not None and items.names == ("left", "right")
    offsets = np.array([[np.log(2), 0.0], [0.0, 0.0]])
    return Balance(Parity("gender", ("F", "M"), items, offsets, 0.02, 0.3, 0.01), np.array([0, 1, -1]))


def test_offsets_of_categories_are_added_and_the_rest_sums_to_one() -> None:
    log_p = np.log(np.full((4, 4), 0.25, dtype=np.float32))
    found = np.exp(made().adjust(log_p, np.array([0, 1, 2, -1])))
    # of F the left item doubles, the one on both shelves goes up by √2: 2 + √2 + 1 + 1
    np.testing.assert_allclose(found[0], np.array([2, 2**0.5, 1, 1]) / (4 + 2**0.5), rtol=1e-5)
    np.testing.assert_allclose(found[1:], 0.25, rtol=1e-5)  # M, unknown, and a stranger


def test_candidates_are_adjusted_as_all_items_are_where_they_are_all() -> None:
    log_p = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], dtype=np.float32))
    whole = made().adjust(log_p, np.array([0]))
    order = np.array([2, 0, 1, 3])
    np.testing.assert_allclose(
        made().adjust(log_p[:, order], np.array([0]), order), whole[:, order], atol=1e-5
    )
    # of candidates alone, what the others hold stays: .4 · 2 of .4 · 2 + .6
    np.testing.assert_allclose(
        np.exp(made().adjust(log_p[:, :1], np.array([0]), np.array([0]))), [[0.8 / 1.4]], rtol=1e-5
    )


def test_a_new_item_has_the_offsets_of_its_categories() -> None:
    grown = made().of_items(shop([*SHELVES, ["left", "new"], ["right"]]))
    added = grown.parity.by_item[0]
    np.testing.assert_allclose(added[:-1], np.log(2) * np.array([1, 0.5, 0, 0, 0.5, 0]))


def test_who_is_gone_takes_their_group_along() -> None:
    assert made().of_people(np.array([1, 2])).members.tolist() == [1, -1]


def test_it_comes_back_from_what_is_kept() -> None:
    again = Balance.from_tensors(made().tensors(), json.loads(json.dumps(made().told())), shop(), 3)
    log_p = np.log(np.full((1, 4), 0.25, dtype=np.float32))
    np.testing.assert_array_equal(again.adjust(log_p, np.array([0])), made().adjust(log_p, np.array([0])))
    assert again.told() == made().told()
    with pytest.raises(ValueError, match="no finite offset"):
        Balance.from_tensors(made().tensors() | {"offsets": np.zeros((1, 2))}, made().told(), shop(), 3)
    for wrong in (np.array([0, 1, 2]), np.array([0, 1])):
        with pytest.raises(ValueError, match="one of its groups for each of 3 people"):
            Balance.from_tensors(made().tensors() | {"members": wrong}, made().told(), shop(), 3)
    with pytest.raises(ValueError, match="no finite offset"):
        Balance.from_tensors({}, made().told(), shop(), 3)


def test_what_did_not_go_as_asked_is_said() -> None:
    parity = made().parity
    assert Balance(replace(parity, compared=2), np.zeros(0)).notes() == []
    (few,) = made().notes()
    assert "no two groups by 'gender' have 20 validation lists" in few
    assert made().said() == {"before": None, "gap": None}
    wide = Balance(replace(parity, compared=2, gap=0.1), np.zeros(0))
    assert "differs by 0.100 on the validation lists, and not by 0.02 at most" in wide.notes()[0]
    assert wide.said() == {"before": 0.3, "gap": 0.1}


def test_offsets_bring_the_lists_of_two_groups_together() -> None:
    shelves = [["left"] if item < 30 else ["right"] for item in range(60)]
    catalog, rng = shop(shelves), np.random.default_rng(0)
    who = people(["F", "M"] * 40)
    likes = np.where(np.arange(60) < 30, 1.5, 0.0)
    scores = rng.normal(size=(80, 60)) + np.where(np.arange(80)[:, None] % 2 == 0, likes, 1.5 - likes)
    order = np.argsort(-scores, axis=1)
    pool = Rankings(order, np.take_along_axis(scores, order, axis=1).astype(np.float32))
    config = ParityConfig(attribute="gender", epsilon=0.05)
    groups = grouped(config, catalog, who)
    assert groups is not None
    found = balanced(pool, np.arange(80), groups, catalog, config)
    assert found.parity.before > 0.3
    assert found.parity.gap <= 0.05


def test_what_is_asked_for_has_to_be_there() -> None:
    assert grouped(ParityConfig(), shop(), None) is None
    asked = ParityConfig(attribute="gender")
    with pytest.raises(InputError, match="who have none: give a table"):
        grouped(asked, shop(), None)
    with pytest.raises(InputError, match="no column of the people, who have gender"):
        grouped(ParityConfig(attribute="age"), shop(), people(["F"]))
    with pytest.raises(InputError, match="chooses 10 items of more, and there are 4"):
        grouped(asked, shop(), people(["F"]))
    with pytest.raises(InputError, match="the items have none"):
        grouped(asked, Catalog(pl.DataFrame({"item_id": ["a"]}), ()), people(["F"]))
