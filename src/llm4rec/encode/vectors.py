"""Frozen vectors of the fields that are vectors: text through a sentence encoder, images as given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from llm4rec.config import cache_dir
from llm4rec.data.catalog import Catalog
from llm4rec.encode.cache import encode_cached
from llm4rec.encode.text import TextConfig, open_encoder
from llm4rec.errors import InputError
from llm4rec.types import Floats, Progress, silent


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
        InputError: where image vectors differ in length.
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
            found[column] = encode_cached(encoder, values, cache=cache_dir(), progress=progress)
    images, said = _images(catalog)
    return FrozenVectors(found | images, name, notes + said)


def _images(catalog: Catalog) -> tuple[dict[str, Floats], list[str]]:
    """Vectors of the image fields that hold any, and what there is to say of the others."""
    found: dict[str, Floats] = {}
    notes: list[str] = []
    for field_ in catalog.by_modality("image"):
        column = catalog.table[field_.name]
        if column.null_count() == len(column):
            notes.append(f"The image column {field_.name!r} is empty: it is left out.")
        elif column.dtype == pl.String:
            notes.append(
                f"The image column {field_.name!r} holds paths, and there is no local image encoder here: it "
                "is left out. Give a column of vectors instead."
            )
        else:
            found[field_.name] = _stacked(column)
    widths = {name: vectors.shape[1] for name, vectors in found.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{name!r} {width}" for name, width in widths.items())
        raise InputError(
            f"Image columns must hold vectors of one length, and these differ: {told}. Declare all but one "
            "kind as ignored (data.modalities)."
        )
    return found, notes


def _stacked(column: pl.Series) -> Floats:
    """The vectors of one column [i, w], zeros where there is none."""
    lists = column.cast(pl.List(pl.Float32))
    widths = sorted(lists.list.len().drop_nulls().unique().to_list())
    if len(widths) > 1:
        raise InputError(
            f"Vectors in the image column {column.name!r} differ in length ({widths[0]} to {widths[-1]}), "
            "and must not. Mend the column, or declare it as ignored (data.modalities)."
        )
    stacked = np.zeros((len(column), int(widths[0])), dtype=np.float32)
    stacked[lists.is_not_null().to_numpy()] = np.stack(lists.drop_nulls().to_list())
    return stacked
