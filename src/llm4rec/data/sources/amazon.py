"""Amazon reviews and product metadata of 2014, 2018 and 2023, one category at a time."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import polars as pl

from llm4rec.config import cache_dir
from llm4rec.data.files import REJECTED
from llm4rec.data.sources.download import Remote, fetch
from llm4rec.data.sources.tables import (
    INTERACTIONS,
    Schema,
    TableWriter,
    complete_items,
    find,
    json_rows,
    write_users,
)
from llm4rec.errors import InputError
from llm4rec.types import Progress

TERMS = (
    "The Amazon reviews were gathered by McAuley's group (UC San Diego), who ask for research use and a "
    "citation; the reviewers and Amazon keep their rights."
)
ITEMS: Schema = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "features": pl.String,
    "brand": pl.String,
    "categories": pl.List(pl.String),
    "price": pl.Float64,
    "image_url": pl.String,
}
REVIEWS: Schema = {
    **INTERACTIONS,
    "summary": pl.String,
    "text": pl.String,
    "helpful_votes": pl.Int64,
    "verified": pl.Boolean,
}
_CATEGORY = re.compile(r"[A-Za-z][A-Za-z0-9_']*")
_MARKUP = re.compile(r"<(?:/?[A-Za-z]|!--)[^<>]*>")
_PRICE = re.compile(r"\$?\s*(\d+(?:\.\d+)?)")
_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data/"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"


@dataclass(frozen=True)
class Names:
    """What one edition calls things: its files (`{}` is the category) and the fields of its rows."""

    reviews: str
    core: str | None  # reviews of people and items with at least five each
    meta: str
    user: str
    item: str
    rating: str
    time: str
    ticks: int  # of the time field in a second
    summary: str
    text: str
    brand: str


EDITIONS = {
    "amazon-2014": Names(
        _SNAP + "reviews_{}.json.gz", _SNAP + "reviews_{}_5.json.gz", _SNAP + "meta_{}.json.gz",
        "reviewerID", "asin", "overall", "unixReviewTime", 1, "summary", "reviewText", "brand",
    ),
    "amazon-2018": Names(
        _MCAULEY + "amazon_v2/categoryFiles/{}.json.gz",
        _MCAULEY + "amazon_v2/categoryFilesSmall/{}_5.json.gz",
        _MCAULEY + "amazon_v2/metaFiles2/meta_{}.json.gz",
        "reviewerID", "asin", "overall", "unixReviewTime", 1, "summary", "reviewText", "brand",
    ),
    "amazon-2023": Names(
        _MCAULEY + "amazon_2023/raw/review_categories/{}.jsonl.gz", None,
        _MCAULEY + "amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",
        "user_id", "parent_asin", "rating", "timestamp", 1000, "title", "text", "store",
    ),
}  # fmt: skip


def read(edition: str, category: str, stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write the tables of one category of an edition into `stage`.

    Args:
        edition: a key of `EDITIONS`.
        category: as the publisher spells it (`Video_Games`); with `_5` at its end, the publisher's subset
            where every person and item has at least five reviews (2014 and 2018).
        stage: an empty folder.
        source_dir: a folder with the two files of the category, packed (.gz) or not; None to download.
        progress: told how far downloads and reading have come.

    Returns:
        Notes for the person, one sentence each.
    """
    names = EDITIONS[edition]
    reviews, meta = _files(edition, names, category, source_dir, progress)
    with TableWriter(stage, "rejected", REJECTED, keep_empty=False) as rejected:
        _read_reviews(names, reviews, stage, rejected, progress)
        twins = _read_meta(names, meta, stage, rejected, progress)
    bare = complete_items(stage)
    write_users(stage)
    notes = [
        TERMS,
        "Ratings averaged or counted over all time are left out, since they would tell of the future; people "
        "have no features.",
    ]
    if source_dir is None:
        notes.append(
            "The publisher names no checksum: the SHA-256 of the first download was recorded beside each "
            "file, and later uses are held to that."
        )
    if twins:
        notes.append(f"{twins:,} products came more than once in the metadata; the first was kept.")
    if bare:
        notes.append(f"{bare:,} reviewed products have no metadata; they got a row with their id alone.")
    if rejected.rows:
        notes.append(
            f"{rejected.rows:,} rows could not be read; rejected.parquet names each with its reason."
        )
    return notes


def _files(
    edition: str, names: Names, category: str, source_dir: Path | None, progress: Progress
) -> tuple[Path, Path]:
    """The file of reviews and the file of metadata of the category."""
    plain = category.removesuffix("_5")
    if not _CATEGORY.fullmatch(category):
        raise InputError(f"{category!r} is no Amazon category; they look like Video_Games or All_Beauty.")
    if plain != category and names.core is None:
        raise InputError(f"{edition} has no five-core files; get {edition}/{plain} and set data.k_core=5.")
    pattern = names.reviews if plain == category else cast(str, names.core)
    addresses = (pattern.format(quote(plain)), names.meta.format(quote(plain)))
    if source_dir is None:
        folder = cache_dir() / edition
        reviews, meta = (fetch(Remote(address), folder, progress=progress) for address in addresses)
        return reviews, meta
    found: list[Path] = []
    for address in addresses:
        packed = Remote(address).filename
        path = find(source_dir, packed, packed.removesuffix(".gz"))
        if path is None:
            raise InputError(
                f"{source_dir} lacks {packed} (packed or not); name the publisher's files' folder."
            )
        found.append(path)
    return found[0], found[1]


