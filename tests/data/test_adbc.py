"""Databases by ADBC: the same log as from any other source, and clear refusals."""

from __future__ import annotations

import sqlite3
import uuid
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from llm4rec.data import adbc
from llm4rec.data.files import read_table
from llm4rec.data.ingest import ingest
from llm4rec.errors import InputError, MissingPackageError

needs_sqlite = pytest.mark.skipif(
    find_spec("adbc_driver_sqlite") is None, reason="adbc-driver-sqlite is not installed"
)


def shop(folder: Path) -> str:
    path = folder / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table events (user_id text, item_id text, timestamp integer, rating real)")
        connection.execute('create view "odd ""name" as select rating as "a""b", user_id from events')
        connection.execute("create table other (x integer)")
        rows = [("u", "b", 2, 4.5), ("u", "a", 1, None), ("v", "a", 3, 1.0)]
        connection.executemany("insert into events values (?, ?, ?, ?)", rows)
    connection.close()
    return f"adbc+sqlite:///{path}"


@needs_sqlite
def test_events_are_read(tmp_path: Path) -> None:
    data = ingest(f"{shop(tmp_path)}?table=events")
    assert data.log.user_ids.to_list() == ["u", "v"]
    assert data.catalog.ids[data.log.items].to_list() == ["a", "b", "a"]
    assert data.log.clock.tolist() == [1, 2, 3]
    assert data.log.ratings is not None
    assert data.log.ratings[1] == 4.5


@needs_sqlite
def test_names_are_quoted_and_only_chosen_columns_are_read(tmp_path: Path) -> None:
    table = read_table(f'{shop(tmp_path)}?table=odd "name', lambda columns: columns[:1])
    assert table.columns == ('a"b', "user_id")
    assert table.frame.columns == ['a"b']
    assert table.frame.to_series().to_list() == [4.5, None, 1.0]
    assert table.rows.to_list() == [1, 2, 3]
    assert table.typed


@needs_sqlite
def test_a_text_among_numbers_far_down_is_read(tmp_path: Path) -> None:
    url = shop(tmp_path)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.executemany("insert into other values (?)", [(n,) for n in range(5000)])
        connection.execute("insert into other values ('x')")
    connection.close()
    assert read_table(f"{url}?table=other").frame["x"].to_list()[-2:] == ["4999", "x"]


@needs_sqlite
@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "?table=events; drop table other",
            r"no table 'events; drop table other'.*Tables: events, odd .*other",
        ),
        ("", "Say which table to read"),
        ("?table=other", "columns but no rows"),
    ],
)
def test_a_table_that_can_not_be_read_is_refused(tmp_path: Path, query: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_table(shop(tmp_path) + query)


@needs_sqlite
def test_no_file_is_made_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no SQLite file"):
        read_table(f"adbc+sqlite:///{tmp_path / 'none.db'}?table=events")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"bad\.db.* can't be read: "):
        read_table(f"adbc+sqlite:///{tmp_path / 'bad.db'}?table=events")


def test_types_of_postgresql_become_plain() -> None:
    person = uuid.UUID("12345678-1234-5678-1234-567812345678")
    price = pa.array(["3.50", None, "NaN"])
    table = pa.table({
        "id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([person.bytes, None, None], pa.binary(16))),
        "price": pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "numeric", "PostgreSQL"), price),
        "more": pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["{}", "[1]", None])),
        "stay": pa.array([(1, 2, 3), None, None], pa.month_day_nano_interval()),
        "plain": [1, 2, 3],
    })
    frame = adbc.to_frame(table)
    assert frame["id"].to_list() == [str(person), None, None]
    assert frame["price"].dtype == pl.Float64
    assert frame["price"].to_list()[:2] == [3.5, None]
    assert frame["more"].to_list() == ["{}", "[1]", None]
    assert frame["stay"].dtype == pl.String
    assert frame["plain"].to_list() == [1, 2, 3]


@pytest.mark.parametrize("url", ["adbc+manager://x", "adbc+a.b://x", "adbc+sql+lite:///x", "adbc+://x"])
def test_what_is_no_driver_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"write it like adbc\+sqlite:///shop\.db"):
        read_table(url)


def test_a_missing_driver_is_named_and_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(adbc, "find_spec", nothing)
    with pytest.raises(MissingPackageError) as caught:
        read_table("adbc+postgres://me:secret@host/shop?table=events")
    assert "pip install adbc-driver-manager adbc-driver-postgresql" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2
