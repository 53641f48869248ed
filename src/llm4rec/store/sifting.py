"""Which events of a batch are new to the log, and which say something else than one of the same id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from llm4rec.data.feedback import SCHEMA

Row = tuple[Any, ...]
"""An event: the values of the columns of `data.feedback.SCHEMA`."""
REMEDY = "an event that differs needs an event_id of its own"


class Sifted(NamedTuple):
    """The places of events in a batch, from 0.

    Attributes:
        new: those that are to be added, ascending.
        refused: those that differ from an event of their id, with what does, from the id on.
    """

    new: list[int]
    refused: dict[int, str]


def sift(rows: Sequence[Row], known: Iterable[Row]) -> Sifted:
    """Sort out the events of a batch.

    An event that says the same as the one of its id before it is neither new nor refused.

    Args:
        rows: the events.
        known: those of the log that have an id of theirs.

    >>> sift([("e", "u", "i", "click", None, 5), ("e", "u", "j", "click", None, 5)], []).refused
    {1: "'e' is earlier in the batch with another item_id ('i', and here 'j')"}
    """
    there = {row[0]: row for row in known}
    first = dict(there)
    new, refused = list[int](), dict[int, str]()
    for place, row in enumerate(rows):
        before = first.get(row[0])
        if before is None:
            first[row[0]] = row
            new.append(place)
        elif before != row:
            where = "in the log" if row[0] in there else "earlier in the batch"
            column, was, now = next(
                told for told in zip(SCHEMA, before, row, strict=True) if told[1] != told[2]
            )
            refused[place] = f"{row[0]!r} is {where} with another {column} ({was!r}, and here {now!r})"
    return Sifted(new, refused)
