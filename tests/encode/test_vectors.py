"""Frozen vectors of a catalogue's fields: what is encoded, what is left out and said, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm4rec.data.catalog import Catalog, Field
from llm4rec.encode.text import TextConfig
from llm4rec.encode.vectors import frozen_vectors
from llm4rec.errors import InputError

HASH = TextConfig(encoder="hash")


def catalog(**images: list[list[float] | None] | list[str]) -> Catalog:
    n_items = len(next(iter(images.values())))
    table = pl.DataFrame({"item_id": [str(item) for item in range(n_items)], **images})
    return Catalog(table, tuple(Field(name, "image") for name in images))


def test_given_vectors_are_taken_as_they_are_and_missing_ones_are_zeros() -> None:
    frozen = frozen_vectors(catalog(image=[[1.0, 2.0], None, [3.0, 4.0]]), HASH)
    np.testing.assert_array_equal(frozen.by_field["image"], [[1, 2], [0, 0], [3, 4]])
    assert frozen.encoder is None and frozen.notes == []


def test_paths_and_empty_columns_are_left_out_and_said() -> None:
    items = catalog(photo=["a.jpg", "b.jpg"], scan=[None, None])
    frozen = frozen_vectors(items, HASH)
    assert frozen.by_field == {}
    assert "photo" in frozen.notes[0] and "paths" in frozen.notes[0]
    assert "scan" in frozen.notes[1] and "empty" in frozen.notes[1]


def test_a_stored_model_reads_new_texts_with_the_encoder_it_was_fitted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path))
    items = Catalog(pl.DataFrame({"item_id": ["a"], "title": ["red shoe"]}), (Field("title", "text"),))
    many = frozen_vectors(items, TextConfig(full_up_to=0))
    again = frozen_vectors(items, TextConfig(full_up_to=9), text_encoder=many.encoder)
    assert again.encoder == many.encoder and again.notes == []
    np.testing.assert_array_equal(again.by_field["title"], many.by_field["title"])


def test_lengths_that_differ_are_refused_with_the_column_named() -> None:
    with pytest.raises(InputError, match=r"'image' differ in length \(1 to 2\)"):
        frozen_vectors(catalog(image=[[1.0], [1.0, 2.0]]), HASH)
    with pytest.raises(InputError, match=r"'back' 1"):
        frozen_vectors(catalog(front=[[1.0, 2.0]], back=[[1.0]]), HASH)


def test_texts_are_encoded_field_by_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM4REC_CACHE", str(tmp_path))
    table = pl.DataFrame({"item_id": ["a", "b"], "title": ["red shoe", None], "note": ["", "red shoe"]})
    frozen = frozen_vectors(Catalog(table, (Field("title", "text"), Field("note", "text"))), HASH)
    np.testing.assert_array_equal(frozen.by_field["title"][0], frozen.by_field["note"][1])
    assert not frozen.by_field["title"][1].any() and not frozen.by_field["note"][0].any()
    assert frozen.encoder is not None and frozen.encoder.startswith("hash")
