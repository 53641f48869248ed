"""Lists of items that are not all alike: greedy inference in a determinantal point process.

A list R is worth (1 − s) · Σ_{i ∈ R} log p(i | history) + s · log det C_R, both in nats, with C the cosines
of its items' vectors: log det is 0 where all are at right angles and falls with each that the others make
up. Items are taken one at a time, each the one that adds most. With s = 0 that is the order of the scores.

Source: Chen, Zhang & Zhou, Fast Greedy MAP Inference for Determinantal Point Process to Improve
Recommendation Diversity, NeurIPS 2018, whose running Cholesky factor is used here.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field as Option

from llm4rec.config import Section
from llm4rec.types import Floats, Rankings

POOL = 100
"""Fewest items a list is chosen from: of all lists up to that length each begins the longer ones."""
LEAST = 1e-6
"""Least share of an item that is its own: a second of the very same item would be worth −∞."""


class RerankConfig(Section):
    """What becomes of a list once it is scored (section `rerank`); nothing here is trained."""

    diversity: float = Option(
        default=0.0,
        ge=0,
        le=1,
        description="How much variety counts beside the score when the best 100 items are put in order: 0 "
        "leaves them by score, at 1 nothing else counts after the first.",
    )


def diversified(ranked: Rankings, vectors: Floats, n: int, strength: float) -> Rankings:
    """The n items of each list [b, m] that are worth most together, in the order they were taken.

    The score of an item is what it adds to the worth of the list, (1 − s) · log p + s · log of what of it the
    items before do not make up. It never rises along a list, for log det is submodular.

    Args:
        ranked: the pool, best first; item -1 is an empty place.
        vectors: item vectors [i, d]; lengths do not matter.
        n: list length, at most m.
        strength: s, from 0 to 1.
    """
    there = ranked.items >= 0
    pool = vectors[np.where(there, ranked.items, 0)].astype(np.float64)  # [b, m, d]
    pool /= np.maximum(np.linalg.norm(pool, axis=2, keepdims=True), 1e-12)
    worth = np.where(there, (1 - strength) * np.where(there, ranked.scores, 0.0).astype(np.float64), -np.inf)
    rows, (b, m) = np.arange(len(pool)), worth.shape
    own = np.ones((b, m))  # the squared length of what the items taken do not make up
    factors = np.zeros((b, m, n))
    order, scores = np.empty((b, n), dtype=np.int64), np.empty((b, n), dtype=np.float32)
    for place in range(n):
        gain = worth + strength * np.log(own)
        taken = np.argmax(gain, axis=1)
        order[:, place], scores[:, place] = taken, gain[rows, taken]
        cosines = np.einsum("bmd,bd->bm", pool, pool[rows, taken])
        before = np.einsum("bmp,bp->bm", factors[:, :, :place], factors[rows, taken, :place])
        column = (cosines - before) / np.sqrt(own[rows, taken])[:, None]
        factors[:, :, place] = column
        own = np.maximum(own - column**2, LEAST)
        worth[rows, taken] = -np.inf
    return Rankings(
        np.where(np.isneginf(scores), -1, np.take_along_axis(ranked.items, order, axis=1)), scores
    )
