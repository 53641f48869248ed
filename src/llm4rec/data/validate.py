"""Checks of raw columns: each turns a column into what the model reads and sets the bad rows aside."""

from __future__ import annotations

import numpy as np
import polars as pl

from llm4rec.data.report import Sieve
from llm4rec.data.texts import cleaned, is_plain, manner, names_of, text_of
from llm4rec.errors import InputError

LATEST = 4_102_444_800  # UTC seconds at the start of 2100
EARLY = 315_532_800  # UTC seconds at the start of 1980, before which nobody kept such logs
FRACTION = "fraction"  # column for what times have beyond whole seconds
SCALES = ((0.0, 5.0), (0.0, 10.0), (0.0, 100.0), (-10.0, 10.0))
RARE = 0.01  # more ratings than this share outside a scale, and it is not the scale
COMMON = 0.05  # share of the top value of a scale from which even a lone stray is believed to be one
ENOUGH = 10  # ratings below which no scale is guessed


def ids(sieve: Sieve, column: str, shown: str) -> list[str]:
    """Turn `column` into outside names (strings) and set aside the rows without one.

    Args:
        sieve: the rows; its frame holds `column` as read.
        column: the column of the frame.
        shown: what the source calls it.

    Returns:
        Sentences on what was changed.
    """
    _require_plain(sieve, column, shown, "ids")
    notes: list[str] = []
    text, faults = names_of(sieve.frame[column])
    sieve.frame = sieve.frame.with_columns(text.alias(column))
    while faults:
        (bad, reason), *others = faults
        sieve.drop(bad, shown, reason)
        faults = [(each.filter(~bad), why) for each, why in others]
    text = sieve.frame[column]
    first = text.head(1000).drop_nulls()
    if len(first) and first.str.ends_with(".0").all() and text.str.contains(r"^\d+\.0$").all():
        text = text.str.slice(0, text.str.len_chars() - 2)
        notes.append(f"The ids in column {shown!r} of {sieve.name} end in '.0' throughout: it was cut off.")
        sieve.frame = sieve.frame.with_columns(text.alias(column))
    sieve.drop(text.is_null(), shown, "the id is missing")
    return notes


def texts(sieve: Sieve, column: str, shown: str) -> None:
    """Turn `column` into text and set aside the rows where it can't be; missing stays missing."""
    _require_plain(sieve, column, shown, "values")
    raw = sieve.frame[column]
    text = text_of(raw)
    sieve.frame = sieve.frame.with_columns(text.alias(column))
    if raw.dtype == pl.Binary:
        sieve.drop(raw.is_not_null() & text.is_null(), shown, "the value is not UTF-8 text")


def _require_plain(sieve: Sieve, column: str, shown: str, what: str) -> None:
    kind = sieve.frame[column].dtype
    if not is_plain(kind):
        raise InputError(
            f"The {what} in column {shown!r} of {sieve.name} are {manner(kind)}: they must be plain, "
            "text or numbers."
        )


