"""Good input in every format ends in the same log; the options leave out what they say."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.data import database
from llm4rec.data.columns import find_columns, roles_of
from llm4rec.data.files import Choose, Table
from llm4rec.data.filters import core
from llm4rec.data.ingest import DataConfig, Ingested, ingest
from llm4rec.errors import InputError

EVENTS = pl.DataFrame({
    "user_id": ["u1", "u2", "u1", "u1", "u2"],
    "item_id": ["a", "b", "b", "a", "c"],
    "timestamp": [30, 5, 10, 20, 4],
    "rating": [4.0, 3.0, 5.0, 1.0, 2.0],
})


def write(path: Path, frame: pl.DataFrame) -> str:
    """Write `frame` in the format of the path's ending."""
    name = path.name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
        return str(path)
    if ".jsonl" in name:
        text = frame.write_ndjson()
    elif name.endswith(".inter"):
        types = {"user_id": "token", "item_id": "token", "timestamp": "float", "rating": "float"}
        text = frame.rename({column: f"{column}:{kind}" for column, kind in types.items()}).write_csv(
            separator="\t"
        )
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",")
    raw = text.encode()
    if name.endswith(".gz"):
        raw = gzip.compress(raw)
    if name.endswith(".zst"):
        raw = pa.compress(raw, codec="zstd", asbytes=True)
    path.write_bytes(raw)
    return str(path)


def events_of(data: Ingested) -> dict[str, list[tuple[str, int]]]:
    """Each person's (item, time), oldest first."""
    found = data.log.to_frame(data.catalog.ids)
    return {
        str(user): list(part.select("item_id", "timestamp").iter_rows())
        for (user,), part in found.group_by("user_id", maintain_order=True)
    }


EXPECTED = {"u1": [("b", 10), ("a", 20), ("a", 30)], "u2": [("c", 4), ("b", 5)]}


@pytest.mark.parametrize(
    "name",
    ["e.parquet", "e.csv", "e.tsv", "e.jsonl", "e.inter", "e.csv.gz", "e.csv.zst", "e.tsv.gz", "e.jsonl.gz",
     "e.jsonl.zst", "E.CSV"],
)  # fmt: skip
def test_every_format_gives_the_same_log(tmp_path: Path, name: str) -> None:
    data = ingest(write(tmp_path / name, EVENTS))
    assert events_of(data) == EXPECTED
    assert data.log.user_ids.to_list() == ["u1", "u2"]
    assert data.log.ratings is not None
    assert data.log.ratings.tolist() == [5, 1, 4, 2, 3]
    assert data.catalog.ids.to_list() == ["a", "b", "c"]
    assert data.report.rejected.height == 0
    assert data.report.counts["events"] == 5


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(EVENTS.write_csv(separator=separator, quote_style="always"))
    assert events_of(ingest(str(path))) == EXPECTED


@pytest.mark.parametrize("broken", ["", '{"user_id": \n', '{"extra": {"a": 1}}\n{"extra": [1]}\n'])
def test_a_key_that_first_appears_late_in_json_lines_is_read(tmp_path: Path, broken: str) -> None:
    early = "".join(f'{{"user_id": "u", "item_id": "i{n}", "timestamp": {n}}}\n' for n in range(1500))
    late = '{"rating": 5, "user_id": "u", "item_id": "x", "timestamp": 9000, "mood": 1}\n'
    (tmp_path / "e.jsonl").write_text(early + broken + late)
    data = ingest(str(tmp_path / "e.jsonl"))
    assert data.log.ratings is not None
    assert data.log.ratings[-1] == 5
    assert np.isnan(data.log.ratings[:-1]).all()
    assert any("not read:" in note and "mood" in note for note in data.report.notes)


def test_a_database_table_is_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("create table events (user_id text, item_id text, timestamp integer, rating real)")
        connection.execute("create table other (x integer)")
        connection.executemany("insert into events values (?, ?, ?, ?)", EVENTS.rows())
    connection.close()
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    assert events_of(ingest(f"{url}?table=events")) == EXPECTED
    with pytest.raises(InputError, match=r"no table 'event; drop table other', .* Tables: events, other"):
        ingest(f"{url}?table=event; drop table other")
    with pytest.raises(InputError, match="Say which table"):
        ingest(url)
    with pytest.raises(InputError, match="no SQLite file"):
        ingest("sqlite:////nowhere/shop.db?table=events")
    assert not Path("/nowhere").exists()


