"""The recommender through its public face: what it learns, what it answers, and what it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from llm4rec.answering import log_wish
from llm4rec.bench.baselines import fit_popularity
from llm4rec.cli import app
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.split import Split, leave_last_out
from llm4rec.debias.popularity import Popularity
from llm4rec.encode.tokens import Tokens
from llm4rec.errors import ConfigError, InputError
from llm4rec.evaluate.metrics import per_case
from llm4rec.recommender import Config, Recommender
from llm4rec.types import Floats, Query, Ranking, Recommends

KINDS = ("ocean", "desert", "forest", "arctic")
PER_KIND = 7  # the last of each kind is in nobody's events
N_ITEMS = len(KINDS) * PER_KIND
NEW = [kind * PER_KIND + PER_KIND - 1 for kind in range(len(KINDS))]
SMALL: dict[str, Any] = {
    "data": {"max_history": 8},
    "encode": {"text": {"encoder": "hash"}},
    "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.1},
    "train": {
        "epochs": 12,
        "batch_size": 256,
        "learning_rate": 0.01,
        "attention_epochs": 1,
        "averaging": 0.9,
    },
}


def small_config(**changes: dict[str, Any]) -> Config:
    return Config.model_validate({
        name: SMALL.get(name, {}) | changes.get(name, {}) for name in SMALL | changes
    })


def shop() -> tuple[EventLog, Catalog, Catalog]:
    """People who stay with the kind they have a taste for; item 0 of each kind is its favourite."""
    draw = np.random.default_rng(0)
    n_people, each = 90, 7
    taste = draw.integers(len(KINDS), size=n_people)
    odds = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    stays = draw.random((n_people, each)) < 0.9
    kind = np.where(stays, taste[:, None], draw.integers(len(KINDS), size=(n_people, each)))
    items = kind * PER_KIND + draw.choice(PER_KIND - 1, size=(n_people, each), p=odds)
    times = 1_600_000_000 + np.cumsum(draw.integers(60, 90_000, size=(n_people, each)), axis=1)
    ratings = draw.choice([2.0, 4.0, 5.0, np.nan], size=(n_people, each))
    log = build_log(
        pl.Series([f"u{row}" for row in range(n_people) for _ in range(each)]), items.ravel(),
        times=times.ravel(), ratings=ratings.ravel().astype(np.float32),
    )  # fmt: skip
    of_kind = [KINDS[item // PER_KIND] for item in range(N_ITEMS)]
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"{kind} tale {'abcdefg'[item % PER_KIND] * 3}" for item, kind in enumerate(of_kind)],
        "tags": [[kind] for kind in of_kind],
        "price": [None if item % 5 == 0 else float(item % PER_KIND) for item in range(N_ITEMS)],
    })
    fields = (Field("title", "text"), Field("tags", "categorical"), Field("price", "numerical"))
    people = pl.DataFrame({
        "user_id": log.user_ids, "climate": [[KINDS[kind]] for kind in taste],
        "gender": [["f"] if row % 2 else ["m"] for row in range(n_people)],
    })  # fmt: skip
    return log, Catalog(table, fields), Catalog(people, (Field("climate", "categorical"),), "user_id")


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(shop()[0])


@pytest.fixture(scope="module")
def model(split: Split) -> Recommender:
    _, catalog, people = shop()
    return Recommender.fit(split.train, catalog, small_config(), people=people, valid=split.valid)


def kinds(ranking: Ranking) -> list[str]:
    return [KINDS[int(item[1:]) // PER_KIND] for item in ranking.item_ids]


def ndcg(model: Recommends, split: Split, histories: EventLog) -> float:
    return float(per_case(model.rank(histories, 10), split.test, ks=(10,))["ndcg@10"].mean())


# --- what it learns


def test_it_knows_taste_from_history_alone(model: Recommender, split: Split) -> None:
    strangers = replace(split.test.histories(), user_ids=pl.Series(["?"] * len(split.test)))
    popular = fit_popularity(split, model.catalog)
    assert ndcg(model, split, strangers) > 1.3 * ndcg(popular, split, strangers)


def test_a_bare_history_is_served_nearly_as_well(model: Recommender, split: Split) -> None:
    full = split.test.histories()
    bare = replace(full, times=None, ratings=None)
    assert ndcg(model, split, bare) >= 0.8 * ndcg(model, split, full)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_an_item_nobody_has_touched_finds_its_audience(model: Recommender, kind: int) -> None:
    """Among items without any event, that of the history's kind comes before the three others."""
    history = tuple(f"i{kind * PER_KIND + place}" for place in (1, 2, 3))
    ranked = model.recommend(Query(history), N_ITEMS).item_ids
    places = {item: ranked.index(f"i{item}") for item in NEW}
    assert min(places, key=places.__getitem__) == NEW[kind]


