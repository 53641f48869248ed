"""The event log: each event once, in one order that no reader skips a part of, there when acknowledged."""

from __future__ import annotations

import itertools
import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4rec.errors import ArtefactError, EventLogError, InputError, MissingPackageError
from llm4rec.store import connecting, tables
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.types import Feedback

Fresh = Callable[[], str]
CONTENT = ["event_id", "user_id", "item_id", "event_type", "value", "timestamp"]
laws = settings(max_examples=12)


def event(number: int, **other: Any) -> Feedback:
    told = {"user": f"u{number % 5}", "item": f"i{number % 3}", "kind": "click", "value": None}
    return Feedback(event_id=f"e{number}", **{**told, "time": 1_700_000_000 + number, **other})


texts = st.text(st.characters(min_codepoint=0x20, codec="utf-8"), min_size=1, max_size=12)
feedback = st.builds(
    Feedback,
    event_id=texts,
    user=texts,
    item=texts,
    kind=st.sampled_from(["click", "rating", "dwell"]),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    time=st.integers(0, 4_102_444_799),
)
batches = st.lists(feedback, max_size=25, unique_by=lambda each: each.event_id)


@pytest.fixture(scope="module")
def pair(fresh: Fresh) -> Generator[tuple[FeedbackLog, FeedbackLog]]:
    with FeedbackLog.open(fresh()) as one, FeedbackLog.open(fresh()) as other:
        yield one, other


def emptied(log: FeedbackLog) -> FeedbackLog:
    """The log as it was when it was made: an example of a law starts with nothing."""
    with log._alone() as (connection, *_):
        connection.execute(sa.delete(tables.events))
        connection.execute(sa.update(tables.log).values(position=0))
    return log


def rows(log: FeedbackLog) -> list[tuple[Any, ...]]:
    return log.read(0, 1_000_000).rows()


@laws
@given(told=batches)
def test_what_goes_in_comes_out_and_twice_is_once(
    pair: tuple[FeedbackLog, FeedbackLog], told: list[Feedback]
) -> None:
    log = emptied(pair[0])
    assert log.append(told).tolist() == [True] * len(told)
    once = rows(log)
    assert [row[1:] for row in once] == [
        (each.event_id, each.user, each.item, each.kind, each.value, each.time) for each in told
    ]
    assert [row[0] for row in once] == [*range(1, len(told) + 1)]
    assert log.append(told + told).tolist() == [False] * 2 * len(told)
    assert rows(log) == once
    assert (len(log), log.position) == (len(told), len(told))


@laws
@given(told=batches, cuts=st.lists(st.integers(0, 25), max_size=4), page=st.integers(1, 30))
def test_any_batches_and_any_pages_are_the_same_log(
    pair: tuple[FeedbackLog, FeedbackLog], told: list[Feedback], cuts: list[int], page: int
) -> None:
    whole, parted = map(emptied, pair)
    whole.append(told)
    ends = [0, *sorted(min(cut, len(told)) for cut in cuts), len(told)]
    for start, end in itertools.pairwise(ends):
        parted.append(told[start:end])
        parted.append(told[:end])
    assert rows(parted) == rows(whole)
    pages = [each.rows() for each in whole.pages(0, page)]
    assert [row for each in pages for row in each] == rows(whole)
    assert all(0 < len(each) <= page for each in pages)
    after, read = 0, list[tuple[Any, ...]]()
    while len(found := parted.read(after, page)):  # a reader that starts anew where it stopped
        after, read = int(found["position"][-1]), [*read, *found.rows()]
    assert read == rows(whole)


