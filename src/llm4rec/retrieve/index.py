"""The nearest of many unit vectors, equations (7) and (8): exactly, or above a size by an inverted file.

The inverted file (FAISS) keeps vectors by cell, one byte per coordinate. What it finds is scored again with
the vectors themselves, so that cosines are exact and only what no cell near the query holds is missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from llm4rec.errors import ArtefactError
from llm4rec.types import Floats, Ints

EXACT = 50_000
"""Vectors up to which every one is compared."""
PROBES = 128
"""Cells looked into at first; recall@50 at a million is in docs/benchmarks.md."""
AGAIN = 2
"""How many times as many as are wanted are scored again."""
CELLS = 4
"""Cells per square root of the number of vectors."""
PER_CELL = 64
"""Vectors per cell that the cells are learnt from."""
ROUNDS = 10
"""Iterations of k-means for the cells; their borders cost recall, never correctness."""
BLOCK = 65_536
"""Vectors added at once while building."""


@dataclass(frozen=True)
class Cells:
    """FAISS' inverted file over vectors.

    Attributes:
        index: in memory, or mapped from a file.
        content: of that file, mapped too: it stays what it is when another file takes its place. None where
            all is in memory.
    """

    index: Any
    content: mmap | None = None

    @classmethod
    def read(cls, path: Path) -> Cells:
        """What `write` put there, mapped.

        Raises:
            ArtefactError: where it is something else.
        """
        import faiss

        try:
            index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError:
            index = None
        if not isinstance(index, faiss.IndexIVF):  # FAISS also reads kinds that have no cells
            raise ArtefactError(f"{path} is no index: remove it, and it is made anew.")
        with path.open("rb") as file:
            return cls(index, mmap(file.fileno(), 0, access=ACCESS_READ))

    def write(self, path: Path) -> None:
        """Write what `read` reads; of what is mapped FAISS would write where it lies, so that is copied."""
        import faiss

        if self.content is None:
            faiss.write_index(self.index, str(path))
        else:
            path.write_bytes(self.content)


@dataclass(frozen=True)
class VectorIndex:
    """Unit vectors that can be searched.

    Attributes:
        vectors: of length 1, or 0 for what has none [n, w]; in memory or mapped from a file.
        cells: the inverted file over them; None where all are compared.
    """

    vectors: Floats
    cells: Cells | None = None

    @classmethod
    def of(cls, vectors: Floats, *, seed: int = 0, exact: int = EXACT) -> VectorIndex:
        """The index of `vectors` [n, w]; the same seed gives the same one."""
        n, width = vectors.shape
        if n <= exact:
            return cls(vectors)
        import faiss

        n_cells = int(CELLS * np.sqrt(n))
        cells: Any = faiss.index_factory(width, f"IVF{n_cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        cells.cp.seed, cells.cp.niter = seed + 1, ROUNDS
        cells.cp.min_points_per_centroid, cells.cp.max_points_per_centroid = 1, PER_CELL
        drawn = np.random.default_rng([seed, 4]).permutation(n)[: PER_CELL * n_cells]
        cells.train(np.ascontiguousarray(vectors[np.sort(drawn)], dtype=np.float32))
        for start in range(0, n, BLOCK):
            cells.add(np.ascontiguousarray(vectors[start : start + BLOCK], dtype=np.float32))
        return cls(vectors, Cells(cells))

    @classmethod
    def over(cls, vectors: Floats, cells: Cells) -> VectorIndex:
        """The index of `vectors` [n, w] by cells that were made of them.

        Raises:
            ArtefactError: where they are of so many other vectors.
        """
        index = cells.index
        if (index.ntotal, index.d) != vectors.shape:
            raise ArtefactError(
                f"There is an index of {index.ntotal:,} vectors of {index.d}, and there are "
                f"{len(vectors):,} of {vectors.shape[1]}: remove its file, and it is made anew."
            )
        return cls(vectors, cells)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, query: Floats, k: int, upto: int | None = None) -> tuple[Ints, Floats]:
        """The k nearest to `query` [w] and their cosines, best first, the lower number where two are equal.

        Args:
            query: of length 1.
            k: how many are wanted; fewer come back where there are fewer.
            upto: only lower numbers come back; None is all.
        """
        n = len(self) if upto is None else min(upto, len(self))
        k = min(k, n)
        if k <= 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        found = np.arange(n) if self.cells is None else self._near(self.cells.index, query, k, n)
        cosines = self.vectors[found] @ query if self.cells is not None else self.vectors[:n] @ query
        if len(found) > k:
            best = np.argpartition(-cosines, k - 1)[:k]
            # of equal ones at the border the lower numbers come
            border = cosines[best].min()
            above = np.flatnonzero(cosines > border)
            found_at = np.concatenate([above, np.flatnonzero(cosines == border)[: k - len(above)]])
            found, cosines = found[found_at], cosines[found_at]
        order = np.lexsort([found, -cosines])
        return found[order], cosines[order].astype(np.float32)

    def _near(self, cells: Any, query: Floats, k: int, n: int) -> Ints:
        """At least k numbers below n that lie near the query, ascending."""
        import faiss

        probes, wanted = PROBES, min(AGAIN * k, n)
        while True:
            selector: Any = faiss.IDSelectorRange(0, n) if n < len(self) else None
            parameters: Any = faiss.SearchParametersIVF
            options = parameters(nprobe=min(probes, cells.nlist), sel=selector)
            found = cells.search(query[None].astype(np.float32), wanted, params=options)[1][0]
            found = found[found >= 0]
            if len(found) >= k or options.nprobe == cells.nlist:
                return np.sort(found)
            probes *= 4


Indexed = Callable[[Floats], VectorIndex]
"""Makes unit vectors [n, w] searchable: `VectorIndex.of`, or by cells that were kept."""
