"""Entries retrieved for one history: of what kind, what they speak for, and the factors of relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from llm4rec.types import Array, Floats, Ints

Kind = Literal["item_text", "memory"]
Factor = Literal["semantic", "temporal", "quality", "overlap"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What an item says about itself; and what somebody with a similar history took next."""
FACTORS: tuple[Factor, ...] = get_args(Factor)
"""The four terms of equation (9)."""
ITEM_TEXT, MEMORY = range(len(KINDS))


@dataclass(frozen=True)
class Entries:
    """The entries [e] retrieved for one history.

    Attributes:
        kinds: place in `KINDS`.
        items: the item each speaks for.
        anchors: the item of the history that each was found by.
        sources: where it can be looked up: the item again, or the place of a memory in its event log.
        weights: how much it counts beside the others of its kind: the older its anchor, the less.
        semantic: s of equation (7), ≥ 0.
        ages: time since the entry until now [days]; NaN where there is no clock.
        quality: 0 to 1, NaN where nothing is known of it.
        overlap: what it has in common with the history beside what `semantic` says, ≥ 0.
    """

    kinds: Ints
    items: Ints
    anchors: Ints
    sources: Ints
    weights: Floats
    semantic: Floats
    ages: Floats
    quality: Floats
    overlap: Floats

    def __len__(self) -> int:
        return len(self.items)

    def temporal(self, gamma: float) -> Floats:
        """exp(−γ · age) of each entry [e], equation (10), with γ per day; 0 where there is no clock."""
        return np.nan_to_num(np.exp(-np.float32(gamma) * self.ages))

    def factors(self, gamma: float) -> Floats:
        """The four factors of equation (9) [e, 4], each times the entry's weight."""
        columns = (self.semantic, self.temporal(gamma), np.nan_to_num(self.quality), self.overlap)
        return np.stack(columns, axis=1) * self.weights[:, None]

    def only(self, rows: Array) -> Entries:
        """The entries that `rows` (numbers, or one truth value each) names."""
        return Entries(*(values[rows] for values in vars(self).values()))


def joined(parts: Sequence[Entries]) -> Entries:
    """The entries of all parts, one after the other."""
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        number = nothing.astype(np.float32)
        return Entries(nothing, nothing, nothing, nothing, number, number, number, number, number)
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Entries(*(np.concatenate(column) for column in columns))


def by_item(items: Ints, values: Array) -> tuple[Ints, Floats]:
    """Items [j], ascending, each once, and the sum of their rows of `values` [e, f] → [j, f]."""
    known, place = np.unique(items, return_inverse=True)
    sums = [np.bincount(place, weights=column, minlength=len(known)) for column in values.T]
    return known, np.stack(sums, axis=1).astype(np.float32)