def test_people_are_known_by_their_features(model: Recommender) -> None:
    for row in range(4):
        climate = shop()[2].table["climate"][row][0]
        asked = EventLog(pl.Series([f"u{row}"]), np.array([0, 0]), np.zeros(0, dtype=np.int64))
        best = model.catalog.ids[model.rank(asked, 3).items[0]].to_list()
        assert kinds(Ranking(tuple(best), (0.0,) * 3)).count(climate) >= 2


def test_protected_columns_are_not_read(model: Recommender, split: Split) -> None:
    _, catalog, people = shop()
    people = replace(people, fields=(*people.fields, Field("gender", "categorical")))
    flipped = replace(people, table=people.table.with_columns(gender=pl.col("gender").reverse()))
    config = small_config(train={"epochs": 1})
    one, other = (
        Recommender.fit(split.train, catalog, config, people=which, valid=split.valid)
        for which in (people, flipped)
    )
    np.testing.assert_array_equal(
        one.rank(split.test.histories(), 5).scores, other.rank(split.test.histories(), 5).scores
    )


# --- what it answers


def test_an_empty_history_is_answered_by_popularity(model: Recommender, split: Split) -> None:
    ranking = model.recommend(Query(), N_ITEMS)
    assert len(ranking) == N_ITEMS
    assert np.isfinite(ranking.scores).all()
    counts = split.train.item_counts(N_ITEMS)
    ranked = counts[[int(item[1:]) for item in ranking.item_ids]]
    assert ranked[:4].min() > np.median(counts)
    assert ranked[:8].mean() > 2 * ranked[8:].mean()


def test_a_stranger_is_served_nearly_as_well_as_a_known_person(model: Recommender, split: Split) -> None:
    known = split.test.histories()
    strangers = replace(known, user_ids=pl.Series(["?"] * known.n_users))
    assert ndcg(model, split, strangers) >= 0.8 * ndcg(model, split, known)


def test_scores_are_log_probabilities_best_first(model: Recommender) -> None:
    for query in (
        Query(),
        Query(("i1", "i2"), keep_seen=True),
        Query(("i1",), text="arctic", keep_seen=True),
    ):
        ranking = model.recommend(query, N_ITEMS)
        assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
        assert np.exp(ranking.scores).sum() == pytest.approx(1, abs=1e-3)


def test_unknown_users_and_items_are_passed_over(model: Recommender) -> None:
    known = Query(("i1", "i9"), timestamps=(100, 700), ratings=(4.0, 2.0))
    mixed = Query(
        ("ghost", "i1", "gone", "i9"), user="nobody", timestamps=(1, 100, 5, 700),
        ratings=(1.0, 4.0, 1.0, 2.0), exclude=("never",),
    )  # fmt: skip
    assert model.recommend(mixed, 5) == model.recommend(known, 5)
    assert model.recommend(Query(("ghost",)), 5) == model.recommend(Query(), 5)


def test_a_history_that_is_given_replaces_the_stored_one(model: Recommender, tmp_path: Path) -> None:
    """Also where the catalogue knows none of it, and alike for one query and in a file of requests."""
    model.save(tmp_path / "model")
    names = ["none", "ghost", "part"]
    histories: list[list[str]] = [[], ["ghost", "gone"], ["ghost", "i1"]]
    pl.DataFrame({"request_id": names, "history": histories, "user_id": ["u3"] * 3}).write_parquet(
        tmp_path / "r.parquet"
    )
    asked = ("recommend", "--model", tmp_path / "model", "-n", 5)
    files = ("--requests", tmp_path / "r.parquet", "--out", tmp_path / "a.parquet")
    result = CliRunner().invoke(app, [str(argument) for argument in (*asked, *files)])
    assert result.exit_code == 0, result.stderr
    assert "3 of 4 history items are not in the catalogue" in result.stderr
    answers = pl.read_parquet(tmp_path / "a.parquet")
    lists: dict[str, tuple[str, ...]] = {}
    for name, history in zip(names, histories, strict=True):
        lists[name] = model.recommend(Query(tuple(history), "u3"), 5).item_ids
        assert tuple(answers.filter(request_id=name)["item_id"]) == lists[name]
    assert lists["none"] == model.recommend(Query(user="u3"), 5).item_ids != lists["ghost"]