def test_an_event_with_another_content_is_refused_and_nothing_else_is_written(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log:
        log.append([event(1), event(2, value=3.0)])
        before = rows(log)
        for changed, what in (
            ({"value": 4.0}, r"another value \(3.0, and here 4.0\)"),
            ({"value": None}, "another value"),
            ({"value": 3.0, "user": "x"}, "another user_id"),
            ({"value": 3.0, "time": 5}, "another timestamp"),
        ):
            with pytest.raises(
                InputError, match=rf"Row 2 of the 3 events: the event 'e2' is in the log with {what}"
            ):
                log.append([event(7), event(2, **changed), event(8)])
            assert rows(log) == before
        with pytest.raises(InputError, match=r"Row 3 .* 'e7' is earlier in the batch with another item_id"):
            log.append([event(7), event(8), event(7, item="x")])
        assert rows(log) == before and log.position == 2
        assert log.append([event(7), event(2, value=3.0), event(7)]).tolist() == [True, False, False]
        assert log.position == 3


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"user": ""}, "Event 2: Feedback.user is missing: it must be a text"),
        ({"item": "x" * 513}, "Feedback.item is longer than 512 letters"),
        ({"kind": "x" * 65}, "Feedback.kind is longer than 64 letters"),
        ({"user": "a\x00b"}, "Feedback.user holds a control character"),
        ({"event_id": "a\nb"}, "Feedback.event_id holds a control character"),
        ({"event_id": 5}, r"Event 2: Feedback.event_id takes a text, not 5"),
        ({"user": "\ud800"}, "Feedback.user takes a text"),
        ({"value": float("nan")}, "Feedback.value takes a finite number or None, not nan"),
        ({"value": float("inf")}, "Feedback.value takes a finite number"),
        ({"value": True}, "Feedback.value takes a finite number"),
        ({"value": 10**400}, "Feedback.value takes a finite number"),
        ({"time": -1}, "Feedback.time takes UTC seconds from 1970 to 2100, not -1"),
        ({"time": 4_102_444_800}, "Feedback.time takes UTC seconds"),
        ({"time": 1.5}, "Feedback.time takes UTC seconds"),
    ],
)
def test_what_can_be_no_event_is_refused(tmp_path: Path, wrong: dict[str, Any], why: str) -> None:
    with FeedbackLog.open(tmp_path / "log.db") as log:
        with pytest.raises(InputError, match=why):
            log.append([event(1), Feedback(**{**vars(event(2)), **wrong})])
        assert len(log) == 0
        with pytest.raises(InputError, match="Event 1: a Feedback is needed, not a dict"):
            log.append([{"event_id": "e"}])  # pyright: ignore[reportArgumentType]


def test_a_table_is_taken_as_it_is_or_refused(tmp_path: Path) -> None:
    table = pl.DataFrame({
        "event_id": ["a", "b"], "user_id": ["u", "v"], "item_id": ["i", "j"],
        "event_type": ["click", "rating"], "value": [None, 4], "timestamp": [5, 6],
    })  # fmt: skip
    with FeedbackLog.open(tmp_path / "log.db") as log:
        assert log.append(table).tolist() == [True, True]
        assert log.read().drop("position").rows() == table.rows()
        assert not log.append(table[:0]).size
        for changed, why in (
            (table.drop("value"), "no column 'value'"),
            (table.with_columns(timestamp=pl.lit("soon")), "column 'timestamp' of the events holds String"),
            (table.with_columns(user_id=pl.lit(5)), "column 'user_id' of the events holds Int32; String"),
            (table.with_columns(timestamp=pl.Series([1, None])), "Row 2 .* 'timestamp': it must be UTC sec"),
            (table.with_columns(value=pl.Series([1.0, float("nan")])), "Row 2 .* 'value': it is no finite"),
            (
                table.with_columns(timestamp=pl.Series([1, 2**63], dtype=pl.UInt64)),
                "Row 2 .* it is too large",
            ),
        ):
            with pytest.raises(InputError, match=why):
                log.append(changed)


