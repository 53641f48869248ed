"""Requests: whom to recommend to, as a table with one request per row, or as a single `Query`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.files import Table, read_table
from llm4rec.data.texts import is_plain, manner, names_of, text_of
from llm4rec.data.validate import LATEST
from llm4rec.errors import InputError
from llm4rec.types import Array, Context, Ints, Query

KNOWN = ("request_id", "history", "timestamps", "ratings", "user_id", "exclude", "request_time")


def _quiet(sentence: str) -> None:
    """Say nothing."""


def read_requests(
    path: str, catalog: Catalog, note: Callable[[str], None] = _quiet
) -> tuple[pl.Series, EventLog, EventLog]:
    """Read requests and turn their items into numbers of the catalogue.

    The columns are `request_id` and `history` (list of item ids, oldest first), optionally `timestamps`
    (list of UTC seconds) and `ratings` (list of numbers) along the history, `user_id`, `exclude` (list of
    item ids), and `request_time` (UTC seconds of the asking). Items the catalogue does not know are dropped
    from a history, and noted.

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
    table = read_table(path)
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
    names = _request_ids(table)
    _refuse(names.is_null(), table, "request_id", "the request has no id")
    _refuse(~names.is_first_distinct(), table, "request_id", "the id of this request occurs earlier")
    user_ids = _user_ids(table)
    history = _lists(table, "history")
    known, items, lengths = _known(table, history, catalog)
    if not known.all():
        absent = int((~known).sum())
        note(f"{absent} of {len(known)} history items are not in the catalogue and are passed over.")
    excluded, excluded_items, excluded_lengths = _known(table, _lists(table, "exclude"), catalog)
    times = _along(table, "timestamps", pl.Int64, history, -1)
    ratings = _along(table, "ratings", pl.Float32, history, np.nan)
    histories = EventLog(
        user_ids,
        _offsets(lengths),
        items,
        None if times is None else times[known],
        None if ratings is None else ratings[known],
        asked_at=_asked_at(table),
    )
    return names, histories, EventLog(user_ids, _offsets(excluded_lengths), excluded_items[: excluded.sum()])


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
    if column not in table.columns or table.frame[column].dtype == pl.Null:
        return None
    raw = _plain(table, column)
    if not (raw.dtype.is_numeric() or raw.dtype == pl.String):
        raise InputError(
            f"{table.name}: the column {column!r} holds {raw.dtype}, not UTC seconds as numbers."
        )
    raw = raw.fill_nan(None) if raw.dtype.is_float() else raw
    seconds = raw.cast(pl.Int64, strict=False)
    unreadable = raw.is_not_null() & seconds.is_null()
    if raw.dtype.is_float():
        unreadable |= (raw != seconds.cast(pl.Float64)).fill_null(False)
    _refuse(unreadable, table, column, "the time is unreadable; times are whole UTC seconds")
    impossible = ((seconds < 0) | (seconds >= LATEST)).fill_null(False)
    _refuse(impossible, table, column, "the time lies outside 1970 to 2100; times are UTC seconds")
    return None if seconds.is_null().all() else seconds.fill_null(-1).to_numpy()


def _plain(table: Table, column: str) -> pl.Series:
    raw = table.frame[column]
    if not is_plain(raw.dtype):
        raise InputError(
            f"{table.name}: the column {column!r} holds {manner(raw.dtype)}: it must hold text or numbers, "
            "one for each request."
        )
    return raw


def _lists(table: Table, column: str) -> pl.Series:
    """A column of lists of plain values without holes, an empty one where a request has none."""
    empty = pl.Series(column, [[]] * table.frame.height, dtype=pl.List(pl.Null))
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
    inner = pl.Series(dtype=values.dtype.inner).dtype  # an instance also where polars gives the class
    if not is_plain(inner):
        raise InputError(
            f"{table.name}: the lists of column {column!r} hold {manner(inner)}, not plain values: "
            "text or numbers."
        )
    _refuse_holes(values, table, column)
    return values.to_frame().select(pl.col(column).fill_null([])).to_series()


