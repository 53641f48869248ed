"""Which column plays which role: by name, by a known other name, or as the caller says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from llm4rec.errors import InputError

ROLES = ("user", "item", "time", "order", "rating", "propensity", "type", "split")
"""Roles that columns of events play."""
CANONICAL = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "order": "order",
    "rating": "rating",
    "propensity": "propensity",
    "type": "event_type",
    "split": "split",
    "text": "text",
    "summary": "summary",
    "tag": "tag",
    "event_id": "event_id",
    "value": "value",
}
ALIASES: dict[str, tuple[str, ...]] = {
    "user": (
        "user_id", "user", "uid", "customer_id", "customer", "reviewer_id", "member_id", "visitor_id",
        "person_id", "account_id",
    ),
    # parent_asin before asin: it is what the metadata of Amazon's 2023 reviews is keyed by
    "item": (
        "item_id", "item", "iid", "parent_asin", "asin", "movie_id", "movie", "product_id", "product",
        "article_id", "business_id", "book_id", "track_id", "song_id", "artist_id", "game_id", "video_id",
        "news_id", "sku",
    ),
    "time": (
        "timestamp", "time", "ts", "unix_review_time", "unix_time", "event_time", "datetime", "date_time",
        "created_at", "date",
    ),
    "order": ("order", "sequence", "seq"),
    "rating": ("rating", "ratings", "stars", "overall", "score"),
    "propensity": ("propensity",),
    "type": ("event_type", "event", "action", "interaction_type", "behavior", "behaviour"),
    "split": ("split", "subset"),
    "text": ("text", "review_text", "review", "body", "comment", "content"),
    "summary": ("summary", "review_title", "headline", "title"),
    "tag": ("tag", "tag_name", "label"),
    "event_id": ("event_id", "event_uuid", "interaction_id"),
    "value": ("value", "event_value"),
}  # fmt: skip
"""Names recognised per role, best first; case, spaces, dashes and underscores make no difference."""

_WORD = re.compile(r"[^\W\d_]+|\d+")

_OTHER_NAMES = {
    "event": "type",
    "event_type": "type",
    "user_id": "user",
    "item_id": "item",
    "timestamp": "time",
}


def roles_of(mapping: Mapping[str, str]) -> dict[str, str]:
    """The mapping with every role under its own name.

    Raises:
        InputError: on a role there is not.
    """
    found: dict[str, str] = {}
    for role, column in mapping.items():
        name = _OTHER_NAMES.get(role, role)
        if name not in CANONICAL:
            raise InputError(f"There is no role {role!r} a column could play. Roles: {', '.join(CANONICAL)}.")
        found[name] = column
    return found


def find_columns(
    columns: Sequence[str],
    mapping: Mapping[str, str],
    wanted: Sequence[str],
    needed: Sequence[str],
    name: str,
) -> dict[str, str]:
    """The column of `columns` for each role of `wanted` that has one.

    Args:
        columns: what the table has.
        mapping: role → column, where the caller says so.
        wanted: roles to look for.
        needed: those of them that can't be done without.
        name: the source, for the message.

    Raises:
        InputError: naming the columns there are, if a needed or a mapped one is missing.
    """
    by_plain: dict[str, str] = {}
    for column in columns:
        by_plain.setdefault(plain(column), column)
    found: dict[str, str] = {}
    for role in wanted:
        if role in mapping:
            if mapping[role] not in columns:
                raise InputError(
                    f"{name} has no column {mapping[role]!r} to take as {role}. {_listing(columns)}"
                    f"{_hint(mapping[role], columns)}"
                )
            found[role] = mapping[role]
            continue
        names = (plain(alias) for alias in ALIASES[role])
        column = next((by_plain[alias] for alias in names if alias in by_plain), None)
        if column is not None and column not in mapping.values():
            found[role] = column
    for role in needed:
        if role not in found:
            names = set(map(plain, ALIASES[role]))
            for other, column in mapping.items():
                if column in columns and plain(column) in names:
                    raise InputError(
                        f"The column {column!r} of {name} is taken as {other}, so none is left for {role}: "
                        f"name it with --map {role}=COLUMN. {_listing(columns)}"
                    )
            raise InputError(
                f"{name} has no column {CANONICAL[role]!r}. {_listing(columns)} "
                f"Rename the right one, or name it with --map {role}=COLUMN, where a command takes that."
            )
    return found


def plain(name: str) -> str:
    """A column name without case, spaces, dashes and underscores."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def unused(name: str, taken: Collection[str]) -> str:
    """`name`, or where that is taken, the first of `name`_2, `name`_3, … that is not."""
    free = name
    number = 2
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free


def words_of(name: str) -> list[str]:
    """The words of a column name in lower case: `user_gender`, `ageGroup`, `MOVIE-ID2` (movie, id, 2)."""
    spaced = "".join(
        f" {letter}" if letter.isupper() and (before.islower() or after.islower()) else letter
        for before, letter, after in zip(f" {name}", name, f"{name[1:]} ", strict=False)
    )
    return [word.lower() for word in _WORD.findall(spaced)]


def is_protected(column: str, protected: Sequence[str]) -> bool:
    """Whether `column` is named after something protected: one of the names is among its whole words.

    `user_gender`, `ageGroup` and `AGE` are; `page` and `message` are not. A name of several words
    (`zip code`) is found where they follow each other, however they are joined.

    Args:
        column: the column's name.
        protected: names that are never features, as in `data.protected`.
    """
    words = words_of(column)
    runs = {
        "".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)
    }
    return any(plain(name) in runs for name in protected)


def _listing(columns: Sequence[str]) -> str:
    shown = [column if len(column) <= 40 else column[:40] + "…" for column in columns[:20]]
    return f"Its columns: {', '.join(shown)}{', …' if len(columns) > 20 else ''}."


def _hint(column: str, columns: Sequence[str]) -> str:
    close = difflib.get_close_matches(column, columns, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