def times(sieve: Sieve, column: str, shown: str) -> list[str]:
    """Turn `column` into Int64 UTC seconds and set aside the rows whose time is missing or impossible.

    Where more than half of the rows have no time, the column is removed from the frame instead. Where there
    are fractions of a second, they become the column `fraction` [0, 1), by which events are sorted.

    Raises:
        InputError: if date-times say no zone, or no time is possible.
    """
    raw = _at_once(sieve.frame[column], pl.Int64)
    if raw.dtype == pl.String:
        raw = cleaned(raw)
    sieve.frame = sieve.frame.with_columns(raw.alias(column))
    absent = raw.null_count()
    if absent > raw.len() / 2:
        sieve.frame = sieve.frame.drop(column)
        return [
            f"{absent} of {raw.len()} rows of {sieve.name} have no time in column {shown!r}: "
            "the times were left out altogether."
        ]
    sieve.drop(raw.is_null(), shown, "the time is missing")
    raw = sieve.frame[column]
    if raw.dtype == pl.String:
        seconds = _seconds_of_text(sieve, column, shown)
    elif isinstance(raw.dtype, pl.Datetime) and raw.dtype.time_zone is not None:
        seconds = raw.dt.epoch("s")
    elif raw.dtype.is_temporal():
        raise InputError(
            f"The times in column {shown!r} of {sieve.name} say no time zone: write UTC seconds, or "
            "date-times with their zone, such as 2024-05-01T12:00:00Z."
        )
    elif raw.dtype.is_numeric():
        sieve.drop(~raw.cast(pl.Float64).is_finite(), shown, "the time is not a finite number")
        raw = sieve.frame[column]
        seconds = raw.cast(pl.Int64) if _fits(raw.dtype) else _floored(raw.cast(pl.Float64))
    else:
        raise InputError(f"The times in column {shown!r} of {sieve.name} are neither numbers nor date-times.")
    # beside the raw values, which the reasons show as they are
    sieve.frame = sieve.frame.with_columns(seconds.alias("seconds"))
    sieve.drop(seconds < 0, shown, pl.format("the time {} is before 1970", column))
    sieve.drop(
        sieve.frame["seconds"] >= LATEST,
        shown,
        pl.format(
            "the time {} is after the year 2100: times are UTC seconds, and these look like milliseconds "
            "or finer; divide them",
            column,
        ),
    )
    fraction = _fraction(sieve.frame[column])
    if fraction is not None:
        sieve.frame = sieve.frame.with_columns(fraction.alias(FRACTION))
    sieve.frame = sieve.frame.with_columns(pl.col("seconds").alias(column)).drop("seconds")
    _refuse_calendar_numbers(sieve.frame[column], sieve.name, shown)
    latest = sieve.frame[column].max()
    if isinstance(latest, int) and latest < EARLY:
        return [
            f"All times in column {shown!r} of {sieve.name} lie before 1980, the latest is {latest}: they "
            "are taken as UTC seconds, and only their order is sure to mean anything."
        ]
    return []


def _at_once(raw: pl.Series, kind: type[pl.Int64 | pl.Float64]) -> pl.Series:
    """The texts of `raw` as numbers where every one of them is a number, else `raw` as it is.

    Cleaning ten million sound texts would take longer than reading them.
    """
    if raw.dtype != pl.String:
        return raw
    number = raw.cast(kind, strict=False)
    if number.null_count() or (kind is pl.Float64 and number.is_nan().any()):
        return raw
    return number


def _fits(kind: pl.DataType) -> bool:
    """Whether every value of the type is a whole number of 64 bits."""
    return kind.is_integer() and kind not in (pl.UInt64, pl.Int128, pl.UInt128)


def _floored(number: pl.Series) -> pl.Series:
    """Int64 of finite numbers; one too large for it stays an impossible time."""
    return number.floor().clip(-LATEST, LATEST).cast(pl.Int64)


def _fraction(raw: pl.Series) -> pl.Series | None:
    """What possible times have beyond whole seconds [0, 1); None where none has anything."""
    if raw.dtype == pl.String:
        if not raw.str.contains(r"[.eE]\d").any():
            return None
        number = raw.cast(pl.Float64, strict=False)
        within = (number - number.floor()).fill_null(_moments(raw).dt.nanosecond() / 1e9)
    elif raw.dtype.is_temporal():
        within = raw.dt.nanosecond() / 1e9
    elif raw.dtype.is_integer():
        return None
    else:
        within = raw.cast(pl.Float64) - raw.cast(pl.Float64).floor()
    within = within.round(6)  # what a number of today can hold beside the seconds
    return within if (within > 0).any() else None


def _seconds_of_text(sieve: Sieve, column: str, shown: str) -> pl.Series:
    text = sieve.frame[column]
    seconds = text.cast(pl.Int64, strict=False)
    if not seconds.null_count():
        return seconds
    number = text.cast(pl.Float64, strict=False)
    number = number.set(~number.is_finite(), None)
    seconds = seconds.fill_null(_floored(number))
    if seconds.null_count():
        seconds = seconds.fill_null(zoned_seconds(text))
    if seconds.null_count():
        with_seconds = sieve.frame.with_columns(seconds.alias("seconds"))
        sieve.frame = with_seconds
        like_date = text.str.contains(r"^\d{4}-\d\d?-\d\d?([T ][\d:.]+)?$")
        sieve.drop(
            seconds.is_null() & like_date,
            shown,
            pl.format("the date-time {} says no time zone; write it like 2024-05-01T12:00:00Z", column),
        )
        sieve.drop(
            sieve.frame["seconds"].is_null(),
            shown,
            pl.format(
                "{} is neither UTC seconds nor a date-time with its zone, like 2024-05-01T12:00:00Z", column
            ),
        )
        seconds = sieve.frame["seconds"]
        sieve.frame = sieve.frame.drop("seconds")
    return seconds