def _read_reviews(names: Names, path: Path, stage: Path, rejected: TableWriter, progress: Progress) -> None:
    with (
        TableWriter(stage, "interactions", INTERACTIONS) as events,
        TableWriter(stage, "reviews", REVIEWS) as reviews,
    ):
        for number, row in json_rows(path, rejected, progress):
            user, item = _text(row.get(names.user)), _text(row.get(names.item) or row.get("asin"))
            time, rating = _number(row.get(names.time)), _number(row.get(names.rating))
            missing = names.user if not user else names.item if not item else names.time
            if not user or not item or time is None:
                rejected.add((path.name, number, missing, "missing or of the wrong type"))
                continue
            event = (user, item, rating, int(time) // names.ticks)
            events.add(event)
            summary, text = _text(row.get(names.summary)), _text(row.get(names.text))
            verified = row.get("verified", row.get("verified_purchase"))
            reviews.add((
                *event,
                summary,
                text,
                _votes(row),
                verified if isinstance(verified, bool) else None,
            ))


def _read_meta(names: Names, path: Path, stage: Path, rejected: TableWriter, progress: Progress) -> int:
    """Write the items; how many rows repeated an earlier one."""
    seen: set[str] = set()
    twins = 0
    with TableWriter(stage, "items", ITEMS) as items:
        for number, row in json_rows(path, rejected, progress):
            item = _text(row.get(names.item) or row.get("asin"))
            if not item:
                rejected.add((path.name, number, names.item, "missing or of the wrong type"))
            elif item in seen:
                twins += 1
            else:
                seen.add(item)
                items.add(_item(names, item, row))
    return twins


def _item(names: Names, item: str, row: dict[str, Any]) -> tuple[Any, ...]:
    title = _text(row.get("title"))
    if title and "getTime" in title:  # some pages of 2018 left a script where the title belongs
        title = None
    features = row.get("features", row.get("feature"))
    categories = row.get("categories") or row.get("category") or row.get("main_category")
    return (
        item,
        title,
        _text(" ".join(_flat(row.get("description")))),
        _text(" ".join(_flat(features))),
        _text(row.get(names.brand) or row.get("brand")),
        list(dict.fromkeys(name for name in map(_text, _flat(categories)) if name)),
        price(row.get("price")),
        _image(row),
    )


def price(value: object) -> float | None:
    """The amount in dollars of a price as published, None for anything else (ranges, markup, dashes).

    >>> price("$1,012.99"), price(7), price("$5.00 - $9.00"), price("—")
    (1012.99, 7.0, None, None)
    """
    if isinstance(value, str):
        found = _PRICE.fullmatch(value.strip().replace(",", ""))
        return float(found[1]) if found else None
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _image(row: dict[str, Any]) -> str | None:
    """The address of the first image, in the best resolution there is."""
    plain = row.get("imUrl") or row.get("imageURLHighRes") or row.get("imageURL") or row.get("image")
    images: object = row.get("images")
    if isinstance(images, list) and images:
        images = cast(list[object], images)[0]
    if isinstance(images, dict):  # 2023: a record of sizes, its values lists in some dumps
        sizes = cast(dict[str, object], images)
        plain = sizes.get("hi_res") or sizes.get("large") or sizes.get("thumb")
    addresses = [address for address in _flat(plain) if address.startswith(("http://", "https://"))]
    return addresses[0] if addresses else None


def _votes(row: dict[str, Any]) -> int | None:
    """How many found the review helpful: `[yes, all]` in 2014, "1,234" in 2018, a number in 2023."""
    helpful = row.get("helpful")
    value: object = cast(list[object], helpful)[0] if isinstance(helpful, list) and helpful else None
    value = value if value is not None else row.get("vote", row.get("helpful_vote"))
    number = _number(value.replace(",", "") if isinstance(value, str) else value)
    return None if number is None else int(number)


def _flat(value: object) -> Iterable[str]:
    """The strings in a string or in lists of any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in cast(list[object], value):
            yield from _flat(part)


def _text(value: object) -> str | None:
    """A string without markup, entities and surplus blanks; None where nothing is left."""
    if not isinstance(value, str):
        return None
    if not value.isascii():
        # Half a surrogate pair, as escapes in these files can leave one, fits in no UTF-8 table.
        value = value.encode("utf-8", "replace").decode("utf-8")
    if "<" in value:
        value = _MARKUP.sub(" ", value)
    if "&" in value:
        value = html.unescape(value)
    return " ".join(value.split()) or None


def _number(value: object) -> float | None:
    """A finite number given as such or in digits."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
