"""Top-50 entries of a million: milliseconds of a search, and how many of the true 50 it finds.

    OMP_NUM_THREADS=1 python benchmarks/entry_index.py --data toys --column title --n 1000000 --out index.json

The vectors are those of the items' texts, read with the default encoder; where that are fewer than --n, the
others are mixtures, .7 to .3, of two of them drawn at random, and so are the queries, of items that are kept
out of the index. One search at a time; recall@50 is against comparing all. With `half`, only the older half
may come back, as where entries have to be older than a moment.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float32]
K = 50


def read(folder: Path, column: str) -> Floats:
    """The vectors of a column of texts [t, w], each text once."""
    from llm4rec.encode.text import TextConfig
    from llm4rec.encode.vectors import read_texts
    from llm4rec.retrieve.documents import unit

    texts = pl.read_parquet(folder / "items.parquet")[column].drop_nulls().unique(maintain_order=True)
    return unit(read_texts(texts, TextConfig(), None)[0]).astype(np.float32)


def mixed(base: Floats, n: int, seed: int) -> Floats:
    """`base`, then mixtures of its rows, n in all [n, w], in no order."""
    from llm4rec.retrieve.documents import unit

    draw = np.random.default_rng(seed)
    found = np.empty((n, base.shape[1]), dtype=np.float32)
    found[: len(base)] = base[:n]
    for start in range(len(base), n, 65_536):
        stop = min(start + 65_536, n)
        first, second = draw.integers(len(base), size=(2, stop - start))
        found[start:stop] = unit(np.float32(0.7) * base[first] + np.float32(0.3) * base[second])
    draw.shuffle(found)
    return found


def nearest(vectors: Floats, query: Floats, upto: int) -> npt.NDArray[np.int64]:
    """The true K nearest of the first `upto`."""
    cosines = vectors[:upto] @ query
    return np.argpartition(-cosines, K - 1)[:K]


def measure(base: Floats, n: int, n_queries: int, seed: int) -> dict[str, Any]:
    """Figures of an index of n vectors made of `base`."""
    from llm4rec.retrieve.index import Cells, VectorIndex

    kept_out = len(base) // 20
    vectors, queries = (
        mixed(base[kept_out:], n, seed),
        mixed(base[:kept_out], n_queries, seed + 1)[:n_queries],
    )
    start = time.perf_counter()
    built = VectorIndex.of(vectors, seed=seed)
    told: dict[str, Any] = {"n": n, "width": vectors.shape[1], "texts": len(base), "queries": len(queries)}
    told["build_seconds"] = round(time.perf_counter() - start, 1)
    with tempfile.TemporaryDirectory() as place:
        index = built
        if built.cells is not None:
            path = Path(place) / "entries.index"
            built.cells.write(path)
            told["file_mib"] = round(path.stat().st_size / (1 << 20), 1)
            index = VectorIndex.over(vectors, Cells.read(path))
            del built
        for query in queries[:20]:
            index.search(query, K)
        for name, upto in (("all", n), ("half", n // 2)):
            took, true, shares = [], [], []
            for query in queries:
                start = time.perf_counter()
                found, _ = index.search(query, K, upto)
                took.append(time.perf_counter() - start)
                start = time.perf_counter()
                expected = nearest(vectors, query, upto)
                true.append(time.perf_counter() - start)
                shares.append(np.isin(expected, found).mean())
            p50, p95, p99 = (float(1000 * np.quantile(took, q)) for q in (0.5, 0.95, 0.99))
            told[name] = {
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "comparing_all_p50_ms": float(1000 * np.median(true)),
                f"recall@{K}": float(np.mean(shares)),
            }
    told["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return told


def main() -> None:
    """Measure what the command line names."""
    from llm4rec.store import files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with items.parquet")
    parser.add_argument("--column", default="title", help="its column of texts")
    parser.add_argument("--n", type=int, default=1_000_000, help="vectors in the index")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = measure(read(given.data, given.column), given.n, given.queries, given.seed)
    text = json.dumps(found, indent=1)
    files.write_text(text, given.out)
    print(text)


if __name__ == "__main__":
    main()
