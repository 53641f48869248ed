"""Frozen vectors of the fields that are vectors: text through a sentence encoder, images as given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.encode.cache import default_cache, encode_cached
from llm4rec.encode.text import TextConfig, open_encoder
from llm4rec.errors import InputError
from llm4rec.types import Array, Floats, Progress, silent


@dataclass(frozen=True)
class FrozenVectors:
    """Vectors [i, w] by field name, the encoder that made those of text, and what there is to say.

    Attributes:
        by_field: one row per row of the catalogue; zeros where the field is missing.
        encoder: the name of the text encoder, by which it is opened again; None without text fields.
        notes: sentences for the user.
    """

    by_field: dict[str, Floats]
    encoder: str | None = None
    notes: list[str] = field(default_factory=list)


def frozen_vectors(catalog: Catalog, config: TextConfig, *, progress: Progress = silent) -> FrozenVectors:
    """Encode every text field and stack every image field of a catalogue.

    Raises:
        InputError: where the vectors of one image field differ in length.
    """
    found: dict[str, Floats] = {}
    notes: list[str] = []
    texts = {f.name: catalog.table[f.name].cast(pl.String).fill_null("") for f in catalog.by_modality("text")}
    name: str | None = None
    if texts:
        distinct = pl.concat([column.rename("text") for column in texts.values()]).n_unique()
        encoder, said = open_encoder(config, distinct)
        notes += said
        name = encoder.name
        for column, values in texts.items():
            found[column] = encode_cached(encoder, values, cache=default_cache(), progress=progress)
    for image in catalog.by_modality("image"):
        column = catalog.table[image.name]
        if column.dtype == pl.String:
            notes.append(
                f"The image column {image.name!r} holds paths, and no local image encoder was named: it is "
                "left out. Give a column of vectors instead."
            )
            continue
        found[image.name] = _stacked(column)
    return FrozenVectors(found, name, notes)


def _stacked(column: pl.Series) -> Array:
    lists = column.cast(pl.List(pl.Float32))
    widths = lists.list.len().drop_nulls().unique().to_list()
    if len(widths) != 1:
        raise InputError(
            f"The vectors in the image column {column.name!r} have {len(widths)} different lengths "
            f"({sorted(widths)[:3]}…); all must have one. Mend the column or leave it out."
        )
    stacked = np.zeros((len(column), int(widths[0])), dtype=np.float32)
    there = lists.is_not_null().to_numpy()
    stacked[there] = np.stack(lists.drop_nulls().to_list())
    return stacked
