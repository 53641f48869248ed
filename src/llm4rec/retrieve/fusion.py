"""What several searches found, fused by rank."""

from __future__ import annotations

import numpy as np

from llm4rec.retrieve.entries import KINDS, Entries, by_item
from llm4rec.types import Floats, Ints

CONSTANT = 60
"""Added to every rank: the first places of one search do not outweigh agreement of two."""


def fused(entries: Entries, most: int) -> Ints:
    """The items that the entries speak for most [j ≤ most], best first.

    Each kind of entries is searched by meaning (`semantic`) and by what else is shared (`overlap`); in each
    search an item stands where the sum of its entries, times their weights, puts it. Its score is
    Σ_searches 1 / (60 + rank).

    Source: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009.
    """
    known = np.unique(entries.items)
    scores = np.zeros(len(known))
    for kind in range(len(KINDS)):
        some = entries.only(entries.kinds == kind)
        for values in (some.semantic, some.overlap):
            found = values * some.weights > 0
            items, sums = by_item(some.items[found], (values * some.weights)[found][:, None])
            order = np.argsort(-sums[:, 0], kind="stable")
            scores[np.searchsorted(known, items[order])] += 1 / (CONSTANT + 1 + np.arange(len(order)))
    return known[np.argsort(-scores, kind="stable")[:most]]


def evidence(entries: Entries, items: Ints, gamma: float) -> Floats:
    """What speaks for each of some items: its entries' factors summed by kind [j, kinds · 4]."""
    factors = entries.factors(gamma)
    n, width = factors.shape
    wide = np.zeros((n, len(KINDS), width), dtype=np.float32)
    wide[np.arange(n), entries.kinds] = factors
    known, sums = by_item(entries.items, wide.reshape(n, len(KINDS) * width))
    return sums[np.searchsorted(known, items)]
