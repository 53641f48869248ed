"""Broken input: one clear sentence, or just the bad rows set aside with their numbers and reasons."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llm4rec.data import validate
from llm4rec.data.files import Table
from llm4rec.data.ingest import DataConfig, ingest
from llm4rec.data.report import Sieve
from llm4rec.data.validate import rating_range
from llm4rec.errors import InputError

GOOD = b"user_id,item_id,timestamp,rating\nu,a,1,5\nu,b,2,4\n"
ZSTD = pa.compress(GOOD, codec="zstd", asbytes=True)
MANY = b"".join(b"u%d,a,%d,%d\n" % (n, n, n % 5 + 1) for n in range(100, 140))

# name, content, words of the sentence
REFUSED = {
    "empty": ("e.csv", b"", "is empty"),
    "empty inside": ("e.csv.gz", gzip.compress(b""), "is empty"),
    "header only": ("e.csv", b"user_id,item_id\n", r"has a header \(user_id, item_id\) but no rows"),
    "no header": ("e.csv", b"1,2,3\n4,5,6\n", "no column 'user_id'. Its columns: 1, 2, 3"),
    "blank header": ("e.csv", b"\nu,a\n", "first line of .* is blank"),
    "needed column missing": ("e.csv", b"user_id,thing\nu,a\n", "no column 'item_id'.*--map item=COLUMN"),
    "two columns of one name": ("e.csv", b"user_id,item_id,item_id\nu,a,b\n", "two columns called 'item_id'"),
    "truncated gzip": ("e.csv.gz", gzip.compress(GOOD)[:-12], "damaged or truncated gzip"),
    "truncated zstd": (
        "e.csv.zst",
        pa.compress(GOOD, codec="zstd", asbytes=True)[:-6],
        "damaged or truncated Zstandard",
    ),
    "truncated parquet": ("e.parquet", b"PAR1abcdefghij", "damaged or truncated Parquet"),
    "not parquet": ("e.parquet", GOOD, "should be a Parquet file and looks like plain text"),
    "not gzip": ("e.csv.gz", GOOD, "should be gzip and looks like plain text"),
    "parquet called csv": ("e.csv", b"PAR1abc", "should be plain text and looks like a Parquet file"),
    "binary": ("e.csv", b"user_id,item_id\n\x00\x01\n", "looks like a binary file"),
    "UTF-16": ("e.csv", GOOD.decode().encode("utf-16"), "UTF-16 text: save it as UTF-8"),
    "unknown ending": ("e.xlsx", b"PK\x03\x04", "an ending this can't read. Known: .csv"),
    "latin-1 header": ("e.csv", b"user_id,item_id,caf\xe9\nu,a,b\n", "not UTF-8 text"),
    "one JSON array": ("e.jsonl", b'[{"user_id": 1}]', "one JSON array"),
    "blank lines": ("e.jsonl", b"\n \n", "is empty"),
    "no JSON": ("e.jsonl", b"user_id,item_id\n", "No line of .* is a JSON object"),
    "RecBole without types": ("e.inter", b"user_id\titem_id\nu\ta\n", "must say its type"),
    "times without a zone": (
        "e.csv",
        b"user,item,time\nu,a,2024-05-01 10:00:00\n",
        "None of the 1 rows.*no time zone",
    ),
    "dates as numbers": (
        "e.csv",
        b"user,item,date\nu,a,20240501\nu,b,20240502\n",
        "dates written as numbers",
    ),
    "milliseconds": ("e.csv", b"user,item,ts\nu,a,1700000000000\n", "look like milliseconds"),
    "all ids missing": ("e.csv", b"user,item\n,a\n,b\n", "row 2, column 'user': the id is missing"),
    "a column name without end": ("e.csv", b"user_id," + b"x" * 140_000 + b"\nu,a\n", "can't be split into"),
    "a header without end": ("e.csv", b"user_id,item_id" + b",x" * (1 << 19), "longer than 1048576 bytes"),
    "objects for ids": (
        "e.jsonl",
        b'{"user_id": {"a": 1}, "item_id": "b"}\n',
        "None of the 1 rows of .* row 1, column 'user_id': the value is an object or a list",
    ),
    "old line ends": ("e.csv", b"user,item\ru,a\r", "carriage returns"),
}

# name, content, (row, column, words of the reason) of each row set aside
SET_ASIDE = {
    "missing id": ("e.csv", GOOD + b",c,3,4\nu,,4,4\n",
                   [(4, "user_id", "missing"), (5, "item_id", "missing")]),
    "null written out": ("e.csv", GOOD + b"NULL,c,3,4\n", [(4, "user_id", "missing")]),
    "time in 1900": ("e.csv", GOOD + b"u,c,-2208988800,4\n", [(4, "timestamp", "before 1970")]),
    "one in milliseconds": ("e.csv", GOOD + b"u,c,1700000000000,4\n", [(4, "timestamp", "milliseconds")]),
    "time missing": ("e.csv", GOOD + b"u,c,,4\n", [(4, "timestamp", "time is missing")]),
    "time is a word": ("e.csv", GOOD + b"u,c,noon,4\n", [(4, "timestamp", "noon is neither")]),
    "zone missing once": ("e.csv", GOOD + b"u,c,2020-01-01,4\n", [(4, "timestamp", "no time zone")]),
    "mixed types": ("e.csv", GOOD + b"u,c,3,five\n", [(4, "rating", "five is not a number")]),
    "infinite rating": ("e.csv", GOOD + b"u,c,3,inf\n", [(4, "rating", "not finite")]),
    "stray rating": ("e.csv", GOOD + MANY + b"u,c,3,500\n", [(44, "rating", "500.0 is outside 0.0 to 5.0")]),
    "bad UTF-8": ("e.csv", GOOD + b"u,\xff\xfe,3,4\nu,d,4,4\n", [(4, None, "byte 3 of the line is not")]),
    "too many fields": ("e.csv", GOOD + b"u,c,3,4,9\nu,d,4,4\n", [(4, None, "5 fields where the header")]),
    "open quote": ("e.csv", GOOD + b'u,"c,3,4\nu,d,4,4\n', [(4, None, "never closed")]),
    "odd quote": ("e.csv", GOOD + b'u,"c"x,3,4\nu,d,4,4\n', [(4, None, "quotes can't be read")]),
    "broken JSON": (
        "e.jsonl",
        b'{"user": 1, "item": 2}\n{"user": 1,\n[1]\n{"user": 3, "item": 2.5}\n',
        [(2, None, "not a JSON object"), (3, None, "not an object")],
    ),
    "a blank line before": (
        "e.jsonl", b'{"user": 1, "item": 2}\n\n \n{"user": null, "item": 3}\n', [(4, "user", "missing")],
    ),
    "bad UTF-8 in JSON": ("e.jsonl", b'{"user": 1, "item": 2}\n{"user": "\xff"}\n', [(2, None, "not UTF-8")]),
    "objects and lists in JSON": (
        "e.jsonl",
        b'{"user": {"a": 1}, "item": "x", "rating": 5}\n{"user": 1.0, "item": 2, "rating": 5}\n'
        b'{"user": "[u]", "item": ["x"], "rating": 5}\n{"user": "[u]", "item": "x", "rating": 4}\n'
        b'{"user": 1, "item": "x", "rating": {}}\n{"user": 1, "item": 3, "more": [1], "rating": 5}\n',
        [(1, "user", "an object or a list"), (3, "item", "an object or a list"), (5, "rating", "or a list")],
    ),
    "control characters": (
        "e.csv", b"user,item\n" + b"u,a\n" * 2000 + b"u,i\x001\nu\x1f2,b\nu,c\n",
        [(2002, "item", "control character"), (2003, "user", "control character")],
    ),
    "unknown part": ("e.csv", b"user,item,split\nu,a,train\nu,b,tst\nu,c,\n",
                     [(3, "split", "tst is none of train"), (4, "split", "missing")]),
    "order missing": ("e.csv", b"user,item,order\nu,a,1\nu,b,\n", [(3, "order", "order is missing")]),
    "copy": ("e.csv", GOOD + b"u,b,2,4\n", [(4, "timestamp", "exact copy")]),
    "short row": ("e.csv", b"user,item,time\nu,a,1\nu,b,2\nu\n", [(4, None, "1 fields where")]),
    "short row, last column not read": (
        "e.csv", b"user,item,time,why\nu,a,1,x\nu,b,2\nu,c,3,\n\n",
        [(3, None, "it has 3 fields where the header has 4")],
    ),
    "short row among quotes": (
        "e.csv", b'user,item,why\n"u","a,b"\n"u","b, ""c""",\nu,c,"x, y"\n',
        [(2, None, "2 fields where the header has 3")],
    ),
    "short row of tabs": ("e.tsv", b"user\titem\twhy\nu\ta\t\nu\tb\n", [(3, None, "2 fields where")]),
    "short row beside a broken one": (
        "e.csv", b"user,item,why\nu,a\nu,b,c,d\nu,c,\n", [(2, None, "2 fields"), (3, None, "4 fields")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_used_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, content, words = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        ingest(str(tmp_path / name))
    assert caught.value.exit_code == 2
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", SET_ASIDE)
def test_only_the_bad_rows_are_set_aside(tmp_path: Path, case: str) -> None:
    name, content, expected = SET_ASIDE[case]
    path = tmp_path / name
    path.write_bytes(content)
    data = ingest(str(path))
    found = data.report.rejected
    assert found["file"].unique().to_list() == [str(path)]
    assert found.select("row", "column").rows() == [(row, column) for row, column, _ in expected]
    for reason, (_, _, words) in zip(found["reason"], expected, strict=True):
        assert words in reason
    records = sum(1 for line in content.splitlines() if line.strip()) - (name != "e.jsonl")
    assert data.log.n_events == records - len(expected)
    assert data.report.counts["rejected"] == len(expected)
    assert any(
        f"{len(expected)} of {records} rows of {path} were set aside" in note for note in data.report.notes
    )


ABSURD = {
    "a time beyond all": ("timestamp", [1.0, 1e30, -1e30], [
        (2, "the time 1e+30 is after the year 2100"), (3, "the time -1e+30 is before 1970"),
    ]),
    "a time of 64 bits": ("timestamp", pl.Series([1, 2**64 - 1], dtype=pl.UInt64), [
        (2, "the time 18446744073709551615 is after the year 2100"),
    ]),
    "a time with a zone": ("timestamp", [datetime(year, 1, 1, tzinfo=UTC) for year in (1900, 1971)], [
        (1, "the time 1900-01-01 00:00:00.000000+00:00 is before 1970"),
    ]),
    "a time written out": ("timestamp", ["1", "1e30", "-99999999999999999999"], [
        (2, "the time 1e30 is after the year 2100"), (3, "99999 is before 1970"),
    ]),
    "an id beyond all": ("user_id", [1.0, 1e30], [(2, "the id is too large")]),
    "an id of bytes": ("item_id", [b"a", b"\xff", b"c"], [(2, "the id is not UTF-8 text")]),
    "a type of bytes": ("event_type", [b"view", b"\xff", None], [(2, "the value is not UTF-8 text")]),
    "a part of bytes": ("split", [b"train", b"\xff"], [(2, "the value is not UTF-8 text")]),
    "a rating beyond all": ("rating", [4.0, 1e300], [(2, "the rating 1e+300 is not finite, or too large")]),
}  # fmt: skip


def parquet(path: Path, column: str, values: Any) -> str:
    """Events whose one column holds `values`."""
    n = len(values)
    frame = pl.DataFrame({"user_id": [f"u{row}" for row in range(n)], "item_id": ["a"] * n})
    frame.with_columns(pl.Series(column, values)).write_parquet(path)
    return str(path)


@pytest.mark.parametrize("case", ABSURD)
def test_one_absurd_value_costs_its_row_only(tmp_path: Path, case: str) -> None:
    column, values, expected = ABSURD[case]
    data = ingest(parquet(tmp_path / "e.parquet", column, values))
    found = data.report.rejected
    assert found.select("row", "column").rows() == [(row, column) for row, _ in expected]
    for reason, (_, words) in zip(found["reason"], expected, strict=True):
        assert words in reason
    assert data.log.n_events == len(values) - len(expected)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (column, values, words)
        for column in ("user_id", "event_type", "split")
        for values, words in (([["a"]], "are lists or records"), ([{"a": 1}], "are lists or records"),
                              ([timedelta(1)], "are durations"))
    ] + [("timestamp", [{"a": 1}], "neither numbers nor date-times"), ("rating", [["a"]], "not numbers"),
         ("rating", [b"1"], "not numbers")],
)  # fmt: skip
def test_a_column_of_an_impossible_type_is_refused(
    tmp_path: Path, column: str, values: Any, words: str
) -> None:
    with pytest.raises(InputError, match=f"column '{column}' of .*{words}"):
        ingest(parquet(tmp_path / "e.parquet", column, values))


