"""Requests: whom to recommend to, as a table with one request per row, or as a single `Query`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from llm4rec.data import jsonlines
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.files import Table, read_table
from llm4rec.data.texts import is_plain, manner, names_of, text_of
from llm4rec.data.validate import LATEST
from llm4rec.errors import InputError
from llm4rec.types import Array, Ints

KNOWN = ("request_id", "history", "timestamps", "ratings", "user_id", "exclude", "request_time")


def _quiet(sentence: str) -> None:
    """Say nothing."""


def read_requests(
    path: str, catalog: Catalog, note: Callable[[str], None] = _quiet
) -> tuple[pl.Series, EventLog, EventLog]:
    """Read requests and turn their items into numbers of the catalogue.

    The columns are `request_id` and `history` (list of item ids, oldest first), optionally `timestamps`
    (list of UTC seconds) and `ratings` (list of numbers) along the history, `user_id`, `exclude` (list of
    item ids), and `request_time` (UTC seconds of the asking). Items the catalogue does not know are noted and
    stay in a history as -1, so that one of nothing else is still told from one that is not given.

    Args:
        path: Parquet or JSONL (also .gz, .zst), or a database URL.
        catalog: the items of the model.
        note: told what was left out, in sentences.

    Returns:
        Request ids [r]; histories, one row per request, whose `user_ids` are null where no person is
        named and whose times, that of asking too, are -1 where a request gives none; and the items each
        request excludes.

    Raises:
        InputError: naming the row of a request that can't be answered.
    """
    try:
        table = read_table(path)
    except InputError as error:
        raise InputError(f"No request can be read: {error}") from None
    if table.rejected.height:
        first = table.rejected.row(0, named=True)
        raise InputError(f"{table.name}, row {first['row']}: {first['reason']}.")
    for column in ("request_id", "history"):
        if column not in table.columns:
            raise InputError(
                f"{table.name} has no column {column!r}. Its columns: {', '.join(table.columns)}. "
                f"Requests have {', '.join(KNOWN)}; the first two are needed."
            )
    ignored = [column for column in table.columns if column not in KNOWN]
    if ignored:
        note(f"Columns of {table.name} not read: {', '.join(ignored)}.")
    for column in ("request_id", "user_id"):
        _refuse(jsonlines.nested(path, table, column), table, column, jsonlines.NESTED)
    names = _request_ids(table)
    _refuse(names.is_null(), table, "request_id", "the request has no id")
    _refuse(~names.is_first_distinct(), table, "request_id", "the id of this request occurs earlier")
    user_ids = _user_ids(table)
    history = _lists(table, "history")
    histories = _items(table, history, user_ids, catalog)
    if absent := np.count_nonzero(histories.items < 0):
        note(f"{absent} of {histories.n_events} history items are not in the catalogue and are passed over.")
    histories = replace(
        histories,
        times=_along(table, "timestamps", pl.Int64, history, -1),
        ratings=_along(table, "ratings", pl.Float32, history, np.nan),
        asked_at=_asked_at(table),
    )
    exclude = _items(table, _lists(table, "exclude"), user_ids, catalog)
    return names, histories, exclude.select(exclude.items >= 0)


def _request_ids(table: Table) -> pl.Series:
    """The ids that come back with the answers: a number stays as it is written."""
    raw = _plain(table, "request_id")
    text = text_of(raw) if raw.dtype == pl.Binary else raw.cast(pl.String)
    _refuse(raw.is_not_null() & text.is_null(), table, "request_id", "the id is not UTF-8 text")
    return text


def _user_ids(table: Table) -> pl.Series:
    """The person of each request as `fit` reads names, null where none is given."""
    if "user_id" not in table.columns:
        return pl.Series("user_id", [None] * table.frame.height, dtype=pl.String)
    raw = _plain(table, "user_id")
    names, faults = names_of(raw.fill_nan(None) if raw.dtype.is_float() else raw)
    for bad, reason in faults:
        _refuse(bad, table, "user_id", reason)
    return names.alias("user_id")


def _asked_at(table: Table) -> Ints | None:
    """When each request is asked [r], -1 where it does not say; None where none does."""
    column = "request_time"
    if column not in table.columns:
        return None
    raw = _plain(table, column)
    if not _may_count(raw.dtype):
        _refuse(raw.is_not_null(), table, column, f"this is {raw.dtype}, not UTC seconds as a number")
    raw = raw.fill_nan(None) if raw.dtype.is_float() else raw
    seconds = raw.cast(pl.Int64, strict=False)
    unreadable = raw.is_not_null() & seconds.is_null()
    if _may_break(raw.dtype):
        unreadable |= (raw != seconds.cast(raw.dtype)).fill_null(False)
    _refuse(unreadable, table, column, "the time is unreadable; times are whole UTC seconds")
    impossible = ((seconds < 0) | (seconds >= LATEST)).fill_null(False)
    _refuse(impossible, table, column, "the time lies outside 1970 to 2100; times are UTC seconds")
    return None if seconds.is_null().all() else seconds.fill_null(-1).to_numpy()


def _may_count(kind: pl.DataType) -> bool:
    """Whether values of this type are numbers, or texts that may be."""
    return kind.is_numeric() or kind == pl.String


def _may_break(kind: pl.DataType) -> bool:
    """Whether values of this type are numbers that may have a fraction."""
    return kind.is_numeric() and not kind.is_integer()


def _plain(table: Table, column: str) -> pl.Series:
    raw = table.frame[column]
    if raw.null_count() == len(raw):
        return pl.Series(column, [None] * len(raw), dtype=pl.String)
    if not is_plain(raw.dtype):
        why = f"the column holds {manner(raw.dtype)}, not a text or number for each request"
        _refuse(raw.is_not_null(), table, column, why)
    return raw


def _lists(table: Table, column: str) -> pl.Series:
    """A column of lists of plain values without holes, an empty one where a request has none."""
    empty = pl.Series(column, [[]] * table.frame.height, dtype=pl.List(pl.Null))
    if column not in table.columns or table.frame[column].null_count() == table.frame.height:
        return empty
    values = table.frame[column]
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if not isinstance(values.dtype, pl.List):
        bad = values.is_not_null()
        if values.dtype == pl.String:  # beside a value of JSON that is no list, the lists are text too
            alone = bad & ~values.str.starts_with("[")
            bad = alone if alone.any() else bad
        why = 'the value is no list; write requests as Parquet or JSONL, with lists such as ["a", "b"]'
        _refuse(bad, table, column, why)
    inner = _inner(values)
    if not is_plain(inner):
        why = f"the list holds {manner(inner)}, not plain values: text or numbers"
        _refuse(values.list.len() > 0, table, column, why)
        return empty
    _refuse_holes(values, table, column)
    return values.to_frame().select(pl.col(column).fill_null([])).to_series()


def _inner(lists: pl.Series) -> pl.DataType:
    assert isinstance(lists.dtype, pl.List)
    return pl.Series(dtype=lists.dtype.inner).dtype  # an instance also where polars gives the class


def _refuse_holes(lists: pl.Series, table: Table, column: str) -> None:
    hole = lists.list.eval(pl.element().is_null()).list.any().fill_null(False)
    _refuse(hole, table, column, "the list holds a missing or unreadable value")


def _items(table: Table, lists: pl.Series, user_ids: pl.Series, catalog: Catalog) -> EventLog:
    """The lists as rows of item numbers, -1 for what the catalogue does not know."""
    lengths = lists.list.len().cast(pl.Int64).to_numpy()
    names, faults = names_of(lists.explode(keep_nulls=False, empty_as_null=False))
    rows = np.repeat(np.arange(len(lists)), lengths)
    for bad, reason in faults:
        at_fault = np.bincount(rows[bad.to_numpy()], minlength=len(lists)) > 0
        _refuse(pl.Series(at_fault), table, lists.name, f"{reason}, in this list")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return EventLog(user_ids, offsets, catalog.numbers(names))


def _along(
    table: Table, column: str, inner: type[pl.DataType], history: pl.Series, missing: float
) -> Array | None:
    """A column's values along the flat histories, `missing` for requests without; None if all are."""
    lists = _numbers(table, column, inner)
    lengths = history.list.len()
    given = lists.list.len() > 0
    _refuse(given & (lists.list.len() != lengths), table, column, "the list is not as long as the history")
    if column == "timestamps":
        impossible = lists.list.eval((pl.element() < 0) | (pl.element() >= LATEST)).list.any()
        _refuse(impossible, table, column, "a time lies outside 1970 to 2100; times are UTC seconds")
    else:
        endless = lists.list.eval(~pl.element().is_finite()).list.any()
        _refuse(endless, table, column, "a number of the list is not finite, or too large")
    if not given.any():
        return None
    flat = lists.explode(keep_nulls=False, empty_as_null=False).to_numpy()
    owned = np.repeat(given.to_numpy(), lengths.to_numpy())
    values = np.full(len(owned), missing, dtype=flat.dtype)
    values[owned] = flat
    return values


def _numbers(table: Table, column: str, inner: type[pl.DataType]) -> pl.Series:
    """A column of lists of numbers, refused where a value is none."""
    raw = _lists(table, column)
    given = raw.list.len() > 0
    if given.any() and not _may_count(_inner(raw)):
        _refuse(given, table, column, f"the list holds {_inner(raw)}, not numbers")
    lists = raw.cast(pl.List(inner), strict=False)
    _refuse_holes(lists, table, column)
    if inner.is_integer() and _may_break(_inner(raw)):
        parts = raw.list.eval(pl.element() != pl.element().cast(pl.Int64).cast(_inner(raw))).list.any()
        _refuse(parts, table, column, "a number of the list has a fraction; times are whole UTC seconds")
    return lists


def _refuse(bad: pl.Series, table: Table, column: str, reason: str) -> None:
    if bad.any():
        row = table.rows.filter(bad)[0]
        raise InputError(f"{table.name}, row {row}, column {column!r}: {reason}.")
