"""What people said of items, in their own words: reviews and tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from llm4rec.data import validate
from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import find_columns
from llm4rec.data.events import EventLog
from llm4rec.data.files import read_table
from llm4rec.data.interactions import number_items
from llm4rec.data.report import Sieve
from llm4rec.types import Bools, Floats, Ints

Manner = Literal["review", "tag"]
"""How something was said."""
_ROLES: dict[Manner, tuple[str, ...]] = {
    "review": ("user", "item", "time", "rating", "summary", "text"),
    "tag": ("user", "item", "time", "tag"),
}


@dataclass(frozen=True)
class Remarks:
    """What was said of items, oldest first; where there are no times, in the order of the file.

    Attributes:
        user_ids: who said it [r].
        items: of what, dense item numbers [r].
        texts: in which words [r].
        times: when, in UTC seconds [r]; None where it is not known.
        ratings: the rating that came with it [r], NaN where none did.
    """

    user_ids: pl.Series
    items: Ints
    texts: pl.Series
    times: Ints | None
    ratings: Floats

    def __len__(self) -> int:
        return len(self.items)

    def select(self, keep: Bools) -> Remarks:
        """Those where `keep` [r] is true."""
        index = np.flatnonzero(keep)
        return Remarks(
            self.user_ids[index],
            self.items[index],
            self.texts[index],
            None if self.times is None else self.times[index],
            self.ratings[index],
        )

    def about(self, log: EventLog) -> Bools:
        """Which of them are of something that the same person did in `log` [r]."""
        done = pl.DataFrame({"user": log.user_ids[log.rows].cast(pl.String), "item": log.items}).unique()
        said = pl.DataFrame({"user": self.user_ids.cast(pl.String), "item": self.items})
        found = said.join(
            done.with_columns(done=True), on=["user", "item"], how="left", maintain_order="left"
        )
        return found["done"].fill_null(value=False).to_numpy()

    def to_frame(self, item_ids: pl.Series) -> pl.DataFrame:
        """A table in outside names: user_id, item_id, text, then timestamp, rating."""
        columns: dict[str, pl.Series] = {
            "user_id": self.user_ids, "item_id": item_ids[self.items], "text": self.texts
        }  # fmt: skip
        if self.times is not None:
            columns["timestamp"] = pl.Series(self.times)
        columns["rating"] = pl.Series(self.ratings).fill_nan(None)
        return pl.DataFrame(columns)


def build_remarks(frame: pl.DataFrame, items: Ints) -> Remarks:
    """Remarks of a table with user_id, text, and maybe timestamp and rating, of dense items [r]."""
    times = frame["timestamp"].to_numpy().astype(np.int64) if "timestamp" in frame.columns else None
    ratings = np.full(len(frame), np.nan, dtype=np.float32)
    if "rating" in frame.columns:
        ratings = frame["rating"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    order = np.arange(len(frame)) if times is None else np.argsort(times, kind="stable")
    return Remarks(
        frame["user_id"].cast(pl.String)[order],
        items[order],
        frame["text"].cast(pl.String)[order],
        None if times is None else times[order],
        ratings[order],
    )


def read_remarks(
    source: str, manner: Manner, catalog: Catalog, mapping: Mapping[str, str]
) -> tuple[Remarks, pl.DataFrame, list[str]]:
    """Read reviews or tags of a catalogue's items: who said what of which item, and when.

    A review's summary and text are read as one. Exact copies and remarks without words are left out.

    Args:
        source: file or database URL.
        manner: which of the two.
        catalog: the items.
        mapping: role → column, as given for the events; used where this table has the column.

    Returns:
        The remarks, the rows set aside, and sentences on what was done.

    Raises:
        InputError: where a column is missing, or no row can be used.
    """
    roles: dict[str, str] = {}
    shown = source.partition("://")[0] + "://…" if "://" in source else source  # a URL may hold a password
    text = _ROLES[manner][-1]

    def choose(found: list[str]) -> list[str]:
        own = {role: column for role, column in mapping.items() if column in found}
        roles.update(find_columns(found, own, _ROLES[manner], ("user", "item", text), shown))
        return list(dict.fromkeys(roles.values()))

    sieve = Sieve.of(read_table(source, choose, as_text=True))
    sieve.require_rows()
    sieve.frame = sieve.frame.rename({column: role for role, column in roles.items()})
    notes: list[str] = []
    for role in ("user", "item"):
        notes += validate.ids(sieve, role, roles[role])
    if "time" in roles:
        notes += validate.times(sieve, "time", roles["time"])
    if "rating" in roles:
        validate.numbers(sieve, "rating", roles["rating"])
    said = [role for role in ("summary", text) if role in roles]
    for role in said:
        validate.texts(sieve, role, roles[role])
    words = [pl.col(role).str.strip_chars() for role in said]
    sieve.frame = sieve.frame.with_columns(
        pl.concat_str(words, separator="\n", ignore_nulls=True).str.strip_chars().alias(text)
    )
    sieve.drop(sieve.frame[text].fill_null("") == "", roles[text], "it has no words")
    number_items(sieve, catalog, roles["item"])
    frame = sieve.frame.unique(
        [role for role in sieve.frame.columns if role != sieve.row], keep="first", maintain_order=True
    )
    named = {"user": "user_id", "time": "timestamp", text: "text"}
    frame = frame.rename({
        role: name for role, name in named.items() if role in frame.columns and role != name
    })
    return build_remarks(frame, frame["item"].to_numpy()), sieve.all_rejected(), notes + sieve.note()
