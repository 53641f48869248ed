"""What people do while a model serves is remembered once, wherever the learning was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from llm4rec import observing
from llm4rec.cli import app
from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.events import EventLog, build_log
from llm4rec.data.feedback import checked
from llm4rec.debias.popularity import Popularity
from llm4rec.errors import ArtefactError, InputError
from llm4rec.keeping import stored_refusals
from llm4rec.model.offset import Carried
from llm4rec.model.prior import recent_popularity
from llm4rec.observing import POSITIVE
from llm4rec.recommender import Recommender
from llm4rec.retrieve.relevance import Relevance
from llm4rec.settings import Config
from llm4rec.store import artefact
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.types import Feedback, Query

N_ITEMS, START = 20, 1_700_000_000
TINY: dict[str, Any] = {
    "encode": {"text": {"encoder": "hash"}},
    "train": {"epochs": 2, "attention_epochs": 1, "batch_size": 64},
    "model": {"embedding_size": 8, "layers": 1, "heads": 1, "dropout": 0.0},
    "data": {"min_rating": 3},
    "online": {"train": False},
}


def fitted(*, times: bool = True, ratings: bool = True, types: bool = True) -> Recommender:
    """Everybody walks along the items."""
    users, steps = np.repeat(np.arange(30), 6), np.tile(np.arange(6), 30)
    log = build_log(
        pl.Series([f"u{user}" for user in users]),
        (users + steps) % N_ITEMS,
        times=START - 100_000 + 3_600 * steps if times else None,
        ratings=(3 + steps % 3).astype(np.float32) if ratings else None,
        event_types=pl.Series(np.where(steps % 2, "click", "Purchase")) if types else None,
    )
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"Tale {item}" for item in range(N_ITEMS)],
    })
    return Recommender.fit(log, Catalog(table, (Field("title", "text"),)), Config.model_validate(TINY))


@pytest.fixture(scope="module")
def model() -> Recommender:
    return fitted()


@pytest.fixture
def log(tmp_path: Path) -> Any:
    with FeedbackLog.open(tmp_path / "events.db") as found:
        yield found


def event(number: int, user: str = "new", kind: str = "click", value: float | None = None) -> Feedback:
    return Feedback(f"e{number}", user, f"i{number % (N_ITEMS + 1)}", kind, value, START + number)


def some(n: int, first: int = 0) -> list[Feedback]:
    kinds = (*POSITIVE, "skip", "Dislike")
    return [
        event(number, f"u{number % 40}", kinds[number % len(kinds)], float(1 + number % 5))
        for number in range(first, first + n)
    ]


def same(one: Recommender, other: Recommender) -> None:
    """Both remember the same and answer the same."""
    for name in ("histories", "memories"):
        logs = [getattr(each.fitted, name) for each in (one, other)]
        assert (logs[0] is None) == (logs[1] is None)
        if logs[0] is not None:
            tables = [each.to_frame(one.catalog.ids) for each in logs]
            assert tables[0].equals(tables[1], null_equal=True)
    queries = [Query(user=user) for user in ("u0", "u5", "u39", "nobody")]
    assert [one.recommend(each, 20) for each in queries] == [other.recommend(each, 20) for each in queries]


def test_one_event_is_in_the_next_answer(model: Recommender) -> None:
    seen = model.observe(event(3))
    assert model.known_history("new") is None
    history = seen.known_history("new")
    assert history is not None and history.items.tolist() == [3] and history.clock.tolist() == [START + 3]
    assert "i3" not in seen.recommend(Query(user="new"), 100).item_ids
    assert "i3" in model.recommend(Query(user="new"), 100).item_ids
    further = seen.observe(event(4, kind="Purchase")).observe(event(5, kind="rating", value=4))
    history = further.known_history("new")
    assert history is not None and history.items.tolist() == [3, 4, 5]
    assert history.ratings is not None and history.kinds is not None
    np.testing.assert_array_equal(history.ratings, np.array([np.nan, np.nan, 4], dtype=np.float32))
    assert [history.kind_names[kind] for kind in history.kinds] == ["click", "Purchase", "rating"]


@pytest.mark.parametrize("bare", [False, True], ids=["with times", "order alone"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(0, 200), min_size=1, max_size=12, unique=True))
def test_events_one_by_one_and_at_once_and_counted_anew_are_the_same_model(
    model: Recommender, bare: bool, numbers: list[int]
) -> None:
    histories = model.fitted.histories
    assert histories is not None
    if bare:
        histories = replace(histories, times=None)
    seen = np.ones(N_ITEMS, dtype=bool)
    carried = Carried.of(histories, N_ITEMS, 0.5)
    assert carried is not None
    before = replace(
        model.fitted, histories=histories, memories=histories.without("u3"),
        relevance=Relevance.of({"weights": {"memory": {"semantic": 1.0}}, "gamma": 0.01}),
        prior=replace(model.fitted.prior, windows=(1.0, 0.3, 0.3, 0.1)),
        scorer=model.fitted.scorer.carrying(carried),
    )  # fmt: skip
    told = [some(1, number)[0] for number in numbers]
    one_by_one = Recommender(before)
    for each in told:
        one_by_one = one_by_one.observe(each)
    frame = observing._sorted_out(before, checked(told)).filter(pl.col("positive") & (pl.col("item") >= 0))
    new = observing._as_log(before, frame)
    at_once = Recommender(replace(before, refusals=one_by_one.fitted.refusals)).remember(new)
    found, other = one_by_one.fitted, at_once.fitted
    same(one_by_one, at_once)
    for name in ("histories", "memories"):
        grown, whole = getattr(found, name), getattr(other, name)
        for each in fields(EventLog):
            one, two = getattr(grown, each.name), getattr(whole, each.name)
            np.testing.assert_array_equal(one, two, err_msg=each.name)
    if not len(frame):
        assert found.histories is before.histories and found.prior is before.prior
        return
    kept = found.histories
    assert kept is not None  # of it, a log that nothing was carried on to
    anew = build_log(
        kept.user_ids[kept.rows],
        kept.items,
        times=kept.times,
        ratings=kept.ratings,
        event_types=kept.event_types,
    )
    prior = before.prior.counted(anew)
    np.testing.assert_array_equal(found.prior.log_popularity, prior.log_popularity)
    assert found.prior.floors == prior.floors and found.prior.windows == prior.windows
    for window, row in zip(prior.windows, prior.log_popularity, strict=True):
        np.testing.assert_array_equal(row, recent_popularity(anew, N_ITEMS, window))
    popularity = Popularity.of(anew, N_ITEMS, before.config.debias.popularity)
    np.testing.assert_array_equal(found.popularity.counts, popularity.counts)
    assert found.scorer.carried is not None
    np.testing.assert_array_equal(found.scorer.carried.counts, carried.renewed(anew, seen).counts)


@pytest.mark.parametrize(
    "told",
    [
        event(3, kind="skip"),
        event(3, kind="dwell", value=30.0),
        event(3, kind="rating"),
        event(20),
    ],
    ids=["skip", "dwell", "no rating", "unknown item"],
)
def test_what_says_nothing_or_is_not_known_changes_nothing(model: Recommender, told: Feedback) -> None:
    assert model.observe(told).fitted is model.fitted


UNWANTED = [event(3, "u9", "Dislike"), event(3, "u9", "rating", 2.9)]


def offered(model: Recommender, **query: Any) -> list[str]:
    return list(model.recommend(Query(**query), 100).item_ids)


@pytest.mark.parametrize("told", UNWANTED, ids=["dislike", "low rating"])
def test_what_is_not_wanted_is_not_offered_until_it_is_taken(model: Recommender, told: Feedback) -> None:
    assert "i3" in offered(model, user="u9")
    kept = model.observe(told)
    assert kept.fitted.histories is model.fitted.histories
    before = model.recommend(Query(user="u9"), 100)
    after = kept.recommend(Query(user="u9"), 100)
    rest = [pair for pair in zip(before.item_ids, before.scores, strict=True) if pair[0] != "i3"]
    assert list(zip(after.item_ids, after.scores, strict=True)) == rest  # nothing else is otherwise
    for query in ({"keep_seen": True}, {"history": ("i7",)}, {"allow": ("i3", "i4")}):
        assert "i3" in offered(model, user="u9", **query) and "i3" not in offered(kept, user="u9", **query)
    for query in ({"history": ("i7",)}, {"user": "u1", "keep_seen": True}, {"user": "nobody"}):
        assert offered(model, **query) == offered(kept, **query) and "i3" in offered(kept, **query)
    many = build_log(pl.Series(["u9", "u8"]), np.array([7, 7]))
    for keep_seen in (False, True):
        found = kept.recommend_many(many, None, 100, keep_seen=keep_seen).items
        assert [3 in row for row in found.tolist()] == [False, True]
    assert kept.observe(told).fitted is kept.fitted
    taken = kept.observe(event(3, "u9"))
    assert not len(taken.fitted.refusals) and "i3" in offered(taken, user="u9", keep_seen=True)
    assert "i3" not in offered(taken.observe(told), user="u9", keep_seen=True)


def test_a_low_rating_says_nothing_where_every_rating_is_positive(model: Recommender) -> None:
    data = model.config.data.model_copy(update={"min_rating": None})
    config = model.config.model_copy(update={"data": data})
    open_to_all = Recommender(replace(model.fitted, config=config))
    seen = open_to_all.observe(event(3, "u9", "rating", 1.0))
    assert not len(seen.fitted.refusals) and "i3" in offered(seen, user="u9", keep_seen=True)


def test_what_is_not_wanted_is_kept_with_histories_alone(model: Recommender, tmp_path: Path) -> None:
    kept = model.observe(UNWANTED[0]).observe(event(4, "u8", "dislike"))
    kept.save(tmp_path / "m")
    assert Recommender.load(tmp_path / "m").fitted.refusals == kept.fitted.refusals
    gone = kept.forget_user("u9")
    assert gone.fitted.refusals.said == {"u8": {"i4"}}
    gone.save(tmp_path / "m")
    assert pl.read_parquet(tmp_path / "m" / "refusals.parquet").rows() == [("u8", "i4")]
    kept.save(tmp_path / "m", histories=False)
    assert not (tmp_path / "m" / "refusals.parquet").exists()
    bare = Recommender.load(tmp_path / "m")
    assert not len(bare.fitted.refusals)
    assert bare.observe(UNWANTED[0]).fitted is bare.fitted
    strange = pl.DataFrame({"user_id": ["u9"], "item": ["i3"]})
    artefact.write(tmp_path / "n", kind="model", meta={}, tables={"refusals": strange})
    with pytest.raises(ArtefactError, match=r"refusals\.parquet"):
        stored_refusals(artefact.read(tmp_path / "n", "model"))


def test_what_is_not_wanted_holds_for_items_that_come_later(model: Recommender) -> None:
    kept = model.observe(replace(event(3, "u9", "dislike"), item="late"))
    late = pl.DataFrame({"item_id": ["late"], "title": ["Tale of late"]})
    grown = kept.upsert_items(late).observe(UNWANTED[0])
    assert grown.fitted.refusals.said == {"u9": {"late", "i3"}}
    assert not {"late", "i3"} & {*offered(grown, user="u9")} and "late" in offered(grown, user="u8")


def test_what_can_be_no_event_is_refused(model: Recommender) -> None:
    with pytest.raises(InputError, match=r"Feedback.time takes UTC seconds"):
        model.observe(replace(event(1), time=-5))
    with pytest.raises(InputError, match="a Feedback is needed, not a str"):
        model.observe("click")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("known", ["times", "ratings", "types"])
def test_a_model_takes_what_its_histories_have(known: str, log: FeedbackLog) -> None:
    """One without times takes events in the order of the log."""
    bare = fitted(**{name: name == known for name in ("times", "ratings", "types")})
    log.append([event(5, kind="rating", value=4.0), replace(event(4), time=START - 9)])
    history = bare.learn(log)[0].known_history("new")
    assert history is not None
    assert history.items.tolist() == ([4, 5] if known == "times" else [5, 4])
    found = (history.times, history.ratings, history.kinds)
    assert [each is not None for each in found] == [name == known for name in ("times", "ratings", "types")]


def test_a_log_is_learnt_once_and_counted(model: Recommender, log: FeedbackLog) -> None:
    log.append(some(100))
    changed, told = model.learn(log)
    # of 100 events, 14 or 15 are of each of 7 kinds; ratings are 1 to 5, and 3 is the least that counts
    numbers = range(100)
    positive = [
        number
        for number in numbers
        if number % 7 < 5 and (POSITIVE[number % 7] != "rating" or 1 + number % 5 >= 3)
    ]
    known = [number for number in positive if number % 21 < 20]
    assert (told.start, told.read, told.place.position) == (0, 100, 100)
    assert (told.learnt, told.unknown) == (len(known), len(positive) - len(known))
    low = sum(POSITIVE[n % 7] == "rating" for n in numbers if n % 7 < 5) - sum(
        POSITIVE[n % 7] == "rating" for n in positive
    )
    assert told.others == {"dislike": 14, "rating": low, "skip": 14}
    assert told.refused == 14 + low and len(changed.fitted.refusals)
    assert told.people == len({number % 40 for number in known})
    assert changed.fitted.histories is not None and model.fitted.histories is not None
    assert changed.fitted.histories.n_events == model.fitted.histories.n_events + len(known)
    again, nothing = changed.learn(log)
    assert (nothing.start, nothing.read, nothing.learnt) == (100, 0, 0)
    same(again, changed)


def test_learning_in_parts_is_learning_at_once(model: Recommender, log: FeedbackLog, tmp_path: Path) -> None:
    log.append(some(60))
    parted = model.learn(log)[0]
    parted.save(tmp_path / "model")
    parted = Recommender.load(tmp_path / "model")
    log.append(some(60, 60))
    parted, told = parted.learn(log)
    assert (told.start, told.read) == (60, 60)
    whole = model.learn(log)[0]
    same(parted, whole)
    one_by_one = model
    for each in some(120):
        one_by_one = one_by_one.observe(each)
    same(one_by_one, whole)
    assert parted.fitted.refusals == whole.fitted.refusals == one_by_one.fitted.refusals


def test_what_is_only_remembered_is_given_on_the_way_too(
    model: Recommender, log: FeedbackLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "REMEMBERED", 30)
    log.append(some(100))
    given = list[Recommender]()
    whole, _ = model.learn(log, each=given.append)
    assert [each.fitted.learnt and each.fitted.learnt.position for each in given] == [30, 60, 90]
    for each in given:
        same(each.learn(log)[0], whole)


def test_another_log_or_an_older_copy_is_refused(
    model: Recommender, log: FeedbackLog, tmp_path: Path
) -> None:
    log.append(some(10))
    learnt = model.learn(log)[0]
    with FeedbackLog.open(tmp_path / "other.db") as other:
        other.append(some(4))
        with pytest.raises(InputError, match=r"another event log .* --after"):
            learnt.learn(other)
        assert learnt.learn(other, after=2)[1].read == 2
        stale = Recommender(replace(learnt.fitted, learnt=replace(learnt.fitted.learnt, log=other.identity)))  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match=r"read up to position 10, .* goes up to 4: an older copy"):
            stale.learn(other)
        assert stale.learn(other, after=4)[1].read == 0
    with pytest.raises(
        InputError, match="up to position 10 of this log: after 3, events would be learnt twice"
    ):
        learnt.learn(log, after=3)
    with pytest.raises(InputError, match="goes up to position 10: there is nothing after 11"):
        model.learn(log, after=11)
    assert model.learn(log, after=7)[1].read == 3
    with pytest.raises(InputError, match="keeps no histories"):
        Recommender(replace(model.fitted, histories=None)).learn(log)


@pytest.mark.parametrize(
    "told",
    [
        5,
        {},
        {"log": "x", "position": -1, "reader": "r"},
        {"log": "x", "position": True, "reader": "r"},
        {"log": "x", "position": 1, "reader": "r", "more": 1},
    ],
)
def test_a_place_that_was_never_written_is_refused(model: Recommender, tmp_path: Path, told: Any) -> None:
    model.save(tmp_path / "model")
    kept = artefact.read(tmp_path / "model", "model")
    tensors = {
        name.removesuffix(".safetensors"): kept.tensors(name.removesuffix(".safetensors"))
        for name in kept.manifest.files
        if name.endswith(".safetensors")
    }
    names = [name.removesuffix(".parquet") for name in kept.manifest.files if name.endswith(".parquet")]
    artefact.write(
        tmp_path / "model", kind="model", meta={**kept.meta, "learnt": told}, tensors=tensors,
        tables={name: kept.table(name) for name in names},
    )  # fmt: skip
    with pytest.raises(ArtefactError, match="event log it has learnt from can't be understood"):
        Recommender.load(tmp_path / "model")


def llm4rec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answered(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_file_of_events_is_brought_in_and_learnt(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place)
    (tmp_path / "new.csv").write_text(
        "user_id,item_id,event_type,rating,timestamp\n"
        f"new,i3,,,{START}\nnew,i4,,2,{START + 1}\nnew,i5,rating,4.5,{START + 2}\nnew,i6,skip,,{START + 3}\n"
        f"new,i3,,,{START}\nnew,i99,view,,{START + 4}\n,i1,,,{START}\nnew,i1,,,soon\n"
    )
    append = ("events", "--events", db, "--append", tmp_path / "new.csv", "--json")
    told = answered(llm4rec(*append))
    assert (told["added"], told["known"], told["rejected"], told["position"]) == (5, 0, 2, 5)
    aside = pl.read_parquet(tmp_path / "new.csv.rejected.parquet")
    assert aside["row"].to_list() == [8, 9]
    again = answered(llm4rec(*append))
    assert (again["added"], again["known"], again["position"]) == (0, 5, 5)
    learn = ("learn", "--model", place, "--events", db)
    found = answered(llm4rec(*learn, "--json"))
    assert found == {
        "model": str(place), "events": str(db), "start": 0, "position": 5, "read": 5, "learnt": 2,
        "people": 1, "unknown_items": 1, "not_positive": {"rating": 1, "skip": 1}, "refused": 1, "gap": False,
        "trained": None, "undone": 0, "mended": 0, "drifts": 0, "kinds": {},
    }  # fmt: skip
    history = Recommender.load(place).known_history("new")
    assert history is not None and history.items.tolist() == [3, 5]
    shown = answered(llm4rec("recommend", "--model", place, "--user", "new", "--n", 100, "--json"))
    left = {each["item_id"] for each in shown["recommendations"]}
    assert "i6" in left and not {"i3", "i4", "i5"} & left  # passed by, and taken or not wanted
    said = llm4rec(*learn)
    assert said.exit_code == 0 and "Nothing new" in said.stdout
    state = answered(llm4rec("events", "--events", db, "--json"))
    assert [*state["readers"].values()] == [5]
    exported = answered(
        llm4rec(
            "events",
            "--events",
            db,
            "--export",
            tmp_path / "out.parquet",
            "--drop-before",
            START + 2,
            "--json",
        )
    )
    assert (exported["exported"], exported["exported_to"], exported["dropped"]) == (5, 5, 2)
    back = tmp_path / "back.db"
    brought = answered(llm4rec("events", "--events", back, "--append", tmp_path / "out.parquet", "--json"))
    assert brought["added"] == 5
    with FeedbackLog.open(back) as log:
        assert log.read().rows() == pl.read_parquet(tmp_path / "out.parquet").drop("rating").rows()


def test_a_person_is_forgotten_in_the_log_and_in_the_model(model: Recommender, tmp_path: Path) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place)
    with FeedbackLog.open(db) as log:
        log.append([event(3, "Wilhelmina"), event(4, "u1"), event(6, "Wilhelmina", "dislike")])
    answered(llm4rec("learn", "--model", place, "--events", db, "--json"))
    with FeedbackLog.open(db) as log:
        log.append([event(5, "Wilhelmina")])  # not learnt yet
    alone = llm4rec("forget-user", "--model", place, "--user", "Wilhelmina")
    assert alone.exit_code == 2 and "name it with --events" in alone.stderr.replace("\n", " ")
    forget = ("forget-user", "--model", place, "--events", db, "--user", "Wilhelmina", "--json")
    assert answered(llm4rec(*forget)) == {
        "user": "Wilhelmina", "model": str(place), "log_events": 3, "model_events": 1
    }  # fmt: skip
    left = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"Wilhelmina" not in left
    assert Recommender.load(place).known_history("Wilhelmina") is None
    assert answered(llm4rec(*forget))["log_events"] == 0
    found = answered(llm4rec("learn", "--model", place, "--events", db, "--json"))
    assert (found["start"], found["read"]) == (3, 0)


def test_what_makes_no_sense_is_said(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    missing = llm4rec("learn", "--model", tmp_path / "model", "--events", tmp_path / "none.db")
    assert missing.exit_code == 2 and "There is no event log" in missing.stderr
    assert not (tmp_path / "none.db").exists()
    idle = llm4rec("events", "--events", tmp_path / "none.db", "--map", "user=who")
    assert idle.exit_code == 2 and "--map names columns of --append" in idle.stderr
    (tmp_path / "undated.csv").write_text("user_id,item_id\nu,i1\n")
    undated = llm4rec("events", "--events", tmp_path / "log.db", "--append", tmp_path / "undated.csv")
    assert undated.exit_code == 2 and "'timestamp'" in undated.stderr


def start(*arguments: object) -> subprocess.Popen[str]:
    code = "from llm4rec.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while", "written"])
def test_learning_that_is_killed_and_run_again_equals_an_undisturbed_run(
    model: Recommender, tmp_path: Path, moment: str
) -> None:
    place, db = tmp_path / "model", tmp_path / "events.db"
    model.save(place)
    with FeedbackLog.open(db) as log:
        log.append(some(1_000))
        whole = model.learn(log)[0]
    process = start("learn", "--model", place, "--events", db)
    assert process.stderr is not None
    if moment == "while":  # the new model is being written beside the old one
        while not [*tmp_path.glob(".model.partial-*")] and process.poll() is None:
            time.sleep(0.001)
    else:
        for line in process.stderr:
            if line.startswith("write"):
                break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    halfway = Recommender.load(place)  # the old one or the new one
    assert halfway.fitted.learnt is None or halfway.fitted.learnt.position == 1_000
    assert (moment != "written") or halfway.fitted.learnt is not None
    rest = answered(llm4rec("learn", "--model", place, "--events", db, "--json"))
    assert rest["position"] == 1_000
    same(Recommender.load(place), whole)
