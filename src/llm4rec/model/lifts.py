"""What is added to the log-scores of some items: to all scores at once, looked up, and the most of it."""

from __future__ import annotations

import numpy as np

from llm4rec.types import Array, Bools, Floats, Ints


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
        before = log_sum(log_scores)
        log_scores[known] += lifts
        log_scores += np.float32(before - log_sum(log_scores))


def temper(log_scores: Floats, exponent: float) -> None:
    """Raise the probabilities of `log_scores` [i] to a power, in place; their sum stays as it was."""
    if exponent != 1:
        before = log_sum(log_scores)
        log_scores *= np.float32(exponent)
        log_scores += np.float32(before - log_sum(log_scores))


def log_add(a: Floats, b: Floats) -> Floats:
    """log(exp a + exp b), -inf where both are; several times as fast as NumPy's `logaddexp`."""
    largest = np.maximum(np.maximum(a, b), np.finfo(np.float32).min)
    with np.errstate(divide="ignore"):
        return largest + np.log(np.exp(a - largest) + np.exp(b - largest))


def log_sum(values: Array) -> float:
    """Log Σ exp(values), of none -inf; much faster than NumPy's pairwise `logaddexp.reduce`."""
    largest = float(values.max(initial=-np.inf))
    if not np.isfinite(largest):
        return largest
    return largest + float(np.log(np.exp(values - largest).sum(dtype=np.float64)))
