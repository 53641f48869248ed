"""What accuracy does not see: how much of the catalogue is shown, how varied, how new, how unequal.

All are read off lists of items [c, n] in which -1 marks an empty place. An item's share is the part of
people in the training log who took it at least once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.types import Array, Ints


def people_share(train: EventLog, n_items: int) -> Array:
    """The share of people [i] who took each item: its distinct people ÷ all people with an event."""
    pairs = np.unique(train.rows * n_items + train.items)
    people = int(np.count_nonzero(train.lengths))
    return np.bincount(pairs % n_items, minlength=n_items) / max(people, 1)


def exposure(lists: Ints, n_items: int) -> Ints:
    """How often each item [i] stands in the lists."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


def coverage(exposure: Ints) -> float:
    """The share of the catalogue that stands in at least one list."""
    return float(np.count_nonzero(exposure) / max(len(exposure), 1))


def gini(exposure: Ints) -> float:
    """Inequality of exposure over the whole catalogue: 0 all alike, towards 1 all on one item.

    With x sorted upwards, G = Σ_j (2j − I − 1) x_j ÷ (I Σ_j x_j), j = 1..I. 0 where nothing was shown.

    >>> gini(np.array([0, 0, 0, 4]))
    0.75
    """
    x = np.sort(exposure).astype(np.float64)
    if not x.sum():
        return 0.0
    place = np.arange(1, len(x) + 1)
    return float(((2 * place - len(x) - 1) * x).sum() / (len(x) * x.sum()))


def novelty(lists: Ints, share: Array, n_people: int) -> Array:
    """Mean −log₂ share of each list's items [c], in bits; NaN for an empty list.

    An item nobody took counts as taken by one of the `n_people`, which keeps the figure finite.
    """
    bits = -np.log2(np.maximum(share, 1 / max(n_people, 1)))
    return _list_means(lists, bits)


def popularity(lists: Ints, share: Array) -> Array:
    """Mean share of each list's items [c]; NaN for an empty list."""
    return _list_means(lists, share)


def history_popularity(histories: EventLog, share: Array) -> Array:
    """Mean share of each history's items [c]; NaN for an empty history."""
    total = np.bincount(histories.rows, weights=share[histories.items], minlength=histories.n_users)
    return np.divide(total, histories.lengths, out=np.full(len(total), np.nan), where=histories.lengths > 0)


def diversity(lists: Ints, vectors: Any) -> Array:
    """Intra-list diversity [c]: 1 − the mean cosine over all pairs of a list's items.

    Over m unit vectors the pairs' mean is (|Σ v|² − m) / (m (m − 1)), so no pair is formed. Items
    without a vector (all zeros) are left out; a list with fewer than two others is NaN.

    Args:
        lists: [c, n].
        vectors: [i, d], dense or scipy sparse; lengths do not matter.
    """
    unit, known = _unit(vectors)
    filled = (lists >= 0) & known[lists]
    rows, _ = np.nonzero(filled)
    ones = np.ones(len(rows), dtype=np.float64)
    shown: Any = sparse.csr_array((ones, (rows, lists[filled])), shape=(len(lists), len(known)))
    total: Any = shown @ unit
    squared = np.asarray(total.multiply(total).sum(axis=1)).ravel()
    m = filled.sum(axis=1).astype(np.float64)
    pairs = m * (m - 1)
    cosine = np.divide(squared - m, pairs, out=np.full(len(m), np.nan), where=pairs > 0)
    return 1 - cosine


def category_vectors(catalog: Catalog) -> Any:
    """Multi-hot vectors [i, d] (scipy sparse) of the categorical fields; None where there are none."""
    columns: list[Any] = []
    rows = np.arange(len(catalog))
    for field in catalog.by_modality("categorical"):
        values = catalog.table[field.name]
        lengths = values.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = values.list.explode(empty_as_null=False, keep_nulls=False)
        names = flat.unique().drop_nulls().sort()
        codes = flat.replace_strict(names, np.arange(len(names)), default=-1).to_numpy()
        owner = np.repeat(rows, lengths)[codes >= 0]
        hot: Any = sparse.csr_array(
            (np.ones(len(owner)), (owner, codes[codes >= 0])), shape=(len(rows), len(names))
        )
        hot.data[:] = 1  # a value given twice is one value
        columns.append(hot)
    stacked: Any = sparse.hstack(columns, format="csr") if columns else None
    return stacked if stacked is not None and stacked.nnz else None


def _unit(vectors: Any) -> tuple[Any, Array]:
    """The vectors scaled to length 1 (sparse), and which of them had a length at all."""
    matrix: Any = sparse.csr_array(vectors, dtype=np.float64)
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return sparse.diags_array(scale) @ matrix, length > 0


def _list_means(lists: Ints, values: Array) -> Array:
    filled = lists >= 0
    total = np.where(filled, values[lists], 0.0).sum(axis=1)
    count = filled.sum(axis=1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
