"""Two event logs in one: what is new is put in its place among what is known.

A log that a model serves from is long, and what comes to it is often one event. So nothing that is known is
sorted or named again: it is copied around the new events, and what was worked out of it is carried on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from llm4rec.data.events import EventLog, build_log
from llm4rec.errors import ClockError
from llm4rec.types import Array, Floats, Ints

Both = Callable[[Array, Array], Array]
"""Puts an array [e'] of the later log's events among one [e] of the known."""


def joined(log: EventLog, later: EventLog) -> EventLog:
    """The events of both logs; see `EventLog.joined`.

    Raises:
        ClockError: if one of the two has times and the other has not.
    """
    if (log.times is None) != (later.times is None):
        raise ClockError(
            "Events with times and events without can't be joined: give a timestamp to all of them."
        )
    log, later = _tidied(log), _tidied(later)
    names = later.user_ids.to_list()
    known = np.array([log.row_of.get(name, -1) for name in names], dtype=np.int64)
    new = np.flatnonzero(known < 0)
    rows = known.copy()
    rows[new] = log.n_users + np.arange(len(new))
    lengths = np.concatenate([log.lengths, np.zeros(len(new), dtype=np.int64)])
    lengths[rows] += later.lengths
    places = _places(log, later, known)
    order = np.argsort(np.repeat(rows, later.lengths), kind="stable")
    places = places[order]

    def both(old: Array, more: Array) -> Array:
        return np.insert(old, places, more[order])

    user_ids = log.user_ids
    if len(new):  # in one piece, or a log that grows would fall into as many as it has people
        user_ids = pl.concat([user_ids, later.user_ids[new].rename(user_ids.name)], rechunk=True)
    found = EventLog(
        user_ids=user_ids,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=both(log.items, later.items),
        times=None if log.times is None else both(log.times, later.clock),
        ratings=_told(log.ratings, later.ratings, log, later, both),
        propensities=_told(log.propensities, later.propensities, log, later, both),
        **_kinds(log, later, both),
    )
    _carry(log, later, found, [names[row] for row in new])
    return found


def parted(log: EventLog, later: EventLog) -> EventLog:
    """The log as it was before events were joined to it: without each of `later`, the newest that it may be.

    What is told of events beside person, item and time is not compared. A person without events stays.
    """
    keep = np.ones(log.n_events, dtype=np.bool_)
    for name, start, end in zip(later.user_ids.to_list(), later.offsets[:-1], later.offsets[1:], strict=True):
        row = log.row_of.get(name, -1)
        if row < 0:
            continue
        places = range(int(log.offsets[row]), int(log.offsets[row + 1]))
        left = Counter(_named(later, range(int(start), int(end))))
        for place, event in zip(reversed(places), reversed(_named(log, places)), strict=True):
            if left[event] > 0:
                left[event] -= 1
                keep[place] = False
    return log.select(keep)


def _named(log: EventLog, places: range) -> list[tuple[int, int]]:
    """Item and time of some events."""
    part = slice(places.start, places.stop)
    times = np.zeros(len(places), dtype=np.int64) if log.times is None else log.times[part]
    return list(zip(log.items[part].tolist(), times.tolist(), strict=True))


def _tidied(log: EventLog) -> EventLog:
    """The log with one row per person, each with events, oldest first, and names that are texts."""
    if log.tidy:
        return log
    return build_log(
        log.user_ids.cast(pl.String)[log.rows],
        log.items,
        times=log.times,
        ratings=log.ratings,
        event_types=log.event_types,
        propensities=log.propensities,
    )


def _places(log: EventLog, later: EventLog, known: Ints) -> Ints:
    """Before which event of `log` each of `later` comes [e']; `known` [u] are its people's rows in `log`."""
    places = np.full(later.n_events, log.n_events)
    for row, start, end in zip(known.tolist(), later.offsets[:-1], later.offsets[1:], strict=True):
        if row < 0:
            continue
        first, last = log.offsets[row], log.offsets[row + 1]
        if log.times is None or later.times is None:
            places[start:end] = last
        else:
            told = log.times[first:last]
            places[start:end] = first + np.searchsorted(told, later.times[start:end], side="right")
    return places


def _told(
    old: Floats | None, more: Floats | None, log: EventLog, later: EventLog, both: Both
) -> Floats | None:
    """What the logs tell of their events, NaN where one does not; None where neither does."""
    if old is None and more is None:
        return None
    missing = (np.full(each.n_events, np.nan, dtype=np.float32) for each in (log, later))
    old, more = (
        nothing if part is None else part for part, nothing in zip((old, more), missing, strict=True)
    )
    return both(old, more)


def _kinds(log: EventLog, later: EventLog, both: Both) -> dict[str, Any]:
    """The kinds of the events of both and their names in order, '' for an event without one."""
    if log.kinds is None and later.kinds is None:
        return {}
    used = [_used(each) for each in (log, later)]
    names = sorted({name for each in used for name in each.values()})
    place = {name: number for number, name in enumerate(names)}
    numbers = list[Ints]()
    for each, kinds in zip((log, later), used, strict=True):
        if each.kinds is None:
            numbers.append(np.full(each.n_events, place.get("", 0)))
            continue
        table = np.zeros(len(each.kind_names), dtype=np.int64)
        for number, name in kinds.items():
            table[number] = place[name]
        same = all(number == place[name] for number, name in kinds.items())
        numbers.append(each.kinds if same else table[each.kinds])
    return {"kinds": both(*numbers), "kind_names": tuple(names)}


def _used(log: EventLog) -> dict[int, str]:
    """Number → name of the kinds that a log has events of."""
    if log.kinds is None:
        return {0: ""} if log.n_events else {}
    counts = np.bincount(log.kinds, minlength=len(log.kind_names))
    return {number: log.kind_names[number] for number in np.flatnonzero(counts).tolist()}


def _carry(log: EventLog, later: EventLog, found: EventLog, new: list[str]) -> None:
    """Give the joint log what was worked out of `log`; `new` are the names of the rows that are added."""
    held: dict[str, Any] = {"tidy": True, "row_of": log.row_of}
    if new:  # a copy: other logs may have come of the same one
        held["row_of"] = log.row_of | {name: log.n_users + number for number, name in enumerate(new)}
    if later.times is not None and "ordered" in vars(log):
        times = np.sort(later.times)
        held["ordered"] = np.insert(log.ordered, np.searchsorted(log.ordered, times), times)
    vars(found).update(held)
