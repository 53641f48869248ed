"""Tables of items and of people: one row per outside name, with typed features."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from llm4rec.data import jsonlines, validate
from llm4rec.data.catalog import Catalog
from llm4rec.data.columns import ALIASES, CANONICAL, find_columns, is_protected, plain, unused
from llm4rec.data.features import Declared, read_features
from llm4rec.data.files import Table, read_table
from llm4rec.data.report import Sieve
from llm4rec.errors import InputError


def read_entities(
    source: str,
    role: str,
    mapping: Mapping[str, str],
    declared: Mapping[str, Declared],
    protected: tuple[str, ...] = (),
    *,
    must_map: bool = False,
) -> tuple[Catalog, pl.DataFrame, list[str]]:
    """Read a table of items (`role` item) or people (`role` user).

    Args:
        source: file or database URL.
        role: which names its rows carry.
        mapping: role → column, as given for the events; used here where this table has the column.
        declared: column → modality or "ignore".
        protected: names of columns that are kept in the table and are never features; see `is_protected`.
        must_map: whether the mapping is given for this table, which must have the column then.

    Returns:
        The rows with unique names, those set aside, and sentences on what was done.
    """
    table = read_table(source)
    column = _key(table, role, mapping, must_map)
    key = CANONICAL[role]
    sieve = Sieve.of(table)
    sieve.require_rows()
    if column != key:
        other = unused(f"{key}_other", sieve.frame.columns)
        clash = {key: other} if key in sieve.frame.columns else {}
        sieve.frame = sieve.frame.rename(clash).rename({column: key})
    sieve.drop(jsonlines.nested(source, table, column), column, jsonlines.NESTED)
    notes = validate.ids(sieve, key, column)
    sieve.drop(
        ~sieve.frame[key].is_first_distinct(),
        column,
        pl.format("the id {} occurs earlier, and that row is kept", key),
    )
    hidden = [each for each in table.columns if is_protected(each, protected)]
    found = read_features(
        sieve.frame.drop(sieve.row), table.name, typed=table.typed, declared=declared, leave=(key, *hidden)
    )
    notes += [*sieve.note(), *found.notes]
    if hidden:
        notes.append(
            f"Protected columns of {table.name}, kept but never used as features: {', '.join(hidden)}."
        )
    return Catalog(found.table, found.fields, key), sieve.all_rejected(), notes


def _key(table: Table, role: str, mapping: Mapping[str, str], must_map: bool) -> str:
    columns = [*table.columns]
    if role in mapping and (must_map or mapping[role] in columns):
        return find_columns(columns, mapping, (role,), (role,), table.name)[role]
    if "id" in columns and not any(plain(name) in map(plain, ALIASES[role]) for name in columns):
        return "id"
    return find_columns(columns, {}, (role,), (role,), table.name)[role]


def aligned(people: Catalog, user_ids: pl.Series) -> tuple[Catalog, list[str]]:
    """The people of `user_ids` [u] in the first rows, row for row, then all others in their order.

    Those without a row of their own get missing values.
    """
    first = user_ids.alias(people.key).to_frame()
    rows = first.join(people.table, on=people.key, how="left", maintain_order="left")
    lists = [pl.col(field.name).fill_null([]) for field in people.by_modality("categorical")]
    others = people.table.join(first, on=people.key, how="anti", maintain_order="left")
    found = pl.concat([rows.with_columns(lists), others.select(rows.columns)])
    notes: list[str] = []
    absent = first.height - (len(people) - others.height)
    if absent:
        notes.append(f"{absent} of {first.height} people have no row in the users file.")
    if others.height:
        notes.append(
            f"{others.height} of the {len(people)} people of the users file have no events: "
            "they can still be asked for by name."
        )
    return Catalog(found, people.fields, people.key), notes


def check_declared(declared: Mapping[str, Declared], catalogs: list[Catalog]) -> None:
    """Refuse a modality declared for a column that no table has.

    Raises:
        InputError: naming the columns there are.
    """
    known = {column for catalog in catalogs for column in catalog.table.columns}
    for column in declared:
        if column not in known:
            raise InputError(
                f"A modality is declared for {column!r}, which is no column of the items or users. "
                f"Columns: {', '.join(sorted(known)) or 'none'}."
            )
