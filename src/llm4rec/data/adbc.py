"""Tables of a database, by ADBC URL: Arrow columns instead of rows, for the drivers that are installed."""

from __future__ import annotations

import importlib
import re
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from llm4rec.data.database import pick_table, refuse_missing_sqlite
from llm4rec.data.files import Choose, Table
from llm4rec.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from sqlalchemy import URL

PREFIX = "adbc+"
TABLES = ("table", "base table", "view", "materialized_view", "foreign_table", "partitioned_table")
AT_ONCE = (
    1 << 30
)  # rows whose values tell SQLite's types; with fewer, a later one of another type is an error


def read_adbc(source: str, choose: Choose) -> Table:
    """Read one table or view of a database through its ADBC driver.

    Args:
        source: `adbc+sqlite:///shop.db?table=NAME`, `adbc+postgresql://…?table=NAME`, or the like for any
            other driver; the name may be left out where the database has one table only.
        choose: which of the columns to read.

    Raises:
        InputError: if the database can't be reached, or has no such table.
        MissingPackageError: if ADBC or the database's driver is not installed.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(source.removeprefix(PREFIX))
    except ArgumentError:
        url = None
    if url is None or not re.fullmatch(r"[a-z][a-z0-9]*", url.drivername) or url.drivername == "manager":
        raise InputError(
            "The database URL can't be read; write it like adbc+sqlite:///shop.db?table=events."
        ) from None
    if url.drivername == "postgres":
        url = url.set(drivername="postgresql")
    shown = PREFIX + url.render_as_string(hide_password=True)
    asked = url.query.get("table")
    url = url.difference_update_query(["table"])
    driver, failure = _driver(url.drivername, shown)
    refuse_missing_sqlite(url)
    try:
        with closing(driver.connect(_address(url))) as connection:
            frame, columns = _read(connection, url.drivername, asked, shown, choose)
    except failure as error:
        raise InputError(f"{shown} can't be read: {str(error).splitlines()[0]}.") from None
    if not frame.height:
        raise InputError(f"{shown}: the table has columns but no rows.")
    rows = pl.int_range(1, frame.height + 1, eager=True).alias("row")
    return Table(shown, frame, rows, tuple(columns), typed=True)


def _driver(name: str, shown: str) -> tuple[Any, type[Exception]]:
    """The driver's module and the exception it raises."""
    packages = ("adbc_driver_manager", f"adbc_driver_{name}")
    missing = [package.replace("_", "-") for package in packages if find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"Reading {shown} needs {' and '.join(missing)}: install with pip install {' '.join(missing)}."
        )
    return importlib.import_module(f"{packages[1]}.dbapi"), importlib.import_module(packages[0]).Error


def _address(url: URL) -> str:
    """What the driver connects to: SQLite's takes a path, all others a URL."""
    if url.drivername == "sqlite":
        return url.database or ":memory:"
    return url.render_as_string(hide_password=False)


def _read(
    connection: Any, driver: str, asked: Any, shown: str, choose: Choose
) -> tuple[pl.DataFrame, list[str]]:
    schema: str = connection.adbc_current_db_schema
    found = connection.adbc_get_objects(depth="tables", db_schema_filter=schema or None).read_all()
    known = [
        table["table_name"]
        for catalog in found.to_pylist()
        for each in catalog["catalog_db_schemas"] or ()
        for table in each["db_schema_tables"] or ()
        if table["table_type"].lower() in TABLES
    ]
    name = pick_table(known, asked if isinstance(asked, str) else None, shown)
    columns: list[str] = connection.adbc_get_table_schema(name, db_schema_filter=schema or None).names
    listing = ", ".join(map(_quoted, choose(columns)))
    place = ".".join(map(_quoted, [schema, name] if schema else [name]))
    with closing(connection.cursor()) as cursor:
        if driver == "sqlite":
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(AT_ONCE)})
        cursor.execute(f"SELECT {listing} FROM {place}")  # names out of the database's own list
        return to_frame(cursor.fetch_arrow_table()), columns


def to_frame(table: Any) -> pl.DataFrame:
    """An Arrow table with PostgreSQL's own types made plain: numeric a number, uuid and interval text."""
    return pl.DataFrame([_plain(name, table[name]) for name in table.column_names])


def _plain(name: str, values: Any) -> pl.Series:
    kind = getattr(values.type, "extension_name", "")
    if kind == "arrow.uuid" or pa.types.is_interval(values.type):
        texts = [None if value is None else str(value) for value in values.to_pylist()]
        return pl.Series(name, texts, dtype=pl.String)
    numeric = getattr(values.type, "type_name", "") == "numeric"
    if kind:
        values = values.cast(values.type.storage_type)
    found = pl.Series(name, values)
    return found.cast(pl.Float64, strict=False) if numeric else found


def _quoted(name: str) -> str:
    """A name as an identifier of standard SQL."""
    return '"' + name.replace('"', '""') + '"'
