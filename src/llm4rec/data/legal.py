"""Which items may come back: lists of numbers, made a mask only where a search needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.types import Array, Bools, Floats, Ints, Query

NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Listed:
    """Which items may come back to one request.

    Attributes:
        items: ascending, each once.
        only: whether `items` are the only ones that may come back, or those that may not.
        n_items: size of the catalogue.
    """

    items: Ints
    only: bool
    n_items: int

    def __len__(self) -> int:
        """How many items may come back."""
        return len(self.items) if self.only else self.n_items - len(self.items)

    def among(self, items: Array) -> Bools:
        """Which of `items` [n] may come back."""
        if not len(self.items):
            return np.full(len(items), not self.only)
        place = np.searchsorted(self.items, items).clip(max=len(self.items) - 1)
        return (self.items[place] == items) == self.only


@dataclass(frozen=True)
class Legal:
    """Which items may come back to each of b requests.

    Attributes:
        shape: (b, i).
        rows: request of each pair that is left out [e].
        items: its item [e].
        only: request → the only items that may come back, ascending; one that is absent may get all.
        retired: items that come back to nobody, ascending.
    """

    shape: tuple[int, int]
    rows: Ints
    items: Ints
    only: Mapping[int, Ints] = field(default_factory=dict[int, Ints])
    retired: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def mask(self) -> Bools:
        """[b, i], true where an item may come back."""
        legal = np.ones(self.shape, dtype=bool)
        self._leave_out(legal, False)
        return legal

    def blank(self, scores: Floats) -> None:
        """Set the scores [b, i] of what must not come back to -inf, in place."""
        self._leave_out(scores, -np.inf)

    def row(self, row: int) -> Listed:
        """Which items may come back to one request."""
        out = np.unique(self.items[self.rows == row] if self.shape[0] > 1 else self.items)
        others = Listed(_merged(self.retired, out), only=False, n_items=self.shape[1])
        keep = self.only.get(row)
        if keep is None:
            return others
        return replace(others, items=_without(keep, others.items), only=True)

    def _leave_out(self, values: Array, mark: float) -> None:
        for row, items in self.only.items():
            kept = values[row, items]
            values[row] = mark
            values[row, items] = kept
        values[self.rows, self.items] = mark
        if len(self.retired):
            values[:, self.retired] = mark


def legal_items(
    catalog: Catalog, n_rows: int, without: Sequence[EventLog], only: Mapping[int, Ints] | None = None
) -> Legal:
    """What may come back to each of `n_rows` requests.

    Args:
        catalog: the items; those it has retired come back to nobody.
        n_rows: b.
        without: logs of b rows, such as histories, whose items must not come back to the same row.
        only: row → the only items that may come back, ascending.
    """
    return Legal(
        shape=(n_rows, len(catalog)),
        rows=np.concatenate([NONE, *(log.rows for log in without)]),
        items=np.concatenate([NONE, *(log.items for log in without)]),
        only=only or {},
        retired=catalog.retired,
    )


def legal_for(catalog: Catalog, query: Query, history: EventLog, refused: Ints = NONE) -> Legal:
    """What may come back to one query with its history; names the catalogue doesn't know are passed over.

    Args:
        catalog: the items; those it has retired come back to nobody.
        query: what is asked for.
        history: of one row.
        refused: items that the query's person does not want [n].

    Raises:
        InputError: where `query.where` names what is no categorical field.
    """
    named = catalog.numbers(pl.Series(query.exclude, dtype=pl.String))
    seen = NONE if query.keep_seen else history.items
    out = np.concatenate([seen, named[named >= 0], refused])
    only = only_items(catalog, query.allow, query.where)
    return Legal(
        shape=(1, len(catalog)),
        rows=np.zeros(len(out), dtype=np.int64),
        items=out,
        only={} if only is None else {0: only},
        retired=catalog.retired,
    )


def only_items(
    catalog: Catalog, allow: Sequence[str] | None, where: Mapping[str, Sequence[str]]
) -> Ints | None:
    """The only items that may come back, ascending; None for all of them.

    Raises:
        InputError: where `where` names what is no categorical field.
    """
    found: Ints | None = None
    if allow is not None:
        numbers = np.unique(catalog.numbers(pl.Series(allow, dtype=pl.String)))
        found = numbers[numbers >= 0]
    for name, values in where.items():
        having = catalog.having(name, values)
        found = having if found is None else np.intersect1d(found, having, assume_unique=True)
    return found


def _without(many: Ints, few: Ints) -> Ints:
    """An ascending list less what is in another; quick where that is short."""
    if not len(many):
        return many
    place = np.searchsorted(many, few).clip(max=len(many) - 1)
    return np.delete(many, place[many[place] == few])


def _merged(many: Ints, few: Ints) -> Ints:
    """Two ascending lists as one, each number once."""
    if not len(many):
        return few
    fresh = few[~Listed(many, only=True, n_items=0).among(few)]
    return np.insert(many, np.searchsorted(many, fresh), fresh)