def test_what_the_catalogue_does_not_know_is_passed_over_in_batches(model: Recommender) -> None:
    times, users = np.array([5, 100, 700, 9]), pl.Series(["a", "b"])
    asked = EventLog(users, np.array([0, 3, 4]), np.array([-1, 1, 9, -1]), times)
    known = EventLog(users, np.array([0, 2, 2]), np.array([1, 9]), times[1:3])
    found, expected = model.rank(asked, 5), model.rank(known, 5)
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_known_user_is_looked_up(model: Recommender, split: Split) -> None:
    history = model.known_history("u3")
    assert history is not None
    assert history.items.tolist() == split.train.history(3).tolist()
    asked = model.recommend(Query(user="u3"), 5)
    ids = tuple(f"i{item}" for item in history.items)
    assert history.times is not None and history.ratings is not None
    told = Query(ids, "u3", timestamps=tuple(history.times.tolist()), ratings=tuple(history.ratings.tolist()))
    assert asked == model.recommend(told, 5)
    assert not set(asked.item_ids) & set(ids)
    assert model.known_history("nobody") is None


def test_a_wish_moves_matching_titles_up(model: Recommender) -> None:
    history = ("i1", "i2", "i3")
    plain, wished = (kinds(model.recommend(Query(history, text=text), 5)) for text in (None, "arctic tale"))
    assert plain.count("arctic") <= 1
    assert wished.count("arctic") >= 4
    exact = model.recommend(Query(history, text="desert tale ccc"), 3)
    assert exact.item_ids[0] == f"i{PER_KIND + 2}"
    assert model.recommend(Query(history, text="  "), 5) == model.recommend(Query(history), 5)


def test_for_a_wish_the_closest_text_decides_whatever_other_text_is_missing(model: Recommender) -> None:
    class Reader:
        def encode(self, texts: list[str]) -> Floats:
            return np.array([[1, 0]], dtype=np.float32)

    close = torch.tensor([[-0.5, 0.0], [-0.5, -0.6], [0.0, 0.0]])
    values = torch.stack([close, torch.zeros(3, 2)], dim=-1)
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    scorer = replace(model.fitted.scorer, items={"text": Tokens(values, mask)})
    reader: Any = Reader()
    found = log_wish(replace(model.fitted, scorer=scorer), "the sea", lambda: reader)[0]
    assert found[0] == pytest.approx(found[1]) == pytest.approx(found[2] - 0.5 / 0.05, rel=1e-4)


def test_where_all_people_are_forgotten_strangers_are_served(model: Recommender, tmp_path: Path) -> None:
    assert model.fitted.people is not None
    query = Query(("i1", "i2"))
    expected = model.recommend(query, 5)
    for user in model.fitted.people.ids.to_list():
        model = model.forget_user(user)
    assert model.recommend(query, 5) == expected == model.recommend(replace(query, user="u0"), 5)
    model.save(tmp_path / "model")
    read = Recommender.load(tmp_path / "model")
    assert read.recommend(query, 5) == expected and read.known_history("u0") is None


def test_a_wish_needs_texts(split: Split) -> None:
    catalog = shop()[1].without("text")
    bare = Recommender.fit(split.train, catalog, small_config(train={"epochs": 1}), valid=split.valid)
    with pytest.raises(InputError, match="items have no text"):
        bare.recommend(Query(text="sea"))


def test_seen_and_excluded_items_do_not_come_back(model: Recommender) -> None:
    query = Query(("i1", "i2", "i1"), exclude=("i3", "i8"))
    assert not set(model.recommend(query, N_ITEMS).item_ids) & {"i1", "i2", "i3", "i8"}
    kept = set(model.recommend(replace(query, keep_seen=True), N_ITEMS).item_ids)
    assert {"i1", "i2"} <= kept and not kept & {"i3", "i8"}


def test_the_list_is_shorter_where_fewer_items_are_legal(model: Recommender) -> None:
    rest = tuple(f"i{item}" for item in range(3, N_ITEMS))
    assert sorted(model.recommend(Query(("i1",), exclude=rest), 10).item_ids) == ["i0", "i2"]
    assert len(model.recommend(Query(exclude=(*rest, "i0", "i1", "i2")), 10)) == 0


