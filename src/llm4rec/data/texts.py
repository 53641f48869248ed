"""Text out of the values of any column, and the outside names that raw ids stand for."""

from __future__ import annotations

import polars as pl

MISSING = ("", "nan", "NaN", "null", "NULL", "None", "\\N")  # how programs write a missing value as text
CONTROLS = [chr(code) for code in range(0x20)]
LARGEST = 2.0**63  # from here on a whole number doesn't fit 64 bits


def is_plain(kind: pl.DataType) -> bool:
    """Whether a value of this type can be written as one text: it is no list, record, duration or object."""
    return not (kind.is_nested() or isinstance(kind, pl.Duration | pl.Object))


def manner(kind: pl.DataType) -> str:
    """What values of a type that is not plain are called in a message."""
    if kind.is_nested():
        return "lists or records"
    return "durations" if isinstance(kind, pl.Duration) else "objects of an unknown kind"


def text_of(values: pl.Series) -> pl.Series:
    """Each value as text, null where it is missing or can't be text; never an error.

    A whole number held as a float loses its point (1987.0 is 1987), for it was one before a missing value
    beside it made it a float.
    """
    if not is_plain(values.dtype):
        return pl.Series(values.name, [None] * len(values), dtype=pl.String)
    if values.dtype == pl.Binary:
        return _decoded(values)
    if not values.dtype.is_float():
        return values.cast(pl.String)
    values = values.fill_nan(None)
    whole = (values == values.floor()) & (values.abs() < LARGEST)
    short = values.cast(pl.Int64, strict=False).cast(pl.String)
    return (
        pl.select(pl.when(whole).then(short).otherwise(values.cast(pl.String))).to_series().alias(values.name)
    )


def cleaned(text: pl.Series) -> pl.Series:
    """The texts trimmed, with null where one stands for a missing value."""
    trimmed = text.str.strip_chars()
    missing = trimmed.is_in(MISSING)
    if not missing.any():
        return trimmed
    return pl.select(pl.when(~missing).then(trimmed)).to_series().alias(text.name)


def names_of(raw: pl.Series) -> tuple[pl.Series, list[tuple[pl.Series, str]]]:
    """The outside names that raw ids stand for, of people and items, and what is wrong with the others.

    Args:
        raw: ids [n] of a plain type (see `is_plain`).

    Returns:
        Names as text [n], null where there is none; and for every fault that occurs, which values have it [n]
        and why. No value has two.
    """
    if raw.dtype.is_float():
        finite = raw.is_finite()
        faults = [
            (~finite, "the id is not a number"),
            (finite & (raw != raw.floor()), "the id is a number with a fraction"),
            (finite & (raw.abs() >= LARGEST), "the id is too large to be a whole number: write ids as text"),
        ]
        text = text_of(raw)
    elif raw.dtype.is_numeric() or raw.dtype.is_temporal() or raw.dtype == pl.Boolean:
        return text_of(raw), []
    else:
        written = text_of(raw)
        text = cleaned(written)
        faults = [
            (raw.is_not_null() & written.is_null(), "the id is not UTF-8 text"),
            (text.str.contains_any(CONTROLS), "the id holds a control character (one of U+0000 to U+001F)"),
        ]
    faults = [(bad.fill_null(False), reason) for bad, reason in faults]
    return text, [(bad, reason) for bad, reason in faults if bad.any()]


def _decoded(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:  # some value is not UTF-8: find out which
        return pl.Series(values.name, [_text(value) for value in values.to_list()], dtype=pl.String)


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
