"""Events on their way into the event log: what is wrong with them is said before anything is written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import polars as pl

from llm4rec.data import validate
from llm4rec.data.columns import find_columns
from llm4rec.data.files import read_table
from llm4rec.data.report import Sieve
from llm4rec.data.texts import CONTROLS
from llm4rec.data.validate import FRACTION, LATEST
from llm4rec.errors import InputError
from llm4rec.types import Feedback

SCHEMA: Mapping[str, type[pl.String | pl.Float64 | pl.Int64]] = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "value": pl.Float64,
    "timestamp": pl.Int64,
}
"""Columns of events as the log takes and gives them; only `value` may be missing in a row."""
LONGEST = {"event_id": 512, "user_id": 512, "item_id": 512, "event_type": 64}
"""The most letters of each text; a database can't index much longer ones."""
FIELDS = {
    "event_id": "event_id",
    "user": "user_id",
    "item": "item_id",
    "kind": "event_type",
    "value": "value",
    "time": "timestamp",
}
"""Field of `Feedback` → column."""
TEXTS = {"user": "user_id", "item": "item_id", "event_id": "event_id", "type": "event_type"}
ROLES = ("user", "item", "time", "rating", "type", "event_id", "value")
RATED, CHOSEN = "rating", "click"
"""The kind of an event that does not say its own: with a rating, and without."""


def checked(events: Sequence[Feedback] | pl.DataFrame) -> pl.DataFrame:
    """The events as a table with the columns of `SCHEMA`, once all of them are sound.

    Raises:
        InputError: naming the row, from 1, and the column of the first fault.
    """
    return _of_table(events) if isinstance(events, pl.DataFrame) else _of_values(events)


def _refuse(bad: pl.Series, column: str, why: str) -> None:
    first = bad.fill_null(False).arg_max() if len(bad) else None
    if first is not None and bad[first]:
        raise InputError(
            f"Row {first + 1} of the {len(bad)} events, column {column!r}: {why}. Nothing was taken."
        )


def _of_table(table: pl.DataFrame) -> pl.DataFrame:
    absent = [column for column in SCHEMA if column not in table.columns]
    if absent:
        raise InputError(
            f"The events have no column {absent[0]!r}. They need: {', '.join(SCHEMA)}; `value` may be empty."
        )
    frame = table.select(*SCHEMA)
    for column, kind in SCHEMA.items():
        found = frame.schema[column]
        fits = {pl.Float64: found.is_numeric(), pl.Int64: found.is_integer(), pl.String: found == pl.String}
        if not fits[kind] and found != pl.Null:
            raise InputError(f"The column {column!r} of the events holds {found}; {kind.__name__} is needed.")
        beyond = frame[column].cast(kind, strict=False).is_null() & frame[column].is_not_null()
        _refuse(beyond, column, "it is too large")
    frame = frame.select(pl.col(column).cast(kind) for column, kind in SCHEMA.items())
    for column, most in LONGEST.items():
        text = frame[column]
        length = text.str.len_chars()
        _refuse(text.is_null() | (length == 0), column, "it is missing: it must be a text")
        _refuse(length > most, column, f"it is longer than {most} letters")
        _refuse(text.str.contains_any(CONTROLS), column, "it holds a control character")
    value, time = frame["value"], frame["timestamp"]
    _refuse(~value.is_finite().fill_null(True), "value", "it is no finite number")
    impossible = time.is_null() | (time < 0) | (time >= LATEST)
    _refuse(impossible, "timestamp", "it must be UTC seconds from 1970 to 2100")
    return frame.with_columns(pl.col("value") + 0.0)  # a database may not tell −0 from 0


def _of_values(events: Sequence[Feedback]) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for place, event in enumerate(events, start=1):
        why = fault(event)
        if why:
            raise InputError(f"Event {place}: {why}. Nothing was taken.")
        value = None if event.value is None else float(event.value) + 0.0
        rows.append((event.event_id, event.user, event.item, event.kind, value, int(event.time)))
    return pl.DataFrame(rows, schema=dict(SCHEMA), orient="row")


def fault(event: Feedback) -> str | None:
    """What is wrong with an event, half a sentence that names the field; None where it is sound.

    The rules are those for tables, for one event at a time: a table of one row costs a hundred times as much.
    """
    given: Any = event  # whatever its type promises
    if not isinstance(given, Feedback):
        return f"a Feedback is needed, not a {type(given).__name__}"
    fields: Mapping[str, Any] = vars(given)
    for name in ("event_id", "user", "item", "kind"):
        text, most = fields[name], LONGEST[FIELDS[name]]
        if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
            return f"Feedback.{name} takes a text, not {text!r}"
        if not text:
            return f"Feedback.{name} is missing: it must be a text"
        if len(text) > most:
            return f"Feedback.{name} is longer than {most} letters"
        if min(text) <= CONTROLS[-1]:
            return f"Feedback.{name} holds a control character"
    value, time = fields["value"], fields["time"]
    if value is not None and not _is_number(value):
        return f"Feedback.value takes a finite number or None, not {value!r}"
    if isinstance(time, bool) or not isinstance(time, Integral) or not 0 <= int(time) < LATEST:
        return f"Feedback.time takes UTC seconds from 1970 to 2100, not {time!r}"
    return None


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 300 digits
        return False


