"""From a request in outside names to what a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.queries import are_texts, check
from llm4rec.errors import InputError
from llm4rec.fitted import Fitted
from llm4rec.types import Ints, Query


def history(fitted: Fitted, query: Query) -> EventLog:
    """The query's history as a log of one row.

    Raises:
        InputError: where names or the wish are no texts, or times or ratings do not run along the history or
            can't be.
    """
    check(query)
    time = query.context.time
    asked_at = None if time is None else np.array([time], dtype=np.int64)
    if not query.history and query.user is not None:
        known = known_history(fitted, query.user)
        if known is not None:
            return replace(known, asked_at=asked_at)
    items = fitted.catalog.numbers(pl.Series(query.history, dtype=pl.String))
    times = None if query.timestamps is None else np.array(query.timestamps, dtype=np.int64)
    ratings = None if query.ratings is None else np.array(query.ratings, dtype=np.float32)
    told = EventLog(
        user_ids=pl.Series([query.user or ""], dtype=pl.String),
        offsets=np.array([0, len(items)]),
        items=items,
        times=times,
        ratings=ratings,
        asked_at=asked_at,
    )
    return told.select(items >= 0)


def known_history(fitted: Fitted, user: str) -> EventLog | None:
    """What a person known from training did, or None for anyone else.

    Raises:
        InputError: where the name is no text.
    """
    if not are_texts([user]):
        raise InputError(f"A person is known by their user_id, a text, not by {user!r}.")
    known = known_histories(fitted, pl.Series([user], dtype=pl.String))
    return known if known.n_events else None


def known_histories(fitted: Fitted, users: pl.Series) -> EventLog:
    """What each of the named people did, a row each; it is empty for those not known from training."""
    stored = fitted.histories
    if stored is None or not stored.n_users:
        return EventLog(users, np.zeros(len(users) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rows = np.array([stored.row_of.get(name, -1) for name in users.to_list()], dtype=np.int64)
    lengths = np.where(rows >= 0, stored.lengths[rows], 0)
    return replace(stored.histories(np.maximum(rows, 0), lengths), user_ids=users)


def numbers(catalog: Catalog, item_ids: Sequence[str]) -> Ints:
    """Dense numbers of items that the catalogue has.

    Raises:
        InputError: where one is no text, or it has none of a name.
    """
    if not are_texts(item_ids):
        raise InputError(f"Items are named by ids, each a text: ['50', '181'], not {item_ids!r}.")
    found = catalog.numbers(pl.Series(item_ids, dtype=pl.String))
    if (found < 0).any():
        raise InputError(f"The model knows no item {item_ids[int(np.argmax(found < 0))]!r}.")
    return found
