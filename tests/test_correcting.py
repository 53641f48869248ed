"""What people say they want more or less of, from their words to every answer of a fitted model."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.explain.test_aspects import KINDS, TINY, catalog

from llm4rec import answering, correcting, explaining
from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import ArtefactError, InputError
from llm4rec.explain.corrections import SCHEMA, Corrections
from llm4rec.explain.verify import Names, unfounded
from llm4rec.keeping import KIND, stored_corrections
from llm4rec.model.scorer import Scorer
from llm4rec.recommender import Recommender
from llm4rec.settings import Config
from llm4rec.store import artefact
from llm4rec.types import Floats, Query, Ranking

OCEAN, DESERT, FOREST = ("genre", "ocean"), ("genre", "desert"), ("genre", "forest")
N_ITEMS, N_PEOPLE = 30, 90
WORLD = catalog([[KINDS[i % 3]] for i in range(N_ITEMS)])
IDS = WORLD.ids.to_list()
OF = {kind: np.arange(N_ITEMS)[place::3] for place, kind in enumerate(KINDS)}
"""Items of each genre."""


def taste() -> EventLog:
    """People who mostly stay with the genre they like, u0 with the ocean and u1 with the desert."""
    draw = np.random.default_rng(0)
    likes = np.arange(N_PEOPLE)[:, None] % 3
    kinds = np.where(draw.random((N_PEOPLE, 8)) < 0.7, likes, draw.integers(3, size=(N_PEOPLE, 8)))
    items = kinds + 3 * draw.integers(10, size=(N_PEOPLE, 8))
    return build_log(pl.Series(np.repeat([f"u{u}" for u in range(N_PEOPLE)], 8)), items.ravel())


@pytest.fixture(scope="module")
def model() -> Recommender:
    return Recommender.fit(taste(), WORLD, TINY)


def everything(model: Recommender, query: Query) -> Floats:
    """Scores of all items [i], those of the history too."""
    found = model.recommend(replace(query, keep_seen=True), N_ITEMS)
    scores = np.empty(N_ITEMS, dtype=np.float32)
    scores[[IDS.index(name) for name in found.item_ids]] = found.scores
    return scores


def with_options(model: Recommender, **sections: dict[str, Any]) -> Recommender:
    """The same model with other options in some sections."""
    config = model.config
    update = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return Recommender(replace(model.fitted, config=config.model_copy(update=update)))


def share(model: Recommender, query: Query, kind: str) -> float:
    """The share of a genre in a profile."""
    return next(each.share for each in model.profile(query, 9) if each.value == kind)


def test_what_is_wanted_less_is_no_trait_of_a_reason(model: Recommender) -> None:
    """It was what most of them rested on before; that of other values stays."""
    history, changed = (
        Query(("i1", "i4", "i7", "i2", "i5")),
        Query(("i1", "i4", "i7", "i2", "i5"), less=(DESERT,)),
    )
    items = [IDS[item] for item in (*OF["desert"][5:], *OF["forest"][5:], *OF["ocean"][5:])]
    traits = [
        {
            piece.id
            for each in model.explain_each(query, items)
            for piece in each.evidence
            if piece.type == "aspect"
        }
        for query in (history, changed)
    ]
    assert "genre=desert" in traits[0]
    assert traits[1] == traits[0] - {"genre=desert"}


# --- answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("user", ["u0", "u1", "u2", "nobody"])
def test_less_moves_items_down_and_more_up(model: Recommender, kind: str, user: str) -> None:
    query, named = Query(user=user), ("genre", kind)
    others = np.setdiff1d(np.arange(N_ITEMS), OF[kind])
    less, as_is, more = (
        everything(each, query)
        for each in (model.correct(user, less=[named]), model, model.correct(user, more=[named]))
    )
    for low, high in ((less, as_is), (as_is, more)):
        assert (low[OF[kind]] < high[OF[kind]]).all() and (low[others] > high[others]).all()
        ranks = [np.argsort(np.argsort(-scores))[OF[kind]].mean() for scores in (low, high)]
        assert ranks[0] > ranks[1]
    assert {*np.argsort(-less)[:5]}.isdisjoint(OF[kind])


def test_scores_change_by_what_the_shares_do(model: Recommender) -> None:
    """Every item has one aspect, so its factor is p'_k / p_k, before scores are log-probabilities again."""
    query, changed = Query(user="u1"), model.correct("u1", more=[OCEAN], less=[DESERT])
    aspects, fitted = model.fitted.aspects, model.fitted
    assert aspects is not None
    history = model.known_histories(pl.Series(["u1"]))
    p = aspects.preferences(fitted.scorer.states(history, fitted.person_rows(history)))[0].astype(np.float64)
    u = {kind: p[aspects.values.index(kind)] for kind in KINDS}
    u = {**u, "ocean": 0.9 + 0.1 * u["ocean"], "desert": 0.1 * u["desert"]}
    wanted = everything(model, query).astype(np.float64)
    for kind in KINDS:
        now = u[kind] / sum(u.values())
        if kind != "forest":  # a profile has what is usual or less only where it was spoken of
            assert share(changed, query, kind) == pytest.approx(now, rel=1e-4)
        wanted[OF[kind]] += np.log(now / p[aspects.values.index(kind)])
    wanted -= np.logaddexp.reduce(wanted)
    np.testing.assert_allclose(everything(changed, query), wanted, atol=1e-4)


