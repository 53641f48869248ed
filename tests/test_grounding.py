"""Retrieval in a fitted model: part of every answer, kept with it, and only where people gain by it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from llm4rec import keeping
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.remarks import Remarks, build_remarks
from llm4rec.errors import ArtefactError, InputError
from llm4rec.fitting import hold_out
from llm4rec.recommender import Recommender
from llm4rec.retrieve.condition import Condition
from llm4rec.retrieve.entries import ITEM_TEXT, MEMORY
from llm4rec.retrieve.index import VectorIndex
from llm4rec.retrieve.relevance import Relevance
from llm4rec.settings import Config
from llm4rec.types import Context, Query

N_ITEMS = 40
N_KINDS = 8


def said(items: range) -> pl.DataFrame:
    titles = [f"the {'abcdefgh'[i % N_KINDS] * 3} of {i}" for i in items]
    return pl.DataFrame({"item_id": [f"i{i}" for i in items], "title": titles})


CATALOG = Catalog(said(range(N_ITEMS)), (Field("title", "text"),))


def log(stay: float) -> EventLog:
    """People who stay with a kind, the more the higher `stay`."""
    draw = np.random.default_rng(1)
    kinds = np.where(draw.random((300, 6)) < stay, draw.integers(N_KINDS, size=(300, 1)), -1)
    kinds = np.where(kinds < 0, draw.integers(N_KINDS, size=kinds.shape), kinds)
    items = draw.integers(N_ITEMS // N_KINDS, size=kinds.shape) * N_KINDS + kinds
    return build_log(pl.Series(np.repeat([f"person-{u}" for u in range(300)], 6)), items.ravel())


TINY: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 1, "attention_epochs": 0, "batch_size": 256, "learning_rate": 1e-5},
    "model": {"embedding_size": 16, "layers": 1, "heads": 1},
    "linear": {"items": 0},
    "retrieve": {"enabled": True, "neighbours": 8},
}
"""A network that learns next to nothing."""


MEMORIES_ALONE = Relevance.of({"weights": {"memory": {"semantic": 50}}})


def fitted(stay: float, *, enabled: bool = True) -> Recommender:
    retrieve = TINY["retrieve"] | {"enabled": enabled}
    return Recommender.fit(log(stay), CATALOG, Config.model_validate(TINY | {"retrieve": retrieve}))


@pytest.fixture(scope="module")
def model() -> Recommender:
    return fitted(0.9)


def large(model: Recommender) -> Recommender:
    config = model.config
    generate = config.generate.model_copy(update={"exact_up_to": 0})
    return Recommender(replace(model.fitted, config=config.model_copy(update={"generate": generate})))


def test_retrieval_stays_where_people_gain_by_it(model: Recommender) -> None:
    assert model.fitted.relevance.any and model.fitted.memories is not None
    told = model.meta["retrieval"]
    assert told["gain"]["mean"] > told["gain"]["error"] > 0
    assert told["weights"] == model.fitted.relevance.told()["weights"]
    best = model.recommend(Query(("i3", "i11")), 2)
    assert set(best.item_ids) < {"i19", "i27", "i35"}  # of the same kind


def test_memories_are_judged_and_kept_newer_than_the_network() -> None:
    """Only the last step of each person, which chooses epochs, follows a rule: the network can't know it."""
    draw = np.random.default_rng(2)
    items = draw.integers(N_ITEMS, size=(300, 6))
    items[:, 5] = (items[:, 4] + 3) % N_ITEMS
    people = log(0.0)
    turned = Recommender.fit(replace(people, items=items.ravel()), CATALOG, Config.model_validate(TINY))
    assert turned.fitted.relevance.weighs(MEMORY)
    assert turned.meta["n_events"] == 1500  # those that are trained on
    assert turned.fitted.memories is not None and turned.fitted.memories.n_events == 1800
    found = [
        turned.recommend(Query((f"i{i}",)), 1).item_ids[0] == f"i{(i + 3) % N_ITEMS}" for i in range(N_ITEMS)
    ]
    assert np.mean(found) > 0.7


