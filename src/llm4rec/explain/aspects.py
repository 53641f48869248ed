"""What somebody is likely to take next, in the catalogue's own words: p_u = softmax(W_p h_u), equation (19).

An aspect is a value of a categorical field (genres = Comedy, brand = 3M). q_i shares an item evenly among the
aspects it has; `learning` trains W_p to predict that of the next item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import Field as Option
from torch import Tensor

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog
from llm4rec.types import Array, Floats, Ints


class ExplainConfig(Section):
    """What reasons are made of (section `explain`)."""

    aspects: int = Option(
        default=1000,
        ge=0,
        le=10_000,
        description="Values of the items' categorical fields that preferences are told in, the most common "
        "ones; 0 leaves preferences out.",
    )
    fewest: int = Option(
        default=5, ge=1, description="Items that have to have a value before it is such an aspect."
    )
    correction: float = Option(
        default=0.9,
        ge=0,
        lt=1,
        description="Reliability of what people say they want more or less of, beside what their history "
        "says; 0 lets it change nothing.",
    )


@dataclass(frozen=True)
class Vocabulary:
    """The aspects, and which items have them.

    Attributes:
        fields: the categorical field of each aspect [k].
        values: its value there [k].
        offsets: int64 [i + 1], where each item's aspects begin.
        aspects: int64 [nnz], the aspects of each item, ascending.
    """

    fields: tuple[str, ...]
    values: tuple[str, ...]
    offsets: Ints
    aspects: Ints

    @classmethod
    def of(cls, catalog: Catalog, config: ExplainConfig) -> Self:
        """The most common `config.aspects` of the values that at least `config.fewest` items have.

        Of equally common ones the first by field, then by value, is taken. They are in the order of the
        fields in the catalogue, and of their values within a field.
        """
        names = [field.name for field in catalog.by_modality("categorical")]
        counts = [
            _pairs(catalog, name).group_by("value").len().with_columns(place=pl.lit(place))
            for place, name in enumerate(names)
        ]
        if not counts or not config.aspects:
            return cls.over(catalog, (), ())
        common = pl.concat(counts).filter(pl.col("len") >= config.fewest)
        chosen = common.sort(["len", "place", "value"], descending=[True, False, False]).head(config.aspects)
        chosen = chosen.sort(["place", "value"])
        fields = tuple(names[place] for place in chosen["place"].to_list())
        return cls.over(catalog, fields, tuple(chosen["value"].to_list()))

    @classmethod
    def over(cls, catalog: Catalog, fields: Sequence[str], values: Sequence[str]) -> Self:
        """Given aspects, and which items of a catalogue have them: it may have grown or changed.

        Raises:
            ValueError: where a field is not a categorical one of the catalogue, or an aspect is named twice.
        """
        usable = {field.name for field in catalog.by_modality("categorical")}
        if unknown := [name for name in fields if name not in usable]:
            raise ValueError(f"the field {unknown[0]!r} of an aspect is no categorical one of the items")
        named = list(zip(fields, values, strict=True))
        if len(set(named)) < len(named):
            raise ValueError("an aspect is named twice")
        schema = {"field": pl.String, "value": pl.String}
        wanted = pl.DataFrame(named, schema=schema, orient="row").with_row_index("aspect")
        found = [
            _pairs(catalog, name)
            .join(wanted.filter(pl.col("field") == name), on="value")
            .select("item", "aspect")
            for name in dict.fromkeys(fields)
        ]
        if not found:
            empty = np.zeros(0, dtype=np.int64)
            return cls((), (), np.zeros(len(catalog) + 1, dtype=np.int64), empty)
        held = pl.concat(found).sort("item", "aspect")
        counts = np.bincount(held["item"].to_numpy(), minlength=len(catalog))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(tuple(fields), tuple(values), offsets, held["aspect"].to_numpy().astype(np.int64))

    def __len__(self) -> int:
        return len(self.fields)

    def of_item(self, item: int) -> Ints:
        """The aspects of one item, ascending."""
        return self.aspects[self.offsets[item] : self.offsets[item + 1]]

    def q(self, items: Ints) -> Floats:
        """Of each item, its q [n, k]: 1/m for each of its m aspects; a row of zeros where it has none."""
        counts = np.diff(self.offsets)[items]
        rows = np.repeat(np.arange(len(items)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = np.zeros((len(items), len(self)), dtype=np.float32)
        found[rows, self.aspects[np.repeat(self.offsets[items], counts) + within]] = 1 / counts[rows]
        return found

    def shares(self, p: Floats) -> Array:
        """Σ p over the aspects of each item [i], of p [k]; 0 where it has none."""
        n_items = len(self.offsets) - 1
        rows = np.repeat(np.arange(n_items), np.diff(self.offsets))
        return np.bincount(rows, p[self.aspects], minlength=n_items)


@dataclass(frozen=True)
class Aspects:
    """What a state says of the aspects of the next item.

    Attributes:
        fields: the categorical field of each aspect [k].
        values: its value there [k].
        weights: W_p [k, d].
        bias: what an aspect has beside it [k] (nats).
        rates: the mean of q over what people took [k], without any state; they sum to 1.
    """

    fields: tuple[str, ...]
    values: tuple[str, ...]
    weights: Floats
    bias: Floats
    rates: Floats

    def __len__(self) -> int:
        return len(self.fields)

    @cached_property
    def places(self) -> dict[tuple[str, str], int]:
        """Field and value → number of the aspect."""
        named = zip(self.fields, self.values, strict=True)
        return {name: place for place, name in enumerate(named)}

    def preferences(self, states: Tensor) -> Floats:
        """p_u [b, k] of states h_u [b, d], asked at no time, equation (19); rows sum to 1."""
        logits = states.detach().numpy() @ self.weights.T + self.bias
        found = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)

    def vocabulary(self, catalog: Catalog) -> Vocabulary:
        """The aspects with the items of a catalogue.

        Raises:
            ValueError: where its fields are other ones.
        """
        return Vocabulary.over(catalog, self.fields, self.values)

    def tensors(self) -> dict[str, Array]:
        """The arrays of an artefact; `from_tensors` reads them."""
        return {"weights": self.weights, "bias": self.bias, "rates": self.rates}

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """What an artefact holds of it beside the arrays."""
        return {"fields": self.fields, "values": self.values}

    @classmethod
    def from_tensors(
        cls, arrays: Mapping[str, Array], named: Mapping[str, Sequence[str]], catalog: Catalog, size: int
    ) -> Self:
        """What `tensors` and `named` gave, for the items of `catalog` and states of `size` d.

        Raises:
            ValueError: saying what is wrong with them.
        """
        fields, values = (tuple(named[name]) if name in named else () for name in ("fields", "values"))
        given: tuple[Any, ...] = (*fields, *values)  # whatever their type promises
        if not fields or len(fields) != len(values) or not all(isinstance(name, str) for name in given):
            raise ValueError("aspects are not named by a field and a value each")
        shapes = {"weights": (len(fields), size), "bias": (len(fields),), "rates": (len(fields),)}
        found = cls(fields, values, **arrays)
        for name, shape in shapes.items():
            array = arrays[name]
            if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
                is_now = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"{name} of aspects is {is_now}, not finite float32 {list(shape)}")
        if (found.rates <= 0).any():
            raise ValueError("rates of aspects are not all above 0")
        found.vocabulary(catalog)
        return found


def _pairs(catalog: Catalog, name: str) -> pl.DataFrame:
    """(value, item), each once, of a categorical field."""
    lists = catalog.table[name]
    lengths = lists.list.len().fill_null(0).to_numpy()
    values = lists.explode(keep_nulls=False, empty_as_null=False)
    return pl.DataFrame({"value": values, "item": np.repeat(np.arange(len(lists)), lengths)}).unique()
