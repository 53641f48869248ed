"""The events of a source: recognised, checked, numbered, sorted and freed of exact copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from llm4rec.data import validate
from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import ROLES, find_columns
from llm4rec.data.files import read_table
from llm4rec.data.report import Sieve
from llm4rec.data.split import PARTS
from llm4rec.errors import InputError


def read_events(
    source: str, mapping: Mapping[str, str], rating_range: tuple[float, float] | None
) -> tuple[Sieve, dict[str, str], list[str]]:
    """Read and check the columns of events.

    Returns:
        The rows, their columns named by role (user, item, time, …); role → what the source calls the
        column; sentences on what was done.
    """
    roles: dict[str, str] = {}
    shown = source.partition("://")[0] + "://…" if "://" in source else source  # a URL may hold a password

    def choose(found: list[str]) -> list[str]:
        roles.update(find_columns(found, mapping, ROLES, ("user", "item"), shown))
        return list(dict.fromkeys(roles.values()))

    table = read_table(source, choose, as_text=True)
    if len(set(roles.values())) < len(roles):
        raise InputError(f"{table.name}: one column can't play two roles; look at --map.")
    notes: list[str] = []
    others = [column for column in table.columns if column not in roles.values()]
    if others:
        notes.append(f"Columns of {table.name} not read: {', '.join(others)}.")
    sieve = Sieve.of(table)
    del table
    sieve.require_rows()
    sieve.frame = sieve.frame.rename({column: role for role, column in roles.items()})
    if "propensity" in roles and "propensity" not in mapping:
        notes += _unless_probabilities(sieve, roles)
    notes += _check(sieve, roles, rating_range)
    if "time" not in sieve.frame.columns and "order" not in roles:
        said = ", its split column first" if "split" in roles else ""
        notes.append(
            f"{sieve.name} has neither times nor an order: each person's events keep their row order{said}."
        )
    return sieve, roles, notes


def _unless_probabilities(sieve: Sieve, roles: dict[str, str]) -> list[str]:
    """Leave a column that only has the name of propensities unread: no event is worse for what is in it."""
    told = sieve.frame["propensity"]
    values = told.cast(pl.Float32, strict=False)
    strange = told.filter(told.is_not_null() & ~((values > 0) & (values <= 1)).fill_null(False))
    if strange.is_empty():
        return []
    shown = roles.pop("propensity")
    sieve.frame = sieve.frame.drop("propensity")
    return [
        f"Column {shown} of {sieve.name} is not read: it holds {str(strange[0])[:40]!r}, and a propensity is "
        f"a probability above 0 and at most 1. With --map propensity={shown} it is read, and such rows are "
        "set aside."
    ]


def _check(sieve: Sieve, roles: Mapping[str, str], rating_range: tuple[float, float] | None) -> list[str]:
    """Turn each column into what the model reads, and say what was changed."""
    notes: list[str] = []
    for role in ("user", "item"):
        notes += validate.ids(sieve, role, roles[role])
    if "time" in roles:
        notes += validate.times(sieve, "time", roles["time"])
    for role in ("order", "rating", "propensity"):
        if role in roles:
            validate.numbers(sieve, role, roles[role])
    if "rating" in roles:
        validate.ratings_in_range(sieve, "rating", roles["rating"], rating_range)
    if "propensity" in roles:
        kept = sieve.frame["propensity"].cast(pl.Float32)  # the width in which it is kept
        sieve.drop(
            (~((kept > 0) & (kept <= 1))).fill_null(False),
            roles["propensity"],
            pl.format(
                "the propensity {} is not above 0 and at most 1: what happened could happen", "propensity"
            ),
        )
    if "order" in roles and "time" not in sieve.frame.columns:
        sieve.drop(sieve.frame["order"].is_null(), roles["order"], "the order is missing")
    for role in ("type", "split"):
        if role in roles:
            validate.texts(sieve, role, roles[role])
    if "split" in roles:
        parts = sieve.frame["split"].str.strip_chars().str.to_lowercase()
        sieve.frame = sieve.frame.with_columns(parts.alias("split"))
        sieve.drop(
            ~parts.is_in(list(PARTS)).fill_null(False),
            roles["split"],
            pl.format(
                "the split {} is none of train, valid and test", pl.col("split").fill_null("(missing)")
            ),
        )
    return notes


def number_items(sieve: Sieve, catalog: Catalog | None, shown: str) -> Catalog:
    """Replace the item names of the events by dense numbers, and set aside the events of unknown items.

    Without a catalogue, it is made of the items that occur, by first appearance.
    """
    names = sieve.frame["item"]
    if catalog is None:
        catalog = Catalog(names.unique(maintain_order=True).alias("item_id").to_frame())
    sieve.frame = sieve.frame.with_columns(numbered(names, catalog.ids).alias("number"))
    unknown = sieve.frame["number"].is_null()
    try:
        sieve.drop(unknown, shown, pl.format("the item {} is not in the items file", pl.col("item")))
    except InputError:
        raise InputError(
            f"No item of {sieve.name} is in the items file: its column {shown!r} holds names such as "
            f"{names[0]!r}, the items file {catalog.ids[0]!r}. Are they the same ids?"
        ) from None
    sieve.frame = sieve.frame.drop("item").rename({"number": "item"})
    return catalog


def number_users(sieve: Sieve) -> pl.Series:
    """Replace the names of people by dense numbers, by first appearance, and return the names."""
    # Arrow does in one pass what finding the names and joining with them would do in two
    coded = cast(pa.DictionaryArray, sieve.frame["user"].to_arrow()).dictionary_encode()
    rows = pl.Series("user", coded.indices).cast(pl.Int64)
    sieve.frame = sieve.frame.with_columns(rows)
    return pl.Series("user_id", coded.dictionary, dtype=pl.String)


def numbered(names: pl.Series, known: pl.Series) -> pl.Series:
    """The place of each name in `known` (Int64), null where it is not there."""
    lookup = pl.DataFrame({"name": known, "number": pl.int_range(len(known), eager=True, dtype=pl.Int64)})
    joined = (
        names
        .alias("name")
        .to_frame()
        .lazy()
        .join(lookup.lazy(), on="name", how="left", maintain_order="left")
    )
    return joined.select("number").collect().to_series()


def sort_events(sieve: Sieve) -> None:
    """Sort by person, time, order (missing last), part of the split, and row: by those that there are.

    A time counts with its fraction of a second.
    """
    frame = sieve.frame
    part = pl.lit(0, pl.Int64)
    if "split" in frame.columns:
        part = pl.col("split").replace_strict(list(PARTS), list(PARTS.values()), return_dtype=pl.Int64)
    if "order" in frame.columns or validate.FRACTION in frame.columns:
        keys = [key for key in ("user", "time", validate.FRACTION, "order") if key in frame.columns]
        frame = frame.with_columns(part=part)
        sieve.frame = frame.sort(*keys, "part", nulls_last=True, maintain_order=True).drop("part")
        return
    # one number to sort by is several times faster than three: a part takes 3 bits, a time takes 32
    time = pl.col("time") if "time" in frame.columns else pl.lit(0, pl.Int64)
    frame = frame.with_columns((pl.col("user") * (1 << 35) + time * 8 + part).alias("key"))
    if not frame["key"].is_sorted():
        frame = frame.sort("key", maintain_order=True)
    sieve.frame = frame.drop("key")


def drop_duplicates(sieve: Sieve, shown: str | None) -> int:
    """Set aside exact copies in sorted events, and say how many there were.

    Only where there are times: without them a repeated row may well be a repeated event.
    """
    if shown is None or "time" not in sieve.frame.columns:
        return 0
    users, moments = sieve.frame["user"].to_numpy(), sieve.frame["time"].to_numpy()
    same = (users[1:] == users[:-1]) & (moments[1:] == moments[:-1])
    near = np.zeros(len(users), dtype=bool)  # only rows that share person and time can be copies
    near[1:] |= same
    near[:-1] |= same
    candidates = np.flatnonzero(near)
    if not len(candidates):
        return 0
    columns = [column for column in sieve.frame.columns if column != sieve.row]
    first = sieve.frame[candidates].select(pl.struct(columns).is_first_distinct()).to_series().to_numpy()
    copies = np.zeros(len(users), dtype=bool)
    copies[candidates[~first]] = True
    return sieve.drop(
        pl.Series(copies), shown, "it is an exact copy of an earlier row (every column that is read is equal)"
    )
