"""Means by group, and bootstrap draws of many of them at once, people being what is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy import sparse

from llm4rec.evaluate.significance import DRAWS_AT_ONCE
from llm4rec.types import Array, Bools, Ints

LEVEL = 0.95
SHUFFLES = 200
"""Deals of people to groups that chance is judged by."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its 95% percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, drawn: Array) -> Self:
        """A value, with the interval of its draws [k]."""
        low, high = ends(drawn)
        return cls(float(value), float(low), float(high))


def draws_of_means(values: Array, seed: Sequence[int], draws: int) -> Array:
    """The mean of each of `draws` resamples, with replacement, of the rows of `values` [p, g]: [draws, g]."""
    return np.concatenate([counts @ values for counts in _counts(len(values), seed, draws)]) / len(values)


def draws_of_ratios(above: Array, below: Array, seed: Sequence[int], draws: int) -> Array:
    """Σ above ÷ Σ below of each resample of the people [p, g]: [draws, g]; NaN where nothing is below."""
    parts = [ratio(counts @ above, counts @ below) for counts in _counts(len(above), seed, draws)]
    return np.concatenate(parts)


def ends(drawn: Array) -> tuple[Array, Array]:
    """Lower and upper ends of the percentile interval over the first axis; NaN where a draw is NaN."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def spread(values: Array, axis: int = 0) -> Array:
    """Largest − least over an axis: what `fairlearn` calls the difference between groups."""
    return values.max(axis=axis) - values.min(axis=axis)


def by_person(values: Array, people: Ints) -> tuple[Ints, Array]:
    """People [p] with a value, ascending, and the means of their cases' values [c, g]: [p, g].

    A case with a NaN among its values is no case at all.
    """
    keep = ~np.isnan(values).any(axis=1)
    owners, codes = np.unique(people[keep], return_inverse=True)
    return owners, means(values[keep], codes, len(owners))


def means(values: Array, codes: Ints, n: int) -> Array:
    """The means of the rows of `values` [r, g] in each of n groups [n, g]; NaN of an empty one."""
    return ratio(sums(values, codes, n), np.bincount(codes, minlength=n)[:, None])


def sums(values: Array, codes: Ints, n: int) -> Array:
    """The sums of the rows of `values` [r, g] in each of n groups [n, g]."""
    cells = (np.ones(len(codes)), (codes, np.arange(len(codes))))
    place: Any = sparse.csr_array(cells, shape=(n, len(codes)))
    return np.asarray(place @ values)


def by_chance(gap: float, values: Array, codes: Ints, among: Bools, seed: int) -> tuple[float, float]:
    """What the largest difference between groups would be if it did not matter who is in which.

    Args:
        gap: the one that was found.
        values: of each person [p, g].
        codes: their group [p].
        among: the groups that are compared [a], of the same people but dealt to them at random.
        seed: of the deals.

    Returns:
        The mean over `SHUFFLES` deals of the largest difference, and the share of the deals, counting the one
        that was found, in which it is at least `gap`.
    """
    keep = among[codes]
    rng, held, mine = np.random.default_rng([seed, len(codes)]), values[keep], codes[keep]
    deals = (means(held, rng.permutation(mine), len(among))[among] for _ in range(SHUFFLES))
    dealt = np.array([spread(deal).max() for deal in deals])
    return float(dealt.mean()), float((1 + np.count_nonzero(dealt >= gap - 1e-12)) / (1 + len(dealt)))


def ratio(above: Array, below: Array) -> Array:
    """Above ÷ below; NaN where that is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)


def _counts(n: int, seed: Sequence[int], draws: int) -> Iterator[Array]:
    """How often each of n people is drawn in each resample [k, n], some resamples at a time."""
    rng = np.random.default_rng(list(seed))
    step = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, draws, step):
        k = min(step, draws - start)
        drawn = rng.integers(n, size=(k, n)) + np.arange(k)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=k * n).reshape(k, n).astype(np.float64)
