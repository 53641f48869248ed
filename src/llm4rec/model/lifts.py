"""What is added to the log-scores of some items: to all scores at once, looked up, and the most of it."""

from __future__ import annotations

import numpy as np

from llm4rec.types import Bools, Floats, Ints


def lift_of(known: Ints, lifts: Floats, items: Ints) -> Floats:
    """What `lifts` [j] of the items `known` [j], ascending, say of each of `items` [c]; 0 of any other."""
    if not len(known):
        return np.zeros(len(items), dtype=np.float32)
    place = np.searchsorted(known, items).clip(max=len(known) - 1)
    return np.where(known[place] == items, lifts[place], np.float32(0))


def most_lifted(known: Ints, lifts: Floats, n: int, among: Bools | None = None) -> Ints:
    """The n ≥ 1 of the items `known` [j] with the largest `lifts` [j], ascending; only those that are lifted.

    `among` [j] says which of them are looked at; all where None.
    """
    places = np.flatnonzero(lifts > 0 if among is None else (lifts > 0) & among)
    if len(places) > n:
        places = np.sort(places[np.argpartition(-lifts[places], n - 1)[:n]])
    return known[places]


def lift(log_scores: Floats, known: Ints, lifts: Floats) -> None:
    """Add `lifts` [j] to the items `known` [j] of `log_scores` [i], in place.

    What the probabilities sum to stays as it was: 1 for a distribution, less where a search left some of it
    to items it did not reach.
    """
    if lifts.any():
        log_scores -= growth(log_scores, known, lifts)
        log_scores[known] += lifts


def growth(log_scores: Floats, known: Ints, lifts: Floats) -> Floats:
    """By what log Σ exp(log_scores) [i] grows with `lifts` [..., j] of the items `known` [j] (nats)."""
    log_p = log_scores[known].astype(np.float64) - np.log(np.exp(log_scores).sum(dtype=np.float64))
    moved = np.flatnonzero(np.isfinite(log_p) & lifts.any(axis=tuple(range(lifts.ndim - 1))))
    rest = np.log(max(1 - np.exp(log_p[moved]).sum(), np.finfo(np.float64).tiny))
    lifted = log_p[moved] + lifts[..., moved]
    top = np.maximum(lifted.max(axis=-1, initial=-np.inf), rest)  # exp of it may be beyond any number
    return top + np.log(np.exp(lifted - top[..., None]).sum(axis=-1) + np.exp(rest - top))
