"""Things with outside names and typed features: the items of a shop, or the people who come to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from llm4rec.data.texts import text_of
from llm4rec.errors import InputError
from llm4rec.types import Ints

FEW = 1000  # names up to which a kept dictionary answers sooner than a join, which is built on every call

Modality = Literal["text", "categorical", "numerical", "image", "time"]


@dataclass(frozen=True)
class Field:
    """One column of features and how it is to be read.

    Column types in the table: `text` String; `categorical` List(String), one entry per value, empty
    where missing; `numerical` Float64 with null where missing; `image` Array/List(Float32) vectors
    (null where missing) or String paths; `time` Int64 UTC seconds.
    """

    name: str
    modality: Modality


@dataclass(frozen=True)
class Catalog:
    """Rows known by an outside name (`key` column, unique strings), in dense order, with typed fields.

    The dense number of a row is its position; rows are only ever added at the end, so a number once
    given stays. `key` is `item_id` for items and `user_id` for people. `retired` are the numbers, ascending,
    of rows that histories may name and no answer does.
    """

    table: pl.DataFrame
    fields: tuple[Field, ...] = ()
    key: str = "item_id"
    retired: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        ids = self.table[self.key]
        if ids.null_count() or ids.n_unique() != len(ids):
            raise InputError(f"The column {self.key!r} must name each row once, without nulls.")

    def __len__(self) -> int:
        return self.table.height

    @property
    def ids(self) -> pl.Series:
        """The outside names [i], in dense order."""
        return self.table[self.key]

    def numbers(self, ids: pl.Series) -> Ints:
        """Dense numbers of outside names; -1 where a name is not in the catalogue."""
        if len(ids) <= FEW:
            places = [self._places.get(name, -1) for name in ids.cast(pl.String).to_list()]
            return np.array(places, dtype=np.int64)
        found = ids.cast(pl.String).replace_strict(self.ids, self._range, default=-1, return_dtype=pl.Int64)
        return found.fill_null(-1).to_numpy()

    def having(self, name: str, values: Sequence[str]) -> Ints:
        """Numbers, ascending, of the rows that have any of `values` in the categorical field `name`.

        Raises:
            InputError: where there is no such field, or it is of another kind.
        """
        if name not in self._holders:
            usable = ", ".join(f.name for f in self.by_modality("categorical")) or "none"
            kinds = [f.modality for f in self.fields if f.name == name]
            wrong = f"is {kinds[0]}, not categorical" if kinds else "is no field of the catalogue"
            raise InputError(f"Items can't be chosen by {name!r}, which {wrong}. Fields for that: {usable}.")
        holders = self._holders[name]
        found = [holders[value] for value in dict.fromkeys(values) if value in holders]
        if len(found) == 1:
            return found[0]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def by_modality(self, modality: Modality) -> tuple[Field, ...]:
        """The fields read as `modality`, in table order."""
        return tuple(field for field in self.fields if field.modality == modality)

    def without(self, modality: Modality) -> Catalog:
        """The same rows with every field of one modality left out."""
        return replace(self, fields=tuple(f for f in self.fields if f.modality != modality))

    def take(self, rows: Ints) -> Catalog:
        """The named rows, renumbered from 0 in the order given."""
        retired = np.flatnonzero(np.isin(rows, self.retired))
        return replace(self, table=self.table[rows], retired=retired)

    @cached_property
    def _range(self) -> pl.Series:
        return pl.Series(np.arange(self.table.height, dtype=np.int64))

    @cached_property
    def _places(self) -> dict[str, int]:
        return dict(zip(self.ids.cast(pl.String).to_list(), range(self.table.height), strict=True))

    @cached_property
    def _holders(self) -> dict[str, dict[str, Ints]]:
        """Categorical field → value → numbers of the rows that have it, ascending."""
        return {field.name: _holders(self.table[field.name]) for field in self.by_modality("categorical")}

    @cached_property
    def titles(self) -> pl.Series:
        """What to call each row when speaking to a person: its title or name, else its id."""
        for name in ("title", "name", "item_name", "product_title"):
            if name in self.table.columns:
                called = _called(self.table[name])
                named = called.str.strip_chars() != ""
                return called.zip_with(named.fill_null(False), self.ids.cast(pl.String)).alias(name)
        return self.ids.cast(pl.String)


def _holders(lists: pl.Series) -> dict[str, Ints]:
    """Value → numbers, ascending, of the rows of lists that hold it."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    values = lists.explode(keep_nulls=False, empty_as_null=False)
    pairs = pl.DataFrame({"value": values, "row": np.repeat(np.arange(len(lists)), lengths)})
    grouped = pairs.unique().sort("row").group_by("value", maintain_order=True).agg("row")
    return dict(zip(grouped["value"].to_list(), (rows.to_numpy() for rows in grouped["row"]), strict=True))


def _called(values: pl.Series) -> pl.Series:
    """Values of any type as text for a person, null where one can't be; a list's entries between commas."""
    if not isinstance(values.dtype, pl.List | pl.Array):
        return text_of(values)
    lists = values if isinstance(values.dtype, pl.List) else values.arr.to_list()
    places = np.arange(len(lists))
    owners = np.repeat(places, lists.list.len().fill_null(0).to_numpy())
    words = text_of(lists.explode(keep_nulls=False, empty_as_null=False))
    entries = pl.DataFrame({"place": owners, "word": words}).drop_nulls()
    joined = entries.group_by("place", maintain_order=True).agg(pl.col("word").str.join(", "))
    rows = pl.DataFrame({"place": places})
    return rows.join(joined, on="place", how="left", maintain_order="left")["word"]
