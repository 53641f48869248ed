"""Events left out on request: ratings that are not positives, and the thin ends of the log (k-core)."""

from __future__ import annotations

import numpy as np
import polars as pl

from llm4rec.errors import InputError
from llm4rec.types import Bools, Ints


def keep_positives(
    frame: pl.DataFrame, name: str, min_rating: float | None
) -> tuple[pl.DataFrame, list[str]]:
    """Leave out events rated below `min_rating`; an event without a rating stays.

    Raises:
        InputError: if there are no ratings, or none is high enough.
    """
    if min_rating is None:
        return frame, []
    if "rating" not in frame.columns:
        raise InputError(
            f"data.min_rating is {min_rating:g}, but {name} has no ratings: map the column, or fit "
            "without data.min_rating."
        )
    kept = frame.filter((pl.col("rating") >= min_rating).fill_null(True))
    if not kept.height:
        highest = frame["rating"].max()
        raise InputError(
            f"No rating of {name} reaches data.min_rating = {min_rating:g}: the highest is {highest}."
        )
    return kept, [
        f"{frame.height - kept.height} of {frame.height} events are rated below {min_rating:g} and left out."
    ]


def keep_core(frame: pl.DataFrame, name: str, k: int) -> tuple[pl.DataFrame, list[str]]:
    """Leave out people and items with fewer than `k` events, again and again until all have `k`.

    Raises:
        InputError: if nothing is left.
    """
    if k <= 1:
        return frame, []
    keep, rounds = core(frame["user"].to_numpy(), frame["item"].to_numpy(), k)
    kept = frame.filter(pl.Series(keep))
    if not kept.height:
        raise InputError(f"Nothing of {name} is left at data.k_core = {k}: choose a smaller one.")
    before, after = (
        (each["user"].n_unique(), each["item"].n_unique(), each.height) for each in (frame, kept)
    )
    return kept, [
        f"The {k}-core, after {rounds} rounds, keeps {after[0]} of {before[0]} people, {after[1]} of "
        f"{before[1]} items and {after[2]} of {before[2]} events."
    ]


def core(users: Ints, items: Ints, k: int) -> tuple[Bools, int]:
    """Which events [e] lie in the k-core, and after how many rounds that stood."""
    keep = np.ones(len(users), dtype=bool)
    rounds = 0
    while True:
        rounds += 1
        stays = keep.copy()
        for owners in (users, items):
            counts = np.bincount(owners[stays], minlength=1)
            stays[stays] = (counts >= k)[owners[stays]]
        if stays.sum() == keep.sum():
            return keep, rounds
        keep = stays
