"""What the commands that answer a person say beside the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm4rec.cli import console

if TYPE_CHECKING:
    from llm4rec.recommender import Recommender


def note_unheard(recommender: Recommender, told: bool) -> None:
    """Say so where a time of asking was told to a model that does not listen to it."""
    if told and not recommender.hears_time:
        console.note("The time of asking changes nothing: this model does not take it into account.")


def note_unknown(recommender: Recommender, given: str, names: tuple[str, ...]) -> None:
    """Say which of the items that were named the catalogue does not have."""
    import polars as pl

    numbers = recommender.catalog.numbers(pl.Series(names, dtype=pl.String))
    unknown = [name for name, number in zip(names, numbers, strict=True) if number < 0]
    if unknown:
        shown = f"{', '.join(unknown[:5])}{'…' if len(unknown) > 5 else ''}"
        console.note(
            f"{len(unknown)} of {len(names)} items of {given} are not in the catalogue and are passed over: "
            f"{shown}."
        )


def note_unknown_person(recommender: Recommender, user: str | None) -> None:
    """Say so where a person that was named is not known."""
    if user is not None and recommender.known_history(user) is None:
        console.note(f"The model knows no history of {user!r}: they are taken for a newcomer.")


def note_empty(wish: str | None) -> None:
    """Say so where a wish says nothing."""
    if wish is not None and not wish.strip():
        console.note("The wish is empty and is passed over.")