def test_nobody_else_notices(model: Recommender) -> None:
    changed = model.correct("u1", less=[DESERT])
    for query in (Query(user="u2"), Query(("i1", "i4")), Query()):
        assert changed.recommend(query, 9) == model.recommend(query, 9)
    log = taste()
    was, now = model.rank(log, 9), changed.rank(log, 9)
    others = np.arange(N_PEOPLE) != 1
    assert np.array_equal(was.items[others], now.items[others])
    np.testing.assert_allclose(was.scores[others], now.scores[others], atol=1e-5)
    assert not np.array_equal(was.items[1], now.items[1])


def test_what_is_taken_back_leaves_no_trace(model: Recommender) -> None:
    query, said = Query(user="u1"), model.correct("u1", more=[OCEAN, FOREST], less=[DESERT])
    back = said.correct("u1", undo=[DESERT, OCEAN]).correct("u1", undo=[FOREST])
    assert back.recommend(query, 9) == model.recommend(query, 9) != said.recommend(query, 9)
    assert back.profile(query) == model.profile(query)
    assert model.correct("u1", undo=[OCEAN]).recommend(query, 9) == model.recommend(query, 9)
    assert model.correct("u1").fitted is model.fitted


def test_the_order_of_corrections_does_not_matter(model: Recommender) -> None:
    query = Query(user="u1")
    one = model.correct("u1", more=[OCEAN]).correct("u1", less=[DESERT])
    two = model.correct("u1", less=[DESERT]).correct("u1", more=[OCEAN])
    assert one.recommend(query, 9) == two.recommend(query, 9) and one.profile(query) == two.profile(query)


def test_without_reliability_it_changes_nothing(model: Recommender) -> None:
    query, idle = Query(user="u1"), with_options(model, explain={"correction": 0.0})
    said = idle.correct("u1", less=[DESERT])
    assert said.recommend(query, 9) == model.recommend(query, 9)
    assert [each.share for each in said.profile(query)] == [each.share for each in model.profile(query)]


