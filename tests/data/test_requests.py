from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm4rec.data import database
from llm4rec.data.catalog import Catalog
from llm4rec.data.files import Choose, Table
from llm4rec.data.ingest import read_requests
from llm4rec.errors import InputError

CATALOG = Catalog(pl.DataFrame({"item_id": ["a", "b", "c"]}))


def write(path: Path, **columns: Any) -> str:
    pl.DataFrame(columns, strict=False).write_parquet(path)
    return str(path)


def test_requests_become_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.parquet",
        request_id=["r1", "r2", "r3"],
        history=[["a", "zz", "c"], [], ["b", "b"]],
        timestamps=[[1, 2, 3], [], [5, 6]],
        ratings=[[1.0, 2.0, 3.0], None, None],
        user_id=["u", None, "v"],
        exclude=[["b", "yy"], None, []],
        more=[1, 2, 3],
    )
    said: list[str] = []
    names, histories, exclude = read_requests(path, CATALOG, said.append)
    assert names.to_list() == ["r1", "r2", "r3"]
    assert histories.offsets.tolist() == [0, 3, 3, 5]
    assert histories.items.tolist() == [0, -1, 2, 1, 1]
    assert histories.user_ids.to_list() == ["u", None, "v"]
    assert histories.times is not None
    assert histories.times.tolist() == [1, 2, 3, 5, 6]
    assert histories.ratings is not None
    np.testing.assert_array_equal(histories.ratings, np.array([1, 2, 3, np.nan, np.nan], dtype=np.float32))
    assert exclude.offsets.tolist() == [0, 1, 1, 1]
    assert exclude.items.tolist() == [1]
    assert said == [
        f"Columns of {path} not read: more.",
        "1 of 5 history items are not in the catalogue and are passed over.",
    ]


def test_bare_histories_in_json(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        '{"request_id": 1, "history": ["a"]}\n{"request_id": 2, "history": []}\n'
    )
    names, histories, exclude = read_requests(str(tmp_path / "r.jsonl"), CATALOG)
    assert names.to_list() == ["1", "2"]
    assert histories.items.tolist() == [0]
    assert histories.times is None
    assert histories.ratings is None
    assert exclude.n_events == 0
    assert exclude.n_users == 2


