"""Entries retrieved for one history: of what kind, what they speak for, and the factors of relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, Protocol, get_args

import numpy as np

from llm4rec.types import Array, Floats, Ints

Kind = Literal["item_text", "similar_item", "review", "tag", "memory"]
Factor = Literal["semantic", "temporal", "quality", "overlap"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What an item says about itself; items alike to the model; what somebody said of an item, in sentences or as
a tag; and what somebody with a similar history took next."""
FACTORS: tuple[Factor, ...] = get_args(Factor)
"""The four terms of equation (9)."""
ITEM_TEXT, SIMILAR_ITEM, REVIEW, TAG, MEMORY = range(len(KINDS))
DAY = 86_400


@dataclass(frozen=True)
class Asked:
    """What entries are retrieved for.

    Attributes:
        anchors: the newest different items of a history [a].
        weights: how much each counts [a], the older the less.
        times: when the person last took each, in UTC seconds [a], -1 where it is not known; None where no
            time is known.
        owner: whose history it is; what they did and said is told to others only.
        now: when it is asked, in UTC seconds; nothing later is retrieved. None without a clock.
    """

    anchors: Ints
    weights: Floats
    times: Ints | None = None
    owner: str = ""
    now: int | None = None

    def ages(self, times: Ints | None) -> Floats | None:
        """Days from `times` [e] until now, NaN where one is -1 or later; None where there is no clock."""
        if self.now is None or times is None:
            return None
        known = (times >= 0) & (times <= self.now)
        return np.where(known, (self.now - times) / DAY, np.nan).astype(np.float32)


class Retriever(Protocol):
    """Finds entries of one kind."""

    def entries(self, asked: Asked) -> Entries:
        """The entries for one history; nothing in them is later than `asked.now`."""
        ...


@dataclass(frozen=True)
class Entries:
    """The entries [e] retrieved for one history.

    Attributes:
        kinds: place in `KINDS`.
        items: the item each speaks for.
        anchors: the item of the history that each was found by.
        sources: where it can be looked up: the item again, the number of a review or tag, or the place of a
            memory in its event log.
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

    @cached_property
    def spoken_for(self) -> tuple[Ints, Ints]:
        """The items that entries speak for [j], ascending, and the place of each entry's among them [e]."""
        return np.unique(self.items, return_inverse=True)

    def sums(self, values: Array) -> Floats:
        """For each item that is spoken for, the sum of its entries' rows of `values` [e, f] → [j, f]."""
        known, place = self.spoken_for
        found = [np.bincount(place, weights=column, minlength=len(known)) for column in values.T]
        return np.stack(found, axis=1).astype(np.float32)

    def temporal(self, gamma: float) -> Floats:
        """exp(−γ · age) of each entry [e], equation (10), with γ per day; 0 where there is no clock."""
        return np.nan_to_num(np.exp(-np.float32(gamma) * self.ages))

    def factors(self, gamma: float) -> Floats:
        """The four factors of equation (9) [e, 4], each times the entry's weight."""
        columns = (self.semantic, self.temporal(gamma), np.nan_to_num(self.quality), self.overlap)
        return np.stack(columns, axis=1) * self.weights[:, None]

    def only(self, rows: Array) -> Entries:
        """The entries that `rows` (numbers, or one truth value each) names."""
        return Entries(*(values[rows] for values in _columns(self)))


def entries(  # noqa: PLR0913  # the columns of a table
    kind: int,
    items: Ints,
    *,
    anchors: Ints,
    sources: Ints,
    weights: Floats,
    semantic: Floats | None = None,
    ages: Floats | None = None,
    quality: Floats | None = None,
    overlap: Floats | None = None,
) -> Entries:
    """Entries of one kind, a place in `KINDS`; what is not given is not known, or nothing."""
    n = len(items)
    unknown, nothing = np.full(n, np.nan, dtype=np.float32), np.zeros(n, dtype=np.float32)
    return Entries(
        kinds=np.full(n, kind),
        items=items,
        anchors=anchors,
        sources=sources,
        weights=weights,
        semantic=nothing if semantic is None else semantic,
        ages=unknown if ages is None else ages,
        quality=unknown if quality is None else quality,
        overlap=nothing if overlap is None else overlap,
    )


def scaled(ratings: Floats | None, n: int) -> Floats:
    """Ratings [n] between the lowest, 0, and the highest, 1; NaN where there is none."""
    if ratings is None or not np.isfinite(ratings).any():
        return np.full(n, np.nan, dtype=np.float32)
    low, high = np.nanmin(ratings), np.nanmax(ratings)
    return ((ratings - low) / max(high - low, 1e-9)).astype(np.float32)


def joined(parts: Sequence[Entries]) -> Entries:
    """The entries of all parts, one after the other."""
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        number = nothing.astype(np.float32)
        return Entries(nothing, nothing, nothing, nothing, number, number, number, number, number)
    columns = zip(*map(_columns, parts), strict=True)
    return Entries(*(np.concatenate(column) for column in columns))


def _columns(some: Entries) -> list[Array]:
    return [getattr(some, column.name) for column in fields(some)]
