"""The tables of the event log, and the migrations that bring a database to them."""

from __future__ import annotations

import uuid
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from llm4rec.errors import InputError
from llm4rec.store.connecting import IMMEDIATE

VERSIONS = "llm4rec_version"
"""The table that says which migration a database has come to."""
LOCK = 0x6C6C6D34
"""A number that processes agree on to migrate a PostgreSQL database one after the other."""

metadata = sa.MetaData()
log = sa.Table(
    "llm4rec_log",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.BigInteger, nullable=False),
)
"""One row: who the log is, the position of the newest event, and the highest one that was dropped."""
events = sa.Table(
    "llm4rec_events",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Index("llm4rec_events_of_people", "user_id", "timestamp"),
    sa.Index("llm4rec_events_by_time", "timestamp"),
)
readers = sa.Table(
    "llm4rec_readers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)
"""How far each reader has come."""


def prepare(engine: sa.Engine, shown: str, *, create: bool) -> str:
    """Bring a database to the newest migration where it is not, and tell the identity of its log.

    Raises:
        InputError: where there is no log and none is to be made, or it is of a newer form.
    """
    with engine.connect() as connection:
        if is_current(connection, shown):
            return connection.execute(sa.select(log.c.identity)).scalar_one()
        if not create and not sa.inspect(connection).has_table(VERSIONS):
            raise InputError(f"There is no event log in {shown}: check the place.")
    with engine.execution_options(**{IMMEDIATE: True}).begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite lets one in at a time by itself
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        if not is_current(connection, shown):
            _migrate(connection)
        found = connection.execute(sa.select(log.c.identity)).scalar_one_or_none()
        if found is None:
            found = str(uuid.uuid4())
            first = {"one": 1, "identity": found, "position": 0, "dropped": 0}
            connection.execute(sa.insert(log), first)
    return found


def is_current(connection: sa.Connection, shown: str) -> bool:
    """Whether the database has come to the newest migration; False where it has none.

    Raises:
        InputError: where it has come further than this version knows.
    """
    scripts = ScriptDirectory.from_config(_config())
    found = MigrationContext.configure(connection, opts={"version_table": VERSIONS}).get_current_revision()
    if found is not None and found not in {each.revision for each in scripts.walk_revisions()}:
        raise InputError(
            f"The event log {shown} has a newer form ({found}) than this version of llm4rec knows: upgrade "
            "llm4rec to use it. Nothing was changed."
        )
    return found is not None and found == scripts.get_current_head()


def _migrate(connection: sa.Connection) -> None:
    """Bring the database to the newest migration, within the transaction of `connection`."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    place = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", place.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_table", VERSIONS)
    return config
