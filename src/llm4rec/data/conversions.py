"""A column's values in the type of their kind: null where one doesn't fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from llm4rec.data.catalog import Modality
from llm4rec.data.literals import listed
from llm4rec.data.texts import text_of

DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%d-%b-%Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%Y-%m-%dT%H:%M:%S",
                "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%:z")  # fmt: skip

_FULL_YEAR = r"\d{4}"

MOST = 0.95  # a column is of a kind if this share of its values is

_UNSUITED = (pl.Struct, pl.Binary, pl.Object)  # types of which nothing is a feature, in lists neither


def mean(values: pl.Series) -> float:
    """The mean, of truth values the share that is true; 0 of none."""
    found = values.cast(pl.Float64).mean()
    return found if isinstance(found, float) else 0.0


def as_kind(values: pl.Series, kind: Modality) -> pl.Series | None:
    """The values in the type of their kind, null where one doesn't fit; None where the type can't."""
    inner = values.dtype
    while isinstance(inner, pl.List | pl.Array):
        inner = inner.inner
    if isinstance(inner, _UNSUITED) or (isinstance(inner, pl.Duration) and kind in ("text", "categorical")):
        return None
    try:
        return _CONVERT[kind](values)
    except pl.exceptions.PolarsError:  # such as lists within lists
        return None


def _as_text(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List | pl.Array):
        lists = values.cast(pl.List(pl.String))
        joined = lists.list.drop_nulls().list.join(" ").str.strip_chars()
        return joined.set(joined == "", None) if len(joined) else joined
    return text_of(values)


def _as_categorical(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List | pl.Array):
        lists = values.cast(pl.List(pl.String))
    elif values.dtype == pl.String and mean(values.drop_nulls().str.contains(r"^\[.*\]$")) >= MOST:
        lists = listed(values)
    elif values.dtype == pl.String:
        lists = values.str.split("|")
    else:
        lists = text_of(values).to_frame("value").select(pl.concat_list("value")).to_series()
    words = pl.element().str.strip_chars()
    frame = lists.alias("lists").to_frame().select(pl.col("lists").list.eval(words.filter(words != "")))
    return frame.select(pl.col("lists").fill_null([])).to_series().cast(pl.List(pl.String))


def _as_numerical(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List | pl.Array):
        return pl.Series(values.name, [None] * len(values), dtype=pl.Float64)
    number = values.cast(pl.Float64, strict=False)
    return number.set((~number.is_finite()).fill_null(False), None)


def as_image(values: pl.Series) -> pl.Series:
    """Paths as they are, or vectors of the width that most have."""
    if values.dtype == pl.String:
        lists = mean(values.drop_nulls().str.contains(r"^\[")) >= MOST
        if not lists:
            return values
        values = (
            values.str
            .strip_chars("[] ")
            .str.split(",")
            .list.eval(pl.element().str.strip_chars().cast(pl.Float32, strict=False))
        )
    if not isinstance(values.dtype, pl.List | pl.Array):
        return pl.Series(values.name, [None] * len(values), dtype=pl.List(pl.Float32))
    vectors = values.cast(pl.List(pl.Float32), strict=False)
    lengths = vectors.list.len()
    usual = lengths.drop_nulls().mode().max()
    sound = (lengths == usual) & vectors.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    return pl.select(pl.when(sound).then(vectors)).to_series()


def _as_time(values: pl.Series) -> pl.Series:
    if values.dtype in (pl.Date, pl.Datetime):
        return values.cast(pl.Datetime("us")).dt.epoch("s")
    if values.dtype == pl.String:
        return of_dates(values).fill_null(values.cast(pl.Int64, strict=False))
    return (
        values.cast(pl.Int64, strict=False)
        if values.dtype.is_numeric()
        else _as_numerical(values).cast(pl.Int64)
    )


def of_dates(values: pl.Series) -> pl.Series:
    """UTC seconds of dates in one of the known forms; a date without a zone is taken as UTC."""
    seconds = pl.Series(values.name, [None] * len(values), dtype=pl.Int64)
    short = ~values.str.contains(_FULL_YEAR).fill_null(False)  # 1-3-24 would be a day of the year 1
    dated = values.set(short, None)
    for form in DATE_FORMATS:
        moment = dated.str.to_datetime(form, strict=False, time_zone="UTC", time_unit="us")
        seconds = seconds.fill_null(moment.dt.epoch("s"))
    return seconds


_CONVERT: Mapping[Modality, Callable[[pl.Series], pl.Series]] = {
    "text": _as_text,
    "categorical": _as_categorical,
    "numerical": _as_numerical,
    "image": as_image,
    "time": _as_time,
}
