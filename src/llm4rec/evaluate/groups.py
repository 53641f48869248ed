"""Groups of people and of items, as fairness is measured between and of them.

People are grouped by an attribute: categories as they are, numbers cut into quantile bands; who has no value
is in no group. Items are grouped by category, of which an item may have several and then belongs to each in
equal parts, or by how popular they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl
from scipy import sparse
from scipy.stats import rankdata

from llm4rec.data.catalog import Catalog
from llm4rec.data.features import trimmed
from llm4rec.errors import InputError
from llm4rec.types import Array, Bools, Ints

BANDS = 4
"""Bands that numbers are cut into; numbers of no more different values are categories."""
MOST = 50
"""Categories of items told apart; the less common ones are one group together."""
LEAST = 20
"""People below which a group is shown and not compared."""
UNKNOWN = "unknown"
REST = "all others"


@dataclass(frozen=True)
class Groups:
    """Which group of an attribute each person belongs to.

    Attributes:
        attribute: its name.
        names: of the groups [a].
        members: the group of each person [u], -1 unknown.
    """

    attribute: str
    names: tuple[str, ...]
    members: Ints

    def of_rows(self, rows: Ints) -> Groups:
        """The same of other rows [r], each the row of a person here or -1 for a stranger."""
        return Groups(self.attribute, self.names, np.append(self.members, -1)[rows])


@dataclass(frozen=True)
class ItemGroups:
    """Which groups each item belongs to.

    Attributes:
        kind: what they are made of: the name of a field, or `popularity`.
        names: of the groups [g].
        shares: the part of each item in each group [i, g] (scipy sparse); rows sum to 1, or to less for an
            item with categories that are no group here.
    """

    kind: str
    names: tuple[str, ...]
    shares: Any


@dataclass(frozen=True)
class Compared:
    """Groups that figures are shown of, and which of them are compared.

    Attributes:
        names: of the groups [a]; the last is `unknown` where people have no value.
        sizes: people in each [a].
        among: whether it is compared [a]: it has enough people, and is not the unknown.
        notes: sentences on those that are not.
    """

    names: tuple[str, ...]
    sizes: Ints
    among: Bools
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, kind: str, names: Sequence[str], sizes: Ints, least: int, *, unknown: bool = False
    ) -> Compared:
        """Groups of `kind` and their sizes [a], compared from `least` people on; the last may be unknown."""
        among = sizes >= least
        notes = [
            f"{kind}: {names[a]!r} has {sizes[a]} people, fewer than {least}; it is shown and not compared."
            for a in map(int, np.flatnonzero(~among))
            if not (unknown and a == len(names) - 1)
        ]
        if unknown:
            among[-1] = False
            notes.append(f"{kind}: {sizes[-1]} people have no value; they are shown and not compared.")
        return cls(tuple(names), sizes, among, tuple(notes))

    @classmethod
    def people(cls, groups: Groups, owners: Ints, least: int) -> tuple[Compared, Ints]:
        """The groups of people `owners` [p], and the place of each one's among the names [p]."""
        codes = groups.members[owners]
        unknown = bool((codes < 0).any())
        names = (*groups.names, UNKNOWN) if unknown else groups.names
        codes = np.where(codes < 0, len(groups.names), codes)
        sizes = np.bincount(codes, minlength=len(names))
        return cls.of(groups.attribute, names, sizes, least, unknown=unknown), codes


def numbers_of(values: pl.Series) -> Array | None:
    """The values as numbers [u], NaN where missing; None where they are categories.

    Texts that are all numbers are numbers, as a CSV file has them. Numbers of at most `BANDS` different
    values are categories.
    """
    given = _plain(values)
    if not given.dtype.is_numeric() and given.dtype != pl.String:
        return None
    found = given.cast(pl.Float64, strict=False).fill_nan(None)
    known = found.drop_nulls()
    if given.dtype == pl.String and len(known) < len(given) - given.null_count():
        return None
    if known.n_unique() <= BANDS or not known.is_finite().all():
        return None
    return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def groups_of(values: pl.Series, bands: int = BANDS) -> Groups:
    """Groups by the values of a column [u]: categories in order of name, or quantile bands of numbers.

    A list of values is one category, named by all of them. Bands are named by their least and largest value;
    equal numbers are in one band, so that there may be fewer.

    >>> groups_of(pl.Series("gender", ["F", None, "M"]))
    Groups(attribute='gender', names=('F', 'M'), members=array([ 0, -1,  1]))

    Raises:
        InputError: where the column holds what is neither text, truth value, number nor a list of texts.
    """
    numbers = numbers_of(values)
    if numbers is None:
        words = _words(values)
        names = words.unique().drop_nulls().sort()
        codes = words.replace_strict(names, np.arange(len(names)), default=-1, return_dtype=pl.Int64)
        return Groups(values.name, tuple(names.to_list()), codes.fill_null(-1).to_numpy())
    known = ~np.isnan(numbers)
    cuts = np.unique(np.quantile(numbers[known], np.linspace(0, 1, bands + 1)[1:-1]))
    _, codes = np.unique(np.searchsorted(cuts, numbers[known], side="left"), return_inverse=True)
    members = np.full(len(numbers), -1, dtype=np.int64)
    members[known] = codes
    parts = [numbers[members == band] for band in range(int(codes.max()) + 1)]
    names = tuple(f"{part.min():g} to {part.max():g}" for part in parts)
    return Groups(values.name, names, members)


