"""Frozen vectors of the fields that are vectors: texts and images through encoders, vectors as given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from llm4rec.config import cache_dir
from llm4rec.data.catalog import Catalog
from llm4rec.encode.cache import encode_cached
from llm4rec.encode.image import ImageConfig, ImageEncoder, encode_images, open_images, reopen_images
from llm4rec.encode.text import TextConfig, open_encoder, reopen_encoder
from llm4rec.errors import InputError
from llm4rec.types import Floats, Progress, silent


@dataclass(frozen=True)
class FrozenVectors:
    """Vectors [i, w] by field name, the encoders that made them, and what there is to say.

    Attributes:
        by_field: one row per row of the catalogue; zeros where the field is missing.
        encoder: the name of the text encoder, by which it is opened again; None without text fields.
        image_encoder: the name of the image encoder, likewise; None where no image file was read.
        notes: sentences for the user.
    """

    by_field: dict[str, Floats]
    encoder: str | None = None
    image_encoder: str | None = None
    notes: list[str] = field(default_factory=list)


def frozen_vectors(
    catalog: Catalog,
    text: TextConfig,
    images: ImageConfig | None = None,
    *,
    text_encoder: str | None = None,
    image_encoder: str | None = None,
    progress: Progress = silent,
) -> FrozenVectors:
    """Encode every text field and every image file of a catalogue, and stack the image vectors given.

    Args:
        catalog: the items.
        text: which text encoder.
        images: which image encoder; None is none.
        text_encoder: the name of the one a stored model was fitted with, to read new items alike.
        image_encoder: the name of the model's image encoder, likewise.
        progress: told how far the encoding is.

    Raises:
        InputError: where image vectors differ in length, or an encoder can't be opened or is another.
    """
    found: dict[str, Floats] = {}
    notes: list[str] = []
    texts = {f.name: catalog.table[f.name].cast(pl.String).fill_null("") for f in catalog.by_modality("text")}
    name: str | None = None
    if texts:
        if text_encoder is None:
            distinct = pl.concat([column.rename("text") for column in texts.values()]).n_unique()
            encoder, said = open_encoder(text, distinct)
            notes += said
        else:
            encoder = reopen_encoder(text, text_encoder)
        name = encoder.name
        for column, values in texts.items():
            found[column] = encode_cached(encoder, values, cache=cache_dir(), progress=progress)
    reader, said = _reader(catalog, images or ImageConfig(), image_encoder)
    stacked, told = _images(catalog, reader, progress)
    return FrozenVectors(found | stacked, name, None if reader is None else reader.name, notes + said + told)


def read_texts(
    texts: pl.Series, config: TextConfig, encoder: str | None, progress: Progress = silent
) -> tuple[Floats, list[str]]:
    """Vectors of texts that are no item's [n, w], and sentences on how they were read.

    Args:
        texts: what is read.
        config: which text encoder.
        encoder: the name of the one the items were read with; None where they have no texts.
        progress: told how far the encoding is.

    Raises:
        InputError: where the encoder can't be opened.
    """
    opened, notes = (
        open_encoder(config, texts.n_unique()) if encoder is None else (reopen_encoder(config, encoder), [])
    )
    return encode_cached(opened, texts.cast(pl.String), cache=cache_dir(), progress=progress), notes


def _reader(catalog: Catalog, config: ImageConfig, name: str | None) -> tuple[ImageEncoder | None, list[str]]:
    """What reads the image files of a catalogue, None where there are none or nothing is to read them."""
    columns = [catalog.table[f.name] for f in catalog.by_modality("image")]
    if not any(column.dtype == pl.String and column.null_count() < len(column) for column in columns):
        unused = config.encoder is not None and name is None
        return None, [
            "No image column holds paths, so the image encoder (encode.image.encoder) is not used."
        ] * unused
    return open_images(config) if name is None else reopen_images(config, name), []


def _images(
    catalog: Catalog, reader: ImageEncoder | None, progress: Progress
) -> tuple[dict[str, Floats], list[str]]:
    """Vectors of the image fields that hold any, and what there is to say of the others."""
    found: dict[str, Floats] = {}
    notes: list[str] = []
    for field_ in catalog.by_modality("image"):
        column = catalog.table[field_.name]
        if column.null_count() == len(column):
            notes.append(f"The image column {field_.name!r} is empty: it is left out.")
        elif column.dtype != pl.String:
            found[field_.name] = _stacked(column)
        elif reader is None:
            notes.append(
                f"The image column {field_.name!r} holds paths, and no image encoder is named: it is left "
                "out. Name the directory of one (encode.image.encoder), or give a column of vectors instead."
            )
        else:
            vectors, said = encode_images(reader, column, cache=cache_dir(), progress=progress)
            notes += said
            if vectors.any():
                found[field_.name] = vectors
            else:
                notes.append(
                    f"The image column {field_.name!r} holds no image that can be read: it is left out."
                )
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
