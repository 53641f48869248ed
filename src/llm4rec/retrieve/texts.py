"""What items say about themselves, and which others say alike: by meaning (cosine) and by words (BM25)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from llm4rec.data.catalog import Catalog
from llm4rec.types import Floats, Ints

_WORD = re.compile(r"\w+")
REMEMBERED = 50_000
"""Items whose neighbours are kept at hand, the last asked for."""


@dataclass(frozen=True)
class Alike:
    """Items that say much the same as one item, ascending [k].

    Attributes:
        items: never the item itself.
        meaning: how much their cosine is above that of the first item that is left out.
        words: the same of BM25.
    """

    items: Ints
    meaning: Floats
    words: Floats


class ItemTexts:
    """The items' texts, searchable.

    Source of BM25: S. Robertson and H. Zaragoza, The Probabilistic Relevance Framework, 2009, in the form of
    Lucene, by bm25s (X. H. Lù, 2024).

    Args:
        catalog: the items; a text field gives its words, a categorical one its values.
        vectors: frozen vectors [i, w] of each text and image field.
        neighbours: items kept by meaning, and as many by words.
    """

    def __init__(self, catalog: Catalog, vectors: Mapping[str, Floats], neighbours: int) -> None:
        self.neighbours = neighbours
        self._vectors = _unit_vectors(vectors)
        self._terms = terms(catalog)
        self._words = _index(self._terms)
        self.alike = lru_cache(REMEMBERED)(self._alike)

    def _alike(self, item: int) -> Alike:
        """What says much the same as `item`."""
        n = len(self._terms)
        meaning = np.zeros(n, dtype=np.float32)
        if self._vectors is not None:
            meaning = self._margin(self._vectors @ self._vectors[item], item)
        words = np.zeros(n, dtype=np.float32)
        if self._words is not None and self._terms[item]:
            scores = self._words.get_scores(self._terms[item])
            own = max(float(scores[item]), 1e-9)
            words = self._margin((scores / own).astype(np.float32), item)
        found = np.flatnonzero((meaning > 0) | (words > 0))
        return Alike(found, meaning[found], words[found])

    def _margin(self, scores: Floats, item: int) -> Floats:
        """How much each score [i] is above that of the first neighbour that is left out; 0 of others."""
        scores = scores.astype(np.float32)
        scores[item] = -np.inf
        left_out = 0.0
        if len(scores) > self.neighbours:
            left_out = max(float(np.partition(scores, -self.neighbours - 1)[-self.neighbours - 1]), 0.0)
        return np.maximum(scores - np.float32(left_out), 0)


def terms(catalog: Catalog) -> list[list[str]]:
    """What each item says [i]: the words of its texts and the values of its categorical fields."""
    said: list[list[str]] = [[] for _ in range(len(catalog))]
    for field in catalog.by_modality("text"):
        for found, text in zip(said, catalog.table[field.name].to_list(), strict=True):
            found += _WORD.findall((text or "").lower())
    for field in catalog.by_modality("categorical"):
        for found, values in zip(said, catalog.table[field.name].to_list(), strict=True):
            found += [f"{field.name}={value}" for value in values or ()]
    return said


def _index(said: list[list[str]]):
    if not any(said):
        return None
    import bm25s

    index = bm25s.BM25(method="lucene")
    index.index(said, show_progress=False)
    return index


def _unit_vectors(vectors: Mapping[str, Floats]) -> Floats | None:
    """All fields' vectors side by side [i, Σ w], so that a product is the mean of the fields' cosines."""
    if not vectors:
        return None
    unit = [
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in vectors.values()
    ]
    return np.concatenate(unit, axis=1).astype(np.float32) / np.float32(np.sqrt(len(unit)))
