"""Rows that are new to a catalogue or change it, in the columns and kinds it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog, Field
from llm4rec.data.features import as_kind, trimmed
from llm4rec.data.texts import is_plain, names_of
from llm4rec.errors import InputError
from llm4rec.types import Ints

WANTED = {
    "text": "words",
    "categorical": "one value or a list of values",
    "numerical": "a finite number",
    "image": "a vector of finite numbers, of one length in all rows",
    "time": "a date, or whole UTC seconds",
}


def upserted(catalog: Catalog, rows: pl.DataFrame, note: Callable[[str], None]) -> tuple[Catalog, Ints]:
    """The catalogue with `rows` in it.

    An id the catalogue has keeps its number, and its old values in columns that `rows` lacks; any other
    gets the next number. A retired one is retired no more.

    Args:
        catalog: what is there.
        rows: a table with the catalogue's key, in any order and with any of its columns.
        note: told of columns that are not read.

    Returns:
        The catalogue and the number of each of the rows [n].

    Raises:
        InputError: naming the row, counted from 1, and the column of what can't be read.
    """
    names = _names(catalog.key, rows)
    unknown = [column for column in rows.columns if column not in catalog.table.columns]
    if unknown:
        note(f"Columns the model was fitted without are not read: {', '.join(unknown)}.")
    numbers = catalog.numbers(names)
    new = numbers < 0
    numbers[new] = len(catalog) + np.arange(new.sum())
    kinds = {field.name: field for field in catalog.fields}
    columns: list[pl.Series] = []
    for name, dtype in catalog.table.schema.items():
        old = catalog.table[name]
        if name == catalog.key:
            given = names.cast(dtype)
        elif name in rows.columns:
            given = _read(rows[name], kinds.get(name), dtype)
        else:
            missing = pl.Series([[]] if name in kinds and kinds[name].modality == "categorical" else [None])
            # the row past the end stands for all that are new
            given = pl.concat([old, missing.cast(dtype).alias(name)])[np.where(new, len(catalog), numbers)]
        columns.append(pl.concat([old, given.alias(name)]))
    source = np.arange(len(catalog) + int(new.sum()))
    source[numbers] = len(catalog) + np.arange(len(numbers))
    table = pl.DataFrame(columns)[source]
    return replace(catalog, table=table, retired=np.setdiff1d(catalog.retired, numbers)), numbers


def _names(key: str, rows: pl.DataFrame) -> pl.Series:
    """The rows' ids as `fit` reads them."""
    if key not in rows.columns:
        raise InputError(
            f"The table of items has no column {key!r}. Its columns: {', '.join(rows.columns)}. "
            f"Rename the one that names the items to {key!r}."
        )
    if not is_plain(rows[key].dtype):
        raise InputError(f"The column {key!r} must hold texts or whole numbers, not {rows[key].dtype}.")
    names, faults = names_of(rows[key])
    faults += [
        (names.is_null(), "the row has no id"),
        (~names.is_first_distinct(), "the id occurs in an earlier row; give each item once"),
    ]
    for bad, reason in faults:
        if bad.fill_null(False).any():
            raise InputError(f"Row {_first(bad)} of the items, column {key!r}: {reason}.")
    return names


def _read(values: pl.Series, field: Field | None, dtype: pl.DataType) -> pl.Series:
    """A column in the catalogue's type; one that is no feature gets null where a value doesn't fit."""
    values = trimmed(values).fill_nan(None) if values.dtype.is_float() else trimmed(values)
    if field is None:
        try:
            return values.cast(dtype, strict=False)
        except pl.exceptions.PolarsError:
            return pl.Series(values.name, [None] * len(values), dtype=dtype)
    if values.null_count() == len(values):
        nothing = pl.Series(values.name, [None] * len(values), dtype=dtype)
        return nothing.fill_null([]) if field.modality == "categorical" else nothing
    wanted = f"{WANTED[field.modality]} ({field.modality})"
    found: pl.Series | None = as_kind(values, field.modality)
    try:
        found = None if found is None else found.cast(dtype, strict=False)
    except pl.exceptions.PolarsError:
        found = None
    if found is None:
        raise InputError(f"The column {field.name!r} of the items holds {values.dtype}: give {wanted}.")
    lost = values.is_not_null() & found.is_null()
    if lost.any():
        row = _first(lost)
        raise InputError(
            f"Row {row} of the items, column {field.name!r}: {values[row - 1]!r} can't be read. "
            f"Give {wanted}, or nothing."
        )
    return found


def _first(bad: pl.Series) -> int:
    """The first row that is marked, counted from 1."""
    place = bad.fill_null(False).arg_true()[0]
    return int(place) + 1
