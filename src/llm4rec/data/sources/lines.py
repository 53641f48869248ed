"""Text files of a row a line, without quotes: streamed to Parquet, broken rows set aside with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from llm4rec.data.sources.tables import TableWriter, naming
from llm4rec.errors import InputError

ROW = "@row"
"""Column of `rows`: the number of the line, from 1."""
_COLUMN, _REASON = "@column", "@reason"
_SHOWN = 40  # characters of a wrong value that a reason repeats


@dataclass(frozen=True)
class Field:
    """One column of a table, and where in the file it comes from.

    Attributes:
        columns: what the file calls its columns.
        read: turns their texts into the value, null where that can't be.
        must: what each text must be, to complete "'7' is not …".
        may_lack: whether a row without it is kept.
    """

    columns: Sequence[str]
    read: Callable[..., pl.Expr]
    must: str
    may_lack: bool = False


def name(text: pl.Expr) -> pl.Expr:
    """A name that is a whole number, as it is written."""
    return pl.when(text.str.contains(r"^[0-9]+$")).then(text)


def whole(low: int, high: int) -> Callable[[pl.Expr], pl.Expr]:
    """Whole numbers from `low` to `high` (Int64)."""

    def read(text: pl.Expr) -> pl.Expr:
        number = text.cast(pl.Int64, strict=False)
        return pl.when(number.is_between(low, high)).then(number)

    return read


def real(text: pl.Expr) -> pl.Expr:
    """Finite numbers from 0 on (Float64)."""
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite() & (number >= 0)).then(number)


def header(path: Path, separator: str, needed: Sequence[str]) -> list[str]:
    """The column names in the first line of the file.

    Raises:
        InputError: if one of those `needed` is not among them.
    """
    with naming(path), path.open(encoding="utf-8") as file:
        columns = file.readline().rstrip("\r\n").split(separator)
    for column in needed:
        if columns.count(column) != 1:
            raise InputError(
                f"{path}, row 1, must name the column {column!r} once and reads {','.join(columns)[:200]!r}; "
                "get the publisher's file again."
            )
    return columns


@dataclass(frozen=True)
class Parsed:
    """What `parse` made of a file.

    Attributes:
        source: the file as published.
        file: Parquet file of its rows, with their number and what is wrong with them.
        shown: what the table of rejected rows calls the source.
    """

    source: Path
    file: Path
    shown: str


def parse(
    path: Path,
    into: Path,
    columns: Sequence[str],
    fields: Mapping[str, Field],
    *,
    separator: str,
    start: int,
    shown: str = "",
) -> Parsed:
    """Read a file line by line into the Parquet file `into`, with what is wrong beside each row.

    Only one chunk of lines is held in memory. Blank lines are passed over.

    Args:
        path: the file, in UTF-8; no field of it holds the separator.
        into: where to write.
        columns: what the file's columns are called, all of them in order.
        fields: column of the table → where it comes from.
        separator: one character.
        start: number of the first line that holds a row, from 1.
        shown: what the table of rejected rows calls the file; its own name, unless said otherwise.

    Raises:
        InputError: if the file can't be read at all.
    """
    with naming(path):
        lines = pl.scan_csv(
            path, separator="\x01", quote_char=None, has_header=False, schema={"@line": pl.String},
            glob=False, row_index_name=ROW, row_index_offset=1,
        )  # fmt: skip
        line = pl.col("@line").str.strip_chars_end("\r")
        lines = lines.filter((pl.col(ROW) >= start) & (line.str.len_bytes() > 0))
        places = [f"@{place}" for place in range(len(columns))]
        lines = lines.with_columns(
            line.str.split_exact(separator, len(columns) - 1).struct.rename_fields(places).alias("@fields"),
            (line.str.count_matches(separator, literal=True) + 1).alias("@count"),
        ).unnest("@fields")
        text = {column: pl.col(place) for column, place in zip(columns, places, strict=True)}
        values = [
            field.read(*(text[column] for column in field.columns)).alias(title)
            for title, field in fields.items()
        ]
        lines = lines.with_columns(values).with_columns(_faults(fields, text))
        lines.select(ROW, _COLUMN, _REASON, *fields).sink_parquet(into)
    return Parsed(path, into, shown or path.name)


def _faults(fields: Mapping[str, Field], text: Mapping[str, pl.Expr]) -> tuple[pl.Expr, pl.Expr]:
    """The first column that is not as it must be, null where the whole row is, and the reason."""
    columns: list[pl.Expr] = []
    reasons: list[pl.Expr] = []
    miscounted = pl.col("@count") != len(text)
    count = pl.format("it has {} fields where there should be {}", "@count", pl.lit(len(text)))
    for title, field in fields.items():
        first = text[field.columns[0]]
        wrong = pl.col(title).is_null()
        if field.may_lack:
            wrong &= first.str.len_bytes() > 0
        several = len(field.columns) > 1
        shown = pl.lit("one of them") if several else pl.format("'{}'", first.str.head(_SHOWN))
        columns.append(pl.when(wrong).then(pl.lit(field.columns[0])))
        reasons.append(pl.when(wrong).then(pl.format("{} is not {}", shown, pl.lit(field.must))))
    column = pl.when(~miscounted).then(pl.coalesce(columns)).alias(_COLUMN)
    return column, pl.when(miscounted).then(count).otherwise(pl.coalesce(reasons)).alias(_REASON)


def rows(parsed: Parsed, rejected: TableWriter) -> pl.LazyFrame:
    """The sound rows of a file, with their line in `ROW`; the others go to `rejected`.

    Raises:
        InputError: if no row can be read.
    """
    frame = pl.scan_parquet(parsed.file)
    bad = frame.filter(pl.col(_REASON).is_not_null()).select(ROW, _COLUMN, _REASON).collect()
    total: int = frame.select(pl.len()).collect().item()
    if bad.height == total:
        first = bad.row(0, named=True) if total else None
        column = f", column {first[_COLUMN]!r}" if first and first[_COLUMN] else ""
        place = f", row {first[ROW]}{column}: {first[_REASON]}" if first else " is empty"
        raise InputError(f"{parsed.source}{place}; no row of it can be read, so get the file again.")
    for row, column, reason in bad.iter_rows():
        rejected.add((parsed.shown, row, column, reason))
    return frame.filter(pl.col(_REASON).is_null()).drop(_COLUMN, _REASON)


def join(
    parts: Sequence[tuple[Parsed, Mapping[str, str]]],
    columns: Sequence[str],
    table: Path,
    rejected: TableWriter,
) -> None:
    """Put the sound rows of files together as one table; the others go to `rejected`.

    Args:
        parts: each file, in the order of the table's rows, and columns that hold one value throughout it.
        columns: the table's columns, in order.
        table: the Parquet file to write.
        rejected: takes the broken rows.

    Raises:
        InputError: if no row of a file can be read.
    """
    frames = [
        rows(parsed, rejected)
        .with_columns(pl.lit(value, pl.String).alias(title) for title, value in same.items())
        .select(columns)
        for parsed, same in parts
    ]
    pl.concat(frames).sink_parquet(table)


def told(rejected: TableWriter) -> list[str]:
    """The sentence on rows set aside, where there are any."""
    if not rejected.rows:
        return []
    return [f"{rejected.rows:,} rows could not be read; rejected.parquet names each with its reason."]
