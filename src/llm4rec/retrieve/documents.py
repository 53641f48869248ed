"""Texts that can be searched: by meaning (cosine of frozen vectors) and by words (BM25)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from llm4rec.types import Floats, Ints

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Alike:
    """Documents that say much the same, ascending [k].

    Attributes:
        documents: their numbers.
        meaning: how much their cosine is above that of the first that is left out.
        words: the same of BM25, relative to what the words asked for score in their own document.
    """

    documents: Ints
    meaning: Floats
    words: Floats


class Documents:
    """Searchable documents.

    Source of BM25: S. Robertson and H. Zaragoza, The Probabilistic Relevance Framework, 2009, in the form of
    Lucene, by bm25s (X. H. Lù, 2024).

    Args:
        said: terms of each document [n].
        vectors: unit vectors of what they mean [n, w], zeros for those that mean nothing; None without.
        neighbours: subjects found by meaning, and as many by words.
        subjects: what each document is about [n], numbers from 0; itself where None.
    """

    def __init__(
        self, said: list[list[str]], vectors: Floats | None, neighbours: int, subjects: Ints | None = None
    ) -> None:
        self.said, self.vectors, self.neighbours, self.subjects = said, vectors, neighbours, subjects
        self._words = _index(said)

    def __len__(self) -> int:
        return len(self.said)

    def alike(self, own: Ints, *, without: Ints | None = None, upto: int | None = None) -> Alike:
        """What says much the same as the documents `own` [o] together, none of which comes back.

        Args:
            own: numbers of documents; their terms are asked for, and the mean of their vectors.
            without: further documents that do not come back.
            upto: only documents with lower numbers come back; None is all.
        """
        n = len(self) if upto is None else upto
        barred = own if without is None else np.concatenate([own, without])
        barred = barred[barred < n]
        meaning = words = np.zeros(n, dtype=np.float32)
        if self.vectors is not None and len(own):
            query = self.vectors[own].mean(axis=0)
            query /= max(float(np.linalg.norm(query)), 1e-12)
            meaning = self._margin(self.vectors[:n] @ query, barred)
        asked = [term for document in own.tolist() for term in self.said[document]]
        if self._words is not None and asked:
            scores = self._words.get_scores(asked)
            most = max(float(scores[own].max()), 1e-9)
            words = self._margin((scores[:n] / most).astype(np.float32), barred)
        found = np.flatnonzero((meaning > 0) | (words > 0))
        return Alike(found, meaning[found], words[found])

    def _margin(self, scores: Floats, barred: Ints) -> Floats:
        """How much each score [n] is above the best of the first subject that is left out; 0 of others."""
        scores = scores.astype(np.float32)
        scores[barred] = -np.inf
        best = scores
        if self.subjects is not None and len(scores):  # what many say of one counts once
            subjects = self.subjects[: len(scores)]
            best = np.full(int(subjects.max()) + 1, -np.inf, dtype=np.float32)
            np.maximum.at(best, subjects, scores)
        left_out = 0.0
        if len(best) > self.neighbours:
            left_out = max(float(np.partition(best, -self.neighbours - 1)[-self.neighbours - 1]), 0.0)
        return np.maximum(scores - np.float32(left_out), 0)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def unit(vectors: Floats) -> Floats:
    """Vectors [n, w] of length 1; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _index(said: list[list[str]]):
    if not any(said):
        return None
    import bm25s

    index = bm25s.BM25(method="lucene")
    index.index(said, show_progress=False)
    return index