def test_a_password_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        ingest("sqlite://name:secret@host/x.db?table=events")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"min_rating": 9}, {"k_core": 9}])
def test_nor_where_the_filters_leave_nothing(
    options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(source: str, choose: Choose) -> Table:
        columns = EVENTS.columns
        choose(columns)
        rows = pl.int_range(1, EVENTS.height + 1, eager=True).alias("row")
        return Table("postgresql://name:***@host/shop", EVENTS, rows, tuple(columns), typed=True)

    monkeypatch.setattr(database, "read_database", read)
    with pytest.raises(InputError, match="host/shop") as caught:
        ingest("postgresql://name:secret@host/shop?table=events", config=DataConfig(**options))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "columns",
    [
        ("userId", "movieId", "ts", "stars"),
        ("USER ID", "asin", "unixReviewTime", "overall"),
        ("uid", "parent_asin", "Date", "Rating"),
    ],
)
def test_other_names_are_recognised(tmp_path: Path, columns: tuple[str, ...]) -> None:
    renamed = EVENTS.rename(dict(zip(EVENTS.columns, columns, strict=True)))
    assert events_of(ingest(write(tmp_path / "e.csv", renamed))) == EXPECTED


def test_columns_are_mapped_as_said(tmp_path: Path) -> None:
    frame = EVENTS.rename({"user_id": "who", "item_id": "what", "timestamp": "when"})
    frame = frame.with_columns(item_id=pl.lit("z"), extra=pl.lit(1))
    mapping = {"user": "who", "item": "what", "time": "when"}
    data = ingest(write(tmp_path / "e.csv", frame), columns=mapping)
    assert events_of(data) == EXPECTED
    assert any("not read: item_id, extra" in note for note in data.report.notes)
    with pytest.raises(InputError, match=r"no column 'wen'.*Its columns: who, what.*Did you mean 'when'\?"):
        ingest(str(tmp_path / "e.csv"), columns={**mapping, "time": "wen"})
    with pytest.raises(InputError, match="no role 'clock'"):
        ingest(str(tmp_path / "e.csv"), columns={"clock": "when"})


@pytest.mark.parametrize("mapping", [{}, {"propensity": "chance"}], ids=["by name", "mapped"])
def test_propensities_run_along_the_log_and_may_be_missing(tmp_path: Path, mapping: dict[str, str]) -> None:
    chances = pl.Series(mapping.get("propensity", "propensity"), [0.5, None, 1.0, 0.25, 0.125])
    data = ingest(write(tmp_path / "e.csv", EVENTS.with_columns(chances)), columns=mapping)
    told = data.log.to_frame(data.catalog.ids)
    named = EVENTS.with_columns(chances.alias("propensity"))
    keys = ["user_id", "item_id", "timestamp", "propensity"]
    assert set(told.select(keys).rows()) == set(named.select(keys).rows())
    assert data.log.propensities is not None and data.log.propensities.dtype == np.float32
    kept, _, _ = data.numbered_by(data.catalog.take(np.array([0])))
    assert kept.propensities is not None and len(kept.propensities) == kept.n_events < 5
    blank = EVENTS.with_columns(propensity=pl.lit(None, pl.Float64))
    assert ingest(write(tmp_path / "blank.parquet", blank)).log.propensities is None


def test_a_column_called_row_is_like_any_other(tmp_path: Path) -> None:
    frame = EVENTS.rename({"item_id": "row"}).with_columns(row_2=pl.lit("x"))
    data = ingest(write(tmp_path / "e.csv", frame), columns={"item": "row", "type": "row_2"})
    assert events_of(data) == EXPECTED
    assert data.log.kind_names == ("x",)
    items = pl.DataFrame({"item_id": ["a", "b", "c", "a"], "row": ["p", "q", "p", "q"]})
    data = ingest(write(tmp_path / "f.csv", EVENTS), write(tmp_path / "i.csv", items))
    assert data.catalog.table.columns == ["item_id", "row"]
    assert data.catalog.table["row"].to_list() == [["p"], ["q"], ["p"]]
    assert data.report.rejected["row"].to_list() == [5]