@pytest.mark.parametrize("mode", ["dense", "codes"])
@pytest.mark.parametrize("large", [False, True])
def test_every_way_of_asking_gives_the_same(model: Recommender, mode: str, large: bool) -> None:
    if mode == "codes":
        values = TINY.model_dump() | {
            "generate": {
                "mode": "joint",
                "share": 0.5,
                "codebook_size": 4,
                "n_levels": 2,
                "epochs": 1,
                "beam": 2,
            }
        }
        model = Recommender.fit(taste(), WORLD, Config.model_validate(values))
    said = {"more": (OCEAN,), "less": (DESERT,)}
    kept = model.correct("u1", **said)
    if large:
        kept, model = (with_options(each, generate={"exact_up_to": 0}) for each in (kept, model))
    query = Query(user="u1")
    single = kept.recommend(query, 9)
    log = taste()
    assert_same(single, model.recommend(replace(query, **said), 9))
    history = tuple(IDS[item] for item in log.history(1))
    assert_same(single, kept.recommend(replace(query, history=history), 9))
    for rows in (np.array([1]), np.array([0, 1, 2])):
        ranked = kept.rank(log.histories(rows, log.lengths[rows]), 9)
        place = rows.tolist().index(1)
        some = ranked.items[place] >= 0
        ids = tuple(IDS[item] for item in ranked.items[place][some])
        assert_same(single, Ranking(ids, tuple(ranked.scores[place][some].tolist())))
    for name, score in zip(single.item_ids, single.scores, strict=True):
        (standing,) = kept.standings(query, name)
        assert standing.score == pytest.approx(score, abs=1e-4)
        assert standing.rank == single.item_ids.index(name) + 1


def assert_same(one: Ranking, other: Ranking) -> None:
    assert one.item_ids == other.item_ids
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_those_who_spoke_are_answered_among_themselves(model: Recommender) -> None:
    said = model.correct("u1", less=[DESERT]).correct("u4", less=[DESERT])
    log = taste()
    apart = [sorted(rows.tolist()) for rows, _ in answering.chunks(said.fitted, log)]
    assert sorted(chain(*apart)) == [*range(N_PEOPLE)] and [1, 4] in apart
    alone = with_options(said, generate={"exact_up_to": 0}).fitted
    found = [(rows.tolist(), some) for rows, some in answering.chunks(alone, log)]
    assert sorted(chain(*(rows for rows, _ in found))) == [*range(N_PEOPLE)]
    assert [rows for rows, _ in found if {1, 4} & {*rows}] in ([[1], [4]], [[4], [1]])
    for rows, some in found:
        assert some.user_ids.to_list() == [f"u{row}" for row in rows]
        assert some.history(0).tolist() == log.history(rows[0]).tolist()


def test_what_is_said_once_is_not_kept_and_goes_before_what_is(model: Recommender) -> None:
    kept, query = model.correct("u1", less=[DESERT, OCEAN]), Query(user="u1")
    before = kept.recommend(query, 9)
    once = kept.recommend(replace(query, more=(DESERT,)), 9)
    assert once == model.correct("u1", less=[OCEAN], more=[DESERT]).recommend(query, 9)
    assert kept.recommend(query, 9) == before
    assert kept.recommend(Query(more=(FOREST,)), 9) != kept.recommend(Query(), 9)
    profile = model.profile(Query(more=(FOREST,)))
    assert {each.value: each.corrected for each in profile}["forest"] == "more"
    assert model.recommend(Query(), 9) == kept.recommend(Query(), 9)


def test_with_a_wish_both_count(model: Recommender) -> None:
    wish = np.zeros((1, N_ITEMS), dtype=np.float32)
    wish[0, OF["forest"]] = 2
    fitted, history = model.correct("u1", less=[DESERT]).fitted, model.known_histories(pl.Series(["u1"]))
    both, factor = answering.scores(fitted, history, wish), answering.scores(fitted, history) + wish
    np.testing.assert_allclose(both, factor - np.logaddexp.reduce(factor, axis=1), atol=1e-5)


