"""The event log: every person's events as slices of sorted arrays, never a Python list per person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from llm4rec.errors import ClockError
from llm4rec.types import Array, Floats, Ints


@dataclass(frozen=True)
class EventLog:
    """Events of many people, each person's oldest first.

    Row r owns the half-open slice `offsets[r]:offsets[r + 1]` of every event array. Rows are people
    in a training log and requests in a batch of histories, so one person may own several rows there.

    Attributes:
        user_ids: outside names of the rows [u].
        offsets: int64 [u + 1].
        items: int64 [e], dense item numbers.
        times: int64 [e], UTC seconds; in requests -1 where a request gives none. None where the data has
            only an order within each person, and where no request gives times.
        ratings: float32 [e], NaN where an event has none; None where no event has one.
        kinds: int64 [e], numbers into `kind_names` (view, click, purchase, …); None where unknown.
        kind_names: names of the kinds.
        asked_at: int64 [u], when each request is asked in UTC seconds, -1 where it does not say; None where
            none says, as in every log of what people did.
        propensities: float32 [e], in (0, 1], the probability with which what happened was exposed, as it was
            logged; NaN where an event has none. None where no event has one, as in requests.
    """

    user_ids: pl.Series
    offsets: Ints
    items: Ints
    times: Ints | None = None
    ratings: Floats | None = None
    kinds: Ints | None = None
    kind_names: tuple[str, ...] = field(default=())
    asked_at: Ints | None = None
    propensities: Floats | None = None

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> Ints:
        """Events per row [u]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Ints:
        """The row that owns each event [e]."""
        return np.repeat(np.arange(self.n_users), self.lengths)

    @property
    def clock(self) -> Ints:
        """Event times [e] in UTC seconds.

        Raises:
            ClockError: if the log has only an order within each person.
        """
        if self.times is None:
            raise ClockError(
                "This needs the time of every event, and the data has only an order within each person. "
                "Give a timestamp column, or choose a protocol without a clock (leave-last-out)."
            )
        return self.times

    @cached_property
    def ordered(self) -> Ints:
        """The times of all events, ascending [e].

        Raises:
            ClockError: if the log has only an order within each person.
        """
        return np.sort(self.clock)

    def moment(self, share: float) -> float:
        """When a share of the events had happened [UTC seconds]: their quantile, as NumPy interpolates it.

        Raises:
            ClockError: if the log has only an order within each person.
        """
        place = max(self.n_events - 1, 0) * share
        before = int(place)
        return float(np.quantile(self.ordered[before : before + 2], place - before))

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Name → row of the people; of several rows of one person the last."""
        return {name: row for row, name in enumerate(self.user_ids.to_list())}

    @cached_property
    def tidy(self) -> bool:
        """Whether every row is another person's, with events, oldest first, as `build_log` makes them."""
        alone = self.user_ids.dtype == pl.String and len(self.row_of) == self.n_users
        return alone and bool((self.lengths > 0).all()) and self._in_order

    @property
    def _in_order(self) -> bool:
        if self.times is None:
            return True
        later = self.times[1:] >= self.times[:-1]
        later[self.offsets[1:-1] - 1] = True
        return bool(later.all())

    @property
    def event_types(self) -> pl.Series | None:
        """The name of each event's kind [e]; None where kinds are unknown."""
        return None if self.kinds is None else pl.Series(self.kind_names, dtype=pl.String)[self.kinds]

    def item_counts(self, n_items: int) -> Ints:
        """Events per item [i]."""
        return np.bincount(self.items, minlength=n_items).astype(np.int64)

    def history(self, row: int) -> Ints:
        """The items of one row, oldest first."""
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def heads(self, lengths: Ints) -> EventLog:
        """Every row's first `lengths` [u] events; rows keep their place, also when they become empty."""
        return self.histories(np.arange(self.n_users), lengths)

    def histories(self, rows: Ints, ends: Ints, most: int | None = None) -> EventLog:
        """One row per request: the first `ends` [c] events of rows `rows` [c], the newest `most` of them."""
        lengths = ends if most is None else np.minimum(ends, most)
        starts = self.offsets[rows] + ends - lengths
        return self._gather(rows, starts, lengths)

    def select(self, keep: np.ndarray) -> EventLog:
        """The events where `keep` [e] is true; rows stay, also when they become empty."""
        lengths = np.bincount(self.rows[keep], minlength=self.n_users)
        return self._pick(np.flatnonzero(keep), self.user_ids, lengths)

    def without(self, user: str) -> EventLog:
        """The log without the rows of a person."""
        rows = np.flatnonzero((self.user_ids != user).to_numpy())
        return self.histories(rows, self.lengths[rows])

    def joined(self, later: EventLog) -> EventLog:
        """The events of both logs, a row per person, sorted by time.

        Where times are equal, or there are none, `later` comes after this log. What only one of the two
        tells of its events is missing of the other's.

        Raises:
            ClockError: if one of the two has times and the other has not.
        """
        from llm4rec.data.joining import joined  # which is built on this

        return joined(self, later)

    def _gather(self, rows: Ints, starts: Ints, lengths: Ints) -> EventLog:
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        asked_at = None if self.asked_at is None else self.asked_at[rows]
        return replace(self._pick(index, self.user_ids[rows], lengths), asked_at=asked_at)

    def _pick(self, index: Ints, user_ids: pl.Series, lengths: Ints) -> EventLog:
        return replace(
            self,
            user_ids=user_ids,
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            items=self.items[index],
            times=None if self.times is None else self.times[index],
            ratings=None if self.ratings is None else self.ratings[index],
            kinds=None if self.kinds is None else self.kinds[index],
            propensities=None if self.propensities is None else self.propensities[index],
        )

    def to_frame(self, item_ids: pl.Series) -> pl.DataFrame:
        """The log as a table in outside names.

        user_id and item_id, then as far as known timestamp, rating, propensity and event_type.
        """
        columns: dict[str, pl.Series] = {
            "user_id": self.user_ids[self.rows],
            "item_id": item_ids[self.items],
        }
        if self.times is not None:
            columns["timestamp"] = pl.Series(self.times)
        if self.ratings is not None:
            columns["rating"] = pl.Series(self.ratings).fill_nan(None)
        if self.propensities is not None:
            columns["propensity"] = pl.Series(self.propensities).fill_nan(None)
        if (types := self.event_types) is not None:
            columns["event_type"] = types
        return pl.DataFrame(columns)


