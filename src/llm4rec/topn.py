"""The best n of a row of scores, exactly, and the same way every time."""

from __future__ import annotations

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.errors import LLM4RecError
from llm4rec.types import Array, Floats, Ints, Rankings


def top_n(scores: Floats, n: int, exclude: EventLog | None) -> Rankings:
    """The n highest scores of each row, best first; equal scores are ordered by item number.

    Args:
        scores: [b, i], left as they are; -inf marks an item that must not come back.
        n: list length.
        exclude: b rows of items that must not come back, or None.

    Returns:
        Rankings [b, n]; where a row has fewer than n legal items its tail is item -1, score -inf.

    Raises:
        LLM4RecError: if a score is NaN or +inf, which no order can be made of.

    >>> top_n(np.array([[0.5, 2.0, 0.5, 2.0]], dtype=np.float32), 3, None).items
    array([[1, 3, 0]])
    """
    if not np.all(scores < np.inf):  # false for NaN as well
        raise LLM4RecError("The model gave a score that is NaN or infinite, so its items can't be ranked.")
    cost = np.negative(scores)  # the one copy of [b, i]
    if exclude is not None:
        cost[exclude.rows, exclude.items] = np.inf
    width = min(n, cost.shape[1])
    items = _cheapest(cost, width)
    found = np.take_along_axis(cost, items, axis=1)
    order = np.lexsort((items, found), axis=1)
    items, found = np.take_along_axis(items, order, axis=1), np.take_along_axis(found, order, axis=1)
    ranked = np.full((len(cost), n), -1, dtype=np.int64)
    values = np.full((len(cost), n), -np.inf, dtype=np.float32)
    ranked[:, :width] = np.where(np.isfinite(found), items, -1)
    values[:, :width] = -found
    return Rankings(ranked, values)


def _cheapest(cost: Array, width: int) -> Ints:
    """Column numbers [b, width] of the lowest costs, unsorted; of equal ones at the edge the first."""
    if width == cost.shape[1]:
        return np.broadcast_to(np.arange(width), cost.shape)
    if width == 0:
        return np.empty((len(cost), 0), dtype=np.int64)
    items = np.argpartition(cost, width - 1, axis=1)[:, :width]
    edge = np.take_along_axis(cost, items[:, -1:], axis=1)
    # argpartition takes any of the items that tie at the edge: choose there again, by number.
    tied = (np.count_nonzero(cost <= edge, axis=1) > width) & np.isfinite(edge[:, 0])
    for row in np.flatnonzero(tied):
        better = np.flatnonzero(cost[row] < edge[row])
        equal = np.flatnonzero(cost[row] == edge[row])
        items[row] = np.concatenate([better, equal[: width - len(better)]])
    return items