def zoned_seconds(text: pl.Series) -> pl.Series:
    """UTC seconds of ISO 8601 date-times that say their zone; null for all else."""
    return _moments(text).dt.epoch("s")


def _moments(text: pl.Series) -> pl.Series:
    even = (
        text.str
        .replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
        .str.replace(r"\s*(Z|z|UTC|GMT)$", "+00:00")
        .str.replace(r"(T\d\d:\d\d)([+-])", "${1}:00$2")
        .str.replace(r"([+-]\d\d)(\d\d)$", "$1:$2")
        .str.replace(r"(:\d\d(?:\.\d+)?)\s*([+-]\d\d)$", "$1$2:00")
        .str.replace(r"\s+([+-]\d\d:\d\d)$", "$1")
    )
    return even.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us", time_zone="UTC")


def _refuse_calendar_numbers(seconds: pl.Series, name: str, shown: str) -> None:
    """Refuse 20240501 and the like: read as seconds they would all fall into 1970."""
    low, high = seconds.min(), seconds.max()
    if not isinstance(low, int) or not isinstance(high, int) or low < 19_000_101 or high > 21_001_231:
        return
    day, month = seconds % 100, seconds // 100 % 100
    if day.is_between(1, 31).all() and month.is_between(1, 12).all():
        raise InputError(
            f"The times in column {shown!r} of {name} look like dates written as numbers ({low}): write UTC "
            "seconds, or date-times with their zone, such as 2024-05-01T00:00:00Z."
        )


def numbers(sieve: Sieve, column: str, shown: str) -> None:
    """Turn `column` into Float64 and set aside the rows that hold something else; missing stays missing."""
    raw = _at_once(sieve.frame[column], pl.Float64)
    sieve.frame = sieve.frame.with_columns(raw.alias(column))
    if raw.dtype == pl.String:
        raw = cleaned(raw)
        sieve.frame = sieve.frame.with_columns(raw.alias(column))
        number = raw.cast(pl.Float64, strict=False)
        sieve.drop(
            number.is_null() & raw.is_not_null(),
            shown,
            pl.format("the {} {} is not a number", pl.lit(column), column),
        )
    elif not raw.dtype.is_numeric() and raw.dtype not in (pl.Boolean, pl.Null):
        raise InputError(f"The column {shown!r} of {sieve.name} holds {raw.dtype}, not numbers.")
    number = sieve.frame[column].cast(pl.Float64)
    sieve.frame = sieve.frame.with_columns(number.alias(column))
    sieve.drop(
        (~number.cast(pl.Float32).is_finite()).fill_null(False),  # the width in which ratings are kept
        shown,
        pl.format("the {} {} is not finite, or too large", pl.lit(column), column),
    )


def rating_range(ratings: pl.Series) -> tuple[float, float] | None:
    """The rating scale that all but a few stray ratings keep to, or None where there is no such scale.

    A scale is believed only if its top value is common and what lies beyond is rare beside it: counts
    (plays, clicks) thin out gradually and are left alone.
    """
    values = ratings.drop_nulls().to_numpy()
    if len(values) < ENOUGH:
        return None
    for low, high in SCALES:
        outside = np.count_nonzero((values < low) | (values > high))
        at_top = np.count_nonzero(values == high)
        lone = (
            outside == 1
            and at_top >= COMMON * len(values)
            and bool(((values > 2 * high) | (values < low)).any())
        )
        if lone or (outside <= RARE * len(values) and outside <= 0.05 * at_top):
            return low, high
    return None


def ratings_in_range(sieve: Sieve, column: str, shown: str, declared: tuple[float, float] | None) -> None:
    """Set aside the rows whose rating is outside the declared range, or outside the scale all others keep."""
    ratings = sieve.frame[column]
    bounds = declared or rating_range(ratings)
    if bounds is None:
        return
    why = (
        "data.rating_range" if declared else "the scale of the others; data.rating_range can declare another"
    )
    sieve.drop(
        ((ratings < bounds[0]) | (ratings > bounds[1])).fill_null(False),
        shown,
        pl.format(
            "the rating {} is outside {} to {}, {}", column, *(pl.lit(each) for each in bounds), pl.lit(why)
        ),
    )