def test_a_mapped_key_stands_beside_columns_of_every_other_name(tmp_path: Path) -> None:
    events = write(tmp_path / "e.csv", EVENTS.rename({"item_id": "what"}))
    items = pl.DataFrame({
        "item_id": ["p", "p", "q"],
        "item_id_other": ["r", "s", "s"],
        "what": ["a", "b", "c"],
    })
    data = ingest(events, write(tmp_path / "i.csv", items), columns={"item": "what"})
    assert events_of(data) == EXPECTED
    assert data.catalog.table.columns == ["item_id_other_2", "item_id_other", "item_id"]


@pytest.mark.parametrize("broken", ["", "?\n"])
def test_a_whole_number_in_json_is_one_person_however_it_is_written(tmp_path: Path, broken: str) -> None:
    lines = [
        '{"user_id": 1.0, "item_id": "a"}',
        '{"user_id": 1, "item_id": 2.0}',
        '{"user_id": "1", "item_id": 2}',
    ]
    (tmp_path / "e.jsonl").write_text("\n".join(lines) + "\n" + broken)
    data = ingest(str(tmp_path / "e.jsonl"))
    assert data.log.user_ids.to_list() == ["1"]
    assert data.catalog.ids.to_list() == ["a", "2"]


def test_the_best_name_wins_and_mapped_columns_are_taken() -> None:
    assert find_columns(["asin", "parent_asin"], {}, ["item"], [], "f") == {"item": "parent_asin"}
    assert find_columns(["user", "item"], {"user": "item", "item": "user"}, ["user", "item"], [], "f") == {
        "user": "item",
        "item": "user",
    }
    assert roles_of({"event": "e", "timestamp": "t"}) == {"type": "e", "time": "t"}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10),
        ("1970-01-01 01:00:10+01:00", 10),
        ("1970-01-01T01:00:10+0100", 10),
        ("1970-01-01 01:00:10+01", 10),
        ("1970-01-01 00:00:10 UTC", 10),
        ("1969-12-31T23:00:10.5-01:00", 10),
        ("1970-01-01T00:01Z", 60),
        ("10.0", 10),
        ("1e1", 10),
        (" 10 ", 10),
    ],
)
def test_times_are_read_as_utc_seconds(tmp_path: Path, written: str, seconds: int) -> None:
    (tmp_path / "e.csv").write_text(f"user,item,time\nu,a,{written}\n")
    times = ingest(str(tmp_path / "e.csv")).log.times
    assert times is not None
    assert times.tolist() == [seconds]


def test_ids_stay_the_text_they_are(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item\n007,1\n7,01\n")
    data = ingest(str(tmp_path / "e.csv"))
    assert data.log.user_ids.to_list() == ["007", "7"]
    assert data.catalog.ids.to_list() == ["1", "01"]


def test_whole_numbers_lose_their_point(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1, 2], "item": [10.0, 11.0]}).write_parquet(tmp_path / "e.parquet")
    (tmp_path / "e.csv").write_text("user,item\n1,10.0\n2,11.0\n")
    for name in ("e.parquet", "e.csv"):
        data = ingest(str(tmp_path / name))
        assert data.log.user_ids.to_list() == ["1", "2"]
        assert data.catalog.ids.to_list() == ["10", "11"]


def test_without_time_or_order_the_rows_keep_their_order_and_it_is_said(tmp_path: Path) -> None:
    data = ingest(write(tmp_path / "e.csv", EVENTS.drop("timestamp")))
    assert data.log.times is None
    assert data.catalog.ids[data.log.items].to_list() == ["a", "b", "a", "b", "c"]
    assert any("neither times nor an order" in note for note in data.report.notes)


def test_order_sorts_within_each_person(tmp_path: Path) -> None:
    frame = EVENTS.drop("timestamp").with_columns(order=pl.Series([2, 1, 10, 1, 0]))
    data = ingest(write(tmp_path / "e.csv", frame))
    assert data.log.times is None
    assert data.catalog.ids[data.log.items].to_list() == ["a", "a", "b", "c", "b"]


