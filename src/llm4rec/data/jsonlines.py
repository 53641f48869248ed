"""JSON lines: one object per line. Sound files are read by polars, broken ones line by line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from llm4rec.data.files import Choose, Table, rejection
from llm4rec.errors import InputError

LOOK = 1000  # lines whose keys are looked at to learn the columns


def read_jsonl(path: Path, name: str, choose: Choose, *, as_text: bool) -> Table:
    """Read `path`, shown as `name`; with `as_text` every value stays the text it was written as.

    Raises:
        InputError: if the file is one JSON array, or no line of it is an object.
    """
    columns = _columns(path, name)
    if not as_text:
        table = _fast(path, name, None)
        columns = list(table.columns) if table is not None else columns
    chosen = choose(columns)
    table = _fast(path, name, chosen if as_text else None)
    if table is None:
        table = _careful(path, name, as_text)
    missing = [pl.lit(None, pl.String).alias(title) for title in chosen if title not in table.frame.columns]
    frame = table.frame.with_columns(missing).select(chosen)
    typed = not as_text
    return Table(name, frame, table.rows, tuple(columns), typed=typed, rejected=table.rejected)


def _columns(path: Path, name: str) -> list[str]:
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if start.startswith(b"["):
            raise InputError(f"{name} is one JSON array: write one object per line (JSONL).")
        file.seek(0)
        found: dict[str, None] = {}
        for line in islice(file, LOOK):
            value = _object(line)
            if isinstance(value, dict):
                found.update(dict.fromkeys(value))
    if not found:
        raise InputError(
            f"None of the first {LOOK} lines of {name} is a JSON object: write one object per line."
        )
    return list(found)


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
    rows = _line_numbers(path)
    if len(rows) != frame.height:
        return None
    return Table(name, frame, rows, tuple(frame.columns), typed=chosen is None)


def _line_numbers(path: Path) -> pl.Series:
    """The number of every line that is not blank."""
    with path.open("rb") as file:
        full = (number for number, line in enumerate(file, start=1) if not line.isspace())
        return pl.Series("row", np.fromiter(full, dtype=np.int64))


def _careful(path: Path, name: str, as_text: bool) -> Table:
    values: dict[str, list[Any]] = {}
    rows: list[int] = []
    bad: list[int] = []
    reasons: list[str] = []
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            found = _object(line)
            if isinstance(found, str):
                bad.append(row)
                reasons.append(found)
            elif found is not None:
                for key in found.keys() - values.keys():
                    values[key] = [None] * len(rows)
                for key, column in values.items():
                    column.append(found.get(key))
                rows.append(row)
    frame = pl.DataFrame([_series(key, column, as_text) for key, column in values.items()])
    return Table(
        name,
        frame,
        pl.Series("row", rows, dtype=pl.Int64),
        tuple(values),
        typed=not as_text,
        rejected=rejection(name, bad, reasons),
    )


def _series(key: str, values: list[Any], as_text: bool) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if as_text or not (kinds <= {int, float} or len(kinds) <= 1) or dict in kinds:
        return pl.Series(key, [_text(value) for value in values], dtype=pl.String)
    if kinds == {list}:
        inner = {type(each) for value in values if value is not None for each in cast("list[Any]", value)}
        if not inner <= {int, float}:
            values = [None if value is None else [_text(each) for each in value] for value in values]
            return pl.Series(key, values, dtype=pl.List(pl.String))
        return pl.Series(key, values, dtype=pl.List(pl.Float64))
    return pl.Series(key, values, dtype=pl.Float64 if float in kinds else None, strict=False)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
