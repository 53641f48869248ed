"""JSON lines: one object per line. Sound files are read by polars, broken ones line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from llm4rec.data.files import Choose, Table, read_table, rejection
from llm4rec.errors import InputError

NESTED = "the value is an object or a list: it must be text or a number"
LOOK = 1000  # lines whose keys come in the order of the file; polars tells those of the rest in its own
# how an object or a list begins, and a text rarely does
_OPENS = r'^(\[\s*(["\[{\]\d-]|null|true|false)|\{\s*["}])'


def read_jsonl(path: Path, name: str, choose: Choose, *, as_text: bool) -> Table:
    """Read `path`, shown as `name`; with `as_text` every value stays the text it was written as.

    With `as_text`, a row with an object or a list in a chosen column is set aside; a whole number loses its
    point (1.0 is 1), as it does in a table with types. Without it, an object or a list within a list is
    missing; one beside texts becomes a text, which `nested` tells from them.

    Raises:
        InputError: if the file is one JSON array, or no line of it is an object.
    """
    _refuse_array(path, name)
    table = None if as_text else _fast(path, name, None) or _careful(path, name, None)
    columns = _columns(path) if table is None else list(table.columns)
    if not columns and not len(_line_numbers(path)):
        raise InputError(f"{name} is empty.")
    if not columns:
        raise InputError(f"No line of {name} is a JSON object: write one object per line.")
    chosen = choose(columns)
    if table is None:
        table = _fast(path, name, chosen) or _careful(path, name, chosen)
    missing = [pl.lit(None, pl.String).alias(title) for title in chosen if title not in table.frame.columns]
    frame = table.frame.with_columns(missing).select(chosen)
    typed = not as_text
    return Table(name, frame, table.rows, tuple(columns), typed=typed, rejected=table.rejected)


def nested(source: str, table: Table, column: str) -> pl.Series:
    """Which rows of a table that was read with types have an object or a list in a column of texts.

    In the table that is a text as well, so the file itself is asked where one looks like it.
    """
    values = table.frame[column] if column in table.columns else pl.Series(dtype=pl.Null)
    found: list[int] = []
    if values.dtype == pl.String and values.str.contains(r"^[\[{]").any():
        aside = read_table(source, lambda _: [column], as_text=True).rejected
        found = aside.filter(pl.col("column") == column)["row"].to_list()
    return table.rows.is_in(found)


def _refuse_array(path: Path, name: str) -> None:
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        raise InputError(f"{name} is one JSON array: write one object per line (JSONL).")


def _columns(path: Path) -> list[str]:
    """The keys of all objects of the file, those of its first lines in their order."""
    with path.open("rb") as file:
        found = _keys(islice(file, LOOK))
        try:
            found |= dict.fromkeys(pl.scan_ndjson(path, infer_schema_length=None).collect_schema())
        except pl.exceptions.PolarsError:
            found |= _keys(file)  # a broken line, or values of one key that have no type in common
    return list(found)


def _keys(lines: Iterable[bytes]) -> dict[str, None]:
    """The keys of the objects on these lines, as the keys of a dictionary, by first appearance."""
    found: dict[str, None] = {}
    for line in lines:
        value = _object(line)
        if isinstance(value, dict):
            found.update(dict.fromkeys(value))
    return found


def _object(line: bytes) -> dict[str, Any] | str | None:
    """The object on a line, None for a blank line, or what is wrong with it."""
    try:
        text = line.decode("utf-8-sig").strip()
        value = json.loads(text) if text else None
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line is not UTF-8 text"
    except (json.JSONDecodeError, RecursionError) as error:
        return f"it is not a JSON object ({error})"
    if text and not isinstance(value, dict):
        return "it is JSON, but not an object"
    return value


def _fast(path: Path, name: str, chosen: Sequence[str] | None) -> Table | None:
    try:
        if chosen is not None:
            frame = pl.scan_ndjson(path, schema=dict.fromkeys(chosen, pl.String)).collect()
        else:
            frame = pl.scan_ndjson(path, infer_schema_length=None).collect()
    except pl.exceptions.PolarsError:
        return None
    if _holds_nested(frame) if chosen is None else _may_nest(frame):
        return None
    rows = _line_numbers(path)
    if len(rows) != frame.height:
        return None
    return Table(name, frame, rows, tuple(frame.columns), typed=chosen is None)


def _may_nest(frame: pl.DataFrame) -> bool:
    """Whether a value may have been an object or a list: polars makes them text that starts like one."""
    return frame.select(pl.any_horizontal(pl.all().str.contains(r"^[\[{]").any())).item() is True


def _holds_nested(frame: pl.DataFrame) -> bool:
    """Whether a text within a list may have been an object or a list: polars makes it a text among texts."""
    lists = frame.select(pl.col(pl.List(pl.String)))
    texts = [column.explode() for column in lists]
    return any((each.str.contains(_OPENS) & each.str.contains(r"[\]}]$")).any() for each in texts)


def _line_numbers(path: Path) -> pl.Series:
    """The number of every line that is not blank."""
    with path.open("rb") as file:
        full = (number for number, line in enumerate(file, start=1) if not line.isspace())
        return pl.Series("row", np.fromiter(full, dtype=np.int64))


def _careful(path: Path, name: str, chosen: Sequence[str] | None) -> Table:
    """Read line by line: the chosen keys as text, or every key in a type that its values share."""
    values: dict[str, list[Any]] = {key: [] for key in chosen or ()}
    rows: list[int] = []
    bad: list[tuple[int, str | None, str]] = []  # row, column, reason
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            found = _object(line)
            inside = _nested(found, chosen or ()) if isinstance(found, dict) else None
            if isinstance(found, str):
                bad.append((row, None, found))
            elif inside is not None:
                bad.append((row, inside, NESTED))
            elif found is not None:
                for key in found.keys() - values.keys() if chosen is None else ():
                    values[key] = [None] * len(rows)
                for key, column in values.items():
                    column.append(found.get(key))
                rows.append(row)
    return Table(
        name,
        pl.DataFrame([_series(key, column, chosen is not None) for key, column in values.items()]),
        pl.Series("row", rows, dtype=pl.Int64),
        tuple(values),
        typed=chosen is None,
        rejected=rejection(
            name, [row for row, _, _ in bad], [why for _, _, why in bad], [column for _, column, _ in bad]
        ),
    )


def _nested(found: dict[str, Any], chosen: Sequence[str]) -> str | None:
    """The first chosen key whose value is an object or a list, if any."""
    return next((key for key in chosen if isinstance(found.get(key), dict | list)), None)


def _series(key: str, values: list[Any], as_text: bool) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if as_text or not (kinds <= {int, float} or len(kinds) <= 1) or dict in kinds:
        return pl.Series(key, [_text(value) for value in values], dtype=pl.String)
    if kinds == {list}:
        inner = {type(each) for value in values if value is not None for each in cast("list[Any]", value)}
        if not inner <= {int, float}:
            values = [None if value is None else [_flat(each) for each in value] for value in values]
            return pl.Series(key, values, dtype=pl.List(pl.String))
        return pl.Series(key, values, dtype=pl.List(pl.Float64))
    return pl.Series(key, values, dtype=pl.Float64 if float in kinds else None, strict=False)


def _flat(value: Any) -> str | None:
    """A value of a list as text; an object or a list has no place in one."""
    return None if isinstance(value, dict | list) else _text(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, ensure_ascii=False)
