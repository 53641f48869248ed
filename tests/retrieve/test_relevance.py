"""How relevance is worked out and what it adds, and that noise adds nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import InputError
from llm4rec.retrieve.entries import DAY, FACTORS, ITEM_TEXT, KINDS, MEMORY, Asked, Entries
from llm4rec.retrieve.memories import Memories
from llm4rec.retrieve.neighbours import item_texts
from llm4rec.retrieve.relevance import Grounding, Relevance
from llm4rec.retrieve.repository import Repository, RetrieveConfig
from llm4rec.retrieve.trial import GAMMAS, Trial

N_ITEMS = 40
ALL = np.ones((len(KINDS), len(FACTORS)), dtype=bool)


def entry(kind: int, item: int, **values: float) -> Entries:
    told = {"weights": 1.0, "semantic": 0.0, "ages": np.nan, "quality": np.nan, "overlap": 0.0} | values
    floats = {name: np.array([value], dtype=np.float32) for name, value in told.items()}
    numbers = {name: np.array([item]) for name in ("items", "anchors", "sources")}
    return Entries(np.array([kind]), **numbers, **floats)


def test_relevance_is_equation_9_and_time_equation_10() -> None:
    found = entry(MEMORY, 3, weights=0.5, semantic=0.8, ages=30, quality=0.25, overlap=0.4)
    relevance = weighed(item_text=(9, 9, 9, 9), memory=(1, 2, 3, 4), gamma=0.01)
    expected = 0.5 * np.array([1 * 0.8, 2 * np.exp(-0.3), 3 * 0.25, 4 * 0.4])
    np.testing.assert_allclose(relevance.contributions(found), expected[None], rtol=1e-6)


def test_what_is_not_known_of_an_entry_says_nothing() -> None:
    relevance = weighed(item_text=(1, 1, 1, 1), memory=(1, 1, 1, 1), gamma=0.01)
    assert relevance.contributions(entry(ITEM_TEXT, 3, semantic=0.8)).tolist() == [
        [pytest.approx(0.8), 0, 0, 0]
    ]


def weighed(*, gamma: float, **weights: tuple[float, ...]) -> Relevance:
    named = {kind: dict(zip(FACTORS, row, strict=True)) for kind, row in weights.items()}
    return Relevance.of({"weights": named, "gamma": gamma})


def said(groups: int = 8) -> Catalog:
    """Items of which every `groups`-th says the same."""
    words = pl.Series([f"kind{item % groups}" for item in range(N_ITEMS)])
    return Catalog(
        pl.DataFrame({"item_id": [str(i) for i in range(N_ITEMS)], "title": words}), (Field("title", "text"),)
    )


def repository(log: EventLog, catalog: Catalog) -> Repository:
    config = RetrieveConfig()
    memories = Memories(log, N_ITEMS, config.memories)
    return Repository({"item_text": item_texts(catalog, {}, 8), "memory": memories}, config)


def people(n: int = 200, *, stay: float = 0.9) -> EventLog:
    """People most of whose items are of one kind."""
    draw = np.random.default_rng(1)
    kind = draw.integers(8, size=(n, 1))
    kinds = np.where(draw.random((n, 6)) < stay, kind, draw.integers(8, size=(n, 6)))
    items = draw.integers(N_ITEMS // 8, size=(n, 6)) * 8 + kinds
    return build_log(pl.Series(np.repeat([f"u{u}" for u in range(n)], 6)), items.ravel())


def chosen(log: EventLog, catalog: Catalog) -> Relevance:
    rows = np.arange(log.n_users)
    ends = log.lengths - 1
    trial = Trial(repository(log.heads(ends), catalog), log.items[log.offsets[1:] - 1], rows, ALL)
    know_nothing = np.full((log.n_users, N_ITEMS), -np.log(N_ITEMS), dtype=np.float32)
    trial.ask(rows, know_nothing, log.histories(rows, ends))
    return trial.chosen()[0]


def test_texts_are_weighed_where_people_stay_with_what_is_said() -> None:
    found = chosen(people(), said())
    assert max(found.weights[ITEM_TEXT]) > 0.3


def test_nothing_is_weighed_where_texts_and_memories_are_noise() -> None:
    draw = np.random.default_rng(2)
    log = people(stay=0.0)
    noise = replace(log, items=draw.permutation(log.items))
    assert not chosen(noise, said()).any


def test_weights_are_the_most_likely_of_a_conditional_logit() -> None:
    """Items 0 and 1; nothing is known before, and 3 of 4 people take what is spoken for: w·s = log 3."""
    config = RetrieveConfig(anchors=1)

    class Told(Memories):
        def entries(self, asked: Asked) -> Entries:
            return entry(MEMORY, 1, semantic=2.0)

    empty = EventLog(pl.Series([], dtype=pl.String), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    n = 400
    targets = np.where(np.arange(n) % 4 < 3, 1, 0)
    trial = Trial(Repository({"memory": Told(empty, 4, 1)}, config), targets, np.arange(n) // 4, ALL)
    history = EventLog(pl.Series([str(i) for i in range(n)]), np.arange(n + 1), np.full(n, 3))
    scores = np.tile(np.log(np.array([0.3, 0.3, 1e-9, 0.4], dtype=np.float32)), (n, 1))
    trial.ask(np.arange(n), scores, history)
    found, gain = trial.chosen()
    assert gain is not None and gain.mean > gain.error
    assert found.weights[MEMORY][0] * 2 == pytest.approx(np.log(3), rel=1e-3)


def test_grounding_adds_relevance_and_probabilities_still_sum_to_one() -> None:
    log = people()
    relevance = weighed(item_text=(0, 0, 0, 1.5), memory=(2.0, 0, 0, 0), gamma=GAMMAS[0])
    found = Grounding(repository(log, said()), relevance)
    histories = log.histories(np.array([0, 5]), np.array([3, 0]))
    before = np.full((2, N_ITEMS), -np.log(N_ITEMS), dtype=np.float32)
    after = found.add(before, histories)
    np.testing.assert_allclose(np.exp(after).sum(axis=1), 1, rtol=1e-5)
    items, lifts = found.lifts(histories, 0)
    assert not np.isin(histories.history(0), items).any() and (lifts >= 0).all() and lifts.max() > 0
    np.testing.assert_allclose((after - before)[0, items] - lifts, (after - before)[0].min(), atol=1e-5)
    assert np.array_equal(after[1], before[1])  # an empty history finds nothing
    assert np.array_equal(Grounding().add(before, histories), before)


def test_now_is_the_time_of_asking_else_the_last_event() -> None:
    past = build_log(
        pl.Series(["a", "a", "b", "b"]), np.array([0, 1, 0, 2]), times=np.array([1, 2, 3, 9]) * DAY
    )
    asked = build_log(pl.Series(["c", "c"]), np.array([5, 0]), times=np.array([1, 4]) * DAY)
    found = repository(past, said())
    assert sorted(found.retrieve(asked, 0).only(found.retrieve(asked, 0).kinds == MEMORY).items) == [1]
    later = replace(asked, asked_at=np.array([9 * DAY]))
    memories = found.retrieve(later, 0)
    memories = memories.only(memories.kinds == MEMORY)
    assert memories.items.tolist() == [1, 2] and memories.ages.tolist() == [7, 0]


def test_only_what_is_tried_is_weighed() -> None:
    log = people()
    rows, ends = np.arange(log.n_users), log.lengths - 1
    alone = np.array(KINDS) == "item_text"
    tried = alone[:, None] & np.array([False, True, True, True])
    trial = Trial(repository(log.heads(ends), said()), log.items[log.offsets[1:] - 1], rows, tried)
    trial.ask(rows, np.full((log.n_users, N_ITEMS), -np.log(N_ITEMS)), log.histories(rows, ends))
    found, _ = trial.chosen()
    assert list(found.told()["weights"]) == ["item_text"]
    *others, overlap = found.weights[ITEM_TEXT]
    assert not any(others) and overlap > 0


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ({"factors": ("temporal",)}, "'temporal': that needs the time of every event"),
        ({"factors": ("semantic", "quality")}, "'quality': that needs ratings"),
        ({"kinds": ("item_text",)}, "'item_text': that needs items with features"),
        ({"kinds": ("memory", "review")}, "'review': that needs reviews"),
        ({"kinds": ("tag",)}, "'tag': that needs tags"),
    ],
)
def test_what_the_data_has_not_is_refused_in_a_sentence(asked: dict[str, Any], needs: str) -> None:
    with pytest.raises(InputError, match=needs):
        RetrieveConfig(enabled=True, **asked).tried(
            kinds={"memory", "similar_item"}, clock=False, rated=False
        )
    found = RetrieveConfig(enabled=True, **asked).tried(kinds=KINDS, clock=True, rated=True)
    assert found.sum() == len(asked.get("kinds", KINDS)) * len(asked.get("factors", FACTORS))


def test_a_weight_of_next_to_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(people(), said()).any
    monkeypatch.setattr("llm4rec.retrieve.trial.LEAST", 1e3)  # more than any adds here
    assert not chosen(people(), said()).any