@pytest.mark.parametrize("what", ["timestamps", "ratings"])
def test_times_and_ratings_must_run_along_the_history(model: Recommender, what: str) -> None:
    with pytest.raises(InputError, match=rf"2 items of history and 1 {what}; give one for each"):
        model.recommend(Query(("i1", "i2"), **{what: (5,)}))


def test_an_answer_does_not_depend_on_who_else_asks(model: Recommender, split: Split) -> None:
    asked = split.test.histories()
    together = model.rank(asked, 5)
    order = np.random.default_rng(1).permutation(asked.n_users)
    shuffled = model.rank(asked.histories(order, asked.lengths[order]), 5)
    np.testing.assert_allclose(shuffled.scores, together.scores[order], atol=1e-4)
    assert (shuffled.items == together.items[order]).mean() > 0.99
    single = model.rank(asked.histories(np.array([4]), asked.lengths[[4]]), 5)
    np.testing.assert_allclose(single.scores[0], together.scores[4], atol=1e-4)


def test_many_requests_leave_out_what_each_excludes(model: Recommender, split: Split) -> None:
    asked = split.test.histories(0, 4)
    first = model.rank(asked, 2).items
    exclude = EventLog(asked.user_ids, np.arange(5), first[:, 0])
    second = model.recommend_many(asked, exclude, 2)
    np.testing.assert_array_equal(second.items[:, 0], first[:, 1])
    kept = model.recommend_many(asked, exclude, N_ITEMS, keep_seen=True)
    for row in range(4):
        assert asked.history(row)[-1] in kept.items[row]
        assert first[row, 0] not in kept.items[row]
    assert (kept.items[:, -1] == -1).all() and (kept.scores[:, -1] == -np.inf).all()