def test_a_long_field_beside_a_broken_line_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "e.csv").write_bytes(b"user,item,why\nu,a," + b"x" * 200_000 + b"\nu,b,c,d\n\xff,c,y\n")
    data = ingest(str(tmp_path / "e.csv"))
    assert data.report.rejected["row"].to_list() == [3, 4]
    assert data.catalog.ids.to_list() == ["a"]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("bounds", [(5, 1), (1.5, 1)])
def test_a_range_the_wrong_way_round_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"the lowest rating comes first and .* is not below"):
        DataConfig(rating_range=bounds)
    assert DataConfig(rating_range=(1, 1)).rating_range == (1, 1)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*e\.csv"):
        ingest(str(tmp_path / "e.csv"))
    with pytest.raises(InputError, match="is a directory"):
        ingest(str(tmp_path))


def test_date_times_without_a_zone_in_a_typed_file(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["u"], "item": ["a"], "time": [datetime(2024, 5, 1)]})
    frame.write_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match="say no time zone"):
        ingest(str(tmp_path / "e.parquet"))
    frame.with_columns(pl.col("time").dt.replace_time_zone("Europe/Berlin")).write_parquet(
        tmp_path / "z.parquet"
    )
    times = ingest(str(tmp_path / "z.parquet")).log.times
    assert times is not None
    assert times.tolist() == [1714514400]  # 2024-04-30T22:00:00Z