def test_noise_leaves_no_trace() -> None:
    noise = fitted(0.0)
    assert not noise.fitted.relevance.any and noise.fitted.memories is None
    gain = noise.meta["retrieval"]["gain"]
    assert gain["mean"] <= gain["error"]
    off = fitted(0.0, enabled=False)
    query = Query(("i3", "i11"))
    assert noise.recommend(query, 40) == off.recommend(query, 40)


def test_candidates_are_lifted_as_all_items_are(model: Recommender) -> None:
    for query in (Query(("i3", "i11")), Query(), Query(("i5",), exclude=("i13",))):
        expected, found = model.recommend(query, 10), large(model).recommend(query, 10)
        assert found.item_ids == expected.item_ids
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_what_is_remembered_is_kept_and_read_alike(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    assert read.fitted.relevance == model.fitted.relevance
    for query in (Query(("i3", "i11")), Query(("i1",), user="person-7")):
        assert read.recommend(query, 10).item_ids == model.recommend(query, 10).item_ids


def test_weights_that_earlier_models_name_by_place_are_read() -> None:
    old = {"weights": [[1.0, 0.0, 0.0, 2.0], [0.0, 3.0, 0.0, 0.0]], "gamma": 0.5}
    expected = Relevance.of({
        "weights": {"item_text": {"semantic": 1, "overlap": 2}, "memory": {"temporal": 3}}, "gamma": 0.5
    })  # fmt: skip
    assert keeping.stored_relevance(old) == expected == keeping.stored_relevance(expected.told())
    assert not keeping.stored_relevance(None).any


def test_without_histories_nothing_is_remembered_and_texts_still_are(
    model: Recommender, tmp_path: Path
) -> None:
    model.save(tmp_path / "model", histories=False)
    assert not list((tmp_path / "model").glob("*memories*"))
    read = Recommender.load(tmp_path / "model").fitted
    assert read.memories is None and read.relevance == model.fitted.relevance.without(MEMORY)
    assert read.relevance.weighs(ITEM_TEXT)
    entries = read.grounding.lifts(log(0.9).histories(np.array([0]), np.array([3])), 0)
    assert len(entries[0]) > 0


def test_a_new_item_is_found_by_what_it_says(model: Recommender) -> None:
    new = pl.DataFrame({"item_id": ["new", "other"], "title": ["the ddd of 99", "zzz"]})
    grown = model.upsert_items(new)
    found = grown.recommend(Query(("i3", "i11")), 42)
    place = {name: number for number, name in enumerate(found.item_ids)}
    assert place["new"] < 4 < place["other"]  # i3 and i11 are of the kind ddd
    retired = grown.retire_items(["new"])
    assert "new" not in retired.recommend(Query(("i3", "i11")), 42).item_ids


def test_a_persons_own_events_are_no_memories_of_theirs(model: Recommender) -> None:
    """Memories alone: somebody who is the only one to have taken an item is told nothing by it."""
    past = build_log(pl.Series(["ann", "ann", "bob", "bob"]), np.array([0, 9, 1, 9]))
    only = replace(model.fitted, memories=past, relevance=MEMORIES_ALONE)
    told = Recommender(only).recommend(Query(("i0",), user="bob"), 1)
    assert told.item_ids == ("i9",)
    untold: Any = only.grounding.lifts(build_log(pl.Series(["ann"]), np.array([0])), 0)
    assert len(untold[0]) == 0


def test_the_time_of_asking_says_what_is_remembered(model: Recommender) -> None:
    past = build_log(pl.Series(["ann", "ann"]), np.array([0, 9]), times=np.array([100, 200]))
    only = replace(model.fitted, memories=past, relevance=MEMORIES_ALONE)
    asked = Recommender(only)
    assert asked.hears_time and not model.hears_time  # whose events have no times
    early, late = (asked.recommend(Query(("i0",), context=Context(time)), 1) for time in (199, 200))
    assert early.item_ids != late.item_ids == ("i9",)


def test_what_is_remembered_live_is_told_to_others_and_goes_with_the_person(model: Recommender) -> None:
    past = build_log(pl.Series(["ann", "ann"]), np.array([0, 9]), times=np.array([100, 200]))
    frozen = Recommender(replace(model.fitted, memories=past, histories=past, relevance=MEMORIES_ALONE))
    assert frozen.recommend(Query(("i1",)), 1).item_ids != ("i30",)
    newer = build_log(pl.Series(["cy", "cy", "ann"]), np.array([1, 30, 31]), times=np.array([300, 400, 500]))
    grown = frozen.remember(newer)
    assert grown.recommend(Query(("i1",)), 1).item_ids == ("i30",)
    assert grown.recommend(Query(("i9",)), 1).item_ids == ("i31",)  # ann went on from where she was
    assert grown.recommend(Query(("i1",), context=Context(399)), 1) == frozen.recommend(
        Query(("i1",), context=Context(399)), 1
    )
    known = grown.known_history("ann")
    assert known is not None and known.items.tolist() == [0, 9, 31]
    gone = grown.forget_user("cy")
    assert gone.known_history("cy") is None
    assert gone.recommend(Query(("i1",)), 40) == frozen.remember(
        newer.without("cy")
    ).recommend(Query(("i1",)), 40)  # fmt: skip
    assert gone.forget_user("nobody").recommend(Query(("i9",)), 1).item_ids == ("i31",)
    nobody = gone.forget_user("ann")
    assert nobody.fitted.histories is not None and not nobody.fitted.histories.n_users
    assert nobody.recommend(Query(user="ann"), 5) == nobody.recommend(Query(), 5)
    assert frozen.remember(newer.heads(np.zeros(2, dtype=np.int64))).fitted is frozen.fitted


def test_what_is_remembered_is_popular_of_late(model: Recommender) -> None:
    """Nobody's history says anything: what people take now leads the list, and a new item may."""
    grown = model.upsert_items(pl.DataFrame({"item_id": ["new"], "title": ["the zzz"]}))
    liked = np.repeat([N_ITEMS, 33, 34], 2000)
    told = grown.remember(build_log(pl.Series([f"new-{n}" for n in range(len(liked))]), liked))
    popular = {"new", "i33", "i34"}
    assert popular < set(told.recommend(Query(), 4).item_ids)  # the network is sure of one
    assert not popular & set(grown.recommend(Query(), 4).item_ids)
    untold = replace(grown.fitted, histories=None, memories=None)  # with nothing kept of people
    assert Recommender(untold).remember(log(0.0)).fitted.prior is grown.fitted.prior


def test_a_person_who_is_forgotten_is_in_no_file(model: Recommender, tmp_path: Path) -> None:
    model.forget_user("person-7").save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    assert read.known_history("person-7") is None
    assert read.fitted.memories is not None and "person-7" not in read.fitted.memories.user_ids
    for file in (tmp_path / "model").iterdir():
        if file.suffix == ".parquet" and "user_id" in pl.read_parquet(file).columns:
            assert "person-7" not in pl.read_parquet(file)["user_id"]


def test_only_events_of_the_catalogue_are_remembered(model: Recommender) -> None:
    wrong: Any = [("ann", 3)]
    with pytest.raises(InputError, match="remembered from an EventLog, not from a list"):
        model.remember(wrong)
    with pytest.raises(InputError, match="by their numbers in the catalogue, 0 to 39"):
        model.remember(build_log(pl.Series(["ann"]), np.array([40])))
    with pytest.raises(InputError, match="give a timestamp to all of them"):
        model.remember(build_log(pl.Series(["ann"]), np.array([4]), times=np.array([1])))
    with pytest.raises(InputError, match="by their user_id, a text, not by 7"):
        model.forget_user(7)  # pyright: ignore[reportArgumentType]


def spoken(events: EventLog) -> Remarks:
    """Of everything that is done somebody says of which kind it is."""
    words = ["abcdefgh"[i % N_KINDS] * 3 for i in events.items.tolist()]
    frame = pl.DataFrame({"user_id": events.user_ids[events.rows], "text": words})
    return build_remarks(frame, events.items)


@pytest.fixture(scope="module")
def read_aloud() -> Recommender:
    """A model that knows of no item what it is, but by what is said of it."""
    config = Config.model_validate(TINY | {"retrieve": {"neighbours": 100, "kinds": ("review",)}})
    bare = Catalog(CATALOG.table.select("item_id"))
    return Recommender.fit(log(0.9), bare, config, remarks={"review": spoken(log(0.9))})


def test_reviews_speak_for_items_like_those_of_a_history(read_aloud: Recommender) -> None:
    assert list(read_aloud.meta["retrieval"]["weights"]) == ["review"]
    items, lifts = read_aloud.fitted.grounding.lifts(build_log(pl.Series(["x", "x"]), np.array([3, 11])), 0)
    assert items.tolist() == [19, 27, 35] and lifts.min() > 1  # of the same kind
    off = replace(read_aloud.fitted, relevance=Relevance())
    same = Query(("i3", "i11"), allow=("i19", "i20"))
    before, after = (one.recommend(same, 2) for one in (Recommender(off), read_aloud))
    lead = {one: dict(zip(one.item_ids, one.scores, strict=True)) for one in (before, after)}
    gained = [lead[one]["i19"] - lead[one]["i20"] for one in (before, after)]
    assert gained[1] > gained[0] + 1


def test_without_a_clock_nothing_is_read_of_what_is_asked(read_aloud: Recommender) -> None:
    train, _ = hold_out(log(0.9), read_aloud.config.train.validation_people, read_aloud.config.train.seed)
    kept = read_aloud.fitted.remarks["review"]
    assert kept.about(train).all() and len(kept) < log(0.9).n_events
    assert not spoken(log(0.9)).about(train).all()


def test_reviews_are_kept_and_go_with_the_person(read_aloud: Recommender, tmp_path: Path) -> None:
    read_aloud.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    query = Query(("i3", "i11"))
    assert read.recommend(query, 9) == read_aloud.recommend(query, 9)
    gone = read.forget_user("person-7")
    assert "person-7" in read.fitted.remarks["review"].user_ids
    assert "person-7" not in gone.fitted.remarks["review"].user_ids
    index = read.fitted.retrievers["review"]
    for other in (read.forget_user("nobody"), read.upsert_items(pl.DataFrame({"item_id": ["new"]}))):
        assert other.fitted.retrievers["review"] is index
        assert len(other.recommend(Query(("i3", "new" if "new" in other.catalog.ids else "i4")), 9)) == 9
    said = gone.fitted.remark_vectors["review"]
    assert len(said) == len(gone.fitted.remarks["review"]) < len(read.fitted.remarks["review"])
    asked = build_log(pl.Series(["x", "x"]), np.array([3, 11]))
    for model, told in ((read, True), (gone, False)):
        repository = model.fitted.grounding.repository
        assert repository is not None
        sources = repository.retrieve(asked, 0).sources
        assert ("person-7" in model.fitted.remarks["review"].user_ids[sources]) == told
    read.save(tmp_path / "unsigned", histories=False)
    unsigned = Recommender.load(tmp_path / "unsigned")
    assert set(unsigned.fitted.remarks["review"].user_ids) == {""}
    assert unsigned.recommend(query, 9) == read.recommend(query, 9)  # asked by nobody in particular


def test_reviews_that_are_asked_for_and_not_given_are_refused() -> None:
    config = Config.model_validate(TINY | {"retrieve": {"kinds": ("memory", "review")}})
    with pytest.raises(InputError, match="retrieve can't weigh 'review': that needs reviews"):
        Recommender.fit(log(0.9), CATALOG, config)


def test_the_index_of_many_texts_is_a_checked_file_that_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VectorIndex, "of", partial(VectorIndex.of, exact=10))
    model = fitted(0.9)
    model.save(tmp_path / "model")
    file = tmp_path / "model" / "item_text.index"
    query = Query(("i3", "i11"))
    expected = model.recommend(query, 10)
    read = Recommender.load(tmp_path / "model")
    assert read.recommend(query, 10) == expected and set(read.fitted.cells) == {"item_text"}
    grown = read.upsert_items(pl.DataFrame({"item_id": ["new"], "title": ["the ddd of 99"]}))
    assert "new" in grown.recommend(query, 4).item_ids and not grown.fitted.cells
    content = file.read_bytes()
    Recommender.load(tmp_path / "model").retire_items(["i1"]).save(tmp_path / "again")  # never asked
    assert (tmp_path / "again" / file.name).read_bytes() == content
    late = Recommender.load(tmp_path / "model")
    grown.save(tmp_path / "model")
    assert late.recommend(query, 10) == expected and file.read_bytes() != content
    read.save(tmp_path / "model")
    assert file.read_bytes() == content
    file.write_bytes(content[:-1] + b"!")
    with pytest.raises(ArtefactError, match=r"item_text\.index.*was altered"):
        Recommender.load(tmp_path / "model")
    file.unlink()
    without = Recommender.load(tmp_path / "model")
    assert without.recommend(query, 10) == expected and not without.fitted.cells


