"""Who rated what, and how, on a scale of few levels, in no order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llm4rec.errors import InputError
from llm4rec.types import Array, Bools, Floats, Ints

MOST_LEVELS = 20
"""Different ratings above which a scale is no scale of levels."""


@dataclass(frozen=True)
class Rated:
    """Who rated what, and how.

    Attributes:
        people: dense numbers [e], ascending.
        items: dense numbers [e].
        classes: places in `levels` [e].
        levels: the ratings there are, ascending [k].
        n_people: people there are.
        n_items: items there are.
    """

    people: Ints
    items: Ints
    classes: Ints
    levels: Floats
    n_people: int
    n_items: int

    @classmethod
    def of(cls, people: Ints, items: Ints, ratings: Array, n_people: int, n_items: int) -> Rated:
        """Of ratings in any order.

        Raises:
            InputError: where there is none, one is not finite, the scale has one level or too many, a
                number is not in range, or somebody rated an item twice.
        """
        if not len(ratings) or not np.isfinite(ratings).all():
            raise InputError(
                "A model of ratings needs ratings, each a finite number: leave out rows without."
            )
        levels, classes = np.unique(ratings, return_inverse=True)
        if not 2 <= len(levels) <= MOST_LEVELS:
            raise InputError(
                f"The ratings have {len(levels)} different values, and a scale has 2 to {MOST_LEVELS}: "
                "round them to levels first."
            )
        for name, numbers, most in (("people", people, n_people), ("items", items, n_items)):
            if numbers.min() < 0 or numbers.max() >= most:
                raise InputError(f"The numbers of {name} must be from 0 to {most - 1}.")
        keys = people * n_items + items
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero(np.diff(keys[order]) == 0)
        if len(again):
            who, what = divmod(int(keys[order][again[0]]), n_items)
            raise InputError(f"Person {who} rated item {what} twice: keep one rating of each pair.")
        return cls(people[order], items[order], classes[order], levels.astype(np.float32), n_people, n_items)

    def __len__(self) -> int:
        return len(self.people)

    @cached_property
    def offsets(self) -> Ints:
        """The ratings of person u are the half-open slice `offsets[u]:offsets[u + 1]` [u + 1]."""
        return np.searchsorted(self.people, np.arange(self.n_people + 1))

    @cached_property
    def keys(self) -> Ints:
        """What names each pair, person · items + item, of every rating [e], ascending."""
        return self.people * self.n_items + self.items

    @property
    def density(self) -> float:
        """Share of all pairs that are rated."""
        return len(self) / (self.n_people * self.n_items)

    def has(self, people: Ints, items: Ints) -> Bools:
        """Whether each pair [p] is rated."""
        keys = people * self.n_items + items
        place = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        return self.keys[place] == keys

    def take(self, events: Array) -> Rated:
        """The ratings of a mask or of ascending numbers, with the same scale, people and items."""
        return Rated(
            self.people[events], self.items[events], self.classes[events],
            self.levels, self.n_people, self.n_items,
        )  # fmt: skip


def expected(levels: Floats, probabilities: Array) -> Array:
    """The expected rating [...] of P(r > level) [..., k − 1]: the lowest level, and every step by its P."""
    return levels[0] + probabilities @ np.diff(levels)


def at_least(levels: Floats, probabilities: Array, rating: float) -> Array:
    """P(r ≥ rating) [...] of P(r > level) [..., k − 1].

    Raises:
        InputError: where every rating, or none, is as high.
    """
    below = int((levels < rating).sum())
    if not 0 < below < len(levels):
        raise InputError(f"{rating:g} parts no two of the ratings {', '.join(f'{x:g}' for x in levels)}.")
    return probabilities[..., below - 1]