def test_order_decides_between_equal_times(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "user_id": ["u", "v", "u", "u", "u", "u", "v"],
        "item_id": ["a", "a", "b", "c", "d", "e", "b"],
        "timestamp": [7, 7, 7, 7, 7, 3, 7],
        "order": [3, 2, None, 1, 3, 9, 1],
    })
    data = ingest(write(tmp_path / "e.csv", frame))
    # u: the earlier e, then by order c, a and d (equal, by row), and b, whose order is missing
    assert data.catalog.ids[data.log.items].to_list() == ["e", "c", "a", "d", "b", "b", "a"]
    assert data.log.clock.tolist() == [3, 7, 7, 7, 7, 7, 7]
    assert data.report.rejected.height == 0


def test_parts_run_along_the_log(tmp_path: Path) -> None:
    frame = EVENTS.with_columns(split=pl.Series(["TEST", "test", "train", "valid", "history"]))
    data = ingest(write(tmp_path / "e.parquet", frame))
    assert data.parts is not None
    assert data.parts.names.tolist() == ["train", "valid", "test", "history", "test"]
    names = EVENTS["item_id"][data.parts.rows - 1].to_list()
    assert names == data.catalog.ids[data.log.items].to_list()
    _, parts, left_out = data.numbered_by(data.catalog.take(np.array([0])))
    assert parts is not None and 0 < left_out < 5
    first = data.catalog.ids[0]
    assert parts.rows.tolist() == [
        row for row, name in zip(data.parts.rows, names, strict=True) if name == first
    ]


def test_a_split_orders_what_has_no_clock(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "user_id": ["u"] * 3,
        "item_id": ["a", "b", "c"],
        "split": ["test", "train", "valid"],
    })
    data = ingest(write(tmp_path / "e.csv", frame))
    assert data.catalog.ids[data.log.items].to_list() == ["b", "c", "a"]


def test_event_types_become_kinds(tmp_path: Path) -> None:
    frame = EVENTS.with_columns(event_type=pl.Series(["buy", "view", "view", None, "view"]))
    log = ingest(write(tmp_path / "e.parquet", frame)).log
    assert log.kinds is not None
    assert [log.kind_names[kind] for kind in log.kinds] == ["view", "", "buy", "view", "view"]


def test_exact_copies_are_set_aside_where_there_are_times(tmp_path: Path) -> None:
    twice = pl.concat([EVENTS, EVENTS.head(1), EVENTS.head(1).with_columns(rating=pl.lit(2.0))])
    data = ingest(write(tmp_path / "e.parquet", twice))
    assert data.log.n_events == 6
    assert data.report.counts["duplicates"] == 1
    assert data.report.rejected["row"].to_list() == [6]
    assert ingest(write(tmp_path / "o.parquet", twice.drop("timestamp"))).log.n_events == 7


def test_low_ratings_are_left_out_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", EVENTS)
    data = ingest(path, config=DataConfig(min_rating=3))
    assert events_of(data) == {"u1": [("b", 10), ("a", 30)], "u2": [("b", 5)]}
    assert any(note.startswith("2 of 5 events are rated below 3") for note in data.report.notes)
    assert len(data.catalog) == 3
    with pytest.raises(InputError, match=r"the highest is 5\.0"):
        ingest(path, config=DataConfig(min_rating=6))
    with pytest.raises(InputError, match="has no ratings"):
        ingest(write(tmp_path / "n.csv", EVENTS.drop("rating")), config=DataConfig(min_rating=3))


def test_a_core_keeps_who_has_enough(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "user_id": ["u", "u", "v", "v", "w", "w"],
        "item_id": ["a", "b", "a", "b", "b", "c"],
        "order": [0, 1] * 3,
    })
    data = ingest(write(tmp_path / "e.parquet", frame), config=DataConfig(k_core=2))
    # c has one event and goes; w is then left with one and goes too
    assert data.log.user_ids.to_list() == ["u", "v"]
    assert data.catalog.ids.to_list() == ["a", "b"]
    assert data.log.items.tolist() == [0, 1, 0, 1]
    assert any("2 of 3 people, 2 of 3 items and 4 of 6 events" in note for note in data.report.notes)
    with pytest.raises(InputError, match="Nothing of"):
        ingest(str(tmp_path / "e.parquet"), config=DataConfig(k_core=4))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60), st.integers(1, 4))