@pytest.fixture(scope="module")
def attentive(model: Recommender) -> Recommender:
    """The model with attention whose gate somebody opened."""
    condition = Condition(model.config.model.embedding_size, seed=3)
    torch.nn.init.constant_(condition.gate.bias, 0.5)
    return Recommender(replace(model.fitted, condition=condition.eval()))


def test_attention_to_what_is_retrieved_is_part_of_every_answer(
    model: Recommender, attentive: Recommender, tmp_path: Path
) -> None:
    query = Query(("i3", "i11"))
    expected = attentive.recommend(query, 10)
    assert expected != Recommender(replace(model.fitted, condition=None)).recommend(query, 10)
    found = large(attentive).recommend(query, 10)
    assert found.item_ids == expected.item_ids
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    attentive.save(tmp_path / "model")
    assert Recommender.load(tmp_path / "model").recommend(query, 10) == expected
    empty = Query()  # nothing is found for it
    assert attentive.recommend(empty, 10).item_ids == model.recommend(empty, 10).item_ids


def test_how_open_the_gate_is_is_told_by_person(model: Recommender, attentive: Recommender) -> None:
    people = log(0.9)
    rows = np.arange(5)
    found = attentive.openness(people.histories(rows, people.lengths[rows]))
    np.testing.assert_allclose(found, np.tanh(0.5), rtol=1e-5)  # a bias and nothing of the state
    uneven = Condition(model.config.model.embedding_size)
    torch.nn.init.uniform_(uneven.gate.weight, 1, 2)
    moved = Recommender(replace(model.fitted, condition=uneven))
    odd = build_log(pl.Series(["x"] * 2), np.array([-1, 3]))  # what is not known is passed over
    assert moved.openness(odd) == moved.openness(build_log(pl.Series(["x"]), np.array([3]))) > 0
    closed = Recommender(replace(model.fitted, condition=None))
    assert not closed.openness(people.histories(rows, people.lengths[rows])).any()


