"""Known data sets by name, from their publishers' own files to Parquet tables."""

from __future__ import annotations

from pathlib import Path

from llm4rec.data.sources import amazon, coat, kuairec, movielens, open_bandit, yahoo_r3, yelp
from llm4rec.data.sources.tables import staged
from llm4rec.errors import InputError
from llm4rec.types import Progress, silent

_ALONE = {
    "yelp": yelp.read,
    "coat": coat.read,
    "yahoo-r3": yahoo_r3.read,
    "kuairec": kuairec.read,
    "open-bandit": open_bandit.read,
}
NAMES: tuple[str, ...] = (
    *movielens.EDITIONS,
    *(f"{edition}/<Category>" for edition in amazon.EDITIONS),
    *_ALONE,
)


def get(name: str, out: Path, *, source_dir: Path | None = None, progress: Progress = silent) -> list[str]:
    """Write the data set `name` to the folder `out` and say what there is to know about it.

    Writes `interactions.parquet` (user_id, item_id, rating, timestamp in UTC seconds; rows in the
    publisher's order), `items.parquet` and `users.parquet`, and where the source has them
    `tags.parquet`, `reviews.parquet`, `checkins.parquet`, and `rejected.parquet` with the rows that
    could not be read. Where a part of the events was drawn at random to measure on, the interactions have a
    column `split` that says which. A log of what was shown to whom nobody knows is `impressions.parquet`
    instead. All of it appears at once, or nothing does.

    Args:
        name: one of `NAMES`, with a category of the edition's own in place of `<Category>`.
        out: the folder to write; tables of an earlier run are replaced.
        source_dir: a folder with the publisher's files, already downloaded, to read instead.
        progress: told how far the work has come.

    Returns:
        Notes, one sentence each: the terms first, then what was left out or could not be had.

    Raises:
        InputError: if the name is unknown, or files in `source_dir` are missing or not as published.
        DownloadError: if the publisher can't be reached, or what came is not what was published.
    """
    if source_dir is not None and not source_dir.is_dir():
        raise InputError(f"{source_dir} is not a folder; name the one that holds the publisher's files.")
    family, _, category = name.partition("/")
    if not (name in movielens.EDITIONS or name in _ALONE or (family in amazon.EDITIONS and category)):
        raise InputError(f"There is no data set named {name!r}; the names are {', '.join(NAMES)}.")
    with staged(out) as stage:
        if name in movielens.EDITIONS:
            return movielens.read(name, stage, source_dir, progress)
        if name in _ALONE:
            return _ALONE[name](stage, source_dir, progress)
        return amazon.read(family, category, stage, source_dir, progress)
