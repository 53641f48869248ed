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
    known, place = entries.spoken_for
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
    """What speaks for each of some `items` that are spoken for: factors summed by kind [j, kinds · 4]."""
    known, place = entries.spoken_for
    row, n = np.full(len(known), -1), len(items) * len(KINDS)
    row[np.searchsorted(known, items)] = np.arange(len(items))
    about = np.flatnonzero(row[place] >= 0)
    cell = row[place[about]] * len(KINDS) + entries.kinds[about]
    sums = [np.bincount(cell, column, n) for column in entries.only(about).factors(gamma).T]
    return np.stack(sums, axis=1).astype(np.float32).reshape(len(items), len(KINDS) * len(FACTORS))
