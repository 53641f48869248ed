"""What speaks against an item: what the rating head is to say of it, after what its person had done before.

Source: paper, equation (31); a softmax can't take a negative target, so the squared error of the head alone
is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from llm4rec.data.events import EventLog
from llm4rec.model.events import EventSpace
from llm4rec.online.cases import Cases
from llm4rec.types import Array, Floats, Ints

LOW, DISLIKE, SKIP = "low rating", "dislike", "skip"
"""Kinds that speak against an item; a rating that does so is told from those that do not."""
LEAST = 2.0
"""Standard deviations that a dislike stands below the mean rating at least: where all ratings that are known
are good ones, the lowest of them is no dislike."""


def ratings(kinds: Sequence[str], values: Array, space: EventSpace) -> Floats:
    """What each event says of its item, in the units of ratings [n].

    A rating says itself. A dislike says the lowest rating known (of more than ten different ones: their
    lowest decile), and two standard deviations below the mean at most; a skip what is halfway from there to
    the mean.

    Args:
        kinds: of each event, one of `LOW`, `DISLIKE` and `SKIP` [n].
        values: its rating [n]; read of ratings alone.
        space: what ratings mean.
    """
    lowest = space.rating_cuts[0] if space.rating_cuts else space.rating_mean
    dislike = min(lowest, space.rating_mean - LEAST * space.rating_std)
    said = {DISLIKE: dislike, SKIP: (dislike + space.rating_mean) / 2}
    found = [said.get(kind, value) for kind, value in zip(kinds, values.tolist(), strict=True)]
    return np.array(found, dtype=np.float32)


def opposed(
    known: EventLog, events: pl.DataFrame, said: Floats, weights: Floats, came: pl.DataFrame, most: int
) -> Cases:
    """Ask for events that are in no history, a stretch each, after the history of its person as it was then.

    Args:
        known: the histories of their people, with ratings; who has none there had done nothing.
        events: `user_id`, `item`, `time` and `position` [n].
        said: the rating that each stands for [n].
        weights: above 0 [n].
        came: events of the same micro-batch that are in the histories already, with the same columns.
        most: the most events that a stretch reads.
    """
    rows = np.array([known.row_of.get(name, -1) for name in events["user_id"].to_list()], dtype=np.int64)
    ends = _ends(known, rows, events, came)
    lengths = np.minimum(ends, most)
    starts = known.offsets[np.maximum(rows, 0)] + ends - lengths
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int64)
    last = offsets[1:] - 1
    read = np.ones(offsets[-1], dtype=np.bool_)
    read[last] = False
    index = np.flatnonzero(read) + np.repeat(starts - offsets[:-1], lengths)

    def with_own(old: Array, own: Array) -> Array:
        found = np.zeros(len(read), dtype=old.dtype)
        found[read], found[last] = old[index], own
        return found

    unrated = np.zeros(0, dtype=np.float32) if known.ratings is None else known.ratings
    log = EventLog(
        user_ids=events["user_id"],
        offsets=offsets,
        items=with_own(known.items, events["item"].to_numpy()),
        times=None if known.times is None else with_own(known.times, events["time"].to_numpy()),
        ratings=with_own(unrated, said),
        # what is asked for is not read, so it needs no kind of its own
        kinds=None if known.kinds is None else with_own(known.kinds, np.zeros(len(last), dtype=np.int64)),
        kind_names=known.kind_names or ("",),
    )
    marked = np.zeros(len(read), dtype=np.float32)
    marked[last] = weights
    return Cases(log, ends <= most, marked, last, np.arange(len(last)), ~read)


def _ends(known: EventLog, rows: Ints, events: pl.DataFrame, came: pl.DataFrame) -> Ints:
    """How many events of its person's history each came after [n].

    Of those of the same second, only ones of the same micro-batch are told from what came later, so that it
    does not matter how much further the histories go.
    """
    found = np.zeros(events.height, dtype=np.int64)
    owners, positions = np.array(came["user_id"].to_list(), dtype=object), came["position"].to_numpy()
    moments = came["time"].to_numpy()
    told = events.select("user_id", "position", "time").iter_rows()
    for number, (row, (user, position, time)) in enumerate(zip(rows.tolist(), told, strict=True)):
        if row < 0:
            continue
        if known.times is None:
            end = known.lengths[row] - np.count_nonzero((owners == user) & (positions > position))
        else:
            own = known.times[known.offsets[row] : known.offsets[row + 1]]
            same = (owners == user) & (positions < position) & (moments == time)
            end = np.searchsorted(own, time) + np.count_nonzero(same)
        found[number] = max(int(end), 0)
    return found


def together(taken: Cases, other: Cases, n: int) -> Cases:
    """Cases of the same histories as one; `n` events were given for the first."""
    one, two = taken.log, other.log

    def both(first: Array | None, second: Array | None) -> Array | None:
        return None if first is None or second is None else np.concatenate([first, second])

    log = replace(
        one,
        user_ids=pl.concat([one.user_ids, two.user_ids.rename(one.user_ids.name)]),
        offsets=np.concatenate([one.offsets, two.offsets[1:] + one.n_events]),
        items=np.concatenate([one.items, two.items]),
        times=both(one.times, two.times),
        ratings=both(one.ratings, two.ratings),
        kinds=both(one.kinds, two.kinds),
        kind_names=two.kind_names,
    )
    return Cases(
        log,
        np.concatenate([taken.first, other.first]),
        np.concatenate([taken.weights, other.weights]),
        np.concatenate([taken.index, other.index + one.n_events]),
        np.concatenate([taken.asked, other.asked + n]),
        np.concatenate([np.zeros(one.n_events, dtype=np.bool_), other.against]),
    )