def test_whether_attention_is_kept_is_told(model: Recommender) -> None:
    told = model.meta["retrieval"]["attention"]
    assert (
        told["kept"]
        == (told["openness"] > 0)
        == (told["mean"] > told["error"])
        == (model.fitted.condition is not None)
    )
    off = Config.model_validate(TINY | {"retrieve": {"neighbours": 8, "attention": False}})
    without = Recommender.fit(log(0.9), CATALOG, off)
    assert without.meta["retrieval"]["attention"] is None and without.fitted.condition is None
    assert without.meta["retrieval"]["weights"] == model.meta["retrieval"]["weights"]


def test_attention_of_another_shape_is_refused(attentive: Recommender, tmp_path: Path) -> None:
    wrong = Recommender(replace(attentive.fitted, condition=Condition(8)))
    wrong.save(tmp_path / "model")
    with pytest.raises(ArtefactError, match=r"condition\.safetensors .* can't be understood"):
        Recommender.load(tmp_path / "model")


def test_asked_about_the_past_what_is_retrieved_is_no_certainty(model: Recommender) -> None:
    """The age of what comes after the time of asking is not known; it was taken for a huge relevance."""
    weights = {"item_text": {"temporal": 0.05, "overlap": 0.5}}
    dated = replace(model.fitted, relevance=Relevance.of({"weights": weights, "gamma": 0.1}))
    for day in (0, 100, 5000):
        query = Query(("i3", "i11"), timestamps=(10**9, 10**9), context=Context(10**9 - day * 86_400))
        scores = Recommender(dated).recommend(replace(query, keep_seen=True), N_ITEMS).scores
        assert np.exp(scores).sum() == pytest.approx(1, rel=1e-4) and max(scores) < 0
