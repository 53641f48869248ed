"""From files to an event log and a catalogue: read, recognise, check, number, sort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from pydantic import Field as Option
from pydantic import field_validator

from llm4rec.config import Section
from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import roles_of
from llm4rec.data.entities import aligned, check_declared, read_entities
from llm4rec.data.events import EventLog, arrange
from llm4rec.data.features import Declared
from llm4rec.data.filters import keep_core, keep_positives
from llm4rec.data.interactions import (
    drop_duplicates,
    number_items,
    number_users,
    numbered,
    read_events,
    sort_events,
)
from llm4rec.data.remarks import Manner, Remarks, read_remarks
from llm4rec.data.report import Report, Sieve
from llm4rec.data.requests import read_requests
from llm4rec.data.split import Parts
from llm4rec.types import Floats, Ints, Progress, silent

__all__ = ["DataConfig", "Ingested", "Report", "ingest", "read_requests"]


class DataConfig(Section):
    """Which events count, how far back a history reaches, and what is never a feature."""

    min_rating: float | None = Option(
        default=None,
        description="Ratings below are not positives and are left out; none: every event is a positive.",
    )
    max_history: int = Option(
        default=100, ge=1, le=100_000, description="Newest events of a person that the model reads [events]."
    )
    k_core: int = Option(
        default=0,
        ge=0,
        description="Keep people and items with at least this many events, iterated; 0: off [events].",
    )
    rating_range: tuple[float, float] | None = Option(
        default=None,
        description="Lowest and highest possible rating; none: the scale that all but stray ratings keep to.",
    )
    protected: tuple[str, ...] = Option(
        default=("gender", "sex", "age", "race", "ethnicity", "religion", "nationality", "disability"),
        description="Columns of people with one of these names among their words are never features.",
    )
    modalities: dict[str, Declared] = Option(
        default={},
        description="Column → text, categorical, numerical, image, time or ignore, where inference is wrong.",
    )

    @field_validator("rating_range")
    @classmethod
    def _in_order(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not bounds[0] <= bounds[1]:
            raise ValueError(
                f"the lowest rating comes first and {bounds[0]:g} is not below {bounds[1]:g}: "
                "write it as [lowest, highest]"
            )
        return bounds


@dataclass(frozen=True)
class Ingested:
    """What was made of the sources.

    Attributes:
        log: every good event, people numbered by first appearance.
        catalog: the items.
        people: key `user_id`; the first rows are those of `log.user_ids`, then come the people of the users
            file who have no events. None where no users file was given.
        parts: the file's `split` column, lower case, along the events of `log`; None where it has none.
        report: counts, notes and rejected rows.
        remarks: reviews and tags of the items, where such were given.
    """

    log: EventLog
    catalog: Catalog
    people: Catalog | None
    parts: Parts | None
    report: Report
    remarks: Mapping[Manner, Remarks] = field(default_factory=dict[Manner, Remarks])

    def numbered_by(self, catalog: Catalog) -> tuple[EventLog, Parts | None, int]:
        """The events in another catalogue's item numbers, their parts, and how many it does not know."""
        numbers = catalog.numbers(self.catalog.ids)[self.log.items]
        keep = numbers >= 0
        log = replace(self.log, items=numbers).select(keep)
        return log, None if self.parts is None else self.parts.select(keep), int((~keep).sum())


