"""Answers under every restriction, with every item scored and with candidates, by every head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm4rec.answering import _first_legal
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.legal import Listed
from llm4rec.errors import InputError
from llm4rec.model.linear import Linear
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.types import Query

N_ITEMS = 24
CATALOG = Catalog(
    pl.DataFrame({
        "item_id": [f"i{i}" for i in range(N_ITEMS)],
        "kind": [[f"k{i // 6}", "even" if i % 2 == 0 else "odd"] for i in range(N_ITEMS)],
        "size": [[["s", "m", "l"][i % 3]] for i in range(N_ITEMS)],
        "price": [float(i) for i in range(N_ITEMS)],
    }),
    (Field("kind", "categorical"), Field("size", "categorical"), Field("price", "numerical")),
)
ids = st.lists(st.sampled_from([*CATALOG.ids.to_list(), "ghost"]), max_size=N_ITEMS).map(tuple)
wheres = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.lists(st.sampled_from(["k0", "k1", "k2", "odd", "none"]), min_size=1, max_size=3),
        "size": st.lists(st.sampled_from(["s", "m", "l"]), min_size=1, max_size=2),
    },
)
queries = st.builds(
    Query,
    history=ids,
    exclude=ids,
    allow=st.none() | ids.filter(len),
    where=wheres,
    keep_seen=st.booleans(),
)


def walks() -> EventLog:
    starts = np.random.default_rng(0).integers(N_ITEMS, size=60)
    items = (starts[:, None] + np.arange(6)) % N_ITEMS
    return build_log(pl.Series([f"u{u}" for u in range(60) for _ in range(6)]), items.ravel())


def fitted(mode: str, **generate: Any) -> Recommender:
    config = Config.model_validate({
        "train": {"epochs": 4, "attention_epochs": 0, "batch_size": 128, "learning_rate": 0.01},
        "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.0},
        "generate": {"mode": mode, "codebook_size": 6, "n_levels": 2, "beam": 2, "epochs": 2} | generate,
    })
    return Recommender.fit(walks(), CATALOG, config)


def shortlisting(model: Recommender) -> Recommender:
    """The same model as if its catalogue were large."""
    config = model.config
    large = config.model_copy(update={"generate": config.generate.model_copy(update={"exact_up_to": 0})})
    return Recommender(replace(model.fitted, config=large))


@pytest.fixture(scope="module")
def models() -> dict[str, Recommender]:
    made = {
        "dense": fitted("off"),
        "joint": fitted("joint", share=0.4),
        "codes": fitted("joint", share=1.0),
        "only": fitted("only"),
    }
    return made | {f"{name}, large": shortlisting(model) for name, model in made.items()}


def legal(query: Query) -> set[str]:
    kept = set(query.allow or CATALOG.ids.to_list()) & set(CATALOG.ids.to_list())
    for field, values in query.where.items():
        held = dict(zip(CATALOG.ids.to_list(), CATALOG.table[field].to_list(), strict=True))
        kept = {item for item in kept if set(held[item]) & set(values)}
    return kept - set(query.exclude) - (set() if query.keep_seen else set(query.history))


@pytest.mark.parametrize("which", ["dense", "joint", "codes", "only"])
@pytest.mark.parametrize("size", ["", ", large"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=queries, n=st.integers(1, N_ITEMS))
def test_n_legal_items_come_back_whenever_there_are_n(
    models: dict[str, Recommender], which: str, size: str, query: Query, n: int
) -> None:
    found = models[which + size].recommend(query, n)
    assert set(found.item_ids) <= legal(query)
    assert len(found) == len(set(found.item_ids)) == min(n, len(legal(query)))
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("which", ["dense", "joint", "codes", "only"])
@pytest.mark.parametrize("exponent", [1.0, 0.25])
def test_candidates_are_scored_as_all_items_are(
    models: dict[str, Recommender], which: str, exponent: float
) -> None:
    """Where the index finds everything, nothing is estimated; a wide beam leaves no item out of p_code."""
    whole, short = (
        Recommender(
            replace(
                models[name].fitted, linear=replace(models[name].fitted.linear, exponents=(exponent,) * 4)
            )
        )
        for name in (which, f"{which}, large")
    )
    if which == "joint":
        scorer, wide = whole.fitted.scorer, replace(whole.fitted.generator, beam=N_ITEMS)  # type: ignore[type-var]
        whole = Recommender(replace(whole.fitted, scorer=replace(scorer, join=wide.joined)))
    for query in (Query(("i1", "i2")), Query(), Query(("i3",), where={"kind": ("odd",)})):
        expected, found = whole.recommend(query, 12), short.recommend(query, 12)
        assert found.item_ids == expected.item_ids
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert min(whole.fitted.linear.strengths) > 0  # it takes part in all this
    rows = walks().heads(np.full(60, 3))
    np.testing.assert_allclose(short.rank(rows, 5).scores, whole.rank(rows, 5).scores, atol=1e-4)
    assert (short.rank(rows, 30).items[:, N_ITEMS - 3 :] == -1).all()  # three are seen


def test_what_is_popular_is_found_by_the_length_of_the_history(
    models: dict[str, Recommender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two candidates each, the network's and the prior's, the prior's are those of its class."""
    monkeypatch.setattr("llm4rec.answering.CANDIDATES", 2)
    fitted = models["dense, large"].fitted
    popularity = np.full((4, N_ITEMS), 0.01, dtype=np.float32)
    popularity[0, 20] = popularity[1, 3] = popularity[2, 17] = popularity[3, 17] = 1 - 0.01 * (N_ITEMS - 1)
    prior = replace(fitted.prior, log_popularity=np.log(popularity), shares=(1.0,) * 4)
    model = Recommender(replace(fitted, prior=prior))
    assert model.recommend(Query(), 1).item_ids == ("i20",)
    assert model.recommend(Query(("i9",)), 1).item_ids == ("i3",)
    assert model.recommend(Query(("i7", "i8", "i9")), 1).item_ids == ("i17",)


