"""Batch requests: whom to recommend to, as a table with one request per row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.files import Table, read_table
from llm4rec.data.validate import LATEST
from llm4rec.errors import InputError
from llm4rec.types import Array, Ints

KNOWN = ("request_id", "history", "timestamps", "ratings", "user_id", "exclude")


def _quiet(sentence: str) -> None:
    """Say nothing."""


def read_requests(
    path: str, catalog: Catalog, note: Callable[[str], None] = _quiet
) -> tuple[pl.Series, EventLog, EventLog]:
    """Read requests and turn their items into numbers of the catalogue.

    The columns are `request_id` and `history` (list of item ids, oldest first), optionally `timestamps`
    (list of UTC seconds) and `ratings` (list of numbers) along the history, `user_id`, and `exclude`
    (list of item ids). Timestamps are used if every request with a history has them. Items the catalogue
    does not know are dropped from a history, and noted.

    Args:
        path: Parquet or JSONL (also .gz, .zst), or a database URL.
        catalog: the items of the model.
        note: told what was left out, in sentences.

    Returns:
        Request ids [r]; histories, one row per request, whose `user_ids` are null where no person is
        named; and the items each request excludes.

    Raises:
        InputError: naming the row of a request that can't be answered.
    """
    table = read_table(path)
    if table.rejected.height:
        first = table.rejected.row(0, named=True)
        raise InputError(f"{path}, row {first['row']}: {first['reason']}.")
    for column in ("request_id", "history"):
        if column not in table.columns:
            raise InputError(
                f"{path} has no column {column!r}. Its columns: {', '.join(table.columns)}. "
                f"Requests have {', '.join(KNOWN)}; the first two are needed."
            )
    ignored = [column for column in table.columns if column not in KNOWN]
    if ignored:
        note(f"Columns of {path} not read: {', '.join(ignored)}.")
    names = table.frame["request_id"].cast(pl.String)
    _refuse(names.is_null(), table, "request_id", "the request has no id")
    _refuse(~names.is_first_distinct(), table, "request_id", "the id of this request occurs earlier")
    users = table.frame["user_id"] if "user_id" in table.columns else pl.Series([None] * len(names))
    history = _lists(table, "history", pl.String)
    known, items, lengths = _known(history, catalog)
    if not known.all():
        absent = int((~known).sum())
        note(f"{absent} of {len(known)} history items are not in the catalogue and are passed over.")
    excluded, excluded_items, excluded_lengths = _known(_lists(table, "exclude", pl.String), catalog)
    times, ratings = _along(table, history, note)
    user_ids = users.cast(pl.String).alias("user_id")
    histories = EventLog(
        user_ids,
        _offsets(lengths),
        items,
        None if times is None else times[known],
        None if ratings is None else ratings[known],
    )
    return names, histories, EventLog(user_ids, _offsets(excluded_lengths), excluded_items[: excluded.sum()])


def _lists(table: Table, column: str, inner: pl.DataType | type[pl.DataType]) -> pl.Series:
    """A column of lists, an empty one where a request has none."""
    empty = pl.Series(column, [[]] * table.frame.height, dtype=pl.List(inner))
    if column not in table.columns or table.frame[column].dtype == pl.Null:
        return empty
    values = table.frame[column]
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if not isinstance(values.dtype, pl.List):
        raise InputError(
            f"{table.name}: the column {column!r} holds {values.dtype}, not lists. Write requests as Parquet "
            'or JSONL, with lists such as ["a", "b"].'
        )
    if isinstance(values.dtype.inner, pl.List | pl.Array | pl.Struct):
        raise InputError(
            f"{table.name}: the lists of column {column!r} hold lists or records, not plain values."
        )
    try:
        typed = values.cast(pl.List(inner))
    except pl.exceptions.PolarsError:
        typed = values.cast(pl.List(inner), strict=False)
    hole = typed.list.eval(pl.element().is_null()).list.any().fill_null(False)
    _refuse(hole, table, column, "the list holds a missing or unreadable value")
    return typed.to_frame().select(pl.col(column).fill_null([])).to_series().cast(pl.List(inner))


def _known(lists: pl.Series, catalog: Catalog) -> tuple[Array, Ints, Ints]:
    """Which of the flat values the catalogue knows, their numbers, and how many each row keeps."""
    lengths = lists.list.len().cast(pl.Int64).to_numpy()
    flat = lists.explode(keep_nulls=False, empty_as_null=False)
    numbers = catalog.numbers(flat)
    known = numbers >= 0
    rows = np.repeat(np.arange(len(lists)), lengths)
    return known, numbers[known], np.bincount(rows[known], minlength=len(lists)).astype(np.int64)


def _along(table: Table, history: pl.Series, note: Callable[[str], None]) -> tuple[Ints | None, Array | None]:
    """Times and ratings along the flat histories; None where they are not given."""
    lengths = history.list.len()
    found: dict[str, pl.Series | None] = {}
    for column, inner in (("timestamps", pl.Int64), ("ratings", pl.Float32)):
        lists = _lists(table, column, inner)
        given = lists.list.len()
        wrong = (given > 0) & (given != lengths)
        _refuse(wrong, table, column, "the list is not as long as the history")
        if column == "timestamps":
            impossible = lists.list.eval((pl.element() < 0) | (pl.element() >= LATEST)).list.any()
            _refuse(impossible, table, column, "a time lies outside 1970 to 2100; times are UTC seconds")
            lacking = int(((given == 0) & (lengths > 0)).sum())
            if lacking and (given > 0).any():
                note(f"{lacking} requests have no timestamps: those of the others are not used either.")
            whole = not lacking and bool((given > 0).any())
        else:
            whole = bool((given > 0).any())
            blanks = history.list.eval(pl.lit(None, pl.Float32).repeat_by(pl.len()).explode()).cast(
                pl.List(pl.Float32)
            )
            lists = (
                pl.select(pl.when(given > 0).then(lists).otherwise(blanks)).to_series() if whole else lists
            )
        found[column] = lists.explode(keep_nulls=True, empty_as_null=False) if whole else None
    times, ratings = found["timestamps"], found["ratings"]
    return (
        None if times is None else times.to_numpy(),
        None if ratings is None else ratings.fill_null(float("nan")).to_numpy(),
    )


def _refuse(bad: pl.Series, table: Table, column: str, reason: str) -> None:
    if bad.any():
        row = table.rows.filter(bad)[0]
        raise InputError(f"{table.name}, row {row}, column {column!r}: {reason}.")


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
