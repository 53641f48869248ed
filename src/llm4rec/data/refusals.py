"""What people do not want: items that do not come back to somebody, until they take to them again.

Source: paper, equation (31), of which a kind that speaks against an item is heeded at once, without training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog

SCHEMA = {"user_id": pl.String(), "item_id": pl.String()}
"""The columns of the table that they are kept in."""


@dataclass(frozen=True)
class Refusals:
    """What people do not want, by the names of the items: those of items that are yet to come count, too.

    Attributes:
        said: user_id → item_ids; none is empty.
    """

    said: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    def __len__(self) -> int:
        """How many people refuse anything."""
        return len(self.said)

    def after(self, events: pl.DataFrame) -> Self:
        """The same after further events: of a person and an item, the last decides.

        So the same events, heeded again, change nothing; where they change nothing, it is the same object.

        Args:
            events: `user_id`, `item_id` and whether the item is `refused` or taken [n], in their order.
        """
        if not self.said and not events["refused"].any():
            return self
        last = events.unique(["user_id", "item_id"], keep="last", maintain_order=True)
        changed: dict[str, set[str]] = {}
        for user, item, refused in last.select("user_id", "item_id", "refused").iter_rows():
            now = changed[user] if user in changed else {*self.said.get(user, ())}
            if refused != (item in now):
                changed[user] = now ^ {item}
        if not changed:
            return self
        said = dict(self.said)
        for user, items in changed.items():
            said[user] = frozenset(items)
            if not items:
                del said[user]
        return type(self)(said)

    def without(self, user: str) -> Self:
        """The same without a person."""
        return type(self)({name: items for name, items in self.said.items() if name != user})

    def of(self, user_ids: pl.Series, catalog: Catalog) -> EventLog:
        """The items of each of `user_ids` [b] that a catalogue has, a row each."""
        named = [sorted(self.said.get(user, ())) for user in user_ids.to_list()] if self.said else []
        lengths = [len(each) for each in named] or [0] * len(user_ids)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        names = pl.Series([item for each in named for item in each], dtype=pl.String)
        items = catalog.numbers(names) if len(names) else np.zeros(0, dtype=np.int64)
        return EventLog(user_ids, offsets, items).select(items >= 0)

    def to_frame(self) -> pl.DataFrame:
        """The table that is kept: a row for each item that somebody refuses; `from_frame` reads it."""
        rows = [(user, item) for user, items in sorted(self.said.items()) for item in sorted(items)]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    @classmethod
    def from_frame(cls, table: pl.DataFrame) -> Self:
        """What `to_frame` gave.

        Raises:
            ValueError: saying what is wrong with it.
        """
        if dict(table.schema) != SCHEMA:
            raise ValueError(f"refusals have the columns {table.schema}, not {SCHEMA}")
        if table.null_count().row(0) != (0,) * len(SCHEMA) or (table["user_id"] == "").any():
            raise ValueError("a refusal lacks a value")
        found: dict[str, set[str]] = {}
        for user, item in table.iter_rows():
            found.setdefault(user, set()).add(item)
        return cls({user: frozenset(items) for user, items in found.items()})
