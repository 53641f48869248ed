"""The dense head's nearest items in a large catalogue, without scoring it whole.

An inverted file (FAISS) over the vectors whose plain inner products are the head's logits: items are kept
by cell, one byte per coordinate, and a request looks into the cells nearest to its state. What it finds
are candidates; their scores are worked out exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm4rec.data.legal import Listed
from llm4rec.model.lifts import log_sum
from llm4rec.types import Floats, Ints

PROBES = 64
"""Cells looked into at first; recall@10 at a million items is in docs/benchmarks.md."""
CANDIDATES = 256
"""Items a search asks for at least."""
SAMPLE = 32_768
"""Items whose logits stand for all that are no candidates, in the sum over the catalogue."""
FEW = 4096
"""Items left out up to which more are asked for in their place; more than that, the search passes over."""
WHOLE = 10_000
"""Legal items of a request up to which all of them are scored."""
ROUNDS = 10
"""Iterations of k-means for the cells; their borders cost recall, never correctness."""
PER_CELL = 64
"""Items per cell that the cells are learnt from."""
BLOCK = 65_536
"""Vectors prepared at once while building."""


@dataclass(frozen=True)
class ItemIndex:
    """Nearest items by inner product, and the sum over all items of exp(inner product).

    Attributes:
        index: FAISS' inverted file; its ids are item numbers.
        scale: what coordinates of items are multiplied by and those of states divided by [d].
        sample: items drawn at random without repetition, ascending [s].
        sampled: their vectors, scaled [s, d].
    """

    index: Any
    scale: Floats
    sample: Ints
    sampled: Floats

    @property
    def n_bytes(self) -> int:
        """Memory of codes, ids, cells and sample."""
        n_vectors, d = self.index.ntotal, self.index.d
        codes = n_vectors * (self.index.code_size + 8)
        return codes + self.index.nlist * d * 4 + self.sampled.nbytes + self.sample.nbytes

    def head(self, state: Floats, k: int) -> Ints:
        """About the k items of largest inner product with a prepared `state` [d]: most of what is likely."""
        return self._search(state, k, PROBES, None)

    def reserve(self, wanted: int, listed: Listed) -> int:
        """How many items `head` is asked for, so that about `wanted` of them may come back."""
        if not listed.only:
            return wanted + min(len(listed.items), FEW)
        return min(FEW, 2 * wanted * self.index.ntotal // max(len(listed), 1))

    def nearest(self, state: Floats, k: int, listed: Listed, head: Ints) -> Ints:
        """The k items of large inner product with `state` that may come back; all such where fewer may.

        Args:
            state: in prepared form [d].
            k: how many are wanted.
            listed: which items may come back.
            head: what `head` found; where enough of it is legal, nothing else is looked for.
        """
        wanted, probes = min(k, len(listed)), PROBES
        legal = head[listed.among(head)][:k]
        while len(legal) < wanted:  # ever more cells, in the end all of them
            legal = self._search(state, k, probes, listed)
            if probes >= self.index.nlist:
                break
            probes *= 4
        return legal

    def log_rest(self, state: Floats, found: Ints, lifts: Floats | float = 0.0) -> float:
        """Log Σ_i exp(state · vector_i + lift_i) over all items outside `found` [c], estimated.

        Each item of the sample outside `found` stands, with its `lifts` [s], for as many as were not drawn.
        The sample is the same for every request, so that scores of one model are comparable.
        """
        drawn = self.sampled @ (state / self.scale) + lifts
        place = np.searchsorted(self.sample, found).clip(max=len(self.sample) - 1)
        inside = place[self.sample[place] == found]
        drawn[inside] = -np.inf
        left, n_drawn = self.index.ntotal - len(found), len(drawn) - len(inside)
        if not left or not n_drawn:
            return -np.inf
        return log_sum(drawn) + float(np.log(left / n_drawn))

    def _search(self, state: Floats, k: int, probes: int, listed: Listed | None) -> Ints:
        import faiss

        # by keyword: FAISS before 1.14 frees the bits of a selector that is assigned while it reads them
        parameters: Any = faiss.SearchParametersIVF
        selector = None if listed is None else _selector(listed)
        options = parameters(nprobe=min(probes, self.index.nlist), sel=selector)
        _, found = self.index.search((state / self.scale)[None], min(k, self.index.ntotal), params=options)
        return found[0][found[0] >= 0]


def build_index(n_items: int, vectors: Callable[[Ints], Floats], scale: Floats, seed: int) -> ItemIndex:
    """An index of a catalogue; the same seed gives the same one.

    Args:
        n_items: size of the catalogue.
        vectors: prepared vectors [n, d] of the items with the given numbers [n].
        scale: how far states reach along each coordinate [d]. Multiplied by it, items that lie in one cell
            are alike in their scores; as they are, the widest coordinate would decide alone (recall 0.25
            instead of 1.00 on a million items in clusters).
        seed: of the sample and of the cells' start.
    """
    import faiss

    rng = np.random.default_rng([seed, 3])
    cells = max(1, int(np.sqrt(n_items)))
    index: Any = faiss.index_factory(len(scale), f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = seed + 1, ROUNDS
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, PER_CELL
    index.train(vectors(np.sort(rng.permutation(n_items)[: PER_CELL * cells])) * scale)
    for start in range(0, n_items, BLOCK):
        index.add(vectors(np.arange(start, min(start + BLOCK, n_items))) * scale)
    sample = np.sort(rng.permutation(n_items)[:SAMPLE])
    return ItemIndex(index, scale, sample, vectors(sample) * scale)


def _selector(listed: Listed) -> Any:
    """FAISS' form of `listed`: one bit per item."""
    import faiss

    bits = np.full(listed.n_items, not listed.only)
    bits[listed.items] = listed.only
    bitmap: Any = faiss.IDSelectorBitmap  # takes an array, which its annotations don't know
    return bitmap(np.packbits(bits, bitorder="little"))
