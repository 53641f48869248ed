"""Accuracy of ranked lists: hit rate, NDCG, reciprocal rank and recall, ties counted against the model; AUC.

A list is read in the worst order its scores allow: within a group of equal scores, right answers come
last. A list of n holds all that is needed for that at every k < n: an answer that ties with items
beyond the end of a full list ties with its last entry, so its worst place inside the list is n already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llm4rec.data.split import Cases
from llm4rec.errors import InputError
from llm4rec.types import Array, Bools, Floats, Rankings

KS = (5, 10, 20)


def per_case(rankings: Rankings, cases: Cases, ks: Sequence[int] = KS) -> dict[str, Floats]:
    """Each case's metrics [c] at each k, all in 0..1, under the names `hr@k`, `ndcg@k`, `mrr@k`, `recall@k`.

    With r_j = 1 where place j of the list holds a right answer, and T right answers:
    hr@k = max_{j≤k} r_j · recall@k = Σ_{j≤k} r_j / T · mrr@k = max_{j≤k} r_j / j ·
    ndcg@k = Σ_{j≤k} r_j / log₂(j+1) ÷ Σ_{j≤min(k,T)} 1 / log₂(j+1).

    Args:
        rankings: [c, n] with n ≥ every k; n > k where scores can tie (see above).
        cases: the c questions that were ranked.
        ks: list lengths to cut at.

    Raises:
        InputError: if the lists are shorter than a k, or not one per case.
    """
    n_cases, width = rankings.items.shape
    if n_cases != len(cases):
        raise InputError(f"There are {n_cases} lists for {len(cases)} cases; give one list per case.")
    if max(ks, default=0) > width:
        raise InputError(f"Lists of {width} items can't be measured at {max(ks)}; rank at least {max(ks)}.")
    n_right = np.diff(cases.target_offsets)
    right = _worst_order(_is_right(rankings, cases), rankings.scores).astype(np.float64)
    place = np.arange(1, width + 1)
    gain = 1 / np.log2(place + 1)
    ideal = np.concatenate([[0.0], np.cumsum(gain)])
    found: dict[str, Floats] = {}
    for k in ks:
        top = right[:, :k]
        found[f"hr@{k}"] = top.max(axis=1, initial=0).astype(np.float32)
        best = ideal[np.clip(n_right, 1, k)]  # a case without answers scores 0, not NaN
        found[f"ndcg@{k}"] = (top @ gain[:k] / best).astype(np.float32)
        found[f"mrr@{k}"] = (top / place[:k]).max(axis=1, initial=0).astype(np.float32)
        found[f"recall@{k}"] = (top.sum(axis=1) / np.maximum(n_right, 1)).astype(np.float32)
    return found


def auc(liked: Bools, scores: Array, weights: Array | None = None) -> float:
    """Share of pairs of a positive and a negative that are in order, ties counting half.

    Args:
        liked: whether each is a positive [p]; there are some of either.
        scores: higher is likelier [p].
        weights: of each [p], a pair counting the product of both; None counts all alike.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    positive, negative = (np.bincount(place, weights * mask, place.max() + 1) for mask in (liked, ~liked))
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))


def _is_right(rankings: Rankings, cases: Cases) -> Bools:
    """Where the lists [c, n] hold a right answer."""
    items = rankings.items
    n_right = np.diff(cases.target_offsets)
    if np.all(n_right == 1):
        return items == cases.targets[:, None]
    stride = max(int(items.max(initial=0)), int(cases.targets.max(initial=0))) + 2
    rows = np.arange(len(items))
    wanted = np.repeat(rows, n_right) * stride + cases.targets + 1
    return np.isin(rows[:, None] * stride + items + 1, wanted)  # + 1: the -1 of a short list is no item


def _worst_order(right: Bools, scores: Array) -> Bools:
    """`right` [c, n] with every group of equal scores sorted so that right answers come last."""
    order = np.lexsort((right, -scores), axis=1)
    return np.take_along_axis(right, order, axis=1)
