"""Explaining a fitted model: what is left out, where an item stands, and what deletion says of reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm4rec import answering, explaining
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.legal import Listed
from llm4rec.debias.popularity import Popularity
from llm4rec.errors import InputError
from llm4rec.explain.influence import Influence, influence
from llm4rec.fitted import Fitted
from llm4rec.model.linear import Linear
from llm4rec.model.network import Network
from llm4rec.recommender import Recommender, ServeConfig
from llm4rec.settings import Config
from llm4rec.types import Array, Context, Floats, Query

N_ITEMS, N_PEOPLE, EACH = 24, 60, 7
NOON = 1_600_000_000
CATALOG = Catalog(
    pl.DataFrame({
        "item_id": [f"i{i}" for i in range(N_ITEMS)],
        "title": [f"{'abcdef'[i % 6]} tale {'uvwx'[i // 6]}" for i in range(N_ITEMS)],
        "kind": [[f"k{i // 6}"] for i in range(N_ITEMS)],
    }),
    (Field("title", "text"), Field("kind", "categorical")),
)
FREE = Listed(np.zeros(0, dtype=np.int64), only=False, n_items=N_ITEMS)


def people() -> EventLog:
    """People who mostly stay with a kind."""
    draw = np.random.default_rng(0)
    taste = draw.integers(4, size=(N_PEOPLE, 1))
    kinds = np.where(draw.random((N_PEOPLE, EACH)) < 0.85, taste, draw.integers(4, size=(N_PEOPLE, EACH)))
    items = kinds * 6 + draw.integers(6, size=(N_PEOPLE, EACH))
    times = NOON + np.cumsum(draw.integers(60, 90_000, size=items.shape), axis=1)
    names = pl.Series(np.repeat([f"u{row}" for row in range(N_PEOPLE)], EACH))
    return build_log(names, items.ravel(), times=times.ravel())


@pytest.fixture(scope="module")
def model() -> Recommender:
    config = Config.model_validate({
        "data": {"max_history": 10},
        "encode": {"text": {"encoder": "hash"}},
        "model": {"embedding_size": 16, "layers": 1, "heads": 1, "dropout": 0.1},
        "train": {"epochs": 6, "batch_size": 128, "learning_rate": 0.01, "attention_epochs": 0},
        "generate": {"mode": "off"},
    })
    return Recommender.fit(people(), CATALOG, config)


def history(*items: int, user: str = "new", asked_at: int | None = None) -> EventLog:
    return EventLog(
        pl.Series([user]),
        np.array([0, len(items)]),
        np.array(items, dtype=np.int64),
        times=NOON + 5_000 * np.arange(len(items)),
        ratings=np.arange(len(items), dtype=np.float32),
        asked_at=None if asked_at is None else np.array([asked_at]),
    )


def log_wish() -> Floats:
    logits = np.random.default_rng(8).normal(size=(1, N_ITEMS)).astype(np.float32)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


# --- without


def test_without_takes_every_event_of_an_item_out() -> None:
    found = explaining.without(history(3, 5, 3, 7, asked_at=NOON), np.array([3, 9, 7]))
    assert [found.history(row).tolist() for row in range(3)] == [[5, 7], [3, 5, 3, 7], [3, 5, 3]]
    assert found.times is not None and found.ratings is not None and found.asked_at is not None
    assert (found.times[:2] - NOON).tolist() == [5_000, 15_000] and found.ratings[:2].tolist() == [1, 3]
    assert found.asked_at.tolist() == [NOON] * 3 and found.user_ids.to_list() == ["new"] * 3


def test_without_nothing_there_are_no_rows_and_without_all_an_empty_one() -> None:
    assert explaining.without(history(3, 5), np.zeros(0, dtype=np.int64)).n_users == 0
    assert explaining.without(history(3, 3), np.array([3])).lengths.tolist() == [0]
    assert explaining.without(history(), np.array([3])).lengths.tolist() == [0]


# --- standings


def several(*rows: EventLog) -> EventLog:
    return EventLog(
        pl.Series(["new"] * len(rows)),
        np.cumsum([0, *(row.n_events for row in rows)]),
        np.concatenate([row.items for row in rows]),
        times=np.concatenate([row.clock for row in rows]),
    )


def test_an_item_stands_where_its_score_puts_it(model: Recommender) -> None:
    """Rows of all lengths keep their place, whatever the order they are read in."""
    fitted, rows = (
        model.fitted,
        [history(1, 2, 3, 4), history(), history(7, 8), history(13), history(1, 2, 3)],
    )
    told = several(*rows)
    found = explaining.standings(fitted, told, FREE, 9)
    for row, standing in zip(rows, found, strict=True):
        scores = answering.scores(fitted, replace(row, ratings=None))[0]
        assert standing.score == pytest.approx(float(scores[9]), abs=1e-4)
        assert standing.rank == np.flatnonzero(np.argsort(-scores) == 9)[0] + 1
    assert len({standing.rank for standing in found}) > 1


def test_only_what_may_come_back_stands_before_it(model: Recommender) -> None:
    told = several(history(1, 2, 3))
    scores = answering.scores(model.fitted, told)[0]
    order = np.argsort(-scores)
    third = int(order[2])
    (free,) = explaining.standings(model.fitted, told, FREE, third)
    (left,) = explaining.standings(model.fitted, told, replace(FREE, items=order[:1]), third)
    (only,) = explaining.standings(model.fitted, told, replace(FREE, items=order[2:3], only=True), third)
    (gone,) = explaining.standings(model.fitted, told, replace(FREE, items=order[2:3]), third)
    assert [free.rank, left.rank, only.rank, gone.rank] == [3, 2, 1, None]
    assert {each.score for each in (free, left, only, gone)} == {free.score}
    assert (
        explaining.standings(model.fitted, told.histories(*[np.zeros(0, dtype=np.int64)] * 2), FREE, 1) == []
    )


def test_a_wish_moves_where_it_stands(model: Recommender) -> None:
    told, wish = several(history(1, 2, 3)), log_wish()
    (found,) = explaining.standings(model.fitted, told, FREE, 9, wish)
    scores = answering.scores(model.fitted, told)[0] + wish[0]
    assert found.score == pytest.approx(float(scores[9] - np.logaddexp.reduce(scores)), abs=1e-4)
    assert found.rank == (scores > scores[9]).sum() + 1


# --- reasons


def found_for(fitted: Fitted, told: EventLog, items: Array, wish: Floats | None = None) -> Influence:
    rows = fitted.person_rows(told)
    return influence(explaining.parts(fitted, rows), told, rows, items, wish)


def test_a_contrast_is_a_difference(model: Recommender) -> None:
    told = history(1, 2, 3)
    _, pieces = explaining.contrast(model.fitted, told, 9, 20)
    found = found_for(model.fitted, told, np.array([9, 20]))
    owed = dict(zip([f"i{item}" for item in found.history], found.owed[0] - found.owed[1], strict=True))
    cited = {piece.id: piece.contribution for piece in pieces if piece.type == "history_item"}
    assert cited and cited == {name: pytest.approx(float(owed[name]), abs=1e-6) for name in cited}
    amounts = [abs(piece.contribution) for piece in pieces]
    assert amounts == sorted(amounts, reverse=True)
    _, back = explaining.contrast(model.fitted, told, 20, 9)
    assert {piece.id: -piece.contribution for piece in back} == pytest.approx(
        {piece.id: piece.contribution for piece in pieces}, abs=1e-6
    )


def test_nothing_is_compared_with_itself(model: Recommender) -> None:
    with pytest.raises(InputError, match="'i9' can't be compared with itself"):
        model.contrast(Query(("i1", "i2", "i3")), "i9", "i9")


def test_of_equal_scores_the_one_that_is_recommended_first_stands_first(
    model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "scores", lambda *_: np.array([[0.0, 1, 1, 1] + [-1] * (N_ITEMS - 4)]))
    ranks = [explaining.standings(model.fitted, history(0), FREE, item)[0].rank for item in (1, 2, 3, 0)]
    assert ranks == [1, 2, 3, 4]


@pytest.mark.parametrize("mode", ["joint", "only"])
def test_a_model_with_a_code_head_explains_what_it_has_recommended(mode: str) -> None:
    """What answering kept at hand may not stand in the way of derivatives."""
    config = Config.model_validate({
        "encode": {"text": {"encoder": "hash"}},
        "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.1},
        "train": {"epochs": 1, "batch_size": 128, "attention_epochs": 0},
        "generate": {"mode": mode, "share": 1.0 if mode == "only" else 0.5, "codebook_size": 4, "epochs": 1},
    })
    made, query = Recommender.fit(people(), CATALOG, config), Query(("i1", "i2", "i3"))
    listed = made.recommend(query, 3)
    told = made.explain_each(query, listed.item_ids)
    assert made.explain(query, listed.item_ids[1]) == told[1]
    assert len(told) == 3 and all(sum(each.weights.values()) == pytest.approx(1) for each in told)


def test_no_items_need_no_reasons(model: Recommender) -> None:
    assert explaining.explain(model.fitted, history(1), np.zeros(0, dtype=np.int64)) == []


@pytest.mark.parametrize("told", [history(), history(3), history(*[1, 2, 3] * 6, asked_at=NOON + 10**6)])
def test_the_same_is_said_again_and_by_a_stored_model(
    model: Recommender, told: EventLog, tmp_path: Path
) -> None:
    items, wish = np.array([9, 20, 9]), log_wish()
    first = explaining.explain(model.fitted, told, items, wish)
    assert first == explaining.explain(model.fitted, told, items, wish) and first[0] == first[2]
    model.save(tmp_path / "model")
    stored = Recommender.load(tmp_path / "model").fitted
    assert explaining.explain(stored, told, items, wish) == first
    assert explaining.contrast(stored, told, 9, 20) == explaining.contrast(model.fitted, told, 9, 20)


def test_what_the_catalogue_does_not_know_is_passed_over(model: Recommender) -> None:
    nobody, empty = (model.explain_each(Query(names), ["i9"]) for names in (("ghost", "gone"), ()))
    assert nobody == empty and nobody[0].kind == "context"
    one, same = (model.explain_each(Query(names), ["i9"]) for names in (("ghost", "i1", "i2"), ("i1", "i2")))
    assert one == same


def test_of_a_large_catalogue_the_same_is_said(model: Recommender) -> None:
    fitted, told, items = model.fitted, history(1, 2, 3), np.array([9, 20])
    generate = fitted.config.generate.model_copy(update={"exact_up_to": 0})
    large = replace(fitted, config=fitted.config.model_copy(update={"generate": generate}))
    assert explaining.explain(large, told, items) == explaining.explain(fitted, told, items)


def test_explaining_leaves_answers_as_they_were(model: Recommender) -> None:
    told = history(1, 2, 3)
    before = answering.scores(model.fitted, told)
    for weights in model.fitted.scorer.network.parameters():
        weights.grad = None  # what training left
    explaining.explain(model.fitted, told, np.arange(9, 20))
    assert np.array_equal(answering.scores(model.fitted, told), before)
    assert all(weights.grad is None for weights in model.fitted.scorer.network.parameters())


# --- reasons that are kept


QUERY, NAMED = Query(("i1", "i2", "i3"), user="u5"), ["i9", "i20"]


def anew(model: Recommender) -> Recommender:
    return Recommender(model.fitted)


def test_what_is_kept_is_what_would_be_said_anew_and_reads_nothing(
    model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = anew(model)
    first = kept.explain_each(QUERY, NAMED)
    assert first == anew(model).explain_each(QUERY, NAMED)
    wished = replace(QUERY, text="tale")
    again = kept.explain_each(wished, NAMED)
    monkeypatch.setattr(Network, "told", lambda *_: pytest.fail("it was read again"))
    assert kept.explain_each(QUERY, NAMED[::-1]) == first[::-1]
    assert kept.explain_each(wished, NAMED) == again != first
    for other in (
        replace(QUERY, user="u6"),
        replace(QUERY, history=("i2", "i1", "i3")),
        replace(QUERY, ratings=(1.0, 2.0, 3.0)),
        replace(QUERY, timestamps=(NOON, NOON + 9, NOON + 99)),
        replace(QUERY, context=Context(NOON)),
    ):
        with pytest.raises(pytest.fail.Exception, match="read again"):
            kept.explain_each(other, NAMED)


def test_what_else_is_asked_for_changes_last_digits_at_most(model: Recommender) -> None:
    together = anew(model).explain_each(QUERY, [f"i{item}" for item in range(8, 20)])
    for item, one in enumerate(together, start=8):
        (alone,) = anew(model).explain_each(QUERY, [f"i{item}"])
        assert (alone.text, alone.kind) == (one.text, one.kind)
        pieces = [(each.type, each.id, pytest.approx(each.contribution, abs=1e-5)) for each in one.evidence]
        assert [(each.type, each.id, each.contribution) for each in alone.evidence] == pieces


def test_many_and_one_find_the_same(model: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, query = anew(model), Query(user="u7")
    asked = kept.known_histories(pl.Series(["u7"]))
    listed = kept.recommend_many(asked, None, 3)
    told, names = kept.explain_many(asked, listed), model.catalog.ids[listed.items[0]].to_list()
    monkeypatch.setattr(Network, "told", lambda *_: pytest.fail("it was read again"))
    assert [*kept.explain_each(query, names)] == told
    with pytest.raises(pytest.fail.Exception, match="read again"):
        kept.explain_each(query, names, "de")


def test_a_changed_model_gives_no_old_reason(model: Recommender) -> None:
    kept = anew(model)
    query = Query(user="u5")
    before = kept.explain_each(query, NAMED)
    more = EventLog(pl.Series(["u5"]), np.array([0, 1]), np.array([13]), times=np.array([NOON + 10**7]))
    changed = {
        "remember": kept.remember(more),
        "forget": kept.forget_user("u5"),
        "adjust": kept.adjusted(popularity=0.5),
        "upsert": kept.upsert_items(CATALOG.table.head(1).with_columns(pl.lit("other").alias("title"))),
    }
    for name, other in changed.items():
        assert len(other.reasons) == 0, name
        assert other.explain_each(query, NAMED) == anew(other).explain_each(query, NAMED), name
    assert (
        changed["remember"].explain_each(query, NAMED)
        != before
        != changed["forget"].explain_each(query, NAMED)
    )
    assert len(kept.reasons) == 2


def test_how_many_are_kept_is_set_where_a_model_is_loaded(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    for most, there in ((0, 0), (1, 1), (1000, 2)):
        loaded = Recommender.load(tmp_path / "model", serve=ServeConfig(reasons=most))
        loaded.explain_each(QUERY, NAMED)
        assert len(loaded.reasons) == there


# --- deletion


def correlations(fitted: Fitted, draw: np.random.Generator) -> tuple[Array, Array]:
    """Correlation of what is owed with what deletion costs [c], and with the same shuffled [c].

    The cost is that of an item's place among what is not in the history: an item that is taken out of a
    history may come next itself, and what it then takes from all others is no reason for any of them.
    """
    told, shuffled = [], []
    for _ in range(30):
        asked = history(*draw.choice(N_ITEMS, size=draw.integers(3, 9), replace=False))
        others = np.setdiff1d(np.arange(N_ITEMS), asked.items)
        found = found_for(fitted, asked, others)

        def scores(log: EventLog, others: Array = others) -> Array:
            among = answering.scores(fitted, log)[:, others].astype(np.float64)
            return among - np.logaddexp.reduce(among, axis=1, keepdims=True)

        lost = (scores(asked) - scores(explaining.without(asked, found.history))).T  # [n, u]
        for owed, cost in zip(found.owed[::5], lost[::5], strict=True):
            told.append(np.corrcoef(owed, cost)[0, 1])
            shuffled.append(np.corrcoef(draw.permutation(owed), cost)[0, 1])
    return np.array(told), np.array(shuffled)


@pytest.mark.parametrize("linear", [True, False], ids=["with the linear part", "network alone"])
def test_what_is_owed_is_what_deletion_costs(model: Recommender, linear: bool) -> None:
    fitted = model.fitted if linear else replace(model.fitted, linear=Linear())
    assert not linear or min(fitted.linear.strengths) > 0  # it takes part
    told, shuffled = correlations(fitted, np.random.default_rng(4))
    assert np.median(told) > 0.8 and told.mean() > 0.7
    assert abs(shuffled.mean()) < 0.2


def test_what_is_corrected_at_the_end_takes_part(model: Recommender) -> None:
    """Popularity that is taken out moves what others take: parts are slopes of the score that is told."""
    counts = np.arange(1, N_ITEMS + 1, dtype=np.float64) ** 2
    fitted = replace(model.fitted, popularity=Popularity(1.0, counts))
    told, items, wish = history(1, 2, 3), np.array([9, 20]), log_wish()
    found = found_for(fitted, told, items, wish)
    scores = answering.scores(fitted, told, wish) - answering.scores(fitted, told)
    np.testing.assert_allclose(found.wish, scores[0, items], atol=1e-4)
    p = np.exp(answering.scores(fitted, told)[0])
    every = found_for(fitted, told, np.arange(N_ITEMS))
    np.testing.assert_allclose(p @ every.linear, 0, atol=1e-4)
    plain = found_for(model.fitted, told, items)
    assert np.abs(found_for(fitted, told, items).owed - plain.owed).max() > 1e-3
