"""Frozen item features as tokens: what the encoders read, computed once per item.

Each modality of an item is a set of tokens, padded and masked: one token per text field, per category
value, per numerical field, per image vector. A `TokenSpace` is what was learnt from the catalogue at
fit time (vocabularies, quantiles); it turns any later item into the same kind of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from pydantic import Field as Option
from torch import Tensor

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog
from llm4rec.errors import InputError
from llm4rec.types import Array

RARE = "\x00rare"


class TokenConfig(Section):
    """How much of a categorical column is read."""

    max_values: int = Option(
        default=64,
        ge=1,
        description="The most values of one column read per item, the first ones; later ones are left out "
        "[values].",
    )
    max_vocabulary: int = Option(
        default=50_000,
        ge=1,
        description="The most values of one column that get a vector of their own, commonest first; the rest "
        "share one [values].",
    )
    min_count: int = Option(
        default=2, ge=1, description="Items a value must occur in to get a vector of its own [items]."
    )

    @property
    def limits(self) -> dict[str, int]:
        """What `fit_tokens` and `cut_notes` are to be given."""
        return {name: getattr(self, name) for name in TokenConfig.model_fields}


@dataclass(frozen=True)
class Tokens:
    """One modality's tokens for every item.

    Attributes:
        values: [i, t, w] float vectors (text, image), [i, t] int64 codes (categorical, 0 is padding)
            or [i, t] float quantiles in 0..1 (numerical).
        mask: bool [i, t], true where there is a token.
    """

    values: Tensor
    mask: Tensor

    def take(self, items: Tensor) -> Tokens:
        """The tokens of the named items."""
        return Tokens(self.values[items], self.mask[items])

    @property
    def present(self) -> Tensor:
        """Whether an item has any token of this modality [i]."""
        return self.mask.any(dim=1)


@dataclass(frozen=True)
class TokenSpace:
    """What fixes the meaning of codes and quantiles.

    Attributes:
        fields: modality → names of its fields, in token order.
        vocabularies: categorical field → its known values; a code is 1 + the field's base + the place.
            The last entry of each stands for every value not seen at fit time.
        quantiles: numerical field → sorted cut points [q].
        most: categorical field → the most values one item may carry (later ones are left out).
        widths: modality → length of its frozen vectors (text, image).
    """

    fields: Mapping[str, tuple[str, ...]]
    vocabularies: Mapping[str, tuple[str, ...]]
    quantiles: Mapping[str, tuple[float, ...]]
    most: Mapping[str, int]
    widths: Mapping[str, int]

    @property
    def n_codes(self) -> int:
        """Rows of the categorical embedding table, padding included."""
        return 1 + sum(len(values) for values in self.vocabularies.values())

    def transform(self, catalog: Catalog, vectors: Mapping[str, Array]) -> dict[str, Tokens]:
        """Tokens of every row of `catalog`; `vectors` holds the frozen vectors [i, w] of each vector field.

        A zero vector counts as missing, and so does a field that is not there.

        Raises:
            InputError: where vectors are not as long as those at fit time.
        """
        found: dict[str, Tokens] = {}
        for modality, names in self.fields.items():
            if modality == "categorical":
                found[modality] = self._categorical(catalog, names)
            elif modality == "numerical":
                found[modality] = self._numerical(catalog, names)
            else:
                found[modality] = self._vectors(len(catalog), names, vectors, self.widths[modality])
        return found

    def _vectors(
        self, n_items: int, names: tuple[str, ...], vectors: Mapping[str, Array], width: int
    ) -> Tokens:
        for name in names:
            if name in vectors and vectors[name].shape[1] != width:
                raise InputError(
                    f"The vectors of the column {name!r} have {vectors[name].shape[1]} values, but the model "
                    f"was fitted with {width}: give vectors of the same kind."
                )
        absent = np.zeros((n_items, width), dtype=np.float32)
        stack = np.stack([np.nan_to_num(vectors.get(name, absent)) for name in names], axis=1)
        values = torch.from_numpy(np.ascontiguousarray(stack, dtype=np.float32))
        return Tokens(values, values.abs().sum(dim=2) > 0)

    def _categorical(self, catalog: Catalog, names: tuple[str, ...]) -> Tokens:
        columns: list[Array] = []
        base = 1
        for name in names:
            known = self.vocabularies[name]
            most = self.most[name]
            codes = np.zeros((len(catalog), most), dtype=np.int64)
            if name in catalog.table.columns:
                lists = catalog.table[name].list.unique(maintain_order=True).list.head(most)
                lengths = lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
                flat = lists.explode(keep_nulls=False, empty_as_null=False)
                places = flat.replace_strict(
                    list(known[:-1]),
                    list(range(len(known) - 1)),
                    default=len(known) - 1,
                    return_dtype=pl.Int64,
                )
                rows = np.repeat(np.arange(len(catalog)), lengths)
                columns_of = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                codes[rows, columns_of] = base + places.to_numpy()
            columns.append(codes)
            base += len(known)
        values = torch.from_numpy(np.concatenate(columns, axis=1))
        return Tokens(values, values > 0)

    def _numerical(self, catalog: Catalog, names: tuple[str, ...]) -> Tokens:
        columns: list[Array] = []
        for name in names:
            cuts = np.array(self.quantiles[name])
            if name in catalog.table.columns:
                raw = catalog.table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            else:
                raw = np.full(len(catalog), np.nan)
            # the middle of ties: equal cut points share one place, wherever a repeated value sits
            place = (np.searchsorted(cuts, raw, "left") + np.searchsorted(cuts, raw, "right")) / 2
            columns.append(np.where(np.isfinite(raw), place / len(cuts), np.nan))
        stacked = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        return Tokens(stacked.nan_to_num(), ~stacked.isnan())


def fit_tokens(
    catalog: Catalog, vectors: Mapping[str, Array], *, max_values: int, max_vocabulary: int, min_count: int
) -> TokenSpace:
    """Learn vocabularies and quantiles from a catalogue.

    Args:
        catalog: the items.
        vectors: frozen vectors [i, w] of each text and image field.
        max_values: the most category values of one field an item keeps.
        max_vocabulary: the most values of one field that get a code of their own, commonest first.
        min_count: rows a value must occur in to get a code of its own.

    `cut_notes` says what the two limits leave out.
    """
    fields: dict[str, tuple[str, ...]] = {}
    vocabularies: dict[str, tuple[str, ...]] = {}
    most: dict[str, int] = {}
    for field in catalog.by_modality("categorical"):
        lists, counts = _values(catalog, field.name, min_count)
        counts = counts.sort(["count", field.name], descending=[True, False])
        vocabularies[field.name] = (*counts[field.name].head(max_vocabulary).to_list(), RARE)
        longest = lists.list.len().max()
        most[field.name] = max(1, min(int(longest) if isinstance(longest, int) else 1, max_values))
    if vocabularies:
        fields["categorical"] = tuple(vocabularies)
    numbers = catalog.by_modality("numerical") + catalog.by_modality("time")
    quantiles: dict[str, tuple[float, ...]] = {}
    for field in numbers:
        values = catalog.table[field.name].cast(pl.Float64).drop_nulls().to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            quantiles[field.name] = tuple(np.quantile(values, np.linspace(0, 1, 101)).tolist())
    if quantiles:
        fields["numerical"] = tuple(quantiles)
    widths: dict[str, int] = {}
    for modality in ("text", "image"):
        names = tuple(f.name for f in catalog.fields if f.modality == modality and f.name in vectors)
        if names:
            fields[modality] = names
            widths[modality] = int(vectors[names[0]].shape[1])
    return TokenSpace(fields, vocabularies, quantiles, most, widths)


def _values(catalog: Catalog, name: str, min_count: int) -> tuple[pl.Series, pl.DataFrame]:
    """Each row's distinct values of one column, and the rows of those that occur in `min_count` or more."""
    lists = catalog.table[name].list.unique(maintain_order=True)
    counts = lists.explode(keep_nulls=False, empty_as_null=False).value_counts()
    return lists, counts.filter(pl.col("count") >= min_count)


def cut_notes(catalog: Catalog, *, max_values: int, max_vocabulary: int, min_count: int) -> list[str]:
    """A sentence for each categorical column that `fit_tokens` with these limits reads in part."""
    rows = "item" if catalog.key == "item_id" else "person"
    notes: list[str] = []
    for field in catalog.by_modality("categorical"):
        lists, counts = _values(catalog, field.name, min_count)
        lengths = lists.list.len().fill_null(0).to_numpy()
        n_cut = int((lengths > max_values).sum())
        if n_cut:
            plural = rows if n_cut == 1 else "items" if rows == "item" else "people"
            notes.append(
                f"The column {field.name} has up to {lengths.max():,} values per {rows}; the first "
                f"{max_values:,} are read, which leaves something out for {n_cut:,} {plural} "
                "(encode.max_values)."
            )
        if len(counts) > max_vocabulary:
            notes.append(
                f"The column {field.name} has {len(counts):,} values that occur at least {min_count} times; "
                f"the commonest {max_vocabulary:,} get a vector of their own and the rest share one "
                "(encode.max_vocabulary)."
            )
    return notes
