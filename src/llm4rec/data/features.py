"""What kind of feature each column of an items or users table is, and its values in that kind's type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from llm4rec.data.catalog import Field, Modality
from llm4rec.data.columns import words_of
from llm4rec.data.conversions import MOST, as_image, as_kind, mean, of_dates
from llm4rec.data.texts import cleaned
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
FOREIGN_FORMS = (
    (
        r"^[+-]?(0,\d+|(\d{1,3}(\.\d{3})+|\d+),(\d{1,2}|\d{4,}))$",
        "numbers with a decimal comma: write 3.50",
    ),
    (r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$", "numbers with commas between thousands: write 1000"),
    (
        r"^[+-]?([$€£¥]\s*\d[\d.,]*|\d[\d.,]*\s*([$€£¥%]|EUR|USD|GBP|JPY|CHF))$",
        "numbers with a currency or a unit: write the number alone",
    ),
    (
        r"^(0?[1-9]|[12]\d|3[01])([./-](0?[1-9]|[12]\d|3[01])[./-]\d{4}|/(0?[1-9]|[12]\d|3[01])/\d\d)\b",
        "dates whose day and month may be mistaken: write 2024-03-01",
    ),
    (r"^\d{4}\.\d{1,2}\.\d{1,2}\b", "dates with points: write 2024-03-01"),
)  # as people write what is not read, and how it would be

NEAR_UNIQUE = 0.8  # distinct values per row above which a plain string is an id, not a category
REPEATING = 0.5  # distinct values per row up to which strings are categories
LONG = 40  # mean characters from which strings are prose
MANY_WORDS = 5  # mean words, likewise
SHORTEST_VECTOR = 2  # a list of fewer numbers is no vector


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
    strange = present.filter(~_numeric(present)) if kind == pl.String else present.clear()
    few = len(strange) <= (1 - MOST) * len(present)  # such as marks of what is missing, among numbers
    if (present.cast(pl.Float64, strict=False).drop_nulls() if few else present).n_unique() == 1:
        return "one value throughout"
    if kind == pl.String and mean(present.str.contains("://", literal=True)) > REPEATING:
        return "links"
    for form, why in () if few else FOREIGN_FORMS:
        if mean(strange.str.contains(form)) > REPEATING:
            return why
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
    if mean(present.str.contains(r"(?i)\.(jpe?g|png|webp)$")) >= MOST and _named(name, IMAGE_NAMES):
        return "image" if not mean(present.str.contains("://")) else "ignore"
    if mean(present.str.contains(r"^\w+://")) >= NEAR_UNIQUE:
        return "ignore"
    if mean(present.str.contains(r"^\[.*\]$")) >= MOST:
        numbers = mean(present.str.contains(r"^\[[\s\d.,eE+-]+\]$")) >= MOST
        return "image" if numbers and as_image(present).null_count() < n else "categorical"
    if not typed and not _named(name, CODE_NAMES) and mean(_numeric(present)) >= MOST:
        return _infer_number(present.cast(pl.Float64, strict=False).drop_nulls())
    if mean(present.str.contains(r"\d")) >= MOST and of_dates(present).null_count() <= (1 - MOST) * n:
        return "time"
    if _named(name, TEXT_NAMES):
        return "text"
    if _named(name, CATEGORY_NAMES) or mean(present.str.contains("|", literal=True)) > 1 - MOST:
        return "categorical"
    distinct = present.n_unique()
    prose = mean(present.str.len_chars()) >= LONG or mean(present.str.count_matches(" ")) >= MANY_WORDS - 1
    if prose and distinct > REPEATING * n:
        return "text"
    if distinct == 1 and n > 1:
        return "ignore"
    if distinct <= REPEATING * n:
        return "categorical"
    if mean(present.str.contains(" ", literal=True)) >= 1 - NEAR_UNIQUE:
        return "text"
    return "categorical" if distinct <= NEAR_UNIQUE * n and not _named(name, CODE_NAMES) else "ignore"


def _numeric(present: pl.Series) -> pl.Series:
    """Which strings are numbers; codes such as 007 are not."""
    return present.str.contains(r"^[+-]?(0|[1-9]\d*|0?\.\d+|\d+\.\d*)([eE][+-]?\d+)?$")


def trimmed(values: pl.Series) -> pl.Series:
    """The values with texts stripped of blanks, null where nothing is left."""
    return cleaned(values) if values.dtype == pl.String else values