@pytest.mark.parametrize("strength", [4.0, 0.1])
@pytest.mark.parametrize(
    ("which", "exponent", "error"),
    [("dense", 1.0, 1e-3), ("joint", 1.0, 0.2), ("dense", 0.25, 1e-3), ("joint", 0.25, 0.2)],
)
def test_what_the_linear_part_lifts_is_found_and_summed(
    models: dict[str, Recommender],
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    exponent: float,
    error: float,
    strength: float,
) -> None:
    """With two candidates of a kind, and whatever may come back, its scores are those of the whole."""
    monkeypatch.setattr("llm4rec.answering.CANDIDATES", 2)
    monkeypatch.setattr("llm4rec.answering.WHOLE", 3)
    lifted = np.array([10, 15, 20], dtype=np.uint16)  # by item 2 alone, and far from it on the ring
    linear = Linear(
        known=np.arange(N_ITEMS),
        offsets=np.array([0, 0, 0, *[3] * (N_ITEMS - 2)]),
        places=lifted,
        weights=np.array([9.5, 11.0, 10.5], dtype=np.float16),
        strengths=(strength,) * 4,
        exponents=(exponent,) * 4,
    )
    whole, short = (
        Recommender(replace(models[name].fitted, linear=linear)) for name in (which, f"{which}, large")
    )
    if which == "joint":
        scorer, wide = whole.fitted.scorer, replace(whole.fitted.generator, beam=N_ITEMS)  # type: ignore[type-var]
        whole = Recommender(replace(whole.fitted, scorer=replace(scorer, join=wide.joined)))
    others = tuple(f"i{i}" for i in range(N_ITEMS) if i != 20)
    for options in ({}, {"exclude": ("i20",)}, {"allow": others}, {"where": {"kind": ("odd",)}}):
        query = Query(("i1", "i2"), **options)
        expected, found = whole.recommend(query, 2), short.recommend(query, 2)
        assert found.item_ids[0] == expected.item_ids[0]
        assert strength < 1 or expected.item_ids[0] in ("i15", "i20")  # with little, the rest counts as well
        np.testing.assert_allclose(found.scores[0], expected.scores[0], atol=error)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query(where={"studio": ("a",)}), "'studio', which is no field"),
        (Query(where={"price": ("1",)}), "'price', which is numerical, not categorical"),
        (Query(where={"kind": ()}), "one value or more of 'kind'"),
        (Query(where={"kind": "odd"}), "one value or more of 'kind'"),
        (Query(where=("kind", "odd")), "Query.where takes fields and their values"),  # type: ignore[arg-type]
        (Query(allow=()), "Query.allow is empty"),
        (Query(allow="i1"), "Query.allow takes a tuple of item ids"),  # type: ignore[arg-type]
    ],
)
def test_restrictions_that_make_no_sense_are_refused(
    models: dict[str, Recommender], query: Query, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        models["dense"].recommend(query)


def test_a_query_can_be_kept_in_a_set() -> None:
    assert len({Query(("a",), where={"kind": ("odd",)}), Query(("a",), where={"kind": ("odd",)})}) == 1


@settings(max_examples=60)
@given(
    st.permutations(range(40)), st.sets(st.integers(0, 39)), st.booleans(), st.integers(1, 12)
)  # fmt: skip
def test_the_first_that_are_legal_are_found_behind_any_number_that_are_not(
    items: list[int], named: set[int], only: bool, n: int
) -> None:
    listed = Listed(np.array(sorted(named), dtype=np.int64), only=only, n_items=40)
    expected = [item for item in items if (item in named) == only][:n]
    assert _first_legal(np.array(items), listed, n).tolist() == expected