def read_feedback(source: str, mapping: Mapping[str, str]) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """Read events for the log from a file or a database; exact copies of a row are one event.

    Where there is no column of event ids, each event gets one made of what it says: the same row of the same
    file is then the same event whenever it is read. An event without a type is a rating where it has one,
    and a click where it has none; its value is the rating where there is no column of values.

    Args:
        source: as for `read_table`.
        mapping: role (user, item, time, rating, type, event_id, value) → column, where names don't tell.

    Returns:
        The events, with the columns of `SCHEMA`, in the order of the source; rows set aside; sentences on
        what was done.

    Raises:
        InputError: naming file, column and remedy, if the source can't be used at all.
    """
    roles: dict[str, str] = {}
    shown = source.partition("://")[0] + "://…" if "://" in source else source  # a URL may hold a password

    def choose(found: list[str]) -> list[str]:
        roles.update(find_columns(found, mapping, ROLES, ("user", "item", "time"), shown))
        return list(dict.fromkeys(roles.values()))

    table = read_table(source, choose, as_text=True)
    if len(set(roles.values())) < len(roles):
        raise InputError(f"{table.name}: one column can't play two roles; look at --map.")
    sieve = Sieve.of(table)
    sieve.require_rows()
    sieve.frame = sieve.frame.rename({column: role for role, column in roles.items()})
    notes = _sift(sieve, roles)
    said = [column for column in table.columns if column not in roles.values()]
    if said:
        notes.insert(0, f"Columns of {table.name} not read: {', '.join(said)}.")
    return _named(sieve.frame), sieve.all_rejected(), [*notes, *sieve.note()]


def _sift(sieve: Sieve, roles: Mapping[str, str]) -> list[str]:
    """Turn the columns into what the log takes; rows that can't be taken are set aside."""
    notes: list[str] = []
    for role in ("user", "item", "event_id"):
        if role in roles:
            notes += validate.ids(sieve, role, roles[role])
    notes += validate.times(sieve, "time", roles["time"])
    if "time" not in sieve.frame.columns:
        raise InputError(
            f"Most rows of {sieve.name} have no time in column {roles['time']!r}, and an event log needs "
            "the time of every event: add them, or name another column with --map time=COLUMN."
        )
    for role in ("rating", "value"):
        if role in roles:
            validate.numbers(sieve, role, roles[role])
    if "type" in roles:
        validate.texts(sieve, "type", roles["type"])
        trimmed = pl.col("type").str.strip_chars()
        sieve.frame = sieve.frame.with_columns(pl.when(trimmed != "").then(trimmed).alias("type"))
    for role, column in TEXTS.items():
        if role in roles:
            most = LONGEST[column]
            text = sieve.frame[role].fill_null("")
            sieve.drop(text.str.len_chars() > most, roles[role], f"it is longer than {most} letters")
            text = sieve.frame[role].fill_null("")
            sieve.drop(text.str.contains_any(CONTROLS), roles[role], "it holds a control character")
    return notes


def _named(frame: pl.DataFrame) -> pl.DataFrame:
    """The sifted columns under the names of `SCHEMA`, with an id for every event."""
    none = pl.lit(None, dtype=pl.Float64)
    rating = pl.col("rating") if "rating" in frame.columns else none
    value = pl.coalesce("value", rating) if "value" in frame.columns else rating
    assumed = pl.when(rating.is_not_null()).then(pl.lit(RATED)).otherwise(pl.lit(CHOSEN))
    kind = pl.coalesce("type", assumed) if "type" in frame.columns else assumed
    fraction = pl.col(FRACTION) if FRACTION in frame.columns else pl.lit(0.0)
    found = frame.select(
        event_id=pl.col("event_id") if "event_id" in frame.columns else pl.lit(None, dtype=pl.String),
        user_id="user",
        item_id="item",
        event_type=kind,
        value=value.cast(pl.Float64) + 0.0,
        timestamp=pl.col("time").cast(pl.Int64),
        fraction=fraction.fill_null(0.0),
    ).unique(maintain_order=True, keep="first")
    if "event_id" in frame.columns:
        return found.select(*SCHEMA)
    made = [digest(*row) for row in found.drop("event_id").iter_rows()]
    return found.with_columns(pl.Series("event_id", made, dtype=pl.String)).select(*SCHEMA)


def digest(user: str, item: str, kind: str, value: float | None, time: int, fraction: float = 0.0) -> str:
    """The id of an event that was given none: `row-` and half the SHA-256 of what it says, as JSON.

    A fraction of a second counts where there is one, though the log keeps whole seconds.

    >>> digest("u", "i", "click", None, 5) == digest("u", "i", "click", None, 5)
    True
    """
    moment = time + fraction if fraction else time
    said = json.dumps([user, item, kind, value, moment], ensure_ascii=False)
    return f"row-{hashlib.sha256(said.encode()).hexdigest()[:32]}"
