"""The Yelp academic data set: businesses, people, reviews and check-ins as JSON lines."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl

from llm4rec.data.files import REJECTED
from llm4rec.data.literals import literal
from llm4rec.data.sources.tables import INTERACTIONS, Schema, TableWriter, complete_items, find, json_rows
from llm4rec.errors import InputError
from llm4rec.types import Progress

TERMS = (
    "The Yelp data set is Yelp's, for academic and personal use under the agreement its form shows: no "
    "commerce, and nobody may pass it on."
)
_PREFIX = "yelp_academic_dataset_"
_ITEMS: Schema = {
    "item_id": pl.String,
    "title": pl.String,
    "categories": pl.List(pl.String),
    "attributes": pl.List(pl.String),
    "city": pl.String,
    "state": pl.String,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
}
_USERS: Schema = {"user_id": pl.String, "yelping_since": pl.Date, "elite_years": pl.List(pl.String)}
_REVIEWS: Schema = {"review_id": pl.String, **INTERACTIONS, "text": pl.String}
_CHECKINS: Schema = {"item_id": pl.String, "timestamps": pl.List(pl.Int64)}


def read(stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write the tables of the data set in `source_dir` into `stage`.

    Raises:
        InputError: if no folder is given, since Yelp hands its files out through a form, or one is missing.
    """
    if source_dir is None:
        raise InputError(
            "Yelp hands its data set out through a form: fetch it at https://www.yelp.com/dataset, unpack "
            "it, and name its folder with --from DIR."
        )
    files = {kind: _file(source_dir, kind) for kind in ("business", "user", "review")}
    checkins = find(source_dir, f"{_PREFIX}checkin.json", f"{_PREFIX}checkin.json.gz")
    with TableWriter(stage, "rejected", REJECTED, keep_empty=False) as rejected:
        _read_businesses(files["business"], stage, rejected, progress)
        _read_users(files["user"], stage, rejected, progress)
        _read_reviews(files["review"], stage, rejected, progress)
        if checkins is not None:
            _read_checkins(checkins, stage, rejected, progress)
    bare = complete_items(stage)
    notes = [
        TERMS,
        "Yelp's times name no zone and are read as UTC.",
        "Stars, counts and compliments over all time are left out, since they would tell of the future.",
    ]
    if checkins is None:
        notes.append(f"There is no {_PREFIX}checkin.json in {source_dir}, so there are no check-ins.")
    if bare:
        notes.append(f"{bare:,} reviewed businesses are not described; they got a row with their id alone.")
    if rejected.rows:
        notes.append(
            f"{rejected.rows:,} rows could not be read; rejected.parquet names each with its reason."
        )
    return notes


def _file(folder: Path, kind: str) -> Path:
    name = f"{_PREFIX}{kind}.json"
    path = find(folder, name, name + ".gz")
    if path is None:
        raise InputError(f"{folder} lacks {name} (or {name}.gz); unpack Yelp's archive there.")
    return path


def _read_businesses(path: Path, stage: Path, rejected: TableWriter, progress: Progress) -> None:
    with TableWriter(stage, "items", _ITEMS) as items:
        for number, row in json_rows(path, rejected, progress):
            item = _text(row.get("business_id"))
            if not item:
                rejected.add((path.name, number, "business_id", "missing"))
                continue
            categories = [name.strip() for name in (_text(row.get("categories")) or "").split(",")]
            place = (_text(row.get("city")), _text(row.get("state")))
            spot = (_number(row.get("latitude")), _number(row.get("longitude")))
            names = [name for name in categories if name]
            items.add((item, _text(row.get("name")), names, attributes(row.get("attributes")), *place, *spot))


def _read_users(path: Path, stage: Path, rejected: TableWriter, progress: Progress) -> None:
    with TableWriter(stage, "users", _USERS) as users:
        for number, row in json_rows(path, rejected, progress):
            user, since = _text(row.get("user_id")), seconds(row.get("yelping_since"))
            if not user:
                rejected.add((path.name, number, "user_id", "missing"))
                continue
            # Releases since 2021 write the year 2020 as "20,20".
            elite = re.findall(r"\d{4}", (_text(row.get("elite")) or "").replace("20,20", "2020"))
            joined: date | None = None if since is None else datetime.fromtimestamp(since, UTC).date()
            users.add((user, joined, list(dict.fromkeys(elite))))


def _read_reviews(path: Path, stage: Path, rejected: TableWriter, progress: Progress) -> None:
    with (
        TableWriter(stage, "interactions", INTERACTIONS) as events,
        TableWriter(stage, "reviews", _REVIEWS) as reviews,
    ):
        for number, row in json_rows(path, rejected, progress):
            user, item = _text(row.get("user_id")), _text(row.get("business_id"))
            time = seconds(row.get("date"))
            if not user or not item or time is None:
                column = "user_id" if not user else "business_id" if not item else "date"
                rejected.add((path.name, number, column, "missing or of the wrong form"))
                continue
            event = (user, item, _number(row.get("stars")), time)
            events.add(event)
            reviews.add((_text(row.get("review_id")), *event, _text(row.get("text"))))


def _read_checkins(path: Path, stage: Path, rejected: TableWriter, progress: Progress) -> None:
    with TableWriter(stage, "checkins", _CHECKINS) as checkins:
        for number, row in json_rows(path, rejected, progress):
            item, dates = _text(row.get("business_id")), _text(row.get("date"))
            times = [seconds(moment.strip()) for moment in (dates or "").split(",") if moment.strip()]
            if not item or None in times:
                rejected.add((
                    path.name,
                    number,
                    "date" if item else "business_id",
                    "missing or of the wrong form",
                ))
                continue
            checkins.add((item, times))


def seconds(moment: object) -> int | None:
    """A time such as `2018-07-07 22:09:11`, or a bare day in the older releases, in UTC seconds.

    >>> seconds("1970-01-02 00:00:01")
    86401
    """
    if not isinstance(moment, str):
        return None
    try:
        return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def attributes(record: object) -> list[str]:
    """What a business has, as `name: value`; what it has not (False, none) is left out.

    Values are Python literals in strings, some of them records of their own.

    >>> attributes({"WiFi": "u'free'", "BusinessParking": "{'lot': True, 'street': False}"})
    ['WiFi: free', 'BusinessParking.lot']
    """
    if not isinstance(record, dict):
        return []
    found: list[str] = []
    for name, value in cast(dict[str, object], record).items():
        if isinstance(value, str):
            value = literal(value, value)  # a bare word is its own value
        if isinstance(value, dict):
            found += [f"{name}.{part}" for part in attributes(cast(dict[str, Any], value))]
        elif value is True:
            found.append(name)
        elif value not in (None, False, "none", "None", "no"):
            found.append(f"{name}: {value}")
    return found


def _text(value: object) -> str | None:
    # Half a surrogate pair fits in no UTF-8 table.
    return (
        (value.encode("utf-8", "replace").decode("utf-8").strip() or None) if isinstance(value, str) else None
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
