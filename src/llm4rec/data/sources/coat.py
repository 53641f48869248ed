"""Coat shopping: 290 people's ratings of 300 coats, those they chose and those drawn for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm4rec.data.sources.download import Remote, unpack
from llm4rec.data.sources.origin import locate, unsigned
from llm4rec.data.sources.tables import find, naming
from llm4rec.errors import InputError
from llm4rec.types import Array, Bools, Progress

Doubles = NDArray[np.float64]

TERMS = (
    "The Coat data were gathered by Schnabel and others (Cornell University) for research on selection bias: "
    "cite Schnabel et al. (2016); no licence comes with them, so ask before you pass them on."
)
ARCHIVE = Remote("https://www.cs.cornell.edu/~schnabts/mnar/coat.zip")
HIGHEST = 5  # ratings are 1 to 5, and 0 where there is none
_RATINGS = ("train.ascii", "test.ascii")
_PROPENSITIES = "propensities.ascii"
_FEATURES = tuple(f"{who}_features{rest}" for who in ("user", "item") for rest in (".ascii", "_map.txt"))


def read(stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write the tables of the data set into `stage`.

    People and items are called by their row and column in the matrices, from 0.

    Args:
        stage: an empty folder.
        source_dir: a folder with the archive or its unpacked files; None to download.
        progress: told how far the download has come.

    Returns:
        Notes for the person, one sentence each.

    Raises:
        InputError: naming file, row and column, if a file is missing or not as published.
    """
    found = locate(ARCHIVE, "coat", source_dir, _RATINGS[0], progress=progress)
    folder, raw = found.parent, stage / ".raw"
    raw.mkdir()
    if found.suffix == ".zip":
        folder = raw
        unpack(found, (*_RATINGS, _PROPENSITIES, *_FEATURES), folder)
    train, test = (_ratings(_file(folder, name)) for name in _RATINGS)
    propensities = _matrix(_file(folder, _PROPENSITIES))
    for name, matrix in ((_RATINGS[1], test), (_PROPENSITIES, propensities)):
        if matrix.shape != train.shape:
            raise InputError(
                f"{folder / name} has {matrix.shape[0]} rows of {matrix.shape[1]} values and {_RATINGS[0]} "
                f"{train.shape[0]} of {train.shape[1]}; get the archive again."
            )
    _refuse(
        folder / _PROPENSITIES,
        propensities,
        (propensities <= 0) | (propensities > 1),
        "a probability above 0",
    )
    parts = [_events(train, "train", propensities), _events(test, "test", None)]
    pl.concat(parts).write_parquet(stage / "interactions.parquet")
    for who, number in (("user", train.shape[0]), ("item", train.shape[1])):
        _features(folder, who, number).write_parquet(stage / f"{who}s.parquet")
    shutil.rmtree(raw)
    twice = int(np.count_nonzero((train > 0) & (test > 0)))
    return [
        TERMS,
        *unsigned(source_dir),
        "People and items are called by their row and column in the publisher's matrices, from 0.",
        "split is train for the items that people chose to rate and test for those drawn at random.",
        "propensity, of the train rows, is the publishers' own estimate of how likely a person was to rate "
        "the item: it was learnt, not logged.",
        f"{twice:,} pairs of person and item are rated in both parts, and both ratings are kept.",
        "There are no times, so the order of a person's ratings means nothing.",
    ]


def _file(folder: Path, name: str) -> Path:
    path = find(folder, name)
    if path is None:
        raise InputError(f"{folder} lacks {name}, which belongs to Coat; get {ARCHIVE.url} again.")
    return path


def _matrix(path: Path) -> Doubles:
    """Numbers between blanks, one row a line [row, column]."""
    with naming(path):
        lines = path.read_text(encoding="ascii").splitlines()
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"{path} holds no row at all; get the archive again.")
    matrix = np.empty((len(rows), len(rows[0][1])))
    for place, (number, words) in enumerate(rows):
        if len(words) != matrix.shape[1]:
            raise InputError(
                f"{path}, row {number} has {len(words)} values and the first row {matrix.shape[1]}; get the "
                "archive again."
            )
        for column, word in enumerate(words):
            try:
                matrix[place, column] = float(word)
            except ValueError as error:
                raise InputError(
                    f"{path}, row {number}, column {column + 1}: {word!r} is not a number; get the archive "
                    "again."
                ) from error
    _refuse(path, matrix, ~np.isfinite(matrix), "a finite number")
    return matrix


def _ratings(path: Path) -> Doubles:
    matrix = _matrix(path)
    _refuse(path, matrix, ~np.isin(matrix, np.arange(HIGHEST + 1)), f"a whole number from 0 to {HIGHEST}")
    return matrix


def _refuse(path: Path, matrix: Doubles, wrong: Bools, must: str) -> None:
    places = np.argwhere(wrong)
    if len(places):
        row, column = map(int, places[0])
        raise InputError(
            f"{path}, row {row + 1}, column {column + 1}: {matrix[row, column]:g} is not {must}; get the "
            "archive again."
        )


def _events(ratings: Doubles, split: str, propensities: Doubles | None) -> pl.DataFrame:
    users, items = np.nonzero(ratings)
    known = None if propensities is None else propensities[users, items]
    return pl.DataFrame({
        "user_id": pl.Series(users).cast(pl.String),
        "item_id": pl.Series(items).cast(pl.String),
        "rating": pl.Series(ratings[users, items], dtype=pl.Float32),
        "split": pl.repeat(split, len(users), dtype=pl.String, eager=True),
        "propensity": pl.Series(known, dtype=pl.Float64)
        if known is not None
        else pl.repeat(None, len(users), dtype=pl.Float64, eager=True),
    })


def _features(folder: Path, who: str, number: int) -> pl.DataFrame:
    """The named features of people or items: of each group of columns, the value of the one that is 1."""
    path = _file(folder, f"{who}_features.ascii")
    flags, listing = _matrix(path), _file(folder, f"{who}_features_map.txt")
    with naming(listing):
        lines = [line.strip() for line in listing.read_text(encoding="ascii").splitlines() if line.strip()]
    titles = [line.partition(":") for line in lines]
    for row, (group, colon, value) in enumerate(titles, 1):
        if not (group and colon and value):
            raise InputError(f"{listing}, row {row}: not feature:value; get the archive again.")
    if flags.shape != (number, len(titles)):
        raise InputError(
            f"{path} has {flags.shape[0]} rows of {flags.shape[1]} values where {number} of {len(titles)} "
            "were due, one for each of the ratings' matrix and of the map; get the archive again."
        )
    _refuse(path, flags, (flags != 0) & (flags != 1), "0 or 1")
    groups = np.array([group for group, _, _ in titles])
    values: Array = np.array([value for _, _, value in titles])
    table: dict[str, pl.Series] = {f"{who}_id": pl.int_range(number, eager=True).cast(pl.String)}
    for group in dict.fromkeys(groups.tolist()):
        own = flags[:, groups == group]
        _refuse_several(path, own, group)
        names = pl.Series(values[groups == group].tolist(), dtype=pl.String)
        place = pl.Series(own.argmax(axis=1)).set(pl.Series(own.sum(axis=1) == 0), None)
        table[group] = names.gather(place)
    return pl.DataFrame(table)


def _refuse_several(path: Path, flags: Doubles, group: str) -> None:
    rows = np.flatnonzero(flags.sum(axis=1) > 1)
    if len(rows):
        raise InputError(
            f"{path}, row {int(rows[0]) + 1} has several values of {group!r} at once; get the archive again."
        )