def test_the_core_is_one(pairs: list[tuple[int, int]], k: int) -> None:
    users, items = np.array(pairs, dtype=np.int64).T
    keep, _ = core(users, items, k)
    for owners in (users, items):
        counts = np.bincount(owners[keep], minlength=1)
        assert (counts[counts > 0] >= k).all()
    again, _ = core(users[keep], items[keep], k) if keep.any() else (keep[keep], 0)
    assert again.all()


def test_items_and_people_line_up_with_the_log(tmp_path: Path) -> None:
    items = pl.DataFrame({"item_id": ["x", "c", "b", "a"], "title": ["Ex", "Sea", "Bee", "Ay"]})
    users = pl.DataFrame({
        "Gender": ["M", "F", None],
        "user_id": ["u9", "u2", "u0"],
        "tags": [[], ["p", "q"], ["q"]],
    })
    paths = [write(tmp_path / f"{name}.parquet", frame) for name, frame in
             (("e", EVENTS), ("i", items), ("u", users))]  # fmt: skip
    data = ingest(*paths)
    assert data.catalog.ids.to_list() == ["x", "c", "b", "a"]
    assert events_of(data) == EXPECTED
    assert data.people is not None
    assert data.people.key == "user_id"
    # the people of the log come first, row for row; who has no events comes after them
    assert data.log.user_ids.to_list() == ["u1", "u2"]
    assert data.people.ids.to_list() == ["u1", "u2", "u9", "u0"]
    assert [field.name for field in data.people.fields] == ["tags"]
    assert data.people.table["Gender"].to_list() == [None, "F", "M", None]
    assert data.people.table["tags"].to_list() == [[], ["p", "q"], [], ["q"]]
    assert "1 of 2 people have no row in the users file." in data.report.notes
    assert any(
        note.startswith("2 of the 3 people of the users file have no events") for note in data.report.notes
    )
    narrow = ingest(*paths, only_items_with_events=True)
    assert narrow.catalog.ids.to_list() == ["c", "b", "a"]
    assert events_of(narrow) == EXPECTED


def test_protected_words_within_names_are_never_features(tmp_path: Path) -> None:
    columns = ["user_gender", "ageGroup", "pages", "message_style", "pageGroup"]
    users = pl.DataFrame({"user_id": ["u1", "u2"], **{column: [["p"], ["q"]] for column in columns}})
    events, people = write(tmp_path / "e.csv", EVENTS), write(tmp_path / "u.parquet", users)
    data = ingest(events, users=people)
    assert data.people is not None
    assert [field.name for field in data.people.fields] == columns[2:]
    assert set(columns) <= set(data.people.table.columns)
    assert any("never used as features: user_gender, ageGroup." in note for note in data.report.notes)
    items = write(
        tmp_path / "i.parquet", pl.DataFrame({"item_id": ["a", "b", "c"], "age_group": [["3+"]] * 3})
    )
    assert [field.name for field in ingest(events, items).catalog.fields] == ["age_group"]


def test_items_may_be_keyed_by_id_or_by_the_mapped_name(tmp_path: Path) -> None:
    events = write(tmp_path / "e.csv", EVENTS.rename({"item_id": "what"}))
    for key in ("id", "what", "item_id"):
        items = write(
            tmp_path / f"{key}.csv", pl.DataFrame({key: ["a", "b", "c"], "genre": ["x|y", "x", "y"]})
        )
        data = ingest(events, items, columns={"item": "what"})
        assert events_of(data) == EXPECTED
        assert data.catalog.table["genre"].to_list() == [["x", "y"], ["x"], ["y"]]


def test_recbole_sequences_are_lists(tmp_path: Path) -> None:
    (tmp_path / "m.item").write_text(
        'item_id:token\ttitle:token_seq\tclass:token_seq\na\tToy Story\tFun Kids\nb\t"It\t\n'
    )
    events = write(tmp_path / "e.inter", EVENTS.filter(pl.col("item_id") != "c"))
    catalog = ingest(events, str(tmp_path / "m.item")).catalog
    assert catalog.table["title"].to_list() == ["Toy Story", '"It']
    assert catalog.table["class"].to_list() == [["Fun", "Kids"], []]


