"""Things with outside names and typed features: the items of a shop, or the people who come to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from llm4rec.errors import InputError
from llm4rec.types import Ints

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
    given stays. `key` is `item_id` for items and `user_id` for people.
    """

    table: pl.DataFrame
    fields: tuple[Field, ...] = ()
    key: str = "item_id"

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
        found = ids.cast(pl.String).replace_strict(self.ids, self._range, default=-1, return_dtype=pl.Int64)
        return found.fill_null(-1).to_numpy()

    def by_modality(self, modality: Modality) -> tuple[Field, ...]:
        """The fields read as `modality`, in table order."""
        return tuple(field for field in self.fields if field.modality == modality)

    def without(self, modality: Modality) -> Catalog:
        """The same rows with every field of one modality left out."""
        return replace(self, fields=tuple(f for f in self.fields if f.modality != modality))

    def take(self, rows: Ints) -> Catalog:
        """The named rows, renumbered from 0 in the order given."""
        return replace(self, table=self.table[rows])

    @cached_property
    def _range(self) -> pl.Series:
        return pl.Series(np.arange(self.table.height, dtype=np.int64))

    @cached_property
    def titles(self) -> pl.Series:
        """What to call each row when speaking to a person: its title or name, else its id."""
        for name in ("title", "name", "item_name", "product_title"):
            if name in self.table.columns:
                return self.table[name].cast(pl.String).fill_null(self.ids)
        return self.ids