def test_items_of_no_catalogue_and_repeated_items(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(GOOD + b"u,zz,3,4\n")
    (tmp_path / "i.csv").write_bytes(b"item_id,title\na,First\nb,Second\na,Third\n")
    data = ingest(str(tmp_path / "e.csv"), str(tmp_path / "i.csv"))
    assert data.catalog.table["title"].to_list() == ["First", "Second"]
    assert data.report.rejected.rows() == [
        (str(tmp_path / "i.csv"), 4, "item_id", "the id a occurs earlier, and that row is kept"),
        (str(tmp_path / "e.csv"), 4, "item_id", "the item zz is not in the items file"),
    ]
    (tmp_path / "j.csv").write_bytes(b"item_id,title\n1,First\n")
    with pytest.raises(InputError, match=r"No item of .* is in the items file.*'a', the items file '1'"):
        ingest(str(tmp_path / "e.csv"), str(tmp_path / "j.csv"))


def test_a_declared_range_holds(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(GOOD + b"u,c,3,1\n")
    data = ingest(str(tmp_path / "e.csv"), config=DataConfig(rating_range=(2, 5)))
    assert data.report.rejected["row"].to_list() == [4]


def test_times_that_mostly_lack_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"user,item,time\nu,a,\nu,b,\nu,c,3\n")
    data = ingest(str(tmp_path / "e.csv"))
    assert data.log.times is None
    assert data.log.n_events == 3
    assert any("2 of 3 rows" in note for note in data.report.notes)


def test_quoted_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b'\xef\xbb\xbfuser,item,action\r\nu,a,"a ""x"",\r\ny"\r\n\r\nu,b,c\r\n')
    data = ingest(str(tmp_path / "e.csv"))
    assert data.log.kind_names == ('a "x",\r\ny', "c")
    # the same beside a broken line, on the careful path
    (tmp_path / "f.csv").write_bytes(b'user,item,action\nu,a,"a\nb"\n\nu,1,2,3\nu,b,c\n')
    data = ingest(str(tmp_path / "f.csv"))
    assert data.log.kind_names == ("a\nb", "c")
    assert data.report.rejected["row"].to_list() == [5]


