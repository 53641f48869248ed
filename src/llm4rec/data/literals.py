"""Lists and records that a table holds as text, as JSON or as Python literals: read, never evaluated."""

from __future__ import annotations

import ast
import json
import warnings
from typing import Any, cast

import polars as pl


def literal(text: str, default: object) -> object:
    """The value of a Python literal (strings, numbers, lists, records), never evaluated; else `default`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a stray backslash in a review is no concern of the reader's
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return default


def listed(values: pl.Series) -> pl.Series:
    """Lists written as text, such as `["Children's", 'Action, Adventure']`, as lists of strings.

    What is neither a JSON list nor a Python list, such as `[Action, Drama]`, is split at its commas, without
    brackets and quotes. Lists within lists are laid flat. A missing value stays missing.
    """
    words = {text: _words(text) for text in values.unique().drop_nulls().to_list()}
    found = [None if text is None else words[text] for text in values.to_list()]
    return pl.Series(values.name, found, dtype=pl.List(pl.String))


def _words(text: str) -> list[str]:
    try:
        # numbers stay as they are written: they are names here
        value: object = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        value = literal(text, None)
    if not isinstance(value, list):
        return text.strip("[] ").replace('"', "").replace("'", "").split(",")
    return _flat(cast("list[object]", value))


def _flat(values: list[object]) -> list[str]:
    words: list[str] = []
    for value in values:
        if isinstance(value, list | tuple):
            words += _flat([*cast("list[object]", value)])
        elif isinstance(value, str):
            words.append(value)
        elif value is not None:
            words.append(_shown(value))
    return words


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
