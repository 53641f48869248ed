"""What is wrong with a request that was made in Python, said before anything is asked of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from llm4rec.data.validate import LATEST
from llm4rec.errors import InputError
from llm4rec.types import Context, Query

LARGEST = float(np.finfo(np.float32).max)
"""The width in which ratings are kept."""


def list_length(n: int, n_items: int) -> int:
    """How many of `n_items` are to come back where `n` are asked for.

    Raises:
        InputError: where n is no whole number, or below 1.
    """
    given: Any = n  # whatever its type promises
    if isinstance(given, bool) or not isinstance(given, Integral) or n < 1:
        raise InputError(
            f"A list of {n!r} recommendations can't be made: ask for 1 or more, as a whole number."
        )
    return min(int(n), n_items)


def check(query: Query) -> None:
    """Refuse a query whose values are not of the kinds that `Query` names.

    Raises:
        InputError: naming the value.
    """
    given: dict[str, Any] = vars(query)  # whatever its types promise
    for name in ("history", "exclude", *(() if query.allow is None else ("allow",))):
        if not are_texts(given[name]):
            raise InputError(f"Query.{name} takes a tuple of item ids, each a text: ('50', '181').")
    _check_restrictions(query.allow, given["where"])
    for name in ("more", "less"):
        check_pairs(given[name], f"Query.{name}")
    for name, what in (("user", "a name as a text"), ("text", "a wish in plain words")):
        if not isinstance(given[name], str | None):
            raise InputError(f"Query.{name} takes {what}, not {given[name]!r}.")
    for name in ("timestamps", "ratings"):
        _check_along(given[name], name, len(query.history))
    for time in query.timestamps or ():
        _check_time(time, "Query.timestamps")
    if not isinstance(given["context"], Context):
        raise InputError(f"Query.context takes a Context, such as Context(time=5), not {given['context']!r}.")
    if query.context.time is not None:
        _check_time(query.context.time, "Context.time")
    for rating in query.ratings or ():
        # not a number stands for an event that has no rating
        if isinstance(rating, bool) or not isinstance(rating, Real) or abs(rating) > LARGEST:
            raise InputError(f"Query.ratings takes finite numbers up to {LARGEST:.1e}, not {rating!r}.")


def _is_row(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def are_texts(values: Any) -> bool:
    """Whether they are a row of texts, and not one text."""
    return _is_row(values) and all(isinstance(value, str) for value in values)


def check_pairs(values: Any, name: str) -> None:
    """Refuse what is no row of pairs of a field and a value.

    Raises:
        InputError: naming the argument.
    """
    if not _is_row(values) or not all(are_texts(pair) and len(pair) == 2 for pair in values):
        raise InputError(
            f"{name} takes pairs of a field and a value, each a text: (('genre', 'Comedy'),), not {values!r}."
        )


def _check_along(values: Any, name: str, length: int) -> None:
    if values is not None and not _is_row(values):
        raise InputError(f"Query.{name} takes a tuple of numbers along the history, not {values!r}.")
    if values is not None and len(values) != length:
        raise InputError(
            f"The query has {length} items of history and {len(values)} {name}; "
            "give one for each item, or none at all."
        )


def _check_restrictions(allow: Sequence[str] | None, where: Any) -> None:
    if allow is not None and not allow:
        raise InputError("Query.allow is empty, so nothing could come back: name items, or None for all.")
    if not isinstance(where, Mapping):
        raise InputError("Query.where takes fields and their values: {'genre': ('Comedy', 'Drama')}.")
    for name, values in where.items():
        if not are_texts(values) or not values:
            raise InputError(f"Query.where takes one value or more of {name!r}, each a text: ('Comedy',).")


def _check_time(time: int, name: str) -> None:
    if isinstance(time, bool) or not isinstance(time, Integral) or not 0 <= time < LATEST:
        raise InputError(f"{name} takes UTC seconds from 1970 to 2100, not {time!r}.")