def test_a_person_is_read_in_the_order_of_time_and_erased(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log:
        log.append([event(1, user="u", time=9), event(2, user="u", time=5), event(3, user="v", time=5)])
        log.append([event(4, user="u", time=5)])
        assert log.of("u")["event_id"].to_list() == ["e2", "e4", "e1"]
        assert log.erase("u") == 3 and log.erase("u") == 0
        assert not len(log.of("u")) and log.read()["event_id"].to_list() == ["e3"]
        log.append([event(5)])
        assert log.read()["position"].to_list() == [3, 5]  # nobody gets the place of another


def test_nothing_readable_of_an_erased_person_remains_in_the_files(tmp_path: Path) -> None:
    with FeedbackLog.open(tmp_path / "log.db") as log:
        log.append([event(number, user="Wilhelmina" if number % 3 else "other") for number in range(300)])
        held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"Wilhelmina" in held
        log.erase("Wilhelmina")
        held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"Wilhelmina" not in held and b"other" in held


def test_old_events_are_dropped_once_every_reader_has_read_them(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log:
        log.append([event(number, time=100 - number) for number in range(10)])
        log.register("slow", 4)
        log.register("quick", 9)
        assert log.readers == {"slow": 4, "quick": 9}
        assert log.drop_before(98) == 1  # of positions 1 to 4 only the last is older
        assert (log.dropped, log.read()["position"].to_list()) == (4, [1, 2, 3, 5, 6, 7, 8, 9, 10])
        log.register("slow", 8)
        assert log.drop_before(98) == 4
        assert log.dropped == 8
        log.register("slow", 10)
        log.register("slow", 8)  # it has gone back, and 9 is kept for it
        assert log.readers == {"slow": 8, "quick": 9} and log.drop_before(98) == 0
        log.unregister("slow")
        log.unregister("quick")
        assert log.drop_before(98) == 2 and log.drop_before(98) == 0
        assert log.read()["position"].to_list() == [1, 2, 3]
        assert (log.position, [len(page) for page in log.pages(0, 2)]) == (10, [2, 1])
        assert [*log.pages(3)] == []
        with pytest.raises(InputError, match=r"position 11 .* whose newest event has 10"):
            log.register("slow", 11)


def test_the_log_is_exported_page_by_page(fresh: Fresh, tmp_path: Path) -> None:
    with FeedbackLog.open(fresh()) as log:
        assert log.export(tmp_path / "empty.parquet") == (0, 0)
        assert pl.read_parquet(tmp_path / "empty.parquet").height == 0
        log.append([event(n, kind="rating" if n % 2 else "dwell", value=n / 2) for n in range(1, 8)])
        assert log.export(tmp_path / "log.parquet", after=2, n=3) == (5, 7)
        found = pl.read_parquet(tmp_path / "log.parquet")
        assert found.drop("rating").rows() == rows(log)[2:]
        assert found["rating"].to_list() == [1.5, None, 2.5, None, 3.5]
        assert pq.ParquetFile(tmp_path / "log.parquet").num_row_groups == 2
        assert sorted(file.name for file in tmp_path.iterdir()) == ["empty.parquet", "log.parquet"]


def test_a_log_keeps_its_identity_and_its_form(fresh: Fresh) -> None:
    place = fresh()
    with FeedbackLog.open(place) as log, FeedbackLog.open(fresh()) as other:
        log.append([event(1)])
        with FeedbackLog.open(place, create=False) as again:
            assert again.identity == log.identity != other.identity
            assert rows(again) == rows(log)
        with log.engine.connect() as connection:  # the migrations make what the code takes there to be
            context = MigrationContext.configure(connection, opts={"version_table": tables.VERSIONS})
            assert compare_metadata(context, tables.metadata) == []


def test_a_newer_form_is_refused_and_left_alone(fresh: Fresh) -> None:
    place = fresh()
    with FeedbackLog.open(place) as log, log.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {tables.VERSIONS} SET version_num = '9999'")
    for create in (True, False):
        with pytest.raises(
            InputError, match=r"has a newer form \(9999\) than this version .* upgrade llm4rec"
        ):
            FeedbackLog.open(place, create=create)


def test_a_place_that_can_hold_no_log_is_refused(tmp_path: Path, fresh: Fresh) -> None:
    missing = fresh()
    with pytest.raises(InputError, match="There is no event log"):
        FeedbackLog.open(missing, create=False)
    for place, why in (
        (str(tmp_path), "is a directory: name the file"),
        ("mysql://u:secret@host/db", "kept in SQLite or PostgreSQL, not in 'mysql'"),
        ("sqlite://", "names a file and nothing else"),
        ("sqlite:///:memory:", "names a file and nothing else"),
        ("postgresql://host:port/db", "can't be read; write it like"),
    ):
        with pytest.raises(InputError, match=why):
            FeedbackLog.open(place)
    (tmp_path / "text.db").write_text("no database at all, but some text that is long enough")
    with pytest.raises(InputError, match=r"text.db can't be opened: file is not a database"):
        FeedbackLog.open(tmp_path / "text.db")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text('{"format": "llm4rec-artefact"}')
    with pytest.raises(ArtefactError, match=r"lies in .*model"):
        FeedbackLog.open(tmp_path / "model" / "log.db")


def test_a_database_that_is_none_of_ours_is_no_log(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("create table events (x integer)")
    connection.close()
    with pytest.raises(InputError, match=r"There is no event log in .*shop.db"):
        FeedbackLog.open(tmp_path / "shop.db", create=False)


@pytest.mark.parametrize("where", ["me:secret@127.0.0.1:1/db", "127.0.0.1:1/db?password=secret"])
def test_no_password_is_shown(where: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="can't be opened") as caught:
        FeedbackLog.open(f"postgresql://{where}")
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None
    assert "secret" not in caplog.text
    url = connecting.database_url(f"postgresql://{where}")
    with pytest.raises(EventLogError) as caught, connecting.speaking(url):
        raise sa.exc.OperationalError("SELECT", {}, ValueError("no entry for secret\nsecret"))
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'llm4rec\[postgres\]'"):
        FeedbackLog.open("postgresql://host/db")


def test_acknowledged_means_on_the_disk(fresh: Fresh) -> None:
    with FeedbackLog.open(fresh()) as log, log.engine.connect() as connection:

        def told(setting: str) -> Any:
            return connection.exec_driver_sql(setting).scalar_one()

        if connection.dialect.name == "sqlite":
            assert (told("PRAGMA journal_mode"), told("PRAGMA synchronous")) == ("wal", 2)
        else:
            assert told("SHOW synchronous_commit") == "on"
            assert told("SHOW transaction_isolation") == "read committed"


def test_a_writer_waits_for_the_one_before_it(fresh: Fresh) -> None:
    """Positions become visible in their order, whoever began first."""
    with FeedbackLog.open(fresh()) as log:
        late = threading.Thread(target=lambda: log.append([event(2)]))
        with log._alone() as (connection, position, _):
            late.start()
            late.join(0.3)
            assert late.is_alive() and not len(log.read())
            row = dict(zip(CONTENT, vars(event(1)).values(), strict=True))
            connection.execute(sa.insert(tables.events), {"position": position + 1, **row})
            connection.execute(sa.update(tables.log).values(position=position + 1))
        late.join()
        assert log.read()["event_id"].to_list() == ["e1", "e2"]


WRITER = """
import json, random, sys
from llm4rec.store.eventlog import FeedbackLog
from llm4rec.types import Feedback
place, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
draw, done = random.Random(name), 0
with FeedbackLog.open(place) as log:
    while done < n:
        size = min(draw.randint(1, 9), n - done)
        ids = [f"{name}-{number}" for number in range(done, done + size)]
        log.append([Feedback(each, name, "i", "click", None, 5) for each in ids])
        print(json.dumps(ids), flush=True)
        done += size
"""


def write(place: str, name: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, place, name, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_reader_among_writers_in_other_processes_misses_nothing(fresh: Fresh) -> None:
    """They also open the log, and so make it, at the same time."""
    place, names, n = fresh(), ["a", "b", "c"], 60
    writers = [write(place, name, n) for name in names]
    with FeedbackLog.open(place) as log:
        after, read = 0, list[str]()
        while any(writer.poll() is None for writer in writers) or after < log.position:
            page = log.read(after, 7)
            if len(page):
                assert page["position"].to_list() == [*range(after + 1, after + 1 + len(page))]
                after, read = int(page["position"][-1]), read + page["event_id"].to_list()
        errors = [writer.communicate()[1] for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * len(names), errors
        for name in names:
            assert [each for each in read if each[0] == name] == [f"{name}-{k}" for k in range(n)]
        assert len(read) == len(log) == len(names) * n


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_writer_that_is_killed(fresh: Fresh) -> None:
    place, n, acknowledged, draw = fresh(), 100_000, list[str](), random.Random(3)
    with FeedbackLog.open(place) as log:
        for _ in range(4):
            writer = write(place, "a", n)  # begins from the start: what is there is not taken twice
            assert writer.stdout is not None
            told = draw.randint(5, 40)
            for line in writer.stdout:
                acknowledged += json.loads(line)
                told -= 1
                if not told:
                    writer.send_signal(signal.SIGKILL)
            writer.communicate()
            assert writer.returncode == -signal.SIGKILL
            there = log.read(0, n)
            ids = there["event_id"].to_list()
            assert len(set(ids)) == len(ids) and set(acknowledged) <= set(ids)
            assert ids == [f"a-{k}" for k in range(len(ids))]  # and of an unfinished batch all or nothing
            assert there["position"].to_list() == [*range(1, len(ids) + 1)]