def test_nothing_but_empty_histories(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", request_id=["r"], history=[[]])
    _, histories, _ = read_requests(path, CATALOG)
    assert histories.lengths.tolist() == [0]


def test_a_request_without_times_leaves_the_others_theirs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.parquet",
        request_id=["r", "s", "t", "v"],
        history=[["a"], ["b", "zz", "c"], [], ["c"]],
        timestamps=[[1], [], [], None],
        ratings=[None, [1.0, 2.0, 3.0], None, []],
    )
    said: list[str] = []
    _, histories, _ = read_requests(path, CATALOG, said.append)
    assert histories.items.tolist() == [0, 1, -1, 2, 2]
    assert histories.times is not None
    assert histories.times.dtype == np.int64
    assert histories.times.tolist() == [1, -1, -1, -1, -1]
    assert histories.ratings is not None
    expected = np.array([np.nan, 1, 2, 3, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(histories.ratings, expected, strict=True)
    assert said == ["1 of 5 history items are not in the catalogue and are passed over."]


def test_there_are_no_times_where_no_request_gives_any(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", request_id=["r", "s"], history=[["a"], []], timestamps=[[], []])
    assert read_requests(path, CATALOG)[1].times is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"request_id": ["r"]}, "no column 'history'"),
        ({"history": [["a"]]}, "no column 'request_id'"),
        ({"request_id": ["r", None], "history": [["a"], ["b"]]}, "row 2, column 'request_id': .* no id"),
        ({"request_id": ["r", "r"], "history": [["a"], ["b"]]}, "row 2, column 'request_id': .* earlier"),
        ({"request_id": ["r"], "history": ["a,b"]}, "row 1, column 'history': the value is no list"),
        ({"request_id": ["r"], "history": [["a", None]]}, "row 1, column 'history': .*missing"),
        (
            {"request_id": ["r"], "history": [["a"]], "timestamps": [[1, 2]]},
            "row 1, column 'timestamps': .*as long",
        ),
        ({"request_id": ["r"], "history": [["a"]], "timestamps": [[1700000000000]]}, "row 1, .* UTC seconds"),
        ({"request_id": ["r"], "history": [["a"]], "timestamps": [["noon"]]}, "row 1, column 'timestamps'"),
        ({"request_id": ["r"], "history": [["a", "b"]], "ratings": [[1.0]]}, "row 1, column 'ratings'"),
        ({"request_id": [["r"]], "history": [["a"]]}, "row 1, column 'request_id': .* lists or records"),
        ({"request_id": [b"r", b"\xff"], "history": [["a"]] * 2}, "row 2, column 'request_id': .*not UTF-8"),
        (
            {"request_id": ["r"], "history": [["a"]], "user_id": [["u"]]},
            "row 1, column 'user_id': .* lists",
        ),
        (
            {"request_id": ["r"], "history": [["a"]], "user_id": [timedelta(1)]},
            "row 1, column 'user_id': .* holds durat",
        ),
        (
            {"request_id": ["r", "s"], "history": [["a"]] * 2, "user_id": [1.0, 2.5]},
            "row 2, .*'user_id': .*frac",
        ),
        (
            {"request_id": ["r"], "history": [["a"]], "timestamps": [[Decimal("5.5")]]},
            "row 1, column 'timestamps': .*fraction",
        ),
        (
            {
                "request_id": ["r", "s"],
                "history": [["a"]] * 2,
                "request_time": [Decimal("5"), Decimal("5.5")],
            },
            "row 2, column 'request_time': .*whole UTC seconds",
        ),
        ({"request_id": ["r", "s"], "history": [[], [b"\xff"]]}, "row 2, column 'history': .*not UTF-8"),
        ({"request_id": ["r"], "history": [[1e30]]}, "row 1, column 'history': .*too large"),
        ({"request_id": ["r"], "history": [[]], "exclude": [[1.5]]}, "row 1, column 'exclude': .*fraction"),
        (
            {"request_id": ["r"], "history": [[timedelta(1)]]},
            "row 1, .*'history': the list holds durations",
        ),
        (
            {"request_id": ["r"], "history": [["a"]], "ratings": [[b"1"]]},
            "row 1, column 'ratings': the list holds Binary, not numbers",
        ),
        (
            {"request_id": ["r", "s"], "history": [["a"]] * 2, "ratings": [[1.0], [float("inf")]]},
            "row 2, column 'ratings': .*not finite",
        ),
        ({"request_id": ["r"], "history": [["a"]], "ratings": [[float("nan")]]}, "row 1, .*not finite"),
        ({"request_id": ["r"], "history": [["a"]], "ratings": [[1e300]]}, "row 1, .*too large"),
        ({"request_id": ["r"], "history": [["a"]], "timestamps": [[1e30]]}, "row 1, column 'timestamps'"),
        (
            {"request_id": ["r", "s"], "history": [["a"]] * 2, "timestamps": [[1.0], [5.5]]},
            "row 2, column 'timestamps': a number of the list has a fraction",
        ),
        (
            {"request_id": ["r", "s"], "history": [["a"]] * 2, "ratings": [None, [True]]},
            "row 2, column 'ratings': the list holds Boolean, not numbers",
        ),
        (
            {"request_id": ["r", "s"], "history": [["a"]] * 2, "timestamps": [None, [date(2026, 1, 1)]]},
            "row 2, column 'timestamps': the list holds Date, not numbers",
        ),
    ],
)
def test_malformed_requests_are_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_requests(write(tmp_path / "r.parquet", **columns), CATALOG)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("history", "b"),
        ("history", 5),
        ("history", {"a": 1}),
        ("exclude", "b"),
        ("ratings", 5),
        ("timestamps", "noon"),
        ("request_time", 1_600_000_000.5),
        ("request_time", [5]),
        ("request_id", ["r"]),
        ("user_id", ["u"]),
        ("user_id", {"a": 1}),
        ("history", [["a"]]),
        ("history", ["a", {"a": 'q" \\'}]),
        ("history", ["a", [[], None]]),
        ("exclude", [["b"]]),
    ],
)
def test_the_one_value_of_another_kind_is_found_in_json(tmp_path: Path, column: str, value: Any) -> None:
    """Beside it the others change their type as well; the row that is named is the one at fault."""
    sound = {"history": ["a"], "exclude": ["b"], "ratings": [4], "timestamps": [9], "request_time": 9}
    sound["user_id"] = "u"
    rows = [{"request_id": f"r{row}"} | sound for row in range(4)]
    rows[2][column] = value
    (tmp_path / "r.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(InputError, match=rf"r\.jsonl, row 3, column '{column}'"):
        read_requests(str(tmp_path / "r.jsonl"), CATALOG)


def test_a_text_that_looks_like_a_list_is_a_text(tmp_path: Path) -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ['["a"]', "[b]", "{}"]}))
    row = {"request_id": "[1]", "history": ['["a"]', "[b]"], "user_id": '["u"]', "exclude": ["{}"]}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    names, histories, exclude = read_requests(str(tmp_path / "r.jsonl"), catalog)
    assert names.to_list() == ["[1]"] and histories.user_ids.to_list() == ['["u"]']
    assert histories.items.tolist() == [0, 1] and exclude.items.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "content"),
    [("r.jsonl", ""), ("r.jsonl", "\n\n"), ("r.csv", "request_id,history\n"), ("r.csv", "")],
)
def test_a_file_without_requests_is_said_to_hold_none(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"^No request can be read: .*{name} (is empty|has a header)"):
        read_requests(str(tmp_path / name), CATALOG)


