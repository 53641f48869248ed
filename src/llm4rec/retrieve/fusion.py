"""What several searches found, fused by rank."""

from __future__ import annotations

import numpy as np

from llm4rec.retrieve.entries import FACTORS, KINDS, Entries
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
    known, place = np.unique(entries.items, return_inverse=True)
    scores = np.zeros(len(known))
    for kind in range(len(KINDS)):
        some = np.flatnonzero(entries.kinds == kind)
        for values in (entries.semantic, entries.overlap) if len(some) else ():
            sums = np.bincount(place[some], values[some] * entries.weights[some], len(known))
            found = np.flatnonzero(sums > 0)
            order = found[np.argsort(-sums[found], kind="stable")]
            scores[order] += 1 / (CONSTANT + 1 + np.arange(len(order)))
    return known[np.argsort(-scores, kind="stable")[:most]]


def evidence(entries: Entries, items: Ints, gamma: float) -> Floats:
    """What speaks for each of some items: its entries' factors summed by kind [j, kinds · 4]."""
    n = len(items) * len(KINDS)
    if not n:
        return np.zeros((0, len(KINDS) * len(FACTORS)), dtype=np.float32)
    order = np.argsort(items)
    place = order[np.searchsorted(items, entries.items, sorter=order).clip(max=len(items) - 1)]
    about = np.flatnonzero(items[place] == entries.items)
    cell = place[about] * len(KINDS) + entries.kinds[about]
    sums = [np.bincount(cell, column, n) for column in entries.only(about).factors(gamma).T]
    return np.stack(sums, axis=1).astype(np.float32).reshape(len(items), -1)
