"""What chance could have done: bootstrap intervals over people, paired tests, Holm's correction.

People are drawn, not cases: one person's cases are not independent of each other. All draws come from
a seeded generator, so the same figures give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm4rec.errors import InputError
from llm4rec.types import Array

DRAWS_AT_ONCE = 4_000_000  # person numbers held at a time: 32 MB


@dataclass(frozen=True)
class Paired:
    """Two models on the same people.

    Attributes:
        difference: mean of a − b over people.
        low: lower end of the interval of the difference.
        high: upper end.
        p: two-sided bootstrap p-value of no difference.
    """

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Gain:
    """What one choice gains over another on the same validation cases.

    Attributes:
        mean: mean over people.
        error: its standard error.
    """

    mean: float
    error: float

    @classmethod
    def of(cls, differences: Array) -> Gain:
        """Of the mean difference in each person's cases [p], at least one.

        >>> Gain.of(np.array([0.0, 0.2]))
        Gain(mean=0.1, error=0.07071067811865475)
        """
        return cls(float(differences.mean()), float(differences.std() / np.sqrt(len(differences))))

    def exceeds(self, errors: float = 1.0) -> bool:
        """Whether the mean is above so many standard errors: what validation must show to be followed."""
        return self.mean > errors * self.error


def interval(
    values_per_person: Array, seed: int = 0, draws: int = 2000, *, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values_per_person` [p].

    >>> interval(np.ones(5))
    (1.0, 1.0)

    Raises:
        InputError: if there is no person, or a value is not finite.
    """
    return _ends(_means(_checked(values_per_person), seed, draws), level)


def paired(a: Array, b: Array, seed: int = 0, draws: int = 2000, *, level: float = 0.95) -> Paired:
    """The mean difference a − b [p], person by person, with its percentile interval and p-value.

    p = 2 · min(1 + #{d* ≤ 0}, 1 + #{d* ≥ 0}) ÷ (1 + draws), at most 1, where d* are the bootstrap
    means: it says how much of what the data allow lies on the other side of zero.

    Raises:
        InputError: if a and b are not over the same number of people, or a value is not finite.
    """
    if np.shape(a) != np.shape(b):
        raise InputError(f"A paired test needs the same people twice, not {len(a)} against {len(b)}.")
    gap = _checked(a) - _checked(b)
    means = _means(gap, seed, draws)
    low, high = _ends(means, level)
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return Paired(float(gap.mean()), low, high, min(1.0, 2 * (1 + tail) / (1 + draws)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given.

    The j-th smallest of m becomes max over its predecessors and itself of (m − j + 1) p, at most 1.

    >>> holm([0.25, 0.125])
    [0.25, 0.25]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _checked(values: Array) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise InputError("An interval needs a finite value for each of at least one person.")
    return values


def _means(values: Array, seed: int, draws: int) -> Array:
    """The mean of each of `draws` resamples, with replacement, of `values` [p]."""
    rng = np.random.default_rng(seed)
    step = max(1, DRAWS_AT_ONCE // len(values))
    return np.concatenate([
        values[rng.integers(len(values), size=(min(step, draws - start), len(values)))].mean(axis=1)
        for start in range(0, draws, step)
    ])


def _ends(means: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
