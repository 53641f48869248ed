"""What a cheaper text encoder loses against the sentence model, on the texts of one column.

    python benchmarks/text_encoders.py items.parquet title --most 1682

Prints, for each encoder, texts per CPU second, the Spearman correlation of all pairwise cosines with the
sentence model's, and the share of its ten nearest neighbours that are kept.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from llm4rec.encode.text import TextConfig, open_encoder
from llm4rec.types import Floats

NEIGHBOURS = 10


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("items", help="Parquet file")
    arguments.add_argument("column", help="its column of texts")
    arguments.add_argument("--most", type=int, default=1000, help="texts read")
    given = arguments.parse_args()
    texts = pl.read_parquet(given.items)[given.column].drop_nulls().unique(maintain_order=True)
    values = texts.head(given.most).to_list()
    reference: Floats | None = None
    print(f"{len(values)} texts of {given.column}")
    for name in ("minilm", "static", "hash"):
        encoder, _ = open_encoder(TextConfig(encoder=name), len(values))
        encoder.encode(values[:2])  # loads the model
        began = time.process_time()
        cosines = _cosines(encoder.encode(values))
        speed = len(values) / (time.process_time() - began)
        reference = cosines if reference is None else reference
        correlation, kept = _agreement(reference, cosines)
        print(f"{name:8} {speed:10.0f} texts/s  correlation {correlation:.3f}  neighbours kept {kept:.3f}")


def _cosines(vectors: Floats) -> Floats:
    """Pairwise cosines [n, n]; the diagonal is -1, so that no text is its own neighbour."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return cosines


def _agreement(reference: Floats, cosines: Floats) -> tuple[float, float]:
    above = np.triu_indices(len(reference), 1)
    nearest, others = (np.argsort(-m, axis=1)[:, :NEIGHBOURS] for m in (reference, cosines))
    kept = np.mean([len(np.intersect1d(a, b)) / NEIGHBOURS for a, b in zip(nearest, others, strict=True)])
    return float(spearmanr(reference[above], cosines[above]).statistic), float(kept)


if __name__ == "__main__":
    main()
