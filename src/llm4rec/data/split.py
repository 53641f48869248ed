"""Who is asked what at test time: leave-last-out, global time, or a split that the file gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from llm4rec.data.events import EventLog
from llm4rec.errors import InputError
from llm4rec.types import Array, Bools, Ints

PARTS = {"train": 0, "history": 0, "valid": 1, "validation": 1, "test": 2}
"""Names a split column may hold, and the order in which they must come within a person."""


@dataclass(frozen=True)
class Cases:
    """Questions with known answers.

    Case c asks what row `rows[c]` of `log` does after its first `ends[c]` events; right answers are
    `targets[target_offsets[c]:target_offsets[c + 1]]` (dense item numbers, each once).
    """

    log: EventLog
    rows: Ints
    ends: Ints
    targets: Ints
    target_offsets: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def times(self) -> Ints | None:
        """When the first right answer of each case happened [c] in UTC seconds; None without a clock.

        It is -1 where the log does not hold the answer.
        """
        if self.log.times is None:
            return None
        place = self.log.offsets[self.rows] + self.ends
        held = place < self.log.offsets[self.rows + 1]
        times = np.full(len(self), -1, dtype=np.int64)
        times[held] = self.log.times[place[held]]
        return times

    def histories(self, start: int = 0, stop: int | None = None, most: int | None = None) -> EventLog:
        """The histories of cases start:stop, one row each, the newest `most` events of each.

        They do not say when they are asked, for that would tell a model when the answer happened.
        """
        return self.log.histories(self.rows[start:stop], self.ends[start:stop], most)

    def take(self, index: Ints) -> Cases:
        """The named cases."""
        lengths = np.diff(self.target_offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.arange(offsets[-1]) + np.repeat(self.target_offsets[index] - offsets[:-1], lengths)
        return Cases(self.log, self.rows[index], self.ends[index], self.targets[flat], offsets)


@dataclass(frozen=True)
class Parts:
    """Which part of a split each event of a log belongs to, as a file says it.

    Attributes:
        names: train, valid or test (also history, validation) along the events [e].
        rows: the number of each event's row in the file [e].
        source: the file, for messages.
    """

    names: Array
    rows: Ints
    source: str

    def select(self, keep: Bools) -> Parts:
        """The parts of the events that are kept."""
        return Parts(self.names[keep], self.rows[keep], self.source)


@dataclass(frozen=True)
class Split:
    """What a model is fitted on, what its epochs are chosen on, and what it is scored on once."""

    train: EventLog
    valid: Cases
    test: Cases
    protocol: str


def next_event_cases(log: EventLog, rows: Ints, ends: Ints) -> Cases:
    """One case per (row, end): the single right answer is the event that follows."""
    targets = log.items[log.offsets[rows] + ends]
    return Cases(log, rows, ends, targets, np.arange(len(rows) + 1, dtype=np.int64))


def leave_last_out(log: EventLog) -> Split:
    """Each person's last event is the test, the one before validation, all earlier ones training.

    People with fewer than three events give all they have to training.
    """
    lengths = log.lengths
    rows = np.flatnonzero(lengths >= 3)
    held = np.zeros(log.n_users, dtype=np.int64)
    held[rows] = 2
    return Split(
        train=log.heads(lengths - held),
        valid=next_event_cases(log, rows, lengths[rows] - 2),
        test=next_event_cases(log, rows, lengths[rows] - 1),
        protocol="leave-last-out",
    )


def global_time(log: EventLog, *, valid_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Everything after a date is test, a stretch before it validation, all before that training.

    The dates are the quantiles of event times that leave `test_share` and `valid_share` of all events
    behind them; events of one instant stay on one side. Each later event is a case whose history is
    all the person did before it, so a model that is not refitted still reads the newest history.

    Raises:
        ClockError: if the log has no times.
        InputError: if a share leaves nothing for another part, or a stretch would be empty.
    """
    if min(valid_share, test_share) <= 0 or valid_share + test_share >= 1:
        raise InputError(
            f"A global-time split can't give {valid_share:g} of all events to validation and {test_share:g} "
            "to test: both shares must be above 0 and leave something for training."
        )
    times = log.clock
    if not len(times):
        raise InputError("There are no events to split.")
    ordered = np.sort(times)
    at = [int((1 - test_share - valid_share) * len(ordered)), int((1 - test_share) * len(ordered))]
    valid_from, test_from = ordered[at[0]], ordered[at[1]]
    rows = log.rows
    position = np.arange(log.n_events) - log.offsets[rows]
    is_valid = (times >= valid_from) & (times < test_from)
    is_test = times >= test_from
    if not is_valid.any() or not is_test.any() or not (times < valid_from).any():
        raise InputError(
            "The events lie too close together in time for a global-time split: training, validation "
            "and test can't all get events. Use --protocol leave-last-out."
        )
    return Split(
        train=log.select(times < valid_from),
        valid=next_event_cases(log, rows[is_valid], position[is_valid]),
        test=next_event_cases(log, rows[is_test], position[is_test]),
        protocol="global-time",
    )


def given(log: EventLog, parts: Parts) -> Split:
    """A split the file gives, its parts along the log's events.

    Within a person the order must be train, then valid, then test. Where a person has several test events
    and the log is ordered, each is a case of its own.

    Raises:
        InputError: on a name that is none of these, or where a later part precedes an earlier one.
    """
    named = pl.Series(parts.names, dtype=pl.String)
    unknown = sorted({str(part) for part in named.unique()} - PARTS.keys())
    if unknown:
        raise InputError(f"The column 'split' holds {unknown[0]!r}; it may hold train, valid and test.")
    rank = named.replace_strict(PARTS, return_dtype=pl.Int64).to_numpy()
    rows = log.rows
    backwards = np.flatnonzero((np.diff(rank) < 0) & (np.diff(rows) == 0))
    if len(backwards):
        at = int(backwards[0])
        earlier, later = parts.names[at : at + 2]
        raise InputError(
            f"{parts.source}, row {parts.rows[at + 1]}, column 'split': this event of user "
            f"{log.user_ids[int(rows[at])]!r} is {later} and follows one that is {earlier}, in row "
            f"{parts.rows[at]}. Within a person all of train must come before valid, and valid before test: "
            "mend either row."
        )
    position = np.arange(log.n_events) - log.offsets[rows]
    return Split(
        train=log.select(rank == 0),
        valid=next_event_cases(log, rows[rank == 1], position[rank == 1]),
        test=next_event_cases(log, rows[rank == 2], position[rank == 2]),
        protocol="given",
    )
