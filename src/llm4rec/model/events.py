"""From an event log to what the network reads: padded items, gap classes, rating classes, kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from llm4rec.data.events import EventLog
from llm4rec.model.context import gap_classes, moments
from llm4rec.model.network import Batch
from llm4rec.types import Floats, Ints

MOST_RATING_CLASSES = 10


@dataclass(frozen=True)
class EventSpace:
    """What fixes the meaning of rating classes and kinds, learnt from the training log.

    Attributes:
        rating_cuts: upper bounds of all rating classes but the last, ascending.
        rating_mean: mean of the known ratings; 0 without any.
        rating_std: their standard deviation; 1 without any or where all are equal.
        kind_names: names of the feedback types, in order of their number.
    """

    rating_cuts: tuple[float, ...]
    rating_mean: float
    rating_std: float
    kind_names: tuple[str, ...]

    @property
    def n_ratings(self) -> int:
        return len(self.rating_cuts) + 1

    def rating_classes(self, ratings: Floats) -> Ints:
        """Classes 1…n of ratings; 0 where a rating is NaN."""
        classes = np.searchsorted(np.array(self.rating_cuts, dtype=np.float32), ratings, side="left") + 1
        return np.where(np.isnan(ratings), 0, classes).astype(np.int64)

    def kind_classes(self, log: EventLog) -> Ints:
        """Classes 1…n of every event's kind; 0 where unknown here."""
        if log.kinds is None:
            return np.zeros(log.n_events, dtype=np.int64)
        places = {name: place + 1 for place, name in enumerate(self.kind_names)}
        translate = np.array([places.get(name, 0) for name in log.kind_names], dtype=np.int64)
        return translate[log.kinds]


def fit_events(log: EventLog) -> EventSpace:
    """Rating classes at the distinct values where they are few, else at deciles."""
    known = np.zeros(0, dtype=np.float32) if log.ratings is None else log.ratings[~np.isnan(log.ratings)]
    if not len(known):
        return EventSpace((), 0.0, 1.0, log.kind_names)
    distinct = np.unique(known)
    if len(distinct) > MOST_RATING_CLASSES:
        distinct = np.unique(np.quantile(known, np.linspace(0.1, 1, MOST_RATING_CLASSES)))
    std = float(known.std())
    return EventSpace(
        tuple(float(cut) for cut in distinct[:-1]),
        float(known.mean()),
        std if std > 0 else 1.0,
        log.kind_names,
    )


@dataclass(frozen=True)
class EventArrays:
    """Every event of a log in the network's terms, with a padding event at the end.

    Attributes:
        items: [e + 1], the last is -1.
        gaps: class of the time since the same row's previous event [e + 1]; 0 for a row's first.
        ratings: rating class [e + 1].
        kinds: kind class [e + 1].
        times: UTC seconds [e + 1], -1 unknown.
        offsets: [u + 1], as in the log.
        people: row of the people's tokens per log row [u], -1 unknown.
    """

    items: torch.Tensor
    gaps: torch.Tensor
    ratings: torch.Tensor
    kinds: torch.Tensor
    times: torch.Tensor
    offsets: Ints
    people: Ints

    def batch(self, rows: Ints, starts: Ints, lengths: Ints, asked_at: torch.Tensor | None = None) -> Batch:
        """Windows of `lengths` [b] events from event `starts` [b] of the log on, owned by `rows` [b].

        `asked_at` [b, t + 1], or [b, 1] for all alike, is when the states are asked: UTC seconds, -1 unknown.
        """
        chosen = self._index(starts, lengths)
        gaps = self.gaps[chosen]
        gaps[:, :1] = 0  # a request that was cut to its newest events can't know the first gap either
        asked = None
        if asked_at is not None:  # the first state has read no event
            asked = moments(asked_at, nn.functional.pad(self.times[chosen], (1, 0), value=-1))
        return Batch(
            items=self.items[chosen],
            gaps=gaps,
            ratings=self.ratings[chosen],
            kinds=self.kinds[chosen],
            people=torch.from_numpy(self.people[rows]),
            asked=asked,
        )

    def next_times(self, starts: Ints, lengths: Ints) -> torch.Tensor:
        """When the event after each state of such windows happened [b, t + 1]: UTC seconds, -1 unknown."""
        return self.times[self._index(starts, lengths + 1)]

    def _index(self, starts: Ints, lengths: Ints) -> torch.Tensor:
        """The events of windows [b, t], the padding event beyond their lengths."""
        place = np.arange(int(lengths.max(initial=0)))
        return torch.from_numpy(
            np.where(place < lengths[:, None], starts[:, None] + place, len(self.items) - 1)
        )


def event_arrays(log: EventLog, space: EventSpace, people: Ints) -> EventArrays:
    """Encode a whole log once; batches are then slices of it."""
    if log.times is None:
        gaps = np.zeros(log.n_events, dtype=np.int64)
    else:
        seconds = np.diff(log.times, prepend=log.times[:1])
        seconds[log.offsets[:-1][log.lengths > 0]] = -1
        seconds[log.times < 0] = -1  # not given
        gaps = gap_classes(torch.from_numpy(seconds)).numpy()
    unknown = np.full(log.n_events, np.nan, dtype=np.float32)
    ratings = space.rating_classes(unknown if log.ratings is None else log.ratings)
    return EventArrays(
        items=_padded(log.items, -1),
        gaps=_padded(gaps, 0),
        ratings=_padded(ratings, 0),
        kinds=_padded(space.kind_classes(log), 0),
        times=_padded(np.full(log.n_events, -1) if log.times is None else log.times, -1),
        offsets=log.offsets,
        people=people,
    )


def _padded(values: Ints, padding: int) -> torch.Tensor:
    return torch.from_numpy(np.append(values, padding).astype(np.int64))
