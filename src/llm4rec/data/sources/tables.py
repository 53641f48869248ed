"""What every source shares: tables written chunk by chunk, and put in place all at once."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import polars as pl

from llm4rec.data.literals import literal
from llm4rec.errors import InputError
from llm4rec.types import Progress

Schema = Mapping[str, type[pl.DataType] | pl.DataType]

TABLES = ("items", "users", "tags", "reviews", "checkins", "rejected", "impressions", "interactions")
INTERACTIONS: Schema = {
    "user_id": pl.String,
    "item_id": pl.String,
    "rating": pl.Float32,
    "timestamp": pl.Int64,
}
CHUNK = 50_000  # rows held in memory as Python objects at a time


class TableWriter:
    """A Parquet file that grows by rows, at most `CHUNK` of them in memory; use it as a context.

    Nothing is written where no row was added and `keep_empty` is off.
    """

    def __init__(self, folder: Path, name: str, schema: Schema, *, keep_empty: bool = True) -> None:
        self.path = folder / f"{name}.parquet"
        self.rows = 0
        self._parts = folder / f".{name}-parts"
        self._schema = pl.Schema(schema)
        self._pending: list[Sequence[Any]] = []
        self._keep_empty = keep_empty

    def add(self, row: Sequence[Any]) -> None:
        """Append one row, its values in the order of the schema."""
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) >= CHUNK:
            self._flush()

    def __enter__(self) -> TableWriter:
        self._parts.mkdir(parents=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and (self.rows or self._keep_empty):
            self._flush()
            pl.scan_parquet(sorted(self._parts.iterdir())).sink_parquet(self.path)
        shutil.rmtree(self._parts)

    def _flush(self) -> None:
        part = self._parts / f"{len(list(self._parts.iterdir())):08d}.parquet"
        pl.DataFrame(self._pending, schema=self._schema, orient="row").write_parquet(part)
        self._pending.clear()


@contextmanager
def staged(out: Path) -> Generator[Path]:
    """A folder to write tables into, which become `out` when the block ends well, and vanish when not.

    A new `out` appears in one step. In an existing one, tables of an earlier run are replaced, the
    interactions taken away first and laid last, so that a mixture of two runs is never complete;
    other files there are left alone.

    Raises:
        InputError: if `out` is a file, or can't be written to.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; name a folder for the tables.")
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out if out.exists() else out.parent))
    except OSError as error:
        raise InputError(f"{out} can't be written ({error.strerror}); name another folder.") from error
    try:
        yield stage
        if not out.exists():
            stage.chmod(0o755)  # mkdtemp keeps others out; a data set is an ordinary folder
            os.replace(stage, out)
            return
        (out / "interactions.parquet").unlink(missing_ok=True)
        for name in TABLES:
            fresh, place = stage / f"{name}.parquet", out / f"{name}.parquet"
            if fresh.exists():
                os.replace(fresh, place)
            else:
                place.unlink(missing_ok=True)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Turn what goes wrong while a whole file is read into an `InputError` that names it."""
    try:
        yield
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not in the publisher's layout ({first}); get the file again.") from error


def find(folder: Path, *names: str) -> Path | None:
    """The first of `names` in `folder` or in one of its direct subfolders."""
    for name in names:
        for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
            if (place / name).is_file():
                return place / name
    return None


def write_users(folder: Path) -> None:
    """Write `users.parquet` with nothing but the ids of those who occur in the interactions."""
    ids = pl.scan_parquet(folder / "interactions.parquet").select("user_id")
    ids.unique(maintain_order=True).sink_parquet(folder / "users.parquet")


def complete_items(folder: Path, events: str = "interactions") -> int:
    """Give items that occur in the events alone a row with their id and nulls; how many they were."""
    path = folder / "items.parquet"
    items = pl.scan_parquet(path)
    seen = pl.scan_parquet(folder / f"{events}.parquet").select("item_id").unique(maintain_order=True)
    bare = seen.join(items.select("item_id"), on="item_id", how="anti", maintain_order="left").collect()
    if bare.height:
        longer = path.with_name(".items-longer")
        pl.concat([items, bare.lazy()], how="diagonal").sink_parquet(longer)
        os.replace(longer, path)
    return bare.height


def json_rows(path: Path, rejected: TableWriter, progress: Progress) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's object with its number from 1; lines that hold none are added to `rejected`.

    The oldest dumps hold Python literals instead of JSON: read as literals, never evaluated.

    Raises:
        InputError: if the file breaks off or no line of it can be read.
    """
    size = path.stat().st_size
    read = 0
    try:
        with path.open("rb") as raw:
            lines = gzip.open(raw) if path.name.endswith(".gz") else raw
            for number, line in enumerate(lines, 1):
                if number % CHUNK == 0:
                    progress(f"reading {path.name}", raw.tell(), size)
                if not line.strip():
                    continue
                row = _parse(line)
                if row is None:
                    rejected.add((path.name, number, None, "neither a JSON object nor a literal"))
                    continue
                read += 1
                yield number, row
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path} breaks off or is no gzip file ({error}); get it again.") from error
    if read == 0 and size:
        raise InputError(f"{path} holds no JSON object at all; get the publisher's file again.")
    progress(f"reading {path.name}", size, size)


def _parse(line: bytes) -> dict[str, Any] | None:
    text = line.decode("utf-8", errors="replace").strip()
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = literal(text, None)
    return cast(dict[str, Any], value) if isinstance(value, dict) else None
