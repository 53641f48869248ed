"""What was said of items like those of a history: reviews and tags."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from llm4rec.data.remarks import Remarks
from llm4rec.retrieve.documents import Alike, Documents, unit, words_of
from llm4rec.retrieve.entries import TAG, Asked, Entries, entries, scaled
from llm4rec.retrieve.index import Indexed, VectorIndex
from llm4rec.types import Floats, Ints

REMEMBERED = 1_000
"""Answers that are kept at hand, the last asked for: of thousands of remarks each, 100 MB."""
HEARD = 50
"""Remarks on an item that are asked with, the newest of them."""


class Sayings:
    """Retrieves remarks on other items that say much the same as what was said of an anchor by now.

    Args:
        kind: what the entries are, a place in `KINDS`; a tag is one term, whatever its words.
        remarks: what was said, oldest first.
        vectors: what each remark means [r, w]; None where only words are compared.
        neighbours: items found by meaning of what is said of them, and as many by words.
        indexed: makes unit vectors searchable.
    """

    def __init__(
        self,
        kind: int,
        remarks: Remarks,
        vectors: Floats | None,
        neighbours: int,
        indexed: Indexed = VectorIndex.of,
    ) -> None:
        self.kind, self.remarks = kind, remarks
        said = [_terms(text, whole=kind == TAG) for text in remarks.texts.to_list()]
        meant = None if vectors is None else indexed(unit(vectors))
        self.documents = Documents(said, meant, neighbours, remarks.items)
        self._alike = lru_cache(REMEMBERED)(self._found)

    def entries(self, asked: Asked) -> Entries:
        """Nothing that was said after `asked.now` is asked with or comes back, and nothing of the owner."""
        upto = len(self.remarks)
        times = self.remarks.times
        if times is not None and asked.now is not None:
            upto = int(np.searchsorted(times, asked.now, side="right"))
        owner = self._numbers.get(asked.owner, -1) if asked.owner else -1  # remarks may be unsigned
        found, place = Alike.all([self._alike(anchor, upto) for anchor in asked.anchors.tolist()])
        others = self._owners[found.documents] != owner
        sources, place = found.documents[others], place[others]
        items = self.remarks.items[sources]
        # what many say of one item counts as what one says of it
        about = place * (items.max(initial=0) + 1) + items
        _, same, counts = np.unique(about, return_inverse=True, return_counts=True)
        return entries(
            self.kind,
            items,
            anchors=asked.anchors[place],
            sources=sources,
            weights=(asked.weights[place] / counts[same]).astype(np.float32),
            semantic=found.meaning[others],
            ages=asked.ages(None if times is None else times[sources]),
            quality=self._qualities[sources],
            overlap=found.words[others],
        )

    def _found(self, item: int, upto: int) -> Alike:
        start, end = np.searchsorted(self._items, (item, item + 1))
        own = self._order[start:end]
        own = own[own < upto]
        return self.documents.alike(own[-HEARD:], without=own, upto=upto)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        names = self.remarks.user_ids.unique(maintain_order=True).to_list()
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def _owners(self) -> Ints:
        """A number for who said each remark [r]."""
        return np.array([self._numbers[name] for name in self.remarks.user_ids.to_list()], dtype=np.int64)

    @cached_property
    def _order(self) -> Ints:
        """The remarks by item, those of one item oldest first."""
        return np.argsort(self.remarks.items, kind="stable")

    @cached_property
    def _items(self) -> Ints:
        """What they are about, in that order."""
        return self.remarks.items[self._order]

    @cached_property
    def _qualities(self) -> Floats:
        return scaled(self.remarks.ratings, len(self.remarks))


def _terms(text: str, *, whole: bool) -> list[str]:
    words = words_of(text)
    return [" ".join(words) or text.strip()] if whole else words