def ingest(  # noqa: PLR0913  # the sources and how to read them
    interactions: str,
    items: str | None = None,
    users: str | None = None,
    *,
    remarks: Mapping[Manner, str] = {},
    columns: Mapping[str, str] = {},
    modalities: Mapping[str, Declared] = {},
    config: DataConfig = DataConfig(),  # noqa: B008  # frozen
    only_items_with_events: bool = False,
    progress: Progress = silent,
) -> Ingested:
    """Read events, and items and people where given; bad rows are set aside in the report.

    Args:
        interactions: file or database URL of the events.
        items: the same for items. Without it the catalogue is the items that occur in the events.
        users: the same for people.
        remarks: the same for reviews and tags.
        columns: role (user, item, time, order, rating, propensity, type, split) → column, where names don't
            tell.
        modalities: column of `items` or `users` → modality or "ignore", where inference is not wanted.
        config: which events count.
        only_items_with_events: leave items without events out of the catalogue.
        progress: told which source is being read.

    Raises:
        InputError: naming file, column and remedy, if a source can't be used at all.
    """
    mapping = roles_of(columns)
    declared: dict[str, Declared] = {**config.modalities, **modalities}
    tables: dict[str, Catalog] = {}
    notes: list[str] = []
    rejected: list[pl.DataFrame] = []
    for source, role, protected in ((items, "item", ()), (users, "user", config.protected)):
        if source is not None:
            progress(f"read {role}s", 0, 1)
            tables[role], aside, said = read_entities(source, role, mapping, declared, protected)
            progress(f"read {role}s", 1, 1)
            notes += said
            rejected.append(aside)
    # what the configuration declares is about tables that need not all be here (evaluate reads events only)
    check_declared(declared if tables else modalities, list(tables.values()))
    progress("read events", 0, 1)
    sieve, roles, said = read_events(interactions, mapping, config.rating_range)
    catalog = number_items(sieve, tables.get("item"), roles["item"])
    user_ids = number_users(sieve)
    sort_events(sieve)
    duplicates = drop_duplicates(sieve, roles.get("time"))
    rejected.append(sieve.all_rejected())
    frame, left_out = _filtered(sieve, config)
    notes += [*said, *sieve.note(), *left_out]
    if config.k_core > 1 or only_items_with_events:
        frame, catalog = _only_with_events(frame, catalog)
    log, parts = _log(frame, user_ids), _parts(frame, sieve)
    people, said = aligned(tables["user"], log.user_ids) if "user" in tables else (None, [])
    notes += said
    heard: dict[Manner, Remarks] = {}
    for manner, source in remarks.items():
        heard[manner], aside, said = read_remarks(source, manner, catalog, mapping)
        notes += said
        rejected.append(aside)
    progress("read events", 1, 1)
    counts = {"events_read": sieve.n_read, "duplicates": duplicates}
    counts |= {"rejected": sum(map(len, rejected)), "left_out": sieve.frame.height - frame.height}
    counts |= {"events": log.n_events, "people": log.n_users, "items": len(catalog)}
    return Ingested(log, catalog, people, parts, Report(counts, tuple(notes), pl.concat(rejected)), heard)


def _filtered(sieve: Sieve, config: DataConfig) -> tuple[pl.DataFrame, list[str]]:
    """The events that the configuration lets count, and sentences on the others."""
    frame, positives = keep_positives(sieve.frame, sieve.name, config.min_rating)
    frame, core = keep_core(frame, sieve.name, config.k_core)
    return frame, positives + core


def _only_with_events(frame: pl.DataFrame, catalog: Catalog) -> tuple[pl.DataFrame, Catalog]:
    """The catalogue without the items no event names, and the events in its new numbers."""
    items = frame["item"].to_numpy()
    used = np.flatnonzero(np.bincount(items, minlength=len(catalog)))
    numbers = np.full(len(catalog), -1, dtype=np.int64)
    numbers[used] = np.arange(len(used))
    return frame.with_columns(pl.Series("item", numbers[items])), catalog.take(used)


def _log(frame: pl.DataFrame, user_ids: pl.Series) -> EventLog:
    """The sorted events as a log of the people who have any."""
    rows = frame["user"].to_numpy()
    present = np.flatnonzero(np.bincount(rows, minlength=len(user_ids)))
    if len(present) < len(user_ids):
        numbers = np.zeros(len(user_ids), dtype=np.int64)
        numbers[present] = np.arange(len(present))
        rows, user_ids = numbers[rows], user_ids[present]
    kinds, kind_names = _kinds(frame)
    flat = EventLog(
        user_ids,
        np.zeros(1, dtype=np.int64),
        frame["item"].to_numpy(),
        frame["time"].to_numpy() if "time" in frame.columns else None,
        _numbers(frame, "rating"),
        kinds,
        kind_names,
        propensities=_numbers(frame, "propensity"),
    )
    return arrange(flat, rows)


def _numbers(frame: pl.DataFrame, role: str) -> Floats | None:
    """A column of numbers, NaN where one is missing; None where all are."""
    if role not in frame.columns or frame[role].null_count() == frame.height:
        return None
    return frame[role].fill_null(float("nan")).cast(pl.Float32).to_numpy()


def _parts(frame: pl.DataFrame, sieve: Sieve) -> Parts | None:
    """The parts of a given split, along the sorted events."""
    if "split" not in frame.columns:
        return None
    names = frame["split"].unique().sort()
    parts = np.array(names.to_list())[numbered(frame["split"], names).to_numpy()]
    return Parts(parts, frame[sieve.row].to_numpy(), sieve.name)


def _kinds(frame: pl.DataFrame) -> tuple[Ints | None, tuple[str, ...]]:
    """Event types as numbers into their sorted names; an event without one is of the type ''."""
    if "type" not in frame.columns or frame["type"].null_count() == frame.height:
        return None, ()
    types = frame["type"].str.strip_chars().fill_null("")
    names = types.unique().sort()
    return numbered(types, names).to_numpy(), tuple(names.to_list())
