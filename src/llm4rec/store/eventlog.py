"""The event log: what people did, kept in the order of its coming, each event once.

Every event has a position. A writer takes its positions under a lock on the one row that counts them, and
holds it until its events can be seen: so they become visible in their order, and a reader that stops at a
position and starts there again misses none.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import sqlalchemy as sa

from llm4rec.data.feedback import SCHEMA, checked
from llm4rec.errors import InputError
from llm4rec.store import connecting, tables
from llm4rec.store.files import whole
from llm4rec.store.sifting import REMEDY, Row, Sifted, sift
from llm4rec.types import Bools, Feedback

PAGE = 10_000
"""Events read or written at once, where nothing else is said."""
READ = {"position": pl.Int64, **SCHEMA}
"""Columns of events as they are read."""
_ASKED = 500  # ids looked up by one statement


@dataclass(frozen=True)
class FeedbackLog:
    """An event log in a database.

    Threads and processes may use one at the same time; they write one after the other.

    It is a context that gives its connections back at the end.

    Attributes:
        url: of the database.
        engine: what connections come from.
        identity: a UUID made with the log, by which readers tell it from others.
    """

    url: sa.URL
    engine: sa.Engine
    identity: str

    @classmethod
    def open(cls, where: str | Path, *, create: bool = True) -> Self:
        """Open the log of a path or URL, and bring its tables to the form of this version.

        Args:
            where: the path of an SQLite file, `sqlite:///PATH` or `postgresql://…`.
            create: whether one is made where there is none.

        Raises:
            InputError: where it can't be opened, is not there, or is of a newer form.
            MissingPackageError: where the database's driver is not installed.
        """
        url = connecting.database_url(where)
        connecting.check_file(url, create=create)
        engine = connecting.open_engine(url)
        try:
            with connecting.speaking(url, opening=True):
                identity = tables.prepare(engine, connecting.shown(url), create=create)
            connecting.sync_folder(url)
        except BaseException:
            engine.dispose()
            raise
        return cls(url, engine, identity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _writing(self) -> sa.Engine:
        return self.engine.execution_options(**{connecting.IMMEDIATE: True})

    @property
    def shown(self) -> str:
        """The place as a message may show it."""
        return connecting.shown(self.url)

    def close(self) -> None:
        """Give the connections back; the log opens new ones where it is used again."""
        self.engine.dispose()

    @contextmanager
    def _alone(self) -> Generator[tuple[sa.Connection, int, int]]:
        """A transaction in which nobody else writes, the newest position and the highest one dropped."""
        with connecting.speaking(self.url), self._writing.begin() as connection:
            row = tables.log.c
            held = connection.execute(sa.select(row.position, row.dropped).with_for_update()).one()
            yield connection, held.position, held.dropped

    def _scalar(self, statement: sa.Select[int]) -> int | None:
        with connecting.speaking(self.url), self.engine.connect() as connection:
            return connection.execute(statement).scalar_one_or_none()

    @property
    def position(self) -> int:
        """That of the newest event, whether or not it is still there; 0 where none has come yet."""
        return self._scalar(sa.select(tables.log.c.position)) or 0

    @property
    def dropped(self) -> int:
        """The highest position that `drop_before` has dropped; who has read less may miss events."""
        return self._scalar(sa.select(tables.log.c.dropped)) or 0

    def __len__(self) -> int:
        """How many events are there."""
        return self._scalar(sa.select(sa.func.count()).select_from(tables.events)) or 0

    def append(self, events: Sequence[Feedback] | pl.DataFrame) -> Bools:
        """Add events, all or none; when this returns they are on the disk.

        An event whose id is there already, with the same content, is the same event and changes nothing.

        Args:
            events: or a table [n] with the columns of `data.feedback.SCHEMA`.

        Returns:
            Which of them were new [n].

        Raises:
            InputError: naming row and column of what can't be an event, or the id of one that is there with
                another content.
            EventLogError: where the database fails; sent again, nothing is taken twice.
        """
        rows = checked(events).rows()
        new = np.zeros(len(rows), dtype=np.bool_)
        new[self._add(rows, whole=True).new] = True
        return new

    def take(self, events: Sequence[Feedback]) -> Sifted:
        """Add those of the events that can be; when this returns they are on the disk.

        As `append`, in one transaction, but an event whose id is there with another content is refused alone.

        Raises:
            InputError: naming what can't be an event; then nothing was taken.
            EventLogError: where the database fails; sent again, nothing is taken twice.
        """
        return self._add(checked(events).rows(), whole=False)

    def _add(self, rows: list[Row], *, whole: bool) -> Sifted:
        """Add the sound events that are new; of a `whole`, all or none."""
        if not rows:
            return Sifted([], {})
        with self._alone() as (connection, position, _):
            known = self._known(connection, list(dict.fromkeys(row[0] for row in rows)))
            found = sift(rows, known)
            if whole and found.refused:
                place, why = next(iter(found.refused.items()))
                raise InputError(
                    f"Row {place + 1} of the {len(rows)} events: the event {why}. Nothing of the batch was "
                    f"taken: {REMEDY}."
                )
            if found.new:
                numbered = [
                    {"position": number, **dict(zip(SCHEMA, rows[place], strict=True))}
                    for number, place in enumerate(found.new, start=position + 1)
                ]
                connection.execute(sa.insert(tables.events), numbered)
                connection.execute(sa.update(tables.log).values(position=position + len(numbered)))
        return found

    def _known(self, connection: sa.Connection, ids: list[str]) -> list[Row]:
        """Those of the events with some ids that are there."""
        column = tables.events.c
        wanted = sa.select(*(column[name] for name in SCHEMA))
        found: list[Row] = []
        for start in range(0, len(ids), _ASKED):
            some = wanted.where(column.event_id.in_(ids[start : start + _ASKED]))
            found += [tuple(row) for row in connection.execute(some)]
        return found

    def read(self, after: int = 0, n: int = PAGE) -> pl.DataFrame:
        """The first n events after a position, in their order, with the columns of `READ`."""
        column = tables.events.c
        return self._frame(
            sa
            .select(*(column[name] for name in READ))
            .where(column.position > after)
            .order_by(column.position)
            .limit(n)
        )

    def pages(self, after: int = 0, n: int = PAGE) -> Iterator[pl.DataFrame]:
        """All events after a position that are there now, n at a time; what comes meanwhile is left out."""
        last = self.position
        while after < last:
            page = self.read(after, n)
            page = page.filter(pl.col("position") <= last)
            if not page.height:
                return
            after = int(page["position"][-1])
            yield page

    def of(self, user: str) -> pl.DataFrame:
        """A person's events, oldest first; of the same second, in the order of their coming."""
        column = tables.events.c
        return self._frame(
            sa
            .select(*(column[name] for name in READ))
            .where(column.user_id == user)
            .order_by(column.timestamp, column.position)
        )

    def _frame(self, statement: sa.Select[*tuple[Any, ...]]) -> pl.DataFrame:
        with connecting.speaking(self.url), self.engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
        return pl.DataFrame(rows, schema=READ, orient="row")

    @property
    def readers(self) -> dict[str, int]:
        """Name → position of each reader that has registered."""
        with connecting.speaking(self.url), self.engine.connect() as connection:
            statement = sa.select(tables.readers.c.name, tables.readers.c.position)
            return {row.name: row.position for row in connection.execute(statement)}

    def register(self, reader: str, position: int) -> None:
        """Put down how far a reader has come: what comes after is not dropped.

        Raises:
            InputError: where the log has not come so far.
        """
        with self._alone() as (connection, newest, _):
            if not 0 <= position <= newest:
                raise InputError(
                    f"No reader can be at position {position} of the event log {self.shown}, whose newest "
                    f"event has {newest}."
                )
            connection.execute(sa.delete(tables.readers).where(tables.readers.c.name == reader))
            connection.execute(sa.insert(tables.readers), {"name": reader, "position": position})

    def unregister(self, reader: str) -> None:
        """Wait for a reader no longer."""
        with self._alone() as (connection, _, _):
            connection.execute(sa.delete(tables.readers).where(tables.readers.c.name == reader))

    def drop_before(self, time: int) -> int:
        """Drop the events older than a time (UTC seconds) that every reader has read; how many they were.

        An event that was dropped is new where it is sent again.
        """
        column = tables.events.c
        with self._alone() as (connection, newest, dropped):
            read = connection.execute(sa.select(sa.func.min(tables.readers.c.position))).scalar_one()
            old = (column.timestamp < time) & (column.position <= (newest if read is None else read))
            highest = connection.execute(sa.select(sa.func.max(column.position)).where(old)).scalar_one()
            if highest is None:
                return 0
            count = connection.execute(sa.delete(tables.events).where(old)).rowcount
            connection.execute(sa.update(tables.log).values(dropped=max(dropped, highest)))
        self._tidy()
        return count

    def erase(self, user: str) -> int:
        """Remove all events of a person, read or not; how many they were.

        What the database itself keeps of deleted rows goes too, as far as it can be told to: an SQLite file
        is overwritten where they were, PostgreSQL is told to VACUUM. Backups and archives are not reached.
        """
        with self._alone() as (connection, _, _):
            count = connection.execute(
                sa.delete(tables.events).where(tables.events.c.user_id == user)
            ).rowcount
        self._tidy()
        return count

    def _tidy(self) -> None:
        """Have the database let go of what was deleted."""
        apart = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with connecting.speaking(self.url), apart.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
            else:
                connection.exec_driver_sql(f"VACUUM {tables.events.name}")

    def export(self, file: Path, after: int = 0, n: int = PAGE) -> tuple[int, int]:
        """Write the events after a position to a Parquet file, n at a time.

        Beside the columns of `READ` there is `rating`, the value of each event of that kind, so that
        `fit` can read the file.

        Returns:
            How many there were, and the position up to which the file goes.

        Raises:
            InputError: where something that is no plain file is in the way.
        """
        count, last = 0, max(self.position, after)
        rating = pl.when(pl.col("event_type") == "rating").then("value").alias("rating")
        empty = pl.DataFrame(schema=READ).with_columns(rating).to_arrow()
        with whole(file) as stream, pq.ParquetWriter(stream, empty.schema) as writer:
            for page in self.pages(after, n):
                writer.write_table(page.with_columns(rating).to_arrow().cast(empty.schema))
                count, last = count + page.height, max(last, int(page["position"][-1]))
        return count, last
