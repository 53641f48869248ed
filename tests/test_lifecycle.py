"""Items that come and go: served without training, never in two places, the same after a round trip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec import lifecycle
from llm4rec.answering import exact, shortlisted
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.legal import legal_items
from llm4rec.errors import InputError
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.types import Query

KINDS = ("ocean", "desert", "forest", "arctic")
N_ITEMS = 28


def table(items: range) -> pl.DataFrame:
    return pl.DataFrame({
        "item_id": [f"i{i}" for i in items],
        "title": [f"{KINDS[i % 4]} tale {'abcdefghijkl'[i % 12] * 3}" for i in items],
        "tags": [[KINDS[i % 4]] for i in items],
        "photo": pl.Series([[float(i % 4), 1.0] for i in items], dtype=pl.List(pl.Float32)),
    })


FIELDS = (Field("title", "text"), Field("tags", "categorical"), Field("photo", "image"))


def taste() -> EventLog:
    """People who stay with the kind they like."""
    draw = np.random.default_rng(0)
    kinds = draw.integers(4, size=80)
    stays = draw.random((80, 7)) < 0.95
    kind = np.where(stays, kinds[:, None], draw.integers(4, size=(80, 7)))
    items = draw.integers(N_ITEMS // 4, size=(80, 7)) * 4 + kind
    return build_log(pl.Series([f"u{u}" for u in range(80) for _ in range(7)]), items.ravel())


def fitted(mode: str = "off", **generate: Any) -> Recommender:
    config = Config.model_validate({
        "encode": {"text": {"encoder": "hash"}},
        "train": {"epochs": 12, "attention_epochs": 1, "batch_size": 256, "learning_rate": 0.01},
        "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.0},
        "generate": {"mode": mode, "codebook_size": 8, "n_levels": 2, "beam": 8, "epochs": 2} | generate,
    })
    return Recommender.fit(taste(), Catalog(table(range(N_ITEMS)), FIELDS), config)


@pytest.fixture(scope="module", params=["dense", "joint", "only"])
def model(request: pytest.FixtureRequest) -> Recommender:
    return {"dense": fitted, "joint": lambda: fitted("joint", share=0.5), "only": lambda: fitted("only")}[
        request.param
    ]()


def all_of(model: Recommender, query: Query, **options: Any) -> list[str]:
    return list(model.recommend(replace(query, **options), 1000).item_ids)


def test_new_items_are_recommended_to_those_who_like_their_kind(model: Recommender) -> None:
    grown = model.upsert_items(table(range(N_ITEMS, N_ITEMS + 4)))
    assert len(grown.catalog) == N_ITEMS + 4
    new = [f"i{i}" for i in range(N_ITEMS, N_ITEMS + 4)]
    hits = 0
    for kind in range(4):
        history = tuple(f"i{kind + 4 * place}" for place in (1, 2, 3))
        ranked = all_of(grown, Query(history), allow=tuple(new))
        assert sorted(ranked) == new
        hits += int(ranked[0][1:]) % 4 == kind
    # ids of content alone are made before anything is learnt, so what is alike may be far apart in them
    assert hits >= (2 if model.config.generate.mode == "only" else 3)
    assert len(all_of(grown, Query(keep_seen=True))) == N_ITEMS + 4
    assert len(model.catalog) == N_ITEMS  # the one before is as it was
    assert len(all_of(model, Query())) == N_ITEMS


def test_everything_about_a_new_item_is_consistent(model: Recommender) -> None:
    old, new = model.fitted, model.upsert_items(table(range(N_ITEMS, N_ITEMS + 5))).fitted
    assert new.scorer.vectors.shape == (N_ITEMS + 5, 16)
    np.testing.assert_array_equal(new.scorer.vectors[:N_ITEMS], old.scorer.vectors)
    assert new.scorer.items["behaviour"].mask[N_ITEMS:].sum() == 0
    popularity = new.prior.log_popularity
    assert np.exp(popularity).sum(axis=1) == pytest.approx([1] * 4, abs=1e-5)
    events = np.exp(popularity - popularity[:, -1:]) / 2 - 0.5
    np.testing.assert_allclose(events, events.round(), atol=1e-3)  # half an event is the measure
    assert new.prior.floors == pytest.approx(popularity[:, -1].tolist(), abs=1e-5)
    if new.generator is not None:
        assert old.generator is not None
        codes = new.generator.ids.codes
        np.testing.assert_array_equal(codes[:N_ITEMS], old.generator.ids.codes)
        assert len(np.unique(codes, axis=0)) == N_ITEMS + 5
        assert new.generator.trie.find(new.generator.trie.items.new_tensor(codes)).tolist() == [
            *range(N_ITEMS + 5)
        ]


def test_an_item_that_changes_keeps_its_number_id_and_behaviour(model: Recommender) -> None:
    moved = table(range(1, 2)).with_columns(
        item_id=pl.lit("i0"), title=pl.lit("ocean tale changed"), tags=pl.lit(["desert"])
    )
    changed = model.upsert_items(moved)
    assert changed.catalog.ids.to_list() == model.catalog.ids.to_list()
    assert changed.catalog.table["title"][0] == "ocean tale changed"
    assert not np.allclose(changed.item_vectors[0], model.item_vectors[0])
    np.testing.assert_array_equal(changed.item_vectors[1:], model.item_vectors[1:])
    assert changed.fitted.scorer.items["behaviour"].mask[0]
    if model.fitted.generator is not None and changed.fitted.generator is not None:
        np.testing.assert_array_equal(changed.fitted.generator.ids.codes, model.fitted.generator.ids.codes)
    back = changed.upsert_items(table(range(1)))
    np.testing.assert_array_equal(back.item_vectors, model.item_vectors)


def test_retired_items_are_read_and_never_recommended(model: Recommender) -> None:
    gone = tuple(f"i{i}" for i in range(0, N_ITEMS, 2))
    retired = model.retire_items(gone)
    for query in (Query(), Query(("i1", "i2")), Query(("i0",), keep_seen=True), Query(allow=("i0", "i1"))):
        found = retired.recommend(query, 1000)
        assert not set(found.item_ids) & set(gone)
        kept = model.recommend(replace(query, exclude=gone), 1000)
        assert found == kept  # what is retired is as what is excluded
    assert retired.recommend(Query(("i0", "i4")), 5) != retired.recommend(Query(), 5)
    assert (~np.isin(retired.rank(taste(), N_ITEMS).items, np.arange(0, N_ITEMS, 2))).all()
    assert len(model.recommend(Query(), 1000)) == N_ITEMS
    again = retired.retire_items(["i0"])
    assert again.catalog.retired.tolist() == retired.catalog.retired.tolist()


def test_a_retired_item_comes_back_as_it_was(model: Recommender) -> None:
    retired = model.retire_items(["i3", "i5"]).upsert_items(table(range(40, 42)))
    assert retired.catalog.numbers(pl.Series(["i40", "i41"])).tolist() == [N_ITEMS, N_ITEMS + 1]
    back = retired.upsert_items(table(range(3, 4)))
    assert back.catalog.retired.tolist() == [5]
    np.testing.assert_array_equal(back.item_vectors[:N_ITEMS], model.item_vectors)
    if back.fitted.generator is not None and model.fitted.generator is not None:
        codes = back.fitted.generator.ids.codes
        np.testing.assert_array_equal(codes[:N_ITEMS], model.fitted.generator.ids.codes)
        assert len(codes) == N_ITEMS + 2
    assert "i3" in all_of(back, Query()) and "i5" not in all_of(back, Query())


def test_a_stored_model_remembers_what_came_and_went(model: Recommender, tmp_path: Path) -> None:
    changed = model.upsert_items(table(range(N_ITEMS, N_ITEMS + 6))).retire_items(["i2", "i30"])
    changed.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.catalog.retired.tolist() == [2, 30]
    np.testing.assert_array_equal(loaded.item_vectors, changed.item_vectors)
    np.testing.assert_array_equal(loaded.rank(taste(), 9).items, changed.rank(taste(), 9).items)
    np.testing.assert_array_equal(loaded.rank(taste(), 9).scores, changed.rank(taste(), 9).scores)
    # and goes on as the other would
    further = (each.upsert_items(table(range(50, 53))).retire_items(["i50"]) for each in (loaded, changed))
    first, second = (each.recommend(Query(("i1", "i32")), 1000) for each in further)
    assert first == second and "i50" not in first.item_ids and "i2" not in first.item_ids


def test_what_makes_no_sense_changes_nothing(model: Recommender) -> None:
    with pytest.raises(InputError, match=r"knows no item 'x' \(2 of the 3 named are unknown\)"):
        model.retire_items(["i1", "x", "y"])
    with pytest.raises(InputError, match=r"each a text: .*, not 'i1'"):
        model.retire_items("i1")
    wide = table(range(60, 61)).with_columns(photo=pl.Series([[1.0, 2.0, 3.0]], dtype=pl.List(pl.Float32)))
    with pytest.raises(InputError, match="'photo' have 3 values, but the model was fitted with 2"):
        model.upsert_items(wide)
    assert model.upsert_items(table(range(0))).fitted is model.fitted
    assert len(all_of(model, Query())) == N_ITEMS


def test_an_item_of_which_nothing_is_said_is_there_too(model: Recommender) -> None:
    said: list[str] = []
    grown = model.upsert_items(pl.DataFrame({"item_id": ["bare"], "weight": [3]}), note=said.append)
    assert np.isfinite(grown.item_vectors).all()
    assert "bare" in all_of(grown, Query())
    assert any("weight" in sentence for sentence in said)


def test_a_catalogue_can_be_given(model: Recommender) -> None:
    given = Catalog(table(range(N_ITEMS, N_ITEMS + 2)), FIELDS)
    by_table = model.upsert_items(given.table)
    assert model.upsert_items(given).recommend(Query(("i1",)), 9) == by_table.recommend(Query(("i1",)), 9)


def test_a_large_catalogue_changes_as_a_small_one(model: Recommender) -> None:
    config = model.config
    small = config.model_copy(update={"generate": config.generate.model_copy(update={"exact_up_to": 0})})
    large = Recommender(replace(model.fitted, config=small))
    both = [
        each.upsert_items(table(range(N_ITEMS, N_ITEMS + 3))).retire_items(["i1"]) for each in (model, large)
    ]
    exact, found = (each.recommend(Query(("i2", "i6")), 1000) for each in both)
    assert len(found) == len(exact) == N_ITEMS
    assert sorted(found.item_ids) == sorted(exact.item_ids)
    if model.fitted.generator is None:
        assert found.item_ids == exact.item_ids
        np.testing.assert_allclose(found.scores, exact.scores, atol=1e-4)


@pytest.mark.parametrize("source", [{"mode": "only"}, {"mode": "joint", "source": "content"}])
def test_the_twin_of_an_item_gets_its_codes_of_content(source: dict[str, str]) -> None:
    model = fitted(**source)
    twins = table(range(N_ITEMS)).with_columns(item_id=pl.col("item_id") + "-twin")
    generator = model.upsert_items(twins).fitted.generator
    assert generator is not None
    codes = generator.ids.codes
    np.testing.assert_array_equal(codes[N_ITEMS:, :-1], codes[:N_ITEMS, :-1])
    assert len(np.unique(codes, axis=0)) == 2 * N_ITEMS


def test_what_does_not_change_is_not_read_again(model: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("An encoder was opened.")

    whole = table(range(2)).with_columns(tags=pl.lit(["arctic"]))
    expected = model.upsert_items(whole)
    monkeypatch.setattr(lifecycle, "frozen_vectors", absent)
    for rows in (whole, whole.select("item_id", "tags")):
        changed = model.upsert_items(rows)
        assert not np.allclose(changed.item_vectors[0], model.item_vectors[0])
        np.testing.assert_array_equal(changed.item_vectors, expected.item_vectors)
    with pytest.raises(AssertionError, match="opened"):
        model.upsert_items(whole.with_columns(title=pl.lit("another")))


def test_an_index_outlives_what_is_retired(model: Recommender) -> None:
    config = model.config
    small = config.model_copy(update={"generate": config.generate.model_copy(update={"exact_up_to": 0})})
    large = Recommender(replace(model.fitted, config=small))
    index = large.fitted.index
    assert large.retire_items(["i1"]).fitted.index is index
    assert large.count_new_items(since({0: 1})).fitted.index is index
    assert large.upsert_items(table(range(N_ITEMS, N_ITEMS + 1))).fitted.index is not index


def test_a_wish_reaches_what_a_search_would_not() -> None:
    """The best for a wish is the best of all, not only of what the history made likely."""
    model = fitted("only", beam=1)
    history = ("i1", "i5", "i9")
    for number in range(N_ITEMS):
        query = Query(history, text=table(range(number, number + 1))["title"][0], keep_seen=True)
        found = all_of(model, query)
        assert model.recommend(query, 1).item_ids[0] == found[0]
        assert found.index(f"i{number}") < 3


@pytest.mark.parametrize("ids", [{"i1"}, [5], [None]])
def test_ids_of_another_kind_are_refused(model: Recommender, ids: Any) -> None:
    for name in ("i1", None, 5):
        with pytest.raises(InputError, match="list of ids, each a text"):
            model.retire_items(name)  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match="named by ids, each a text"):
            model.rate(Query(), name)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="by their user_id, a text, not by 3"):
        model.known_history(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="list of ids, each a text"):
        model.retire_items(ids if isinstance(ids, list) else [ids])
    with pytest.raises(InputError, match="takes a tuple of item ids, each a text"):
        model.recommend(Query(exclude=ids))
    with pytest.raises(InputError, match="takes a tuple of item ids, each a text"):
        model.recommend(Query(history=ids))


def since(taken: dict[int, int]) -> EventLog:
    """Events after training, one each 100 s: first one on each item, then so many more among others."""
    draw = np.random.default_rng(4)
    new = np.repeat(list(taken), list(taken.values()))
    old = draw.integers(N_ITEMS, size=3 * len(new))
    items = np.concatenate([list(taken), draw.permutation(np.concatenate([new, old]))])
    people = pl.Series([f"v{place}" for place in range(len(items))])
    return build_log(people, items, times=1_700_000_000 + 100 * np.arange(len(items)))


def test_a_new_item_that_is_taken_often_rises_and_one_that_is_not_falls(model: Recommender) -> None:
    grown = model.upsert_items(table(range(N_ITEMS, N_ITEMS + 8)))
    often, seldom, never = N_ITEMS, N_ITEMS + 4, N_ITEMS + 1  # the first two are of one kind
    counted = grown.count_new_items(since({often: 60, seldom: 0}))
    lifts = dict(zip(counted.fitted.arrivals.items.tolist(), counted.fitted.arrivals.lifts, strict=True))
    assert lifts[often] > 0.5 and lifts[seldom] < 0 and never not in lifts
    allow = tuple(f"i{item}" for item in (often, seldom, never))
    for history in (("i0", "i4"), ("i1",), ()):
        before, after = (
            dict(zip(found.item_ids, found.scores, strict=True))
            for found in (which.recommend(Query(history, allow=allow), 9) for which in (grown, counted))
        )
        assert after[f"i{often}"] > before[f"i{often}"] and after[f"i{seldom}"] < before[f"i{seldom}"]
    again = counted.count_new_items(since({seldom: 60, often: 0}))
    assert again.fitted.arrivals.lifts[again.fitted.arrivals.items == seldom] > 0.5  # it takes the place
    assert not len(
        counted.count_new_items(since({0: 1}).heads(np.zeros(1, dtype=np.int64))).fitted.arrivals.items
    )


def test_what_was_counted_is_kept_and_read_alike(model: Recommender, tmp_path: Path) -> None:
    counted = model.upsert_items(table(range(N_ITEMS, N_ITEMS + 4))).count_new_items(since({N_ITEMS: 40}))
    counted.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    later = read.upsert_items(table(range(N_ITEMS + 4, N_ITEMS + 6))).retire_items(["i1"])
    for other in (read, later):
        np.testing.assert_array_equal(other.fitted.arrivals.items, counted.fitted.arrivals.items)
        np.testing.assert_array_equal(other.fitted.arrivals.lifts, counted.fitted.arrivals.lifts)
    assert read.recommend(Query(("i0", "i4")), 9) == counted.recommend(Query(("i0", "i4")), 9)


def test_items_that_training_has_seen_are_not_counted(model: Recommender) -> None:
    counted = model.count_new_items(since({0: 50, 1: 1}))
    assert not len(counted.fitted.arrivals.items)
    assert counted.recommend(Query(("i0",)), 9) == model.recommend(Query(("i0",)), 9)


def test_new_items_are_counted_in_events_of_this_catalogue_alone(model: Recommender) -> None:
    wrong: Any = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"]})
    with pytest.raises(InputError, match="counted in an EventLog, not in a DataFrame"):
        model.count_new_items(wrong)
    for number in (-1, N_ITEMS):
        log = build_log(pl.Series(["u", "u"]), np.array([0, number]), times=np.array([1, 2]))
        with pytest.raises(InputError, match=f"by their numbers in the catalogue, 0 to {N_ITEMS - 1}"):
            model.count_new_items(log)


def test_candidates_are_lifted_as_the_whole_is(model: Recommender) -> None:
    grown = model.upsert_items(table(range(N_ITEMS, N_ITEMS + 8)))
    fitted = grown.count_new_items(since({N_ITEMS + 3: 80, N_ITEMS + 5: 1})).fitted
    if fitted.generator is not None:  # a wide beam leaves no item out of p_code, as candidates do not
        wide = replace(fitted.generator, beam=N_ITEMS + 8)
        fitted = replace(fitted, scorer=replace(fitted.scorer, join=wide.joined))
    asked = taste().heads(np.full(80, 3)).histories(np.arange(6), np.full(6, 3))
    whole = exact(fitted, asked, legal_items(fitted.catalog, 6, [asked], {}), 8)
    part = shortlisted(fitted, asked, legal_items(fitted.catalog, 6, [asked], {}), 8)
    np.testing.assert_array_equal(part.items, whole.items)
    if model.config.generate.mode == "off":
        np.testing.assert_allclose(part.scores, whole.scores, atol=1e-3)