def _refuse_holes(lists: pl.Series, table: Table, column: str) -> None:
    hole = lists.list.eval(pl.element().is_null()).list.any().fill_null(False)
    _refuse(hole, table, column, "the list holds a missing or unreadable value")


def _known(table: Table, lists: pl.Series, catalog: Catalog) -> tuple[Array, Ints, Ints]:
    """Which of the flat values the catalogue knows, their numbers, and how many each row keeps."""
    lengths = lists.list.len().cast(pl.Int64).to_numpy()
    names, faults = names_of(lists.explode(keep_nulls=False, empty_as_null=False))
    rows = np.repeat(np.arange(len(lists)), lengths)
    for bad, reason in faults:
        at_fault = np.bincount(rows[bad.to_numpy()], minlength=len(lists)) > 0
        _refuse(pl.Series(at_fault), table, lists.name, f"{reason}, in this list")
    numbers = catalog.numbers(names)
    known = numbers >= 0
    return known, numbers[known], np.bincount(rows[known], minlength=len(lists)).astype(np.int64)


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
    try:
        lists = raw.cast(pl.List(inner), strict=False)
    except pl.exceptions.PolarsError:  # such as bytes, which are no number whatever they say
        raise InputError(f"{table.name}: the column {column!r} holds {raw.dtype}, not numbers.") from None
    _refuse_holes(lists, table, column)
    return lists


def _refuse(bad: pl.Series, table: Table, column: str, reason: str) -> None:
    if bad.any():
        row = table.rows.filter(bad)[0]
        raise InputError(f"{table.name}, row {row}, column {column!r}: {reason}.")


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def check(query: Query) -> None:
    """Refuse a query whose values are not of the kinds that `Query` names.

    Raises:
        InputError: naming the value.
    """
    given: dict[str, Any] = vars(query)  # whatever its types promise
    for name in ("history", "exclude", *(() if query.allow is None else ("allow",))):
        if not _texts(given[name]):
            raise InputError(f"Query.{name} takes a tuple of item ids, each a text: ('50', '181').")
    _check_restrictions(query.allow, given["where"])
    if not isinstance(given["user"], str | None):
        raise InputError(f"Query.user takes a name as a text, not {given['user']!r}.")
    for name, values in (("timestamps", query.timestamps), ("ratings", query.ratings)):
        if values is not None and len(values) != len(query.history):
            raise InputError(
                f"The query has {len(query.history)} items of history and {len(values)} {name}; "
                "give one for each item, or none at all."
            )
    for time in query.timestamps or ():
        _check_time(time, "Query.timestamps")
    if not isinstance(given["context"], Context):
        raise InputError(f"Query.context takes a Context, such as Context(time=5), not {given['context']!r}.")
    if query.context.time is not None:
        _check_time(query.context.time, "Context.time")
    for rating in query.ratings or ():
        # not a number stands for an event that has no rating
        if isinstance(rating, bool) or not isinstance(rating, Real) or abs(float(rating)) == float("inf"):
            raise InputError(f"Query.ratings takes finite numbers, not {rating!r}.")


def _texts(values: Any) -> bool:
    return (
        isinstance(values, Sequence)
        and not isinstance(values, str)
        and all(isinstance(value, str) for value in values)
    )


def _check_restrictions(allow: Sequence[str] | None, where: Any) -> None:
    if allow is not None and not allow:
        raise InputError("Query.allow is empty, so nothing could come back: name items, or None for all.")
    if not isinstance(where, Mapping):
        raise InputError("Query.where takes fields and their values: {'genre': ('Comedy', 'Drama')}.")
    for name, values in where.items():
        if not _texts(values) or not values:
            raise InputError(f"Query.where takes one value or more of {name!r}, each a text: ('Comedy',).")


def _check_time(time: int, name: str) -> None:
    if isinstance(time, bool) or not isinstance(time, Integral) or not 0 <= time < LATEST:
        raise InputError(f"{name} takes UTC seconds from 1970 to 2100, not {time!r}.")
