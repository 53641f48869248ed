"""Items like an item: those that say much the same, and those that are alike to the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from llm4rec.data.catalog import Catalog
from llm4rec.retrieve.documents import Alike, Documents, unit, words_of
from llm4rec.retrieve.entries import ITEM_TEXT, SIMILAR_ITEM, Asked, Entries, entries
from llm4rec.retrieve.index import Indexed, VectorIndex
from llm4rec.types import Floats

REMEMBERED = 10_000
"""Items whose neighbours are kept at hand, the last asked for: 64 MB of 400 each."""


class Neighbours:
    """Retrieves items like those of a history; the age of an entry is that of its anchor.

    Args:
        kind: what the entries are, a place in `KINDS`.
        documents: what is known of each item [i].
    """

    def __init__(self, kind: int, documents: Documents) -> None:
        self.kind, self.documents = kind, documents
        self.alike = lru_cache(REMEMBERED)(self._alike)

    def entries(self, asked: Asked) -> Entries:
        """The neighbours of each anchor."""
        found, place = Alike.all([self.alike(anchor) for anchor in asked.anchors.tolist()])
        ages = asked.ages(asked.times)
        return entries(
            self.kind,
            found.documents,
            anchors=asked.anchors[place],
            sources=found.documents,
            weights=asked.weights[place],
            semantic=found.meaning,
            ages=None if ages is None else ages[place],
            overlap=found.words,
        )

    def _alike(self, item: int) -> Alike:
        return self.documents.alike(np.array([item]))


def item_texts(
    catalog: Catalog, vectors: Mapping[str, Floats], neighbours: int, indexed: Indexed = VectorIndex.of
) -> Neighbours:
    """What items say of themselves.

    Args:
        catalog: the items; a text field gives its words, a categorical one its values.
        vectors: frozen vectors [i, w] of each text and image field.
        neighbours: items found by meaning, and as many by words.
        indexed: makes unit vectors searchable.
    """
    meant = _side_by_side(vectors)
    index = None if meant is None else indexed(meant)
    return Neighbours(ITEM_TEXT, Documents(terms(catalog), index, neighbours))


def similar_items(directions: Floats, neighbours: int, indexed: Indexed = VectorIndex.of) -> Neighbours:
    """Items whose fused vectors point the same way, equation (21).

    Args:
        directions: what the dense head compares with states [i, d].
        neighbours: items found.
        indexed: makes unit vectors searchable.
    """
    return Neighbours(SIMILAR_ITEM, Documents([[]] * len(directions), indexed(unit(directions)), neighbours))


def terms(catalog: Catalog) -> list[list[str]]:
    """What each item says [i]: the words of its texts and the values of its categorical fields."""
    said: list[list[str]] = [[] for _ in range(len(catalog))]
    for field in catalog.by_modality("text"):
        for found, text in zip(said, catalog.table[field.name].to_list(), strict=True):
            found += words_of(text or "")
    for field in catalog.by_modality("categorical"):
        for found, values in zip(said, catalog.table[field.name].to_list(), strict=True):
            found += [f"{field.name}={value}" for value in values or ()]
    return said


def _side_by_side(vectors: Mapping[str, Floats]) -> Floats | None:
    """All fields' vectors in one of length 1 [i, Σ w], to which each field that an item has counts alike."""
    if not vectors:
        return None
    return unit(np.concatenate([unit(each) for each in vectors.values()], axis=1).astype(np.float32))
