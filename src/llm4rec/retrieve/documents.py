"""Texts that can be searched: by meaning (cosine of frozen vectors) and by words (BM25)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm4rec.retrieve.index import VectorIndex
from llm4rec.types import Floats, Ints

SAID_OF_ONE = 4
"""Documents looked at first for each subject wanted, where many are about one."""
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

    @classmethod
    def all(cls, found: Sequence[Alike]) -> tuple[Alike, Ints]:
        """All that was found, one after the other [k], and by which of the searches each [k]."""
        nothing = np.zeros(0, dtype=np.float32)
        documents = np.concatenate([np.zeros(0, dtype=np.int64), *(each.documents for each in found)])
        meaning = np.concatenate([nothing, *(each.meaning for each in found)])
        words = np.concatenate([nothing, *(each.words for each in found)])
        searches = np.repeat(np.arange(len(found)), [len(each.documents) for each in found])
        return cls(documents, meaning, words), searches


class Documents:
    """Searchable documents.

    Source of BM25: S. Robertson and H. Zaragoza, The Probabilistic Relevance Framework, 2009, in the form of
    Lucene, by bm25s (X. H. Lù, 2024).

    Args:
        said: terms of each document [n].
        meant: what each means, searchable [n]; None where only words are compared.
        neighbours: subjects found by meaning, and as many by words.
        subjects: what each document is about [n], numbers from 0; itself where None.
    """

    def __init__(
        self, said: list[list[str]], meant: VectorIndex | None, neighbours: int, subjects: Ints | None = None
    ) -> None:
        self.said, self.meant, self.neighbours, self.subjects = said, meant, neighbours, subjects
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
        meaning = words = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        if self.meant is not None and len(own):
            query = self.meant.vectors[own].mean(axis=0)
            query /= max(float(np.linalg.norm(query)), 1e-12)
            meaning = self._margin(*self._near(self.meant, query, barred, n))
        asked = [term for document in own.tolist() for term in self.said[document]]
        if self._words is not None and asked:
            scores = self._words.get_scores(asked)
            most = np.float32(max(float(scores[own].max()), 1e-9))
            documents, scores = _allowed(scores[:n], barred)
            words = self._margin(documents, scores.astype(np.float32) / most)
        found = np.union1d(meaning[0], words[0])
        return Alike(found, _spread(found, *meaning), _spread(found, *words))

    def _near(self, meant: VectorIndex, query: Floats, barred: Ints, n: int) -> tuple[Ints, Floats]:
        """Documents [k], none barred, and cosines: all above 0 of the first n, or of many the nearest."""
        if meant.cells is None:
            return _allowed((meant.vectors[:n] @ query).astype(np.float32, copy=False), barred)
        wanted = self.neighbours + 1
        most = (wanted if self.subjects is None else SAID_OF_ONE * wanted) + len(barred)
        while True:
            found, cosines = meant.search(query, most, n)
            allowed = ~np.isin(found, barred)
            found, cosines, looked_at = found[allowed], cosines[allowed], len(found)
            about = len(found) if self.subjects is None else len(np.unique(self.subjects[found]))
            if about >= wanted or looked_at < most or cosines[-1] <= 0:
                return found, cosines
            most *= 2  # the first that is left out is not among them yet

    def _margin(self, documents: Ints, scores: Floats) -> tuple[Ints, Floats]:
        """Documents that are above the best of the first subject that is left out, and how much above."""
        best = scores
        if self.subjects is not None and len(scores):  # what many say of one counts once
            _, subject = np.unique(self.subjects[documents], return_inverse=True)
            best = np.full(int(subject.max()) + 1, -np.inf, dtype=np.float32)
            np.maximum.at(best, subject, scores)
        left_out = np.float32(0)
        if len(best) > self.neighbours:
            left_out = max(np.partition(best, -self.neighbours - 1)[-self.neighbours - 1], left_out)
        above = scores > left_out
        return documents[above], scores[above] - left_out


def _allowed(scores: Floats, barred: Ints) -> tuple[Ints, Floats]:
    """Places [k] of the scores [n] above 0, and these; the scores of those that are barred become 0.

    No others are ever above what is left out.
    """
    scores[barred[barred < len(scores)]] = 0
    found = np.flatnonzero(scores > 0)
    return found, scores[found]


def _spread(documents: Ints, some: Ints, values: Floats) -> Floats:
    """The values of some of the documents [k], which ascend; 0 of the others."""
    found = np.zeros(len(documents), dtype=np.float32)
    found[np.searchsorted(documents, some)] = values
    return found


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
