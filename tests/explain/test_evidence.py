"""Evidence: chosen from what moved a score, weighed, and enough for everything that the text names."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm4rec.cli.recommend import as_json
from llm4rec.data.catalog import Catalog, Field
from llm4rec.explain.evidence import CIRCUMSTANCES, FOUND, ITEMS, SHOWN, Case, case, evidence
from llm4rec.explain.influence import Influence
from llm4rec.explain.writer import Writer
from llm4rec.retrieve.entries import KINDS, MEMORY
from llm4rec.types import Evidence, Explanation

FIELDS = (Field("genre", "categorical"), Field("mood", "categorical"))


def catalogue(
    titles: list[str], genres: list[list[str]], moods: list[list[str]], ids: list[str] | None = None
) -> Catalog:
    table = {
        "item_id": ids or [chr(ord("a") + n) for n in range(len(titles))],
        "title": titles,
        "genre": pl.Series(genres, dtype=pl.List(pl.String)),
        "mood": pl.Series(moods, dtype=pl.List(pl.String)),
    }
    return Catalog(pl.DataFrame(table), FIELDS)


ELM = 4
CATALOG = catalogue(
    ["Ash", "Bay", "Cob", "Dew", "Elm", "Fog"],
    [["drama"], ["drama", "war"], ["comedy"], ["war"], ["drama", "comedy"], ["war"]],
    [["slow"], ["fast"], ["fast"], ["slow"], ["slow"], []],
)


def influence(
    network: list[float],
    *,
    linear: list[float] | None = None,
    found: dict[tuple[int, str], float] | None = None,
    history: list[int] | None = None,
    trend: float = 0.0,
    time: float = 0.0,
    wish: float = 0.0,
    correction: float = 0.0,
) -> Influence:
    """What moved the score of one item, for a history of the first items of the catalogue by default."""
    u = len(network)
    retrieved = np.zeros((1, u, len(KINDS)), dtype=np.float32)
    for (place, kind), amount in (found or {}).items():
        retrieved[0, place, [*KINDS].index(kind)] = amount
    single = [np.array([each], dtype=np.float32) for each in (trend, time, wish, correction)]
    rows = [np.array([each], dtype=np.float32) for each in (network, linear or [0.0] * u)]
    return Influence(np.array(history or range(u), dtype=np.int64), *rows, retrieved, *single)


# Ash .4, Bay .3 + .05 + .25 = .6, Cob -.3, Dew .3: their mean is .25, without Bay it is .4 / 3
FOUND_OUT = influence(
    [0.4, 0.3, -0.3, 0.3], linear=[0, 0.05, 0, 0], found={(1, "memory"): 0.25}, trend=0.1, time=-0.05
)


def told(found: Influence, item: int = ELM, catalog: Catalog = CATALOG) -> tuple[Case, Explanation]:
    speaks = case(found, 0, item, catalog)
    kind, text = Writer(catalog, lately=True).write(found, speaks)
    return speaks, Explanation(text, kind, evidence(found, speaks, catalog), speaks.weights)


def test_a_case_worked_by_hand() -> None:
    speaks = case(FOUND_OUT, 0, ELM, CATALOG)
    assert speaks.order.tolist() == [1, 0, 3, 2]
    np.testing.assert_allclose(speaks.owed, [0.6, 0.4, 0.3, -0.3], rtol=1e-6)
    slow, drama = speaks.traits  # comedy is shared by Cob alone
    assert (slow.field, slow.value, slow.items.tolist()) == ("mood", "slow", [0, 3])
    assert slow.owed == pytest.approx(0.4 + 0.3 - 2 * 0.25)
    assert slow.beside == pytest.approx(0.4 + 0.3 - 2 * 0.4 / 3)
    assert (drama.field, drama.value, drama.items.tolist()) == ("genre", "drama", [1, 0])
    assert drama.owed == pytest.approx(0.6 + 0.4 - 2 * 0.25)
    assert drama.beside == pytest.approx(0.4 - 0.4 / 3)  # Bay, which owes most, does not count
    popular = 0.1
    assert speaks.circumstances == pytest.approx({
        "wish": 0,
        "recent_popularity": popular,
        "time_of_asking": -0.05,
        "correction": 0,
    })
    amounts = {"preference": 0.7 - 0.8 / 3, "similarity": 0.6, "context": popular - 0.05}
    total = 0.7 - 0.8 / 3 + 0.6 + popular - 0.05  # 1.0833
    assert speaks.amounts == pytest.approx(amounts)
    assert speaks.weights == pytest.approx({kind: each / total for kind, each in amounts.items()})
    # Ash and Dew add more than a quarter of what Bay adds, by the network too
    assert (speaks.kind, speaks.way, speaks.cited.tolist()) == ("similarity", "network", [1, 0, 3])


def test_its_evidence_comes_by_what_it_adds() -> None:
    _, explanation = told(FOUND_OUT)
    assert [(each.type, each.id, each.label) for each in explanation.evidence] == [
        ("history_item", "b", "Bay"),
        ("aspect", "genre=drama", "drama"),
        ("history_item", "a", "Ash"),
        ("history_item", "d", "Dew"),
        ("retrieved", "memory:b", "Bay"),
        ("aspect", "mood=slow", "slow"),
        ("context", "recent_popularity", "recent popularity"),
    ]
    amounts = [0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.1]
    np.testing.assert_allclose([each.contribution for each in explanation.evidence], amounts, rtol=1e-6)


def test_a_trait_that_several_show_outweighs_one_item() -> None:
    # .4 + .4 above two means of (.4 + .4 - .5) / 3 = .1 is .6, more than the .45 of Bay
    speaks, explanation = told(influence([0.4, 0.45, -0.5, 0.4]))
    assert speaks.amounts == pytest.approx({"preference": 0.6, "similarity": 0.45, "context": 0})
    assert (explanation.kind, speaks.cited.tolist()) == ("preference", [0, 3])
    assert {each.label for each in explanation.evidence} == {"Ash", "Bay", "Dew", "slow", "drama"}


def test_the_items_that_show_a_trait_are_evidence_where_others_add_more() -> None:
    catalog = catalogue([*"ABCDEFGHI"], [[]] * 3 + [["x"]] * 4 + [[], ["x"]], [[]] * 9)
    found = influence([0.32, 0.31, 0.30, 0.29, 0.28, 0.27, 0.26, -1])
    # beside A the mean is .71 / 7: the four that share x have 1.1 - .406 above it, more than the .32 of A
    _, explanation = told(found, 8, catalog)
    assert explanation.text == "“I” has “x”, and so have “D”, “E” and “F”, which you chose."
    assert [each.id for each in explanation.evidence if each.type == "history_item"] == [*"abcdef"]


def test_how_the_text_says_it_follows_is_evidence() -> None:
    """Two other memories add more than the review by which the score owes most to Bay."""
    found = influence(
        [-0.5, 0.05, -0.5, 0.0], found={(0, "memory"): 0.45, (2, "memory"): 0.44, (1, "review"): 0.3}
    )
    speaks, explanation = told(found)
    assert explanation.text.startswith("People say of “Elm” much what they say of “Bay”, which you chose.")
    assert (speaks.kind, speaks.way) == ("similarity", "review")
    ids = [each.id for each in explanation.evidence if each.type == "retrieved"]
    assert ids == ["memory:a", "memory:c", "review:b"]


def test_what_speaks_against_an_item_is_no_evidence_and_leaves_all_to_context() -> None:
    speaks, explanation = told(influence([-0.4, -0.1, -0.3, -0.2], time=-1.0))
    assert speaks.weights == {"preference": 0, "similarity": 0, "context": 1}
    assert (explanation.kind, explanation.evidence, speaks.cited.tolist()) == ("context", (), [])


@pytest.mark.parametrize("history", [[], [ELM]])
def test_nothing_and_the_item_itself_leave_nothing_to_cite(history: list[int]) -> None:
    speaks, explanation = told(influence([2.0] * len(history), history=history, trend=0.2))
    assert speaks.order.tolist() == [] and explanation.kind == "context"
    assert [each.id for each in explanation.evidence] == ["recent_popularity"]


AMOUNTS = st.floats(-2, 2, width=32)
VALUES = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3, unique=True)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Catalog, Influence, int]:
    """A catalogue with the letters as titles, a history, and an item that may be in it."""
    n = draw(st.integers(1, 7))
    lists = st.lists(VALUES, min_size=n, max_size=n)
    catalog = catalogue([*"ABCDEFG"[:n]], draw(lists), draw(lists))
    history = sorted(draw(st.sets(st.integers(0, n - 1))))
    u = len(history)
    found = Influence(
        np.array(history, dtype=np.int64),
        *(draw(arrays(np.float32, (1, u), elements=AMOUNTS)) for _ in range(2)),
        draw(arrays(np.float32, (1, u, len(KINDS)), elements=AMOUNTS)),
        np.array([draw(st.floats(0, 1, width=32))], dtype=np.float32),
        *(np.array([draw(AMOUNTS)], dtype=np.float32) for _ in range(3)),
    )
    return catalog, found, draw(st.integers(0, n - 1))


@given(situations())
def test_weights_sum_to_one_and_name_the_kind(situation: tuple[Catalog, Influence, int]) -> None:
    catalog, found, item = situation
    speaks = case(found, 0, item, catalog)
    weights = speaks.weights
    assert {*weights} == {"preference", "similarity", "context"}
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0
    assert weights[speaks.kind] == max(weights.values())


@given(situations())
def test_all_that_the_text_names_is_evidence(situation: tuple[Catalog, Influence, int]) -> None:
    catalog, found, item = situation
    speaks, explanation = told(found, item, catalog)
    named = {part.split("”")[0] for part in explanation.text.split("“")[1:]} - {catalog.titles[item]}
    labels = {each.label for each in explanation.evidence if each.type in ("history_item", "aspect")}
    assert named <= labels
    cited = [catalog.ids[number] for number in found.history[speaks.cited].tolist()]
    assert {*cited} <= {each.id for each in explanation.evidence if each.type == "history_item"}
    if explanation.kind == "preference":
        trait = speaks.traits[0]
        assert 1 <= len(cited) <= SHOWN and trait.value in catalog.table[trait.field][item].to_list()
        assert np.isin(found.history[speaks.cited], catalog.having(trait.field, [trait.value])).all()


@given(situations())
def test_evidence_speaks_for_the_item_strongest_first(situation: tuple[Catalog, Influence, int]) -> None:
    catalog, found, item = situation
    _, explanation = told(found, item, catalog)
    amounts = [each.contribution for each in explanation.evidence]
    assert amounts == sorted(amounts, reverse=True) and all(0 < each < math.inf for each in amounts)
    own = catalog.ids[item]
    assert not any(each.id in (own, *(f"{kind}:{own}" for kind in KINDS)) for each in explanation.evidence)
    keys = [(each.type, each.id) for each in explanation.evidence]
    assert len(keys) == len({*keys})
    types = [each.type for each in explanation.evidence]
    assert types.count("history_item") <= ITEMS + SHOWN and types.count("retrieved") <= FOUND + 1
    assert {each.id for each in explanation.evidence if each.type == "context"} <= {*CIRCUMSTANCES}


@given(situations())
def test_a_case_does_not_see_the_item_in_its_own_history(situation: tuple[Catalog, Influence, int]) -> None:
    """Where items may come back, it is as if that one were not there."""
    catalog, found, item = situation
    kept = found.history != item
    without = replace(
        found,
        history=found.history[kept],
        network=found.network[:, kept],
        linear=found.linear[:, kept],
        retrieved=found.retrieved[:, kept],
    )
    assert told(found, item, catalog)[1] == told(without, item, catalog)[1]


def test_json_is_as_the_command_line_promises() -> None:
    document: dict[str, Any] = json.loads(json.dumps(as_json(told(FOUND_OUT)[1])))
    assert {*document} == {"kind", "text", "weights", "evidence"}
    assert {*document["weights"]} == {"preference", "similarity", "context"}
    assert document["kind"] in document["weights"]
    for piece in document["evidence"]:
        assert {*piece} == {"type", "id", "label", "contribution"}
        assert piece["type"] in ("history_item", "aspect", "retrieved", "context")
        assert isinstance(piece["contribution"], float)


def test_what_was_retrieved_is_named_by_kind_and_by_what_found_it() -> None:
    _, explanation = told(influence([0, 0, 0, 0], found={(2, KINDS[MEMORY]): 0.5}))
    assert Evidence("retrieved", "memory:c", "Cob", 0.5) in explanation.evidence