def test_no_list_is_longer_than_the_catalogue_whatever_is_asked(model: Recommender, split: Split) -> None:
    few = split.test.histories(0, 2)
    assert model.recommend_many(few, None, 10**15).items.shape == (2, N_ITEMS)
    assert len(model.recommend(Query(("i1",)), 10**30)) == N_ITEMS - 1
    wide = model.rank(few, N_ITEMS + 5)
    assert wide.items.shape == (2, N_ITEMS + 5) and (wide.items[:, N_ITEMS:] == -1).all()


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None, True])
def test_a_list_of_any_other_length_is_refused(model: Recommender, split: Split, n: Any) -> None:
    for ask in (
        lambda: model.recommend(Query(("i1",)), n),
        lambda: model.rank(split.test.histories(0, 2), n),
        lambda: model.recommend_many(split.test.histories(0, 2), None, n),
    ):
        with pytest.raises(InputError, match=f"A list of {n!r} recommendations .* ask for 1 or more"):
            ask()
    assert len(model.recommend(Query(("i1",)), np.int64(3))) == 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"history": (50,)}, "Query.history takes a tuple of item ids"),
        ({"history": "50"}, "Query.history takes a tuple of item ids"),
        ({"exclude": (286,)}, "Query.exclude takes a tuple of item ids"),
        ({"user": 42}, "Query.user takes a name"),
        ({"text": 3}, "Query.text takes a wish in plain words, not 3"),
        ({"history": ("i1",), "timestamps": 5}, "Query.timestamps takes a tuple of numbers"),
        ({"history": ("i1",), "ratings": "5"}, "Query.ratings takes a tuple of numbers"),
        ({"history": ("i1",), "ratings": (1e300,)}, r"finite numbers up to 3.4e\+38, not 1e\+300"),
        ({"history": ("i1",), "ratings": (10**400,)}, "finite numbers"),
        ({"history": ("i1",), "timestamps": (1e30,)}, "UTC seconds from 1970 to 2100"),
        ({"history": ("i1",), "timestamps": (-5,)}, "UTC seconds from 1970 to 2100"),
        ({"history": ("i1",), "ratings": (float("inf"),)}, "finite numbers"),
        ({"history": ("i1",), "ratings": ("x",)}, "finite numbers"),
        ({"user": "u5", "timestamps": (5,)}, "0 items of history and 1 timestamps"),
    ],
)
def test_a_query_of_other_kinds_of_values_is_refused(
    model: Recommender, query: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        model.recommend(Query(**query))


def test_a_rating_off_the_scale_is_read_as_the_nearest_on_it(model: Recommender) -> None:
    query = Query(("i1", "i9"), ratings=(5.0, 2.0))
    assert model.recommend(replace(query, ratings=(500.0, -3.0)), 5) == model.recommend(query, 5)


def test_weights_of_modalities_can_be_read(model: Recommender) -> None:
    items = np.array([0, 1, NEW[0]])
    fusion = model.fitted.scorer.network.fusion
    kept, fusion.attend = fusion.attend, True
    weights = model.modality_weights(items)
    fusion.attend = False
    assert model.modality_weights(items) is None  # the plain sum has none
    fusion.attend = kept
    assert weights is not None and weights.shape == (3, len(model.modalities))
    assert weights.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert weights[0, model.modalities.index("numerical")] == 0  # item 0 has no price
    assert weights[2, model.modalities.index("behaviour")] == 0


def test_ratings_are_told_by_the_head_that_learnt_them(model: Recommender, split: Split) -> None:
    with pytest.raises(InputError, match=r"fit it with model\.pointwise"):
        model.rate(Query(("i1",)), ["i2"])
    log, catalog, _ = shop()
    liked = (log.items // PER_KIND < 2).astype(np.float32) * 3 + 1  # ocean and desert get 4, the others 1
    rated = Recommender.fit(
        replace(log, ratings=liked), catalog, small_config(model={"pointwise": 1.0}, train={"epochs": 30})
    )
    found = rated.rate(Query(("i1", "i2")), [f"i{item}" for item in range(N_ITEMS)])
    assert found[:13].mean() == pytest.approx(4, abs=0.7)
    assert found[15:].mean() == pytest.approx(1, abs=0.7)
    with pytest.raises(InputError, match="no item 'nothing'"):
        rated.rate(Query(("i1",)), ["i2", "nothing"])


# --- what it keeps


def test_a_stored_model_answers_alike_without_its_data(
    model: Recommender, split: Split, tmp_path: Path
) -> None:
    model.save(str(tmp_path / "model"))
    loaded = Recommender.load(str(tmp_path / "model"))
    asked = split.test.histories()
    np.testing.assert_array_equal(loaded.rank(asked, 10).items, model.rank(asked, 10).items)
    np.testing.assert_array_equal(loaded.rank(asked, 10).scores, model.rank(asked, 10).scores)
    for query in (Query(user="u5"), Query(("i1",), text="forest"), Query(("i1",), "u2", ratings=(4.0,))):
        assert loaded.recommend(query, 5) == model.recommend(query, 5)
    assert loaded.config == model.config
    assert loaded.meta["training"]["floor"]["metrics"] == model.meta["training"]["floor"]["metrics"]
    np.testing.assert_array_equal(loaded.item_vectors, model.item_vectors)
    loaded.save(tmp_path / "again")
    assert Recommender.load(tmp_path / "again").recommend(Query(user="u5"), 5) == model.recommend(
        Query(user="u5"), 5
    )


def test_histories_can_be_left_out(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model", histories=False)
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.known_history("u5") is None
    assert loaded.recommend(Query(("i1",)), 5) == model.recommend(Query(("i1",)), 5)


def test_too_little_to_learn_from_is_said() -> None:
    log, catalog, _ = shop()
    with pytest.raises(InputError, match="at least one person needs three events"):
        Recommender.fit(log.heads(np.full(90, 2)), catalog, small_config())


# --- what is done to scores and lists


def test_popularity_and_variety_are_off_until_asked_for(model: Recommender) -> None:
    same = model.adjusted(popularity=0.0, diversity=0.0)
    assert same.recommend(Query(("i1",)), 5) == model.recommend(Query(("i1",)), 5)


def test_with_popularity_taken_out_the_rarer_gains(model: Recommender, split: Split) -> None:
    counts = model.fitted.popularity.counts
    asked = split.test.histories()
    plain, rarer = model.rank(asked, 5), model.adjusted(popularity=1.0).rank(asked, 5)
    assert counts[rarer.items].mean() < counts[plain.items].mean()
    half = model.adjusted(popularity=0.5)
    every = half.recommend(Query(("i1",), keep_seen=True), N_ITEMS)
    assert np.exp(every.scores).sum() == pytest.approx(1, rel=1e-4)
    before = model.recommend(Query(("i1",), keep_seen=True), N_ITEMS)
    log_p = dict(zip(before.item_ids, before.scores, strict=True))
    divided = {name: log_p[name] - 0.5 * np.log(counts[int(name[1:])]) for name in log_p}
    total = np.logaddexp.reduce(list(divided.values()))
    for name, score in zip(every.item_ids, every.scores, strict=True):
        assert score == pytest.approx(divided[name] - total, abs=1e-3)


def test_a_varied_list_holds_more_kinds(model: Recommender) -> None:
    plain = model.recommend(Query(("i0", "i1")), 4)
    varied = model.adjusted(diversity=0.9).recommend(Query(("i0", "i1")), 4)
    assert varied.item_ids[0] == plain.item_ids[0]
    assert len(set(kinds(varied))) > len(set(kinds(plain)))
    assert list(varied.scores) == sorted(varied.scores, reverse=True)


def test_a_large_catalogue_is_adjusted_as_a_small_one(model: Recommender) -> None:
    generate = model.config.generate.model_copy(update={"exact_up_to": 1})
    config = model.config.model_copy(update={"generate": generate})
    large = Recommender(replace(model.fitted, config=config))
    for strengths in ({"popularity": 0.5}, {"diversity": 0.5}, {"popularity": 0.3, "diversity": 0.2}):
        one, other = (each.adjusted(**strengths).recommend(Query(("i1",)), 6) for each in (model, large))
        assert one.item_ids == other.item_ids
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


def test_strengths_are_kept_with_the_model(model: Recommender, tmp_path: Path) -> None:
    changed = model.adjusted(popularity=0.5, diversity=0.3)
    changed.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.recommend(Query(("i1",)), 5) == changed.recommend(Query(("i1",)), 5)
    assert loaded.config.debias.popularity.strength == 0.5
    back = loaded.adjusted(popularity=0, diversity=0)
    assert back.recommend(Query(("i1",)), 5) == model.recommend(Query(("i1",)), 5)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan"), "much", True])
def test_a_strength_out_of_bounds_is_refused(model: Recommender, strength: Any) -> None:
    with pytest.raises(ConfigError, match=r"debias\.popularity\.strength"):
        model.adjusted(popularity=strength)


def test_validation_chooses_the_strength_within_what_may_be_spent(split: Split) -> None:
    chosen = small_config(debias={"popularity": {"choose": True, "cost": 0.9}})
    found = Recommender.fit(split.train, shop()[1], chosen, valid=split.valid)
    told = found.meta["popularity"]
    assert 0 < told["strength"] == found.fitted.popularity.strength
    sparing = small_config(debias={"popularity": {"choose": True, "cost": 1e-6}})
    assert (
        Recommender.fit(split.train, shop()[1], sparing, valid=split.valid).fitted.popularity.strength
        <= (told["strength"])
    )


def test_a_model_without_counts_of_its_items_can_be_kept_again(model: Recommender, tmp_path: Path) -> None:
    earlier = Recommender(replace(model.fitted, popularity=Popularity()))
    earlier.retire_items(["i3"]).save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert not loaded.fitted.popularity.known
    assert loaded.recommend(Query(("i1",)), 5) == earlier.retire_items(["i3"]).recommend(Query(("i1",)), 5)
    with pytest.raises(ConfigError, match="does not know how popular its items are"):
        loaded.adjusted(popularity=0.5)
    assert loaded.adjusted(diversity=0.5).config.rerank.diversity == 0.5


def test_what_is_remembered_and_counted_is_popular_too(model: Recommender, split: Split) -> None:
    log = split.train
    again = model.remember(log.histories(np.arange(3), log.lengths[:3]))
    assert (again.fitted.popularity.counts >= model.fitted.popularity.counts).all()
    assert again.fitted.popularity.counts.sum() > model.fitted.popularity.counts.sum()
    new = NEW[0]
    events = build_log(pl.Series(["a", "b"]), np.array([new, new]), times=np.array([1, 2]) + 2_000_000_000)
    assert model.count_new_items(events).fitted.popularity.counts[new] == 2.5


def test_a_strength_that_may_cost_much_in_places_is_not_chosen(split: Split) -> None:
    """What decides is the lower end of the interval: with a hair's breadth to spend nothing is."""
    config = small_config(debias={"popularity": {"choose": True, "cost": 1e-9}})
    told = Recommender.fit(split.train, shop()[1], config, valid=split.valid).meta["popularity"]
    assert told == {"strength": 0.0, "cost": 0.0, "error": 0.0}
