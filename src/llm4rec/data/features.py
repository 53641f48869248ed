"""What kind of feature each column of an items or users table is, and its values in that kind's type."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from llm4rec.data.catalog import Field, Modality
from llm4rec.data.columns import words_of
from llm4rec.data.literals import listed
from llm4rec.data.texts import cleaned, text_of
from llm4rec.errors import InputError

Declared = Modality | Literal["ignore"]

TEXT_NAMES = (
    "title", "name", "description", "text", "summary", "plot", "overview", "abstract", "review", "headline",
    "caption", "tagline", "lyrics", "about", "bio", "body",
)  # fmt: skip
CATEGORY_NAMES = (
    "brand", "genre", "genres", "category", "categories", "tag", "tags", "color", "colour", "department",
    "division", "class", "country", "language", "author", "artist", "publisher", "store", "occupation",
    "city", "state", "attributes", "gender",
)  # fmt: skip
IMAGE_NAMES = ("image", "img", "photo", "picture", "poster", "thumbnail", "cover")
TIME_NAMES = ("timestamp", "time", "date", "created", "updated", "released", "published")
CODE_NAMES = (
    "id", "ids", "zip", "zipcode", "postcode", "postal", "phone", "isbn", "ean", "upc", "code", "sku",
)  # fmt: skip
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%d-%b-%Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%Y-%m-%dT%H:%M:%S",
                "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%:z")  # fmt: skip

MOST = 0.95  # a column is of a kind if this share of its values is
NEAR_UNIQUE = 0.8  # distinct values per row above which a plain string is an id, not a category
REPEATING = 0.5  # distinct values per row up to which strings are categories
LONG = 40  # mean characters from which strings are prose
MANY_WORDS = 5  # mean words, likewise
SHORTEST_VECTOR = 2  # a list of fewer numbers is no vector

_UNSUITED = (pl.Struct, pl.Binary, pl.Object)  # types of which nothing is a feature, in lists neither


@dataclass(frozen=True)
class Features:
    """A table with typed feature columns (as `catalog.Field` says) and sentences on what was decided."""

    table: pl.DataFrame
    fields: tuple[Field, ...]
    notes: tuple[str, ...]


def read_features(
    table: pl.DataFrame,
    name: str,
    *,
    typed: bool,
    declared: Mapping[str, Declared] = {},
    leave: Collection[str] = (),
) -> Features:
    """Give each column a modality, declared or inferred, and convert it.

    Args:
        table: the rows with all columns; those that are no features stay as they are.
        name: the source, for messages.
        typed: whether the source tells numbers from text; where it does, digits in text are codes.
        declared: column → modality or "ignore".
        leave: columns that are never features (the key, protected ones).

    Raises:
        InputError: if a column can't be read as it is declared.
    """
    fields: list[Field] = []
    notes: list[str] = []
    ignored: list[str] = []
    for column in table.columns:
        if column in leave:
            continue
        values = trimmed(table[column])
        kind = declared.get(column) or infer(values, typed=typed)
        if kind == "ignore":
            ignored.append(f"{column} ({'as declared' if column in declared else _why_ignored(values)})")
            continue
        converted = as_kind(values, kind)
        n_given = len(values) - values.null_count()
        n_read = 0 if converted is None else len(converted) - converted.null_count()
        lost = n_given - n_read if kind != "categorical" else 0  # there, what is missing is an empty list
        if converted is None or (lost and not n_read):
            raise InputError(
                f"The column {column!r} of {name} can't be read as {kind}: none of its values fits."
            )
        if lost:
            notes.append(f"{lost} values in column {column!r} of {name} are not {kind} and count as missing.")
        table = table.with_columns(converted.alias(column))
        fields.append(Field(column, kind))
    if fields:
        listing = ", ".join(f"{field.name} ({field.modality})" for field in fields)
        notes.insert(0, f"Features of {name}: {listing}.")
    if ignored:
        notes.append(f"Columns of {name} not used as features: {', '.join(ignored)}.")
    return Features(table, tuple(fields), tuple(notes))


def infer(values: pl.Series, *, typed: bool) -> Declared:
    """The modality of one column by its type, its values and its name, or "ignore"."""
    present = values.drop_nulls()
    if not len(present) or isinstance(values.dtype, pl.Struct | pl.Object):
        return "ignore"
    if values.dtype == pl.Boolean:
        return "categorical"
    if values.dtype in (pl.Date, pl.Datetime):
        return "time"
    if values.dtype.is_numeric():
        return _infer_number(present)
    if isinstance(values.dtype, pl.List | pl.Array):
        return _infer_list(present)
    if values.dtype == pl.String:
        return _infer_string(present, typed)
    return "categorical" if values.dtype in (pl.Categorical, pl.Enum) else "ignore"


def _why_ignored(values: pl.Series) -> str:
    """Why `infer` makes nothing of these values, in few words."""
    present, kind = values.drop_nulls(), values.dtype
    if not len(present):
        return "empty"
    if isinstance(kind, pl.List | pl.Array):
        return "lists, but not of words, of whole numbers, or of enough numbers and as many in each"
    if kind != pl.String and not kind.is_numeric():
        return f"of the type {kind.base_type()}"
    if present.n_unique() == 1:
        return "one value throughout"
    if kind == pl.String and _mean(present.str.contains("://", literal=True)) > REPEATING:
        return "links"
    return "mostly distinct, like ids" if present.n_unique() > REPEATING * len(present) else "of no kind"


def _named(name: str, names: Collection[str]) -> bool:
    words = words_of(name)
    return any(word in names for word in words) or "".join(words) in names


def _infer_number(present: pl.Series) -> Declared:
    if present.n_unique() == 1 and len(present) > 1:
        return "ignore"
    if _named(present.name, CODE_NAMES):
        return "categorical" if present.n_unique() <= REPEATING * len(present) else "ignore"
    low, high = present.cast(pl.Float64).min(), present.cast(pl.Float64).max()
    if _named(present.name, TIME_NAMES) and isinstance(low, float) and isinstance(high, float):
        return "time" if low >= 1e8 and high < 4.2e9 else "numerical"
    return "numerical"


def _infer_list(present: pl.Series) -> Declared:
    inner = present.explode(keep_nulls=False, empty_as_null=False).dtype
    if inner.is_float():
        lengths = present.list.len() if isinstance(present.dtype, pl.List) else present.arr.len()
        return "image" if lengths.n_unique() == 1 and (lengths[0] or 0) >= SHORTEST_VECTOR else "ignore"
    if inner == pl.String and _named(present.name, TEXT_NAMES):
        return "text"
    return "categorical" if inner == pl.String or inner.is_integer() or inner == pl.Boolean else "ignore"


def _infer_string(present: pl.Series, typed: bool) -> Declared:  # one test per kind, in order
    name, n = present.name, len(present)
    if _mean(present.str.contains(r"(?i)\.(jpe?g|png|webp)$")) >= MOST and _named(name, IMAGE_NAMES):
        return "image" if not _mean(present.str.contains("://")) else "ignore"
    if _mean(present.str.contains(r"^\w+://")) >= NEAR_UNIQUE:
        return "ignore"
    if _mean(present.str.contains(r"^\[.*\]$")) >= MOST:
        numbers = _mean(present.str.contains(r"^\[[\s\d.,eE+-]+\]$")) >= MOST
        return "image" if numbers and _as_image(present).null_count() < n else "categorical"
    if not typed and not _named(name, CODE_NAMES) and _mean(_numeric(present)) >= MOST:
        return _infer_number(present.cast(pl.Float64, strict=False).drop_nulls())
    if _mean(present.str.contains(r"\d")) >= MOST and _of_dates(present).null_count() <= (1 - MOST) * n:
        return "time"
    if _named(name, TEXT_NAMES):
        return "text"
    if _named(name, CATEGORY_NAMES) or _mean(present.str.contains("|", literal=True)) > 1 - MOST:
        return "categorical"
    distinct = present.n_unique()
    prose = _mean(present.str.len_chars()) >= LONG or _mean(present.str.count_matches(" ")) >= MANY_WORDS - 1
    if prose and distinct > REPEATING * n:
        return "text"
    if distinct == 1 and n > 1:
        return "ignore"
    if distinct <= REPEATING * n:
        return "categorical"
    if _mean(present.str.contains(" ", literal=True)) >= 1 - NEAR_UNIQUE:
        return "text"
    return "categorical" if distinct <= NEAR_UNIQUE * n and not _named(name, CODE_NAMES) else "ignore"


def _mean(values: pl.Series) -> float:
    mean = values.cast(pl.Float64).mean()
    return mean if isinstance(mean, float) else 0.0


def _numeric(present: pl.Series) -> pl.Series:
    """Which strings are numbers; codes such as 007 are not."""
    return present.str.contains(r"^[+-]?(0|[1-9]\d*|0?\.\d+|\d+\.\d*)([eE][+-]?\d+)?$")


def trimmed(values: pl.Series) -> pl.Series:
    """The values with texts stripped of blanks, null where nothing is left."""
    return cleaned(values) if values.dtype == pl.String else values


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
    elif values.dtype == pl.String and _mean(values.drop_nulls().str.contains(r"^\[.*\]$")) >= MOST:
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


def _as_image(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        lists = _mean(values.drop_nulls().str.contains(r"^\[")) >= MOST
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
        return _of_dates(values).fill_null(values.cast(pl.Int64, strict=False))
    return (
        values.cast(pl.Int64, strict=False)
        if values.dtype.is_numeric()
        else _as_numerical(values).cast(pl.Int64)
    )


def _of_dates(values: pl.Series) -> pl.Series:
    """UTC seconds of dates in one of the known forms; a date without a zone is taken as UTC."""
    seconds = pl.Series(values.name, [None] * len(values), dtype=pl.Int64)
    for form in DATE_FORMATS:
        moment = values.str.to_datetime(form, strict=False, time_zone="UTC", time_unit="us")
        seconds = seconds.fill_null(moment.dt.epoch("s"))
    return seconds


_CONVERT: Mapping[Modality, Callable[[pl.Series], pl.Series]] = {
    "text": _as_text,
    "categorical": _as_categorical,
    "numerical": _as_numerical,
    "image": _as_image,
    "time": _as_time,
}