def test_declared_modalities_hold_and_unknown_columns_are_refused(tmp_path: Path) -> None:
    events = write(tmp_path / "e.csv", EVENTS)
    items = write(
        tmp_path / "i.csv", pl.DataFrame({"item_id": ["a", "b", "c"], "year": [1, 2, 3], "title": ["x"] * 3})
    )
    data = ingest(events, items, modalities={"year": "categorical", "title": "ignore"})
    assert [(field.name, field.modality) for field in data.catalog.fields] == [("year", "categorical")]
    config = DataConfig(modalities={"year": "ignore"})
    assert [field.name for field in ingest(events, items, config=config).catalog.fields] == ["title"]
    with pytest.raises(InputError, match=r"declared for 'yaer'.*Columns: item_id, title, year"):
        ingest(events, items, modalities={"yaer": "text"})
    # a model's configuration may speak of tables that are not read now
    assert ingest(events, config=config).log.n_events == 5


@pytest.mark.parametrize(
    "times",
    [
        [100.3, 100.2, 99.9, 100.2, 200.0],
        ["100.3", "100.2", "99.9", "100.2", "200"],
        ["1970-01-01T00:01:40.3Z", "1970-01-01T00:01:40.2Z", "1970-01-01T00:01:39.9Z", "100.2",
         "1970-01-01T00:03:20Z"],
    ],
    ids=["numbers", "texts", "date-times"],
)  # fmt: skip
def test_fractions_of_a_second_order_events_and_tell_them_apart(tmp_path: Path, times: list[object]) -> None:
    frame = pl.DataFrame({"user_id": ["u"] * 5, "item_id": list("abcbb")}).with_columns(
        timestamp=pl.Series(times)
    )
    data = ingest(write(tmp_path / "e.parquet", frame))
    assert events_of(data) == {"u": [("c", 99), ("b", 100), ("a", 100), ("b", 200)]}
    assert data.report.rejected["row"].to_list() == [4]  # the copy, to the fraction


def test_moments_of_a_typed_column_keep_their_fractions_too(tmp_path: Path) -> None:
    moments = pl.Series([1_300, 1_200], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC"))
    frame = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": moments})
    assert events_of(ingest(write(tmp_path / "e.parquet", frame))) == {"u": [("b", 1), ("a", 1)]}


def test_times_before_all_computers_are_remarked_on(tmp_path: Path) -> None:
    early = "lie before 1980, the latest is 30"
    data = ingest(write(tmp_path / "e.csv", EVENTS))
    assert any(early in sentence for sentence in data.report.notes)
    later = EVENTS.with_columns(pl.col("timestamp") + 1_000_000_000)
    assert not any("1980" in sentence for sentence in ingest(write(tmp_path / "l.csv", later)).report.notes)


ODD = b"user,item,propensity\nu,a,0\nu,b,1\nu,c,1.5\nu,d,\nu,e,-0.1\nu,f,inf\nu,g,1e-60\nu,h,x\n"


def test_a_column_that_only_has_the_name_of_propensities_costs_no_event(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(ODD)
    data = ingest(str(tmp_path / "e.csv"))
    assert data.log.n_events == 8 and data.log.propensities is None
    assert [
        f"Column propensity of {tmp_path / 'e.csv'} is not read: it holds '0', and a propensity is a "
        "probability above 0 and at most 1. With --map propensity=propensity it is read, and such rows are "
        "set aside."
    ] == [note for note in data.report.notes if "propensity" in note]


def test_propensities_that_were_named_are_checked_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(ODD)
    data = ingest(str(tmp_path / "e.csv"), columns={"propensity": "propensity"})
    assert data.log.n_events == 2
    told = [(row, reason) for row, _, reason in data.report.rejected.select("row", "column", "reason").rows()]
    expected = [
        (2, "0.0 is not above 0"), (4, "1.5 is not above 0 and at most 1"), (6, "-0.1"), (7, "not finite"),
        (8, "not above 0"), (9, "x is not a number"),
    ]  # fmt: skip
    for (row, reason), (place, words) in zip(sorted(told), expected, strict=True):
        assert row == place and words in reason
