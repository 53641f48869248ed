"""Tables of a database, by SQLAlchemy URL. No text of the user's enters a statement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from llm4rec.data.files import Choose, Table
from llm4rec.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from sqlalchemy import URL

BATCH = 100_000  # rows fetched at once
FETCHED = {"http", "https", "ftp", "s3", "gs", "gcs", "az", "abfs", "hdfs", "file"}
"""Addresses of files, which are no databases."""


def read_database(source: str, choose: Choose) -> Table:
    """Read one table or view of a database.

    Args:
        source: an SQLAlchemy URL with the table named as `?table=NAME`; the name may be left out where
            the database has one table only. Rows come in the order the database gives them.
        choose: which of the columns to read.

    Raises:
        InputError: if it is the address of a file, the database can't be reached, or has no such table.
        MissingPackageError: if the database's driver is not installed.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        url = sa.make_url(source)
    except ArgumentError:
        raise InputError(
            "The database URL can't be read; write it like sqlite:///shop.db?table=events."
        ) from None
    shown = url.render_as_string(hide_password=True)
    asked = url.query.get("table")
    table_name = asked if isinstance(asked, str) else None
    url = url.difference_update_query(["table"])
    refuse_missing_sqlite(url)
    try:
        engine = sa.create_engine(url)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        if url.get_backend_name() in FETCHED:
            raise InputError(f"{shown} is not fetched: download the file and give its path.") from None
        raise MissingPackageError(f"The driver of {shown} is not installed ({error}): install it.") from None
    try:
        inspector = sa.inspect(engine)
        known = [*inspector.get_table_names(), *inspector.get_view_names()]
        table = sa.Table(pick_table(known, table_name, shown), sa.MetaData(), autoload_with=engine)
        columns = [column.name for column in table.columns]
        statement = sa.select(*(table.columns[title] for title in choose(columns)))
        with engine.connect().execution_options(yield_per=BATCH) as connection:
            parts = [_frame(part) for part in connection.execute(statement).mappings().partitions()]
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(f"{shown} can't be read: {cause}.") from None
    finally:
        engine.dispose()
    if not parts:
        raise InputError(f"{shown}: the table has columns but no rows.")
    frame = _joined(parts)
    rows = pl.int_range(1, frame.height + 1, eager=True).alias("row")
    return Table(shown, frame, rows, tuple(columns), typed=True)


def pick_table(known: list[str], asked: str | None, shown: str) -> str:
    """The table asked for, or the only one there is, as the database itself writes its name.

    Raises:
        InputError: if there is no such table, or none was named among several.
    """
    if asked is None and len(known) == 1:
        return known[0]
    if asked is None or asked not in known:
        wanted = "Say which table to read" if asked is None else f"There is no table {asked!r}"
        raise InputError(
            f"{shown}: {wanted}, as in ?table=NAME. Tables: {', '.join(sorted(known)) or 'none'}."
        )
    return asked


def refuse_missing_sqlite(url: URL) -> None:
    """Raise an `InputError` rather than let SQLite make a new, empty file."""
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        raise InputError(f"There is no SQLite file {url.database}.")


def _frame(rows: Any) -> pl.DataFrame:
    return pl.DataFrame([dict(row) for row in rows], infer_schema_length=None, strict=False)


def _joined(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The parts one under the other; a column that is a number here and text there becomes text."""
    try:
        return pl.concat(parts, how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        return pl.concat([part.cast(pl.String) for part in parts])
