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
from torch import Tensor

from llm4rec.data.catalog import Catalog
from llm4rec.types import Array

RARE = "\x00rare"


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

        A zero vector counts as missing.
        """
        found: dict[str, Tokens] = {}
        for modality, names in self.fields.items():
            if modality == "categorical":
                found[modality] = self._categorical(catalog, names)
            elif modality == "numerical":
                found[modality] = self._numerical(catalog, names)
            else:
                stack = np.stack([np.nan_to_num(vectors[name]) for name in names], axis=1)
                values = torch.from_numpy(np.ascontiguousarray(stack, dtype=np.float32))
                found[modality] = Tokens(values, values.abs().sum(dim=2) > 0)
        return found

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
    """
    fields: dict[str, tuple[str, ...]] = {}
    vocabularies: dict[str, tuple[str, ...]] = {}
    most: dict[str, int] = {}
    for field in catalog.by_modality("categorical"):
        lists = catalog.table[field.name].list.unique(maintain_order=True)
        counts = lists.explode(keep_nulls=False, empty_as_null=False).value_counts()
        counts = counts.filter(pl.col("count") >= min_count).sort(
            ["count", field.name], descending=[True, False]
        )
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
