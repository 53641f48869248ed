"""Prequential evaluation: a log in time order, of which each stretch is asked for before it is told.

Source: A. P. Dawid, Statistical Theory: The Prequential Approach, JRSS A 147(2), 1984.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from llm4rec.data.events import EventLog
from llm4rec.data.split import Cases, next_event_cases
from llm4rec.errors import InputError
from llm4rec.types import Bools, Ints

WEEK = 7 * 86_400
"""Seconds."""
FEWEST = 3
"""Events a person of the past needs for one of them to be held out."""


@dataclass(frozen=True)
class Round:
    """A stretch of a stream: its events are `start:stop` in time order; `due` where a refit follows it."""

    start: int
    stop: int
    due: bool


@dataclass(frozen=True)
class Stream:
    """A log that is told bit by bit.

    Attributes:
        log: all events but those of the old holdout.
        order: places in `log` of the stream's events, earliest first [s].
        first: whether an event is its person's first on its item [e].
        past: what came before the stream; its rows are those of `log`.
        holdout: one event each of some people of the past, which are not in `log`, asked after what they did
            before.
        rounds: how the stream is cut.
    """

    log: EventLog
    order: Ints
    first: Bools
    past: EventLog
    holdout: Cases
    rounds: tuple[Round, ...]

    def cases(self, start: int = 0, stop: int | None = None) -> Cases:
        """The questions of the stream's events start:stop, in their order.

        Each is asked after all that its person did before it. What they had taken already is not asked for.
        """
        places = self.order[start:stop]
        places = places[self.first[places]]
        rows = self.log.rows[places]
        return next_event_cases(self.log, rows, places - self.log.offsets[rows])

    def told(self, start: int, stop: int) -> EventLog:
        """The stream's events start:stop; all people keep their rows."""
        keep = np.zeros(self.log.n_events, dtype=np.bool_)
        keep[self.order[start:stop]] = True
        return self.log.select(keep)

    def so_far(self, stop: int) -> EventLog:
        """The past and the stream's first `stop` events; all people keep their rows."""
        keep = np.ones(self.log.n_events, dtype=np.bool_)
        keep[self.order[stop:]] = False
        return self.log.select(keep)


def stream(
    log: EventLog,
    n_items: int,
    *,
    past: float = 0.8,
    holdout: float = 0.2,
    every: int = 500,
    period: int = WEEK,
    least: int = 0,
    seed: int = 0,
) -> Stream:
    """Cut a log into a past, an old holdout and a stream.

    Args:
        log: events with times; of one instant, those stand first whose people do.
        n_items: catalogue size.
        past: share of the events that is the past.
        holdout: share of the people with three events or more in the past whose last event of it is held
            out, drawn at random.
        every: the most events of a round.
        period: seconds of the stream's clock after which a refit may be due, again and again.
        least: events since the last one that make a refit due.
        seed: of the draw.

    Raises:
        ClockError: if the log has no times.
        InputError: where the share leaves nothing for the past or the stream.
    """
    cut = int(past * log.n_events)
    if not 0 < cut < log.n_events:
        raise InputError(
            f"Of {log.n_events} events, a share of {past:g} can't be the past of a stream: both need some. "
            "Give a share between 0 and 1, and more events."
        )
    before = np.ones(log.n_events, dtype=np.bool_)
    before[in_order(log)[cut:]] = False
    old = log.select(before)
    able = np.flatnonzero(old.lengths >= FEWEST)
    rows = np.sort(np.random.default_rng([seed, 11]).permutation(able)[: round(holdout * len(able))])
    ends = old.lengths[rows] - 1
    kept = np.ones(log.n_events, dtype=np.bool_)
    kept[log.offsets[rows] + ends] = False  # what a person did in the past comes first in the log, too
    told, later = log.select(kept), ~before[kept]
    order = in_order(told)
    order = order[later[order]]
    first = np.zeros(told.n_events, dtype=np.bool_)
    first[np.unique(told.rows * n_items + told.items, return_index=True)[1]] = True
    return Stream(
        log=told,
        order=order,
        first=first,
        past=told.select(~later),
        holdout=next_event_cases(old, rows, ends),
        rounds=rounds(told.clock[order], every, period, least),
    )


def rounds(times: Ints, every: int, period: int = WEEK, least: int = 0) -> tuple[Round, ...]:
    """The rounds of events at ascending `times` [s] in seconds, at most `every` events each.

    None goes on where a refit is due: before the first event of each further `period` since the first, if
    `least` events or more came since the last refit. Between two refits rounds differ by one event at most.
    """
    number = (times - times[0]) // period
    ends = [0]
    for place in (np.flatnonzero(np.diff(number)) + 1).tolist():
        if place - ends[-1] >= least:
            ends.append(place)
    found: list[Round] = []
    for start, stop in pairwise([*ends, len(times)]):
        count = -((start - stop) // every)
        marks = np.linspace(start, stop, count + 1).astype(np.int64).tolist()
        found += [Round(a, b, b == stop < len(times)) for a, b in pairwise(marks)]
    return tuple(found)


def in_order(log: EventLog) -> Ints:
    """Places of all events [e], earliest first, those of one instant as they stand.

    Raises:
        ClockError: if the log has no times.
    """
    return np.argsort(log.clock, kind="stable")