def test_an_empty_last_field_is_no_missing_one(tmp_path: Path) -> None:
    contents = {
        "plain.csv": b"user,item,why\r\nu,a,\r\n\r\nu,b,x\r\nu,c,\r\n",
        "quoted.csv": b'user,item,why\n"u","a",\nu,b,"x, y"\n"u","c",""\n',
        "spanning.csv": b'user,item,why\nu,a,\nu,b,"x\ny, z"\n\nu,c,\n',
        "marks.tsv": b'user\titem\twhy\nu\ta\t\nu\tb\t12" pipe\nu\tc\t\n',
        "typed.inter": b'user:token\titem:token\twhy:token\nu\ta\t\nu\tb\t"x\nu\tc\t\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        data = ingest(str(tmp_path / name))
        assert data.catalog.ids.to_list() == ["a", "b", "c"], name
        assert data.report.rejected.height == 0, name


def test_a_long_text_beside_empty_fields_is_read(tmp_path: Path) -> None:
    # more lines than the careful path joins: only the fast one reads it
    lines = "line\n" * 300
    (tmp_path / "e.csv").write_text(f'user,what,item,why\nu,"{lines}",a,\nu,x,b,y\n')
    data = ingest(str(tmp_path / "e.csv"))
    assert data.catalog.ids.to_list() == ["a", "b"]
    assert data.report.rejected.height == 0


def test_quotes_that_mean_nothing_in_tabs(tmp_path: Path) -> None:
    (tmp_path / "e.tsv").write_bytes(b'user\titem\nu\t12" pipe\nu\t"Great" Book\n')
    data = ingest(str(tmp_path / "e.tsv"))
    assert data.catalog.ids.to_list() == ['12" pipe', '"Great" Book']
    assert data.report.rejected.height == 0


def test_a_scale_is_told_from_counts() -> None:
    assert rating_range(pl.Series([1.0, 2, 3, 4, 5] * 10 + [99])) == (0, 5)
    assert rating_range(pl.Series([1.0, 2, 3, 4, 5, 10] * 10)) == (0, 10)
    assert rating_range(pl.Series([1.0] * 200 + [2] * 50 + [3] * 20 + [6, 8, 9, 12, 40, 300])) is None
    assert rating_range(pl.Series([4.0, 500.0])) is None


texts = st.lists(
    st.sampled_from([
        "1",
        "250",
        "1.5",
        "3e2",
        "-4",
        "+5",
        "007",
        " 8 ",
        "nan",
        "inf",
        "",
        "NULL",
        "x",
        "1e400",
    ]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150)
@given(values=texts)
@pytest.mark.parametrize("check", ["times", "numbers"])
def test_a_sound_column_read_at_once_is_read_as_one_by_one(check: str, values: list[str]) -> None:
    """A value that only the careful way can read makes it read all of them, and changes none."""
    found: list[dict[str, Any]] = []
    for more in ([], ["word"]):
        frame = pl.DataFrame({"value": [*values, "12", *more]})
        rows = pl.Series("row", np.arange(len(frame)), dtype=pl.Int64)
        sieve = Sieve.of(Table("log.csv", frame, rows, ("value",), typed=False))
        getattr(validate, check)(sieve, "value", "value")
        if "value" not in sieve.frame.columns:  # times that mostly lack
            return
        aside = sieve.all_rejected().filter(pl.col("row") < len(values) + 1)
        good = sieve.frame.filter(pl.col(sieve.row) < len(values) + 1)
        found.append({"good": good.to_dict(as_series=False), "rows": aside["row"].to_list()})
    assert repr(found[0]) == repr(found[1])