def build_log(
    users: pl.Series,
    items: Ints,
    *,
    times: Ints | None = None,
    order: Array | None = None,
    ratings: Floats | None = None,
    event_types: pl.Series | None = None,
    propensities: Floats | None = None,
) -> EventLog:
    """Sort flat event columns into an `EventLog`.

    People are numbered by first appearance. Within a person events are sorted by `times`, then by `order`,
    then by row; either may be absent.

    Args:
        users: outside names [e].
        items: dense item numbers [e].
        times: UTC seconds [e].
        order: rank within the person [e]; where `times` are given, it decides between equal ones. NaN comes
            last.
        ratings: float32 [e], NaN where missing.
        event_types: names [e]; an event without one is of the type ''.
        propensities: float32 in (0, 1] [e], NaN where missing.
    """
    rows, names = _coded(users)
    kind_names: tuple[str, ...] = ()
    kinds: Ints | None = None
    if event_types is not None:
        coded, known = _coded(event_types.cast(pl.String))
        said = [name or "" for name in known.to_list()]
        kind_names = tuple(sorted(set(said)))
        kinds = np.array([kind_names.index(name) for name in said], dtype=np.int64)[coded]
    log = EventLog(
        names,
        np.zeros(1, dtype=np.int64),
        items,
        times,
        ratings,
        kinds,
        kind_names,
        propensities=propensities,
    )
    return arrange(log, rows, order)


def _coded(values: pl.Series) -> tuple[Ints, pl.Series]:
    """The place of each value [e] among the different ones, and those, by first appearance."""
    # Arrow does in one pass what finding the names and joining with them would do in two
    coded: Any = cast(pa.Array, values.to_arrow()).dictionary_encode(null_encoding="encode")
    places = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return places, pl.Series(values.name, coded.dictionary, dtype=values.dtype)


def arrange(flat: EventLog, rows: Ints, order: Array | None = None) -> EventLog:
    """Group flat events by row and sort each row's; the sort is stable.

    Args:
        flat: names of the rows and the event arrays [e] in any order; its offsets are not read.
        rows: the row that owns each event [e].
        order: rank within the row [e]; where there are times, it decides between equal ones. NaN comes last.
    """
    keys = [key for key in (flat.times, order) if key is not None]
    n_users = len(flat.user_ids)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_users))]).astype(np.int64)
    index: Ints | slice = slice(None)
    if not _sorted([rows, *keys]):
        index = np.lexsort([*reversed(keys), rows])
    return EventLog(
        user_ids=flat.user_ids,
        offsets=offsets,
        items=flat.items[index].astype(np.int64, copy=False),
        times=None if flat.times is None else flat.times[index].astype(np.int64, copy=False),
        ratings=None if flat.ratings is None else flat.ratings[index].astype(np.float32, copy=False),
        kinds=None if flat.kinds is None else flat.kinds[index].astype(np.int64, copy=False),
        kind_names=flat.kind_names,
        propensities=None
        if flat.propensities is None
        else flat.propensities[index].astype(np.float32, copy=False),
    )


def _sorted(keys: Sequence[Array]) -> bool:
    """Whether rows are in ascending order of the first key, then the second, and so on."""
    tied = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        # compared, not subtracted: differences of unsigned ranks or of extreme times would wrap around
        if not (key[1:] >= key[:-1])[tied].all():  # not so where one of the two is NaN
            return False
        tied &= key[1:] == key[:-1]
    return True