def test_what_is_expected_is_asked_at_no_time(model: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is in a profile."""
    asked: list[Any] = []
    states = Scorer.states

    def noting(self: Scorer, histories: EventLog, *others: Any) -> Any:
        asked.append(histories.asked_at)
        return states(self, histories, *others)

    monkeypatch.setattr(Scorer, "states", noting)
    history = replace(model.known_histories(pl.Series(["u1"])), asked_at=np.array([1_600_000_000]))
    assert correcting.factors(model.correct("u1", less=[DESERT]).fitted, history) is not None
    assert correcting.factors(model.fitted, history) is None
    assert asked == [None]


def test_a_new_item_is_moved_with_the_others(model: Recommender) -> None:
    new = pl.DataFrame({"item_id": ["new"], "genre": [["ocean"]], "title": ["New"], "brand": [None]})
    grown = model.correct("u1", less=[OCEAN]).upsert_items(new)
    query = Query(user="u1", allow=("new", "i1"))
    before = dict(zip(*_told(grown.correct("u1", undo=[OCEAN]).recommend(query)), strict=True))
    after = dict(zip(*_told(grown.recommend(query)), strict=True))
    assert after["new"] < before["new"] and after["i1"] > before["i1"]


def _told(ranking: Ranking) -> tuple[tuple[str, ...], tuple[float, ...]]:
    return ranking.item_ids, ranking.scores


# --- profile and reasons


def test_the_profile_shows_what_was_said(model: Recommender) -> None:
    query = Query(user="u1")
    assert {each.corrected for each in model.profile(query)} == {None}
    said = model.correct("u1", less=[DESERT], more=[OCEAN])
    found = {each.value: each for each in said.profile(query, 1)}
    assert (found["desert"].corrected, found["ocean"].corrected) == ("less", "more")
    assert found["desert"].share < 0.2 < share(model, query, "desert") and found["ocean"].share > 0.5
    assert [each.value for each in said.profile(query, 9)][-1] == "desert"  # it tells least
    assert found["desert"].evidence == next(e for e in model.profile(query) if e.value == "desert").evidence


def test_reasons_say_that_it_counted(model: Recommender) -> None:
    query = Query(more=(FOREST,))
    plain, changed = everything(model, Query()), everything(model, query)
    told = model.explain(query, "i2")
    (piece,) = (each for each in told.evidence if each.id == "correction")
    assert (piece.type, piece.label) == ("context", "what you said you want more or less of")
    assert piece.contribution == pytest.approx(changed[2] - plain[2], abs=1e-4)
    assert told.kind == "context"
    assert told.text == "“i2” fits what you said you want more or less of."
    assert unfounded(told.text, "i2", told.evidence, Names.of(WORLD)) == ()
    without = tuple(each for each in told.evidence if each.id != "correction")
    assert unfounded(told.text, "i2", without, Names.of(WORLD)) != ()
    german = model.explain(query, "i2", "de")
    assert german.text == "“i2” passt zu dem, wovon Sie nach eigener Angabe mehr oder weniger möchten."
    sunk = model.explain(query, "i0")
    assert "correction" not in {each.id for each in sunk.evidence}
    _, pieces = model.contrast(query, "i2", "i0")
    (apart,) = (each for each in pieces if each.id == "correction")
    assert apart.contribution == pytest.approx(changed[2] - plain[2] - changed[0] + plain[0], abs=1e-4)


def test_a_wish_and_a_correction_are_told_apart(model: Recommender) -> None:
    wish = np.random.default_rng(0).normal(size=(1, N_ITEMS)).astype(np.float32)
    history = model.known_histories(pl.Series(["u1"]))
    fitted = model.correct("u1", more=[OCEAN]).fitted
    both, alone = answering.scores(fitted, history, wish)[0], answering.scores(fitted, history)[0]
    wished = answering.scores(model.fitted, history, wish)[0]
    (told,) = explaining.explain(fitted, history, np.array([0]), wish)
    found = {each.id: each.contribution for each in told.evidence}
    assert found["correction"] == pytest.approx(both[0] - wished[0], abs=1e-4)
    assert found.get("wish", 0) == pytest.approx(max(both[0] - alone[0], 0), abs=1e-4)


# --- kept


def test_it_is_kept_with_the_model(model: Recommender, tmp_path: Path) -> None:
    said, query = model.correct("u1", less=[DESERT], more=[OCEAN]), Query(user="u1")
    said.save(tmp_path / "m")
    read = Recommender.load(tmp_path / "m")
    assert read.fitted.corrections == said.fitted.corrections
    assert read.recommend(query, 9) == said.recommend(query, 9)
    table = pl.read_parquet(tmp_path / "m" / "corrections.parquet")
    assert dict(table.schema) == SCHEMA and table.height == 2
    for other in (read.retire_items(["i0"]), read.adjusted(diversity=0.1), read.remember(taste())):
        assert other.fitted.corrections == said.fitted.corrections


def test_without_histories_nobody_s_words_are_kept(model: Recommender, tmp_path: Path) -> None:
    model.correct("u1", less=[DESERT]).save(tmp_path / "m", histories=False)
    assert not (tmp_path / "m" / "corrections.parquet").exists()
    assert Recommender.load(tmp_path / "m").fitted.corrections == Corrections()
    model.save(tmp_path / "plain")  # as models were made before there were any
    assert not (tmp_path / "plain" / "corrections.parquet").exists()


def test_who_is_forgotten_is_so_here_too(model: Recommender, tmp_path: Path) -> None:
    said = model.correct("ann-marie", less=[DESERT]).correct("u2", less=[OCEAN])
    gone = said.forget_user("ann-marie")
    assert [*gone.fitted.corrections.said] == ["u2"]
    gone.save(tmp_path / "m")
    assert not any(b"ann-marie" in file.read_bytes() for file in (tmp_path / "m").iterdir())
    said.save(tmp_path / "all")
    assert any(b"ann-marie" in file.read_bytes() for file in (tmp_path / "all").iterdir())


def test_a_damaged_artefact_is_refused(model: Recommender, tmp_path: Path) -> None:
    model.correct("u1", less=[DESERT]).save(tmp_path / "m")
    file = tmp_path / "m" / "corrections.parquet"
    sound = file.read_bytes()
    for damaged in (sound[:-1], sound[:40] + bytes([sound[40] ^ 1]) + sound[41:]):
        file.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"corrections\.parquet"):
            Recommender.load(tmp_path / "m")
    strange = pl.DataFrame([("u1", "genre", "tundra", True)], schema=SCHEMA, orient="row")
    artefact.write(tmp_path / "n", kind=KIND, meta={}, tables={"corrections": strange})
    with pytest.raises(ArtefactError, match="no aspect genre = tundra"):
        stored_corrections(artefact.read(tmp_path / "n", KIND), model.fitted.aspects)


# --- what can't be


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"more": [("genre", "Oceans")]}, "genre = Oceans.*Close to it: ocean"),
        ({"less": [("genre", "xyz")]}, "Known: desert, forest, ocean"),
        ({"undo": [("brand", "3M")]}, "values of 'brand'. Fields for that: genre"),
        ({"more": [OCEAN], "less": [OCEAN]}, "Two different things are said of genre = ocean"),
        ({"less": [OCEAN], "undo": [OCEAN]}, "Two different things are said of genre = ocean"),
        ({"more": OCEAN}, r"more takes pairs of a field and a value.*\('genre', 'ocean'\)"),
        ({"less": [("genre", 3)]}, "less takes pairs"),
        ({"undo": "genre"}, "undo takes pairs"),
        ({"more": 3}, "more takes pairs"),
    ],
)
def test_what_can_t_be_said_is_refused(model: Recommender, said: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        model.correct("u1", **said)
    if "undo" not in said:
        for ask in (model.recommend, model.profile):
            with pytest.raises(InputError, match=words):
                ask(Query(user="u1", **said))


@pytest.mark.parametrize("user", [7, None, ""])
def test_a_person_is_named_by_a_text(model: Recommender, user: Any) -> None:
    with pytest.raises(InputError, match="by their user_id, a text, not by"):
        model.correct(user, more=[OCEAN])


def test_a_model_without_aspects_can_t_be_corrected(model: Recommender) -> None:
    bare = Recommender(replace(model.fitted, aspects=None))
    for ask in (lambda: bare.correct("u1", less=[OCEAN]), lambda: bare.recommend(Query(less=(OCEAN,)))):
        with pytest.raises(InputError, match="no words for preferences"):
            ask()