def by_category(catalog: Catalog, field: str | None = None, most: int = MOST) -> ItemGroups | None:
    """Items by the categories of a field, the first of the catalogue where None; None where it has none.

    The `most` commonest are told apart. A value given twice counts once.

    Raises:
        InputError: where the catalogue has no such field of categories.
    """
    usable = [each.name for each in catalog.by_modality("categorical")]
    if field is None:
        if not usable:
            return None
        field = usable[0]
    if field not in usable:
        raise InputError(
            f"Items can't be grouped by {field!r}. Fields for that: {', '.join(usable) or 'none'}."
        )
    values = catalog.table[field].list.unique().explode(keep_nulls=False, empty_as_null=False)
    if not len(values):
        return None
    counts = values.value_counts(name="n").sort(["n", field], descending=[True, False])
    names = [str(name) for name in counts[field].to_list()[:most]]
    return in_categories(catalog, field, (*names, REST) if len(counts) > most else tuple(names))


def in_categories(catalog: Catalog, field: str, names: tuple[str, ...]) -> ItemGroups:
    """Items by categories that are given; others are `REST` where that is the last name, and else no group's.

    Args:
        catalog: the items.
        field: of categories.
        names: the categories told apart.
    """
    told = names[:-1] if names[-1] == REST else names
    lists = catalog.table[field].list.unique(maintain_order=True)
    rows = np.repeat(np.arange(len(lists)), lists.list.len().fill_null(0).to_numpy())
    values = lists.explode(keep_nulls=False, empty_as_null=False)
    codes = values.replace_strict(
        told, np.arange(len(told)), default=len(told), return_dtype=pl.Int64
    ).to_numpy()
    part = np.ones(len(rows)) / np.bincount(rows, minlength=len(lists))[rows]
    kept = codes < len(names)
    cells = (part[kept], (rows[kept], codes[kept]))
    return ItemGroups(field, names, sparse.csr_array(cells, shape=(len(lists), len(names))))


def by_popularity(counts: Ints, bands: int = 10) -> ItemGroups:
    """Items by how often they were taken [i]: tenths of the catalogue, the most popular first.

    Items taken equally often are in one group, the one that their mean rank lies in, so that a group may be
    larger than a tenth and another be missing.

    >>> by_popularity(np.array([9, 0, 4, 0]), 2).names
    ('1st of 2 by popularity', '2nd of 2 by popularity')
    """
    rank = (rankdata(-counts, method="average") - 0.5) / max(len(counts), 1)
    held, codes = np.unique(np.minimum((rank * bands).astype(np.int64), bands - 1), return_inverse=True)
    names = tuple(f"{band + 1}{_ending(band + 1)} of {bands} by popularity" for band in held)
    cells = (np.ones(len(codes)), (np.arange(len(codes)), codes))
    return ItemGroups("popularity", names, sparse.csr_array(cells, shape=(len(codes), len(names))))


def exposures(lists: Ints, items: ItemGroups, n: int = 10) -> Array:
    """The share of the first n places of each list that each item group has [c, g]; NaN for an empty list.

    Every place counts alike. An item of no group takes a place from all, so that rows may sum to less than 1.
    """
    top = lists[:, :n]
    total = places_in(top, items)
    filled = (top >= 0).sum(axis=1, keepdims=True)
    return np.divide(total, filled, out=np.full(total.shape, np.nan), where=filled > 0)


def places_in(lists: Ints, items: ItemGroups) -> Array:
    """How many places of each list each item group has [c, g]."""
    filled = lists >= 0
    return held_by(np.nonzero(filled)[0], lists[filled], len(lists), items)


def held_by(rows: Ints, shown: Ints, n_rows: int, items: ItemGroups) -> Array:
    """How many of the items `shown` [e] in rows `rows` [e] each item group has [n_rows, g]."""
    cells = (np.ones(len(rows)), (rows, shown))
    held: Any = sparse.csr_array(cells, shape=(n_rows, items.shares.shape[0]))
    return cast(Array, (held @ items.shares).toarray())


def _plain(values: pl.Series) -> pl.Series:
    """Texts without blanks around them, what is empty or marks something missing being null."""
    return trimmed(values) if values.dtype == pl.String else values


def _words(values: pl.Series) -> pl.Series:
    kind = values.dtype
    if isinstance(kind, pl.List):
        words = values.list.eval(pl.element().cast(pl.String)).list.sort().list.join(", ")
        return words.replace("", None)
    if kind in (pl.String, pl.Boolean, pl.Categorical, pl.Enum) or kind.is_numeric() or kind == pl.Null:
        plain = _plain(values)
        if kind.is_float():
            plain = plain.fill_nan(None)
            return plain.map_elements(lambda value: f"{value:g}", return_dtype=pl.String)
        return plain.cast(pl.String)
    raise InputError(
        f"People can't be grouped by the column {values.name!r}, which is of the type {kind}: give texts, "
        "truth values or numbers."
    )


def _ending(number: int) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}
    return "th" if number % 100 in (11, 12, 13) else last.get(number % 10, "th")
