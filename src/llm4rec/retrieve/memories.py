"""Memories: what people with a similar history took next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.retrieve.entries import MEMORY, Asked, Entries, entries, scaled
from llm4rec.types import Floats, Ints

SHRUNK = 1.0
"""Memories that are taken to speak for nothing beside those of an anchor: few say less than many."""


@dataclass(frozen=True)
class Memories:
    """An event log, each event of which but a person's last is followed by a memory.

    Attributes:
        log: what people did.
        n_items: size of the catalogue.
        most: memories of one anchor that are looked at, the newest of them.
    """

    log: EventLog
    n_items: int
    most: int

    def entries(self, asked: Asked) -> Entries:
        """What others took after each of the anchors; a person's own events are no memories of theirs."""
        anchors, weights = asked.anchors, asked.weights
        own = self._own(asked.owner)
        places = [self._after(anchor, own, asked.now) for anchor in anchors.tolist()]
        counts = np.array([len(each) for each in places], dtype=np.int64)
        after = np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
        rows = self._rows[after]
        anchor = np.repeat(np.arange(len(anchors)), counts)
        # of the history beside the anchor: how much of it the same person took as well
        people, place = np.unique(rows, return_inverse=True)
        pairs = np.unique(place * len(anchors) + anchor)
        common = np.bincount(
            pairs // max(len(anchors), 1), weights[pairs % max(len(anchors), 1)], len(people)
        )
        total = float(weights.sum())
        return entries(
            MEMORY,
            self.log.items[after],
            anchors=anchors[anchor],
            sources=after,
            weights=(weights[anchor] / (counts[anchor] + SHRUNK)).astype(np.float32),
            semantic=np.ones(len(after), dtype=np.float32),
            ages=asked.ages(None if self.log.times is None else self.log.times[after]),
            quality=self._qualities[after],
            overlap=((common[place] - weights[anchor]) / np.float32(total or 1)).astype(np.float32),
        )

    def _after(self, item: int, own: tuple[int, int], now: int | None) -> Ints:
        """Places in the log of what followed `item`, ascending: the newest that others did by `now`."""
        after = self._order[self._starts[item] : self._starts[item + 1]] + 1
        after = after[(after < own[0]) | (after >= own[1])]
        if self.log.times is None:
            return after[-self.most :]
        times = self.log.times[after]
        if now is not None:
            after, times = after[times <= now], times[times <= now]
        if len(after) > self.most:
            after = np.sort(after[np.argpartition(-times, self.most - 1)[: self.most]])
        return after

    def _own(self, owner: str) -> tuple[int, int]:
        row = self.log.row_of.get(owner)
        return (0, 0) if row is None else (int(self.log.offsets[row]), int(self.log.offsets[row + 1]))

    @cached_property
    def _rows(self) -> Ints:
        return self.log.rows

    @cached_property
    def _followed(self) -> Ints:
        """Places of the events that another of the same person follows, ascending."""
        last = np.zeros(self.log.n_events, dtype=bool)
        last[self.log.offsets[1:][self.log.lengths > 0] - 1] = True
        return np.flatnonzero(~last)

    @cached_property
    def _order(self) -> Ints:
        return self._followed[_sorting(self.log.items[self._followed], self.n_items)]

    @cached_property
    def _starts(self) -> Ints:
        counts = np.bincount(self.log.items[self._followed], minlength=self.n_items)
        return np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def _qualities(self) -> Floats:
        return scaled(self.log.ratings, self.log.n_events)


def _sorting(items: Ints, n_items: int) -> Ints:
    """The places of items [e] in ascending order, of equal ones the first.

    NumPy sorts numbers of 16 bits by counting, ten times faster than longer ones; and the log of a model that
    is told of an event is sorted anew.
    """
    order = np.argsort(items.astype(np.uint16), kind="stable")  # which takes the lowest bits
    if n_items <= 1 << 16:
        return order
    return order[_sorting((items >> 16)[order], n_items >> 16)]
