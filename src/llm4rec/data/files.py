"""Tables out of files: one reader per format, all ending in a `Table` with the row number of every row."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa

from llm4rec.errors import InputError

REJECTED = {"file": pl.String, "row": pl.Int64, "column": pl.String, "reason": pl.String}

Choose = Callable[[list[str]], list[str]]
"""Given the columns a table has, those that are to be read; it may raise."""

COMPRESSED = {".gz": "gzip", ".zst": "Zstandard"}
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".inter": "recbole",
    ".item": "recbole",
    ".user": "recbole",
}
_SIGNATURES = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


@dataclass(frozen=True)
class Table:
    """What was read of one source.

    Attributes:
        name: the source, as a message may show it (a database URL without its password).
        frame: the chosen columns.
        rows: Int64, the number of each row in the source, from 1. In text files a header counts, so
            that it is the line number wherever no quoted field holds a line break.
        columns: every column the source has, read or not.
        typed: whether the source itself says what is text and what is a number.
        rejected: rows that could not be read (file, row, column, reason).
    """

    name: str
    frame: pl.DataFrame
    rows: pl.Series
    columns: tuple[str, ...]
    typed: bool
    rejected: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECTED))


def everything(columns: list[str]) -> list[str]:
    """Choose all columns."""
    return columns


def read_table(source: str, choose: Choose = everything, *, as_text: bool = False) -> Table:
    """Read a file or a database table.

    Args:
        source: a path (CSV, TSV, JSONL, RecBole atomic file, each also .gz or .zst; Parquet) or an
            SQLAlchemy or `adbc+` URL, its table named as `?table=NAME`.
        choose: which of the columns to read.
        as_text: leave the values of JSONL as text, as those of CSV are, so that each can be checked.

    Raises:
        InputError: if the source is missing, empty, damaged or not what its name says.
    """
    from llm4rec.data.adbc import PREFIX, read_adbc
    from llm4rec.data.database import read_database
    from llm4rec.data.delimited import read_delimited
    from llm4rec.data.jsonlines import read_jsonl

    if "://" in source and source.startswith(PREFIX):
        return read_adbc(source, choose)
    if "://" in source:
        return read_database(source, choose)
    path = Path(source)
    kind, compression = _format(path)
    _look(path, kind, compression)
    if kind == "parquet":
        return _read_parquet(path, choose)
    with _plain(path, compression) as plain:
        if kind == "jsonl":
            return read_jsonl(plain, source, choose, as_text=as_text)
        return read_delimited(plain, source, kind, choose)


def rejection(
    name: str, rows: list[int], reasons: list[str], columns: Sequence[str | None] | None = None
) -> pl.DataFrame:
    """Rows set aside while reading, as a frame of (file, row, column, reason); no column: the whole row."""
    columns = columns or [None] * len(rows)
    return pl.DataFrame(
        {"file": [name] * len(rows), "row": rows, "column": columns, "reason": reasons},
        schema=REJECTED,
    )


def _format(path: Path) -> tuple[str, str | None]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSED.get(suffixes[-1]) if suffixes else None
    ending = suffixes[-2] if compression and len(suffixes) > 1 else suffixes[-1] if suffixes else ""
    kind = FORMATS.get(ending)
    if path.exists() and not path.is_dir() and (kind is None or (compression and kind == "parquet")):
        raise InputError(
            f"{path} has an ending this can't read. Known: {', '.join(FORMATS)}, all but Parquet also with "
            ".gz or .zst, or a database URL such as sqlite:///shop.db?table=events."
        )
    return kind or "", compression


def _look(path: Path, kind: str, compression: str | None) -> None:
    """Refuse what is plainly not the file its name promises."""
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if path.is_dir():
        raise InputError(f"{path} is a directory: name one file in it.")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    if not head:
        raise InputError(f"{path} is empty.")
    wanted = compression or ("a Parquet file" if kind == "parquet" else "plain text")
    found = next((name for start, name in _SIGNATURES if head.startswith(start)), None)
    if found is None and wanted == "plain text" and b"\x00" in head:
        found = "a binary file"
    if found == "UTF-16 text":
        raise InputError(f"{path} is UTF-16 text: save it as UTF-8.")
    if (found or "plain text") != wanted:
        raise InputError(
            f"{path} is not what its ending says: it should be {wanted} and looks like "
            f"{found or 'plain text'}. Rename or convert it."
        )


@contextmanager
def _plain(path: Path, compression: str | None) -> Generator[Path]:
    """The file as plain text: itself, or a decompressed copy that is removed afterwards."""
    if compression is None:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="llm4rec-", suffix=".txt") as copy:
        try:
            if compression == "gzip":
                with gzip.open(path, "rb") as stream:
                    shutil.copyfileobj(stream, copy, 1 << 20)
            else:
                with pa.input_stream(str(path), compression="zstd") as stream:
                    shutil.copyfileobj(stream, copy, 1 << 20)
        except (OSError, EOFError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise InputError(
                f"{path} is a damaged or truncated {compression} file ({error}): copy or make it again."
            ) from None
        copy.flush()
        if not copy.tell():
            raise InputError(f"{path} is empty.")
        yield Path(copy.name)


def _read_parquet(path: Path, choose: Choose) -> Table:
    try:
        scan = pl.scan_parquet(path, glob=False)
        columns = scan.collect_schema().names()
        chosen = choose(columns)
        frame = scan.select(chosen).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(
            f"{path} is a damaged or truncated Parquet file ({cause}): copy or write it again."
        ) from None
    if not frame.height:
        raise InputError(f"{path} has columns but no rows.")
    rows = pl.int_range(1, frame.height + 1, eager=True).alias("row")
    return Table(str(path), frame, rows, tuple(columns), typed=True)