@pytest.mark.parametrize("column", ["user_id", "exclude", "timestamps", "ratings", "request_time"])
@pytest.mark.parametrize("kind", [pl.String, pl.Date, pl.List(pl.Date)])
def test_a_column_without_any_value_is_as_good_as_none(
    tmp_path: Path, column: str, kind: pl.DataType
) -> None:
    frame = pl.DataFrame({"request_id": ["r"], "history": [["a"]]}).with_columns(
        pl.lit(None, dtype=kind).alias(column)
    )
    frame.write_parquet(tmp_path / "r.parquet")
    _, histories, exclude = read_requests(str(tmp_path / "r.parquet"), CATALOG)
    assert histories.items.tolist() == [0] and exclude.n_events == 0
    assert histories.user_ids.to_list() == [None]
    assert histories.times is None and histories.ratings is None and histories.asked_at is None


def test_ids_are_read_as_fit_reads_them(tmp_path: Path) -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ["42", "7"]}))
    path = write(
        tmp_path / "r.parquet",
        request_id=[b"r", b"s", b"t"],
        history=[[42.0, 8.0], [7.0], None],
        user_id=[42.0, None, float("nan")],
        exclude=[[7.0], [], None],
    )
    names, histories, exclude = read_requests(path, catalog)
    assert names.to_list() == ["r", "s", "t"]
    assert histories.user_ids.to_list() == ["42", None, None]
    assert histories.items.tolist() == [0, -1, 1]
    assert histories.lengths.tolist() == [2, 1, 0]
    assert exclude.items.tolist() == [1]
    (tmp_path / "r.jsonl").write_text('{"request_id": 1, "history": ["7", " 42 ", 42.0], "user_id": 42.0}\n')
    _, histories, _ = read_requests(str(tmp_path / "r.jsonl"), catalog)
    assert histories.items.tolist() == [1, 0, 0]
    assert histories.user_ids.to_list() == ["42"]


@pytest.mark.parametrize(
    "times",
    [
        [1_600_000_000, None, 0],
        ["1600000000", None, "0"],
        [1_600_000_000.0, float("nan"), 0.0],
    ],
    ids=["numbers", "text", "as pandas writes them"],
)
def test_requests_say_when_they_ask_or_not(tmp_path: Path, times: list[Any]) -> None:
    path = write(
        tmp_path / "r.parquet", request_id=["r", "s", "t"], history=[["a"], [], ["b"]], request_time=times
    )
    said: list[str] = []
    _, histories, _ = read_requests(path, CATALOG, said.append)
    assert histories.asked_at is not None and histories.asked_at.dtype == np.int64
    assert histories.asked_at.tolist() == [1_600_000_000, -1, 0]
    assert histories.times is None and said == []


def test_requests_in_json_say_when_they_ask(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        '{"request_id": 1, "history": ["a"]}\n{"request_id": 2, "history": [], "request_time": 86400}\n'
    )
    _, histories, _ = read_requests(str(tmp_path / "r.jsonl"), CATALOG)
    assert histories.asked_at is not None and histories.asked_at.tolist() == [-1, 86_400]


@pytest.mark.parametrize("columns", [{}, {"request_time": [None]}, {"request_time": [float("nan")]}])
def test_where_no_request_says_when_it_asks_there_is_no_time(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = write(tmp_path / "r.parquet", request_id=["r"], history=[["a"]], **columns)
    assert read_requests(path, CATALOG)[1].asked_at is None


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([1, -1], "row 2, column 'request_time': the time lies outside 1970 to 2100; times are UTC seconds"),
        ([1, 1_700_000_000_000], "row 2, column 'request_time': the time lies outside 1970 to 2100"),
        (["1", "noon"], "row 2, column 'request_time': the time is unreadable; times are whole UTC seconds"),
        ([1.0, float("inf")], "row 2, column 'request_time': the time is unreadable"),
        ([1.0, 1e30], "row 2, column 'request_time': the time is unreadable"),
        ([1.0, 2.5], "row 2, column 'request_time': the time is unreadable"),
        ([None, [2]], "row 2, column 'request_time': the column holds lists or records"),
        ([None, False], "row 2, column 'request_time': this is Boolean, not UTC seconds"),
        ([b"1", b"2"], "row 1, column 'request_time': this is Binary, not UTC seconds"),
        ([date(2026, 1, 1)] * 2, "row 1, column 'request_time': this is Date, not UTC seconds"),
    ],
)
def test_a_time_of_asking_that_is_none_is_refused(tmp_path: Path, times: list[Any], words: str) -> None:
    path = write(tmp_path / "r.parquet", request_id=["r", "s"], history=[["a"]] * 2, request_time=times)
    with pytest.raises(InputError, match=words):
        read_requests(path, CATALOG)


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str, choose: Choose) -> Table:
        frame = pl.DataFrame({"request_id": ["r"], "more": [1]})
        return Table(
            "postgresql://name:***@host/shop", frame, pl.Series([1]), ("request_id", "more"), typed=True
        )

    monkeypatch.setattr(database, "read_database", read)
    with pytest.raises(InputError, match="host/shop has no column 'history'") as caught:
        read_requests("postgresql://name:secret@host/shop?table=requests", CATALOG)
    assert "secret" not in str(caught.value)
