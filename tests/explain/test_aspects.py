"""Aspects are the catalogue's own words; preferences over them are probabilities, learnt or base rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from llm4rec.cli.fit import _of_aspects
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import ArtefactError
from llm4rec.explain import learning
from llm4rec.explain.aspects import Aspects, ExplainConfig, Vocabulary
from llm4rec.explain.learning import Positions, along, base_rates, cross_entropy, train
from llm4rec.keeping import KIND, stored_aspects
from llm4rec.recommender import Recommender
from llm4rec.settings import Config, sasrec_config
from llm4rec.store import artefact
from llm4rec.types import Array

LISTS = pl.List(pl.String)
FIELDS = (Field("genre", "categorical"), Field("title", "text"), Field("brand", "categorical"))


def catalog(genres: list[list[str] | None], brands: list[list[str] | None] | None = None) -> Catalog:
    names = [f"i{i}" for i in range(len(genres))]
    return Catalog(
        pl.DataFrame({
            "item_id": names,
            "genre": pl.Series(genres, dtype=LISTS),
            "title": names,
            "brand": pl.Series(brands or [[]] * len(genres), dtype=LISTS),
        }),
        FIELDS,
    )


SHOP = catalog(
    [["war", "love"], ["love"], [], ["war", "war"], ["rare"], None],
    [["3M"], ["3M"], [], ["acme"], ["acme"], ["3M"]],
)


def options(**values: int) -> ExplainConfig:
    return ExplainConfig.model_validate(values)


def test_the_most_common_values_are_the_aspects() -> None:
    found = Vocabulary.of(SHOP, options(fewest=2))
    assert list(zip(found.fields, found.values, strict=True)) == [
        ("genre", "love"), ("genre", "war"), ("brand", "3M"), ("brand", "acme"),
    ]  # fmt: skip
    assert found.offsets.tolist() == [0, 3, 5, 5, 7, 8, 9]
    assert found.aspects.tolist() == [0, 1, 2, 0, 2, 1, 3, 3, 2]
    assert found.of_item(3).tolist() == [1, 3]
    assert "rare" in Vocabulary.of(SHOP, options(fewest=1)).values
    fewer = Vocabulary.of(SHOP, options(fewest=2, aspects=2))  # 3M has three items, three others have two
    assert list(zip(fewer.fields, fewer.values, strict=True)) == [("genre", "love"), ("brand", "3M")]


@pytest.mark.parametrize("none", [options(aspects=0), options(fewest=4)])
def test_there_may_be_no_aspects(none: ExplainConfig) -> None:
    found = Vocabulary.of(SHOP, none)
    assert len(found) == 0 and found.q(np.arange(6)).shape == (6, 0)
    assert len(Vocabulary.of(replace(SHOP, fields=()), options(fewest=1))) == 0


def test_an_item_is_shared_evenly_among_its_aspects() -> None:
    found = Vocabulary.of(SHOP, options(fewest=2)).q(np.array([3, 0, 2, 0]))
    third = np.float32(1 / 3)
    expected = [[0, 0.5, 0, 0.5], [third, third, third, 0], [0, 0, 0, 0], [third, third, third, 0]]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


def test_items_that_come_later_have_the_aspects_of_their_names() -> None:
    kept = Vocabulary.of(SHOP, options(fewest=2))
    grown = catalog(
        [*SHOP.table["genre"].to_list(), ["new", "war"]], [*SHOP.table["brand"].to_list(), ["3M"]]
    )
    later = Vocabulary.over(grown, kept.fields, kept.values)
    assert later.aspects.tolist() == [*kept.aspects.tolist(), 1, 2]
    with pytest.raises(ValueError, match="'title' of an aspect is no categorical one"):
        Vocabulary.over(SHOP, ("title",), ("i1",))
    with pytest.raises(ValueError, match="named twice"):
        Vocabulary.over(SHOP, ("brand", "brand"), ("3M", "3M"))


def made(weights: Array, bias: Array) -> Aspects:
    k = len(bias)
    names = tuple(f"v{place}" for place in range(k))
    floats = (np.asarray(each, dtype=np.float32) for each in (weights, bias, np.full(k, 1 / k)))
    return Aspects(("genre",) * k, names, *floats)


def test_preferences_by_hand() -> None:
    told = made([[np.log(2), 0], [0, np.log(5)]], [0, np.log(3)])
    found = told.preferences(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    # odds of 2 to 3, 1 to 3, and 1 to 3 · 5
    np.testing.assert_allclose(found, [[2 / 5, 3 / 5], [1 / 4, 3 / 4], [1 / 16, 15 / 16]], rtol=1e-6)


def test_base_rates_by_hand() -> None:
    spoken = Vocabulary.over(catalog([["a", "b"], ["b"], []]), ("genre", "genre"), ("a", "b"))
    # a: 1/2 + 1/2, b: 1/2 + 1/2 + 1, and one more event of both alike; items without aspects say nothing
    np.testing.assert_allclose(base_rates(spoken, np.array([0, 0, 1, 2])), [1.5 / 4, 2.5 / 4], rtol=1e-6)
    np.testing.assert_allclose(base_rates(spoken, np.array([2])), [0.5, 0.5])


def test_loss_and_gradient_where_training_starts_by_hand() -> None:
    weights = torch.zeros(2, 1, requires_grad=True)
    bias = torch.tensor([0.25, 0.75]).log().requires_grad_()
    loss = cross_entropy(weights, bias, torch.tensor([[2.0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.tolist() == pytest.approx([np.log(4)])
    loss.sum().backward()
    assert weights.grad is not None and bias.grad is not None
    np.testing.assert_allclose(weights.grad, [[-1.5], [1.5]])  # (p − q) h
    np.testing.assert_allclose(bias.grad, [-0.75, 0.75])
    both = cross_entropy(weights, bias, torch.tensor([[2.0]]), torch.tensor([[0.5, 0.5]]))
    assert both.tolist() == pytest.approx([np.log(4) / 2 + np.log(4 / 3) / 2])


FLOATS = st.floats(-20, 20, width=32)


@given(data=st.data(), k=st.integers(1, 6), d=st.integers(1, 4))
def test_preferences_are_probabilities_in_whatever_order(data: st.DataObject, k: int, d: int) -> None:
    weights = data.draw(arrays_of.arrays(np.float32, (k, d), elements=FLOATS))
    bias = data.draw(arrays_of.arrays(np.float32, k, elements=FLOATS))
    states = torch.from_numpy(data.draw(arrays_of.arrays(np.float32, (3, d), elements=FLOATS)))
    order = np.array(data.draw(st.permutations(range(k))))
    told = made(weights, bias)
    found = told.preferences(states)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found >= 0).all()
    turned = replace(
        told, values=tuple(told.values[each] for each in order), weights=weights[order], bias=bias[order]
    )
    np.testing.assert_allclose(turned.preferences(states), found[:, order], rtol=1e-4, atol=1e-6)


KINDS = ("ocean", "desert", "forest")
WORLD = catalog([[KINDS[i % 3]] for i in range(15)])
SPOKEN = Vocabulary.of(WORLD, options())


def planted(n: int, seed: int, *, taste: bool = True) -> Positions:
    """States whose first three coordinates say which kind is liked, and what is taken: mostly that."""
    draw = np.random.default_rng(seed)
    likes = draw.integers(3, size=n)
    states = draw.normal(size=(n, 8)) * 0.3 + 5
    states[np.arange(n), likes if taste else draw.integers(3, size=n)] += 2
    kinds = np.where(draw.random(n) < 0.85, likes, draw.integers(3, size=n))
    items = kinds + 3 * draw.integers(5, size=n)
    return Positions(torch.from_numpy(states.astype(np.float32)), items, np.arange(n))


def test_a_taste_that_is_there_is_found() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found, told = train(planted(600, 0), planted(400, 1), SPOKEN, 0)
    assert found is not None and told is not None
    states = torch.full((3, 8), 5.0)
    states[range(3), range(3)] += 2
    liked = found.preferences(states)
    wanted = [SPOKEN.values.index(kind) for kind in KINDS]
    np.testing.assert_allclose(liked[range(3), wanted], 0.9, atol=0.05)
    # what nobody could beat: −0.9 log 0.9 − 2 · 0.05 log 0.05
    assert 0.35 < told["cross_entropy"] < 0.45 < 1.05 < told["base_rates"] < 1.12
    assert told["least"] == 0 and told["steps"] > 0 and told["people"] == 400
    assert told["gain"]["mean"] == pytest.approx(told["base_rates"] - told["cross_entropy"])
    again, _ = train(planted(600, 0), planted(400, 1), SPOKEN, 0)
    assert again is not None
    np.testing.assert_array_equal(again.weights, found.weights)
    assert (torch.random.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_where_states_say_nothing_base_rates_are_told() -> None:
    found, told = train(planted(500, 2, taste=False), planted(200, 3, taste=False), SPOKEN, 0)
    assert found is not None and told is not None
    assert told["steps"] == 0 and told["cross_entropy"] == told["base_rates"]
    assert not found.weights.any()
    np.testing.assert_allclose(found.preferences(torch.randn(2, 8)), [found.rates] * 2, rtol=1e-5)


def test_half_of_the_people_judge_what_the_others_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    start, best = made([[0.0]], [0.0]), made([[1.0]], [0.0])
    # people 0 and 2 choose the second row, by which 1 and 3 are judged; those choose the first
    losses = np.array([[1.0, 1.0, 1.0, 1.0], [0.2, 1.1, 0.2, 1.1]])
    monkeypatch.setattr(learning, "_walk", lambda *_: learning._Path(start, best, losses))
    monkeypatch.setattr(learning, "FEWEST", 4)
    found, told = train(planted(4, 0), planted(4, 0), SPOKEN, 0)
    assert found is start and told is not None  # each half did its best with what the other would not have
    assert told["gain"]["mean"] == pytest.approx(-0.05) and told["cross_entropy"] == 1.0


def test_too_little_to_learn_from_gives_none() -> None:
    few, many = planted(learning.FEWEST - 1, 0), planted(100, 0)
    bare = catalog([[]] * 15)
    none = Vocabulary.over(bare, SPOKEN.fields, SPOKEN.values)
    one = replace(many, people=np.zeros(100, dtype=np.int64))
    cases = ((few, many, SPOKEN), (many, few, SPOKEN), (many, one, SPOKEN), (many, many, none))
    for taught, held_out, spoken in cases:
        assert train(taught, held_out, spoken, 0) == (None, None)


def taste() -> EventLog:
    """People who stay with the kind they like."""
    draw = np.random.default_rng(0)
    items = draw.integers(5, size=(60, 7)) * 3 + np.arange(60)[:, None] % 3
    return build_log(pl.Series([f"u{u}" for u in range(60) for _ in range(7)]), items.ravel())


TINY = Config.model_validate({
    "data": {"max_history": 4},
    "train": {"epochs": 6, "attention_epochs": 0, "batch_size": 128, "learning_rate": 0.02},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.0},
    "encode": {"text": {"encoder": "hash"}},
    "retrieve": {"enabled": False},
})


@pytest.fixture(scope="module")
def model() -> Recommender:
    return Recommender.fit(taste(), WORLD, TINY)


def test_states_are_read_in_stretches_as_they_are_one_by_one(model: Recommender) -> None:
    scorer, log = model.fitted.scorer, taste()
    strangers = np.full(60, -1)
    found = along(scorer, log, strangers, 0)
    assert sorted(found.items.tolist()) == sorted(log.items.tolist())  # each event is asked for once
    firsts = scorer.states(log.heads(np.zeros(60, dtype=np.int64)), strangers)
    ones = scorer.states(log.heads(np.ones(60, dtype=np.int64)), strangers)
    for person in range(0, 60, 9):
        own = found.states[torch.from_numpy(np.flatnonzero(found.people == person))]
        for state in (firsts[person], ones[person]):
            assert (own - state).abs().amax(dim=1).min() < 1e-5


def test_no_more_is_read_than_is_said(model: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "READ", 50)
    read = along(model.fitted.scorer, taste(), np.full(60, -1), 0)
    assert 20 < len(read.items) < 60
    monkeypatch.setattr(learning, "MOST", 10)
    first, again, other = (along(model.fitted.scorer, taste(), np.full(60, -1), seed) for seed in (0, 0, 1))
    assert len(first.items) == 10
    np.testing.assert_array_equal(first.states, again.states)
    assert first.states.shape == other.states.shape and not torch.equal(first.states, other.states)


def test_a_fitted_model_knows_what_is_preferred(model: Recommender) -> None:
    told, fitted = model.meta["training"]["aspects"], model.fitted
    assert fitted.aspects is not None and told["aspects"] == 3
    assert told["cross_entropy"] < told["base_rates"] - 0.2
    history = taste().heads(np.full(60, 5))
    found = fitted.aspects.preferences(fitted.scorer.states(history, fitted.person_rows(history)))
    liked = np.array(fitted.aspects.values)[found.argmax(axis=1)]
    assert (liked == np.array(KINDS)[np.arange(60) % 3]).mean() > 0.9


def test_a_stored_model_prefers_alike_and_so_does_one_that_grew(model: Recommender, tmp_path: Path) -> None:
    more = pl.DataFrame({
        "item_id": ["new", "odd"],
        "genre": pl.Series([["ocean", "forest"], ["moon"]], dtype=LISTS),
    })
    grown = model.upsert_items(more).retire_items(["i0"])
    grown.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model").fitted
    before = model.fitted.aspects
    assert before is not None and read.aspects is not None
    assert (read.aspects.fields, read.aspects.values) == (before.fields, before.values)
    for name, array in before.tensors().items():
        np.testing.assert_array_equal(read.aspects.tensors()[name], array)
    asked = taste().heads(np.full(60, 3))
    for fitted in (grown.fitted, read):
        assert fitted.aspects is not None
        states = fitted.scorer.states(asked, fitted.person_rows(asked))
        expected = before.preferences(model.fitted.scorer.states(asked, model.fitted.person_rows(asked)))
        np.testing.assert_allclose(fitted.aspects.preferences(states), expected, rtol=1e-4, atol=1e-6)


def test_a_model_without_aspects_is_read_too(model: Recommender, tmp_path: Path) -> None:
    Recommender(replace(model.fitted, aspects=None)).save(tmp_path / "model")
    assert not (tmp_path / "model" / "aspects.safetensors").exists()
    read = Recommender.load(tmp_path / "model")
    assert read.fitted.aspects is None
    asked = taste().heads(np.full(60, 3))
    np.testing.assert_array_equal(read.rank(asked, 5).scores, model.rank(asked, 5).scores)


SOUND: dict[str, Array] = {
    "weights": np.zeros((2, 8), np.float32),
    "bias": np.zeros(2, np.float32),
    "rates": np.full(2, 0.5, np.float32),
}
NAMED = {"fields": ["genre", "genre"], "values": ["ocean", "desert"]}


@pytest.mark.parametrize(
    ("changes", "named", "said"),
    [
        (
            {"weights": np.zeros((2, 9), np.float32)},
            {},
            r"weights of aspects is float32 \[2, 9\], not finite",
        ),
        ({"weights": np.zeros((3, 8), np.float32)}, {}, r"not finite float32 \[2, 8\]"),
        ({"weights": np.zeros((2, 8))}, {}, r"weights of aspects is float64"),
        ({"bias": np.full(2, np.nan, np.float32)}, {}, r"bias of aspects .* not finite"),
        ({"rates": np.zeros(2, np.float32)}, {}, "rates of aspects are not all above 0"),
        ({"more": np.zeros(2, np.float32)}, {}, "unexpected keyword argument 'more'"),
        ({}, {"fields": ["genre"]}, "not named by a field and a value each"),
        ({}, {"values": ["ocean", 3]}, "not named by a field and a value each"),
        ({}, {"values": None}, "object is not iterable"),
        ({}, {"values": ["ocean", "ocean"]}, "named twice"),
        ({}, {"fields": ["genre", "title"]}, "'title' of an aspect is no categorical one"),
    ],
)
def test_preferences_that_make_no_sense_are_refused_when_they_are_read(
    tmp_path: Path, changes: dict[str, Array], named: dict[str, Any], said: str
) -> None:
    for name, arrays, names in (("sound", SOUND, NAMED), ("broken", SOUND | changes, NAMED | named)):
        artefact.write(tmp_path / name, kind=KIND, meta={"aspects": names}, tensors={"aspects": arrays})
    sound = stored_aspects(artefact.read(tmp_path / "sound", KIND), WORLD, 8)
    assert sound is not None and sound.values == ("ocean", "desert")
    with pytest.raises(ArtefactError, match=rf"aspects\.safetensors of the model .*broken .*{said}"):
        stored_aspects(artefact.read(tmp_path / "broken", KIND), WORLD, 8)


@pytest.mark.parametrize("meta", [{}, {"aspects": None}, {"aspects": []}, {"aspects": {"fields": []}}])
def test_aspects_without_names_are_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    artefact.write(tmp_path / "m", kind=KIND, meta=meta, tensors={"aspects": SOUND})
    with pytest.raises(ArtefactError, match="not named by a field and a value each"):
        stored_aspects(artefact.read(tmp_path / "m", KIND), WORLD, 8)


def test_fit_says_what_preferences_are_worth() -> None:
    def said(told: dict[str, Any] | None) -> list[str]:
        return list(_of_aspects({"training": {"aspects": told}}))

    told = {"aspects": 18, "steps": 180, "cross_entropy": 2.2, "base_rates": 2.3317}
    assert said(None) == []
    assert (
        "18 values of categories" in said(told)[0]
        and "2.200 nats by their states, and 2.332" in said(told)[0]
    )
    assert "the same for everybody" in said(told | {"steps": 0})[0]


def test_sasrec_has_no_aspects() -> None:
    assert sasrec_config(Config()).explain.aspects == 0 and Config().explain.aspects == 1000
