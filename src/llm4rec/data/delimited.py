"""Delimited text: CSV, TSV and RecBole's atomic files, every value kept as the text it is.

A sound file is read by polars at full speed, and rows that lack fields are set aside. Where polars stumbles
over a line, the file is read again record by record, and just the broken records are set aside.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import polars as pl

from llm4rec.data.files import Choose, Table, rejection
from llm4rec.errors import InputError

DELIMITERS = (",", "\t", ";", "|")
BATCH = 100_000  # records per frame on the careful path
LONGEST = 100  # lines one quoted record may span on the careful path
HEAD = 1 << 20  # bytes the header may have
ANY_LENGTH = 2**31 - 1  # characters of a field, the most that the csv module can be told everywhere

_LIMIT = (
    threading.Lock()
)  # held by who reads with the csv module's limit raised, which is one for all threads


def read_delimited(path: Path, name: str, kind: str, choose: Choose) -> Table:
    """Read `path`, shown as `name`; `kind` is csv, tsv or recbole.

    Raises:
        InputError: if there is no header, a column name occurs twice, or there are no rows.
    """
    line = _first_line(path, name)
    try:
        separator = "\t" if kind in ("tsv", "recbole") else _sniff(line)
        header = next(csv.reader([line], delimiter=separator, quoting=_quoting(kind)))
    except csv.Error as error:
        raise InputError(
            f"The first line of {name} can't be split into column names ({error}): it must name the columns."
        ) from None
    titles = [title.strip() for title in header]
    types = [""] * len(titles)
    if kind == "recbole":
        titles, types = _recbole_header(titles, name)
    titles = [title or f"column_{place}" for place, title in enumerate(titles, start=1)]
    repeated = next((title for title in titles if titles.count(title) > 1), None)
    if repeated is not None:
        raise InputError(f"{name} has two columns called {repeated!r}: rename or remove one of them.")
    chosen = choose(titles)
    table = _fast(path, name, separator, kind, titles, chosen)
    if table is None:
        with _any_length():
            table = _careful(path, name, separator, kind, titles, chosen)
    if not table.frame.height and not table.rejected.height:
        raise InputError(f"{name} has a header ({', '.join(titles)}) but no rows.")
    sequences = {
        title: of for title, of in zip(titles, types, strict=True) if title in chosen and "seq" in of
    }
    return _with_sequences(table, sequences)


def _quoting(kind: str) -> Literal[0, 3]:
    return csv.QUOTE_NONE if kind == "recbole" else csv.QUOTE_MINIMAL


@contextmanager
def _any_length() -> Generator[None]:
    """Let the csv module read fields of any length, and set its limit back afterwards."""
    with _LIMIT:
        before = csv.field_size_limit(ANY_LENGTH)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _first_line(path: Path, name: str) -> str:
    with path.open("rb") as file:
        line = file.readline(HEAD)
    if len(line) == HEAD:
        raise InputError(f"The first line of {name} is longer than {HEAD} bytes: it must name the columns.")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"The first line of {name} is not UTF-8 text: save the file as UTF-8.") from None
    if "\r" in text:
        raise InputError(f"{name} ends its lines with bare carriage returns: save it with line feeds.")
    if not text.strip():
        raise InputError(f"The first line of {name} is blank: it must name the columns.")
    return text


def _sniff(line: str) -> str:
    """The delimiter that splits the header most often outside quotes; a comma where none does."""
    return max(DELIMITERS, key=lambda each: len(next(csv.reader([line], delimiter=each))))


def _recbole_header(titles: list[str], name: str) -> tuple[list[str], list[str]]:
    pairs = [title.partition(":") for title in titles]
    for title, _, of in pairs:
        if of not in ("token", "token_seq", "float", "float_seq"):
            raise InputError(
                f"{name}: the column {title!r} of a RecBole file must say its type, such as {title}:token "
                "(token, token_seq, float or float_seq), with tabs between columns."
            )
    return [title for title, _, _ in pairs], [of for _, _, of in pairs]


def _fast(
    path: Path, name: str, separator: str, kind: str, titles: list[str], chosen: list[str]
) -> Table | None:
    last = titles[-1]
    try:
        frame = (
            pl
            .scan_csv(
                path,
                separator=separator,
                quote_char=None if kind == "recbole" else '"',
                schema=dict.fromkeys(titles, pl.String),
                glob=False,
            )
            .select(*chosen, *([] if last in chosen else [last]))
            .collect()
        )
        rows = pl.int_range(2, frame.height + 2, eager=True).alias("row")
        if not frame[last].null_count():
            return Table(name, frame.select(chosen), rows, tuple(titles), typed=False)
        fields = _field_counts(path, separator, kind)
    except pl.exceptions.PolarsError:
        return None
    # polars fills up what a row lacks with nulls: without the last field, it may be one with too few
    lacking = frame[last].is_null()
    if len(fields) != frame.height or (fields.filter(lacking) == 0).any():
        if not _even(path, separator, kind, len(titles)):
            return None
        blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
        short = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    else:
        blank = fields.is_null()
        short = lacking & (fields != len(titles)).fill_null(False)
    reasons = [_miscount(found, len(titles)) for found in fields.filter(short)] if short.any() else []
    aside = rejection(name, rows.filter(short).to_list(), reasons)
    good = ~(short | blank)
    return Table(
        name, frame.select(chosen).filter(good), rows.filter(good), tuple(titles), typed=False, rejected=aside
    )


def _field_counts(path: Path, separator: str, kind: str) -> pl.Series:
    """Fields on every line after the header; null where it is blank, 0 where its quotes are odd."""
    line = pl.col("line")
    counted = line.str.count_matches(separator, literal=True) + 1
    if kind != "recbole":
        quotes = pl.col("line").str.contains('"', literal=True)
        bare = line.str.replace_all(r'"[^"]*"', "")  # a separator between quotes separates nothing
        within = bare.str.count_matches(separator, literal=True) + 1
        odd = bare.str.contains('"', literal=True)
        counted = pl.when(~quotes).then(counted).when(odd).then(0).otherwise(within)
    return (
        pl
        .scan_csv(
            path,
            separator="\x01",  # in no text, so that a line is one field
            quote_char=None,
            has_header=False,
            skip_rows=1,
            schema={"line": pl.String},
            glob=False,
        )
        .select(counted)
        .collect()
        .to_series()
    )


def _even(path: Path, separator: str, kind: str, width: int) -> bool:
    """Whether every record that is not blank has `width` fields, also where quotes hold line breaks."""
    try:
        with _any_length(), path.open(encoding="utf-8-sig", newline="") as file:
            found = csv.reader(file, delimiter=separator, strict=True, quoting=_quoting(kind))
            return all(len(record) in (0, width) for record in found)
    except (csv.Error, UnicodeDecodeError):
        return False


def _miscount(found: int, width: int) -> str:
    return f"it has {found} fields where the header has {width}"


def _careful(path: Path, name: str, separator: str, kind: str, titles: list[str], chosen: list[str]) -> Table:
    places = [titles.index(title) for title in chosen]
    frames: list[pl.DataFrame] = []
    values: list[list[str | None]] = [[] for _ in chosen]
    rows: list[int] = []
    bad_rows: list[int] = []
    reasons: list[str] = []

    def batch() -> None:
        frames.append(pl.DataFrame(dict(zip(chosen, values, strict=True)), dict.fromkeys(chosen, pl.String)))
        for column in values:
            column.clear()

    for row, found in _records(path, separator, kind, len(titles)):
        if isinstance(found, str):
            bad_rows.append(row)
            reasons.append(found)
            continue
        rows.append(row)
        for column, place in zip(values, places, strict=True):
            column.append(found[place] or None)
        if len(values[0]) >= BATCH:
            batch()
    batch()
    return Table(
        name,
        pl.concat(frames, rechunk=True),
        pl.Series("row", rows, dtype=pl.Int64),
        tuple(titles),
        typed=False,
        rejected=rejection(name, bad_rows, reasons),
    )


def _records(path: Path, separator: str, kind: str, width: int) -> Iterator[tuple[int, list[str] | str]]:
    """(line number, fields or the reason why there are none) of every record after the header."""
    with path.open("rb") as file:
        lines = iter(enumerate(file, start=1))
        next(lines)
        waiting: list[tuple[int, bytes]] = []  # lines read while looking for the end of a quote
        while True:
            entry = waiting.pop(0) if waiting else next(lines, None)
            if entry is None:
                return
            row, raw = entry
            record = [raw]
            found = _fields(record, separator, kind, width)
            while found is None and len(record) < LONGEST:
                following = waiting[len(record) - 1] if len(waiting) >= len(record) else next(lines, None)
                if following is None:
                    break
                if len(waiting) < len(record):
                    waiting.append(following)
                record.append(following[1])
                found = _fields(record, separator, kind, width)
            if isinstance(found, list):
                waiting = waiting[len(record) - 1 :]
            elif len(record) > 1 or found is None:
                found = "a quote is opened and never closed"
            if found != []:
                yield row, found


def _fields(record: list[bytes], separator: str, kind: str, width: int) -> list[str] | str | None:
    """The fields of a record, the reason why it is broken, or None where its last quote is still open."""
    try:
        text = b"".join(record).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line is not UTF-8 text"
    if not text:
        return []
    try:
        found = next(csv.reader([text], delimiter=separator, strict=True, quoting=_quoting(kind)))
    except csv.Error as error:
        if separator == "\t" and len(text.split("\t")) == width:
            return text.split("\t")  # tab-separated files often carry quotes that mean nothing
        return None if "unexpected end" in str(error) else f"its quotes can't be read ({error})"
    if len(found) != width:
        return _miscount(len(found), width)
    return found


def _with_sequences(table: Table, sequences: dict[str, str]) -> Table:
    """RecBole's token_seq and float_seq as lists."""
    if not sequences:
        return table
    columns: list[pl.Expr] = []
    for title, of in sequences.items():
        words = pl.col(title).str.strip_chars().str.split(" ")
        columns.append(
            words.list.eval(pl.element().cast(pl.Float32, strict=False)) if of == "float_seq" else words
        )
    return Table(
        table.name,
        table.frame.with_columns(columns),
        table.rows,
        table.columns,
        typed=False,
        rejected=table.rejected,
    )
