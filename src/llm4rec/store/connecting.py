"""From the place of an event log to a database that keeps what it acknowledges."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from llm4rec.errors import EventLogError, InputError, MissingPackageError
from llm4rec.store import artefact, replace
from llm4rec.store.files import check_writable

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
WAIT = 60
"""How long a writer of an SQLite file waits for the others [s]."""
IMMEDIATE = "llm4rec_immediate"
"""The option of an engine that makes its transactions those of a writer from their beginning."""


def database_url(where: str | Path) -> sa.URL:
    """The URL of a path or URL that an event log may have.

    Raises:
        InputError: where it is neither SQLite's nor PostgreSQL's.
    """
    if isinstance(where, Path) or "://" not in where:
        return sa.URL.create(DRIVERS["sqlite"], database=str(where))
    try:
        url = sa.make_url(where)
    except (ArgumentError, ValueError):
        raise InputError(
            "The URL of the event log can't be read; write it like sqlite:///events.db or "
            "postgresql://NAME:PASSWORD@HOST/DATABASE."
        ) from None
    if url.drivername not in DRIVERS:
        raise InputError(
            f"An event log is kept in SQLite or PostgreSQL, not in {url.drivername!r}: give the path of a "
            "file, or postgresql://NAME:PASSWORD@HOST/DATABASE."
        )
    url = url.set(drivername=DRIVERS[url.drivername])
    if url.get_backend_name() == "sqlite" and (not url.database or url.database == ":memory:" or url.query):
        raise InputError(
            "The URL of an event log in SQLite names a file and nothing else, like sqlite:///events.db: what "
            "is acknowledged has to last."
        )
    return url


def shown(url: sa.URL) -> str:
    """The place as a message may show it: without password, and without options, which may hold one."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return url.set(query={}, drivername=url.get_backend_name()).render_as_string(hide_password=True)


def check_file(url: sa.URL, *, create: bool) -> None:
    """See to it that an SQLite file is there, or can be made where `create` allows it.

    Raises:
        InputError: where it can't be, or there is none.
        ArtefactError: where it would lie in a model.
    """
    if url.get_backend_name() != "sqlite":
        return
    file = Path(url.database or "")
    if file.is_dir():
        raise InputError(f"{file} is a directory: name the file of the event log.")
    if file.exists():
        return
    if not create:
        raise InputError(f"There is no event log {file}: check the path.")
    artefact.check_outside(file)
    check_writable(file)
    file.parent.mkdir(parents=True, exist_ok=True)


def open_engine(url: sa.URL) -> sa.Engine:
    """An engine whose commits are on the disk when they return.

    Raises:
        MissingPackageError: where PostgreSQL's driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": WAIT})
        listen(engine, "connect", _lasting_sqlite)
        listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",  # a writer that waited sees what the one before has written
            connect_args={} if "connect_timeout" in url.query else {"connect_timeout": 10},
        )
    except ModuleNotFoundError:
        raise MissingPackageError(
            "PostgreSQL's driver is not installed: pip install 'llm4rec[postgres]'."
        ) from None
    listen(engine, "connect", _lasting_postgresql)
    return engine


def sync_folder(url: sa.URL) -> None:
    """Force the name of a new SQLite file to the disk; its contents are."""
    if url.get_backend_name() == "sqlite":
        replace.sync(Path(url.database or "").absolute().parent)


def _lasting_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # a writer that begins by reading could not go on once another has written
    writes = connection.get_execution_options().get(IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lasting_postgresql(connection: Any, _: object) -> None:
    was, connection.autocommit = connection.autocommit, True
    connection.execute("SET synchronous_commit TO on").close()
    connection.autocommit = was


@contextmanager
def speaking(url: sa.URL, *, opening: bool = False) -> Generator[None]:
    """Turn what a database says into one sentence without a password.

    Raises:
        InputError: while opening.
        EventLogError: at any other time.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = (str(getattr(error, "orig", None) or error).splitlines() or ["no message"])[0].rstrip(".")
        for secret in (url.password, *url.query.values()):
            if secret and isinstance(secret, str):
                cause = cause.replace(secret, "***")
        if opening:
            raise InputError(f"The event log {shown(url)} can't be opened: {cause}.") from None
        raise EventLogError(
            f"The event log {shown(url)} can't be used now: {cause}. What was not acknowledged is to be sent "
            "again; what is there already is not taken twice."
        ) from None
