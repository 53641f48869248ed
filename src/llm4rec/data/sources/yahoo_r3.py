"""Yahoo! R3: ratings of 1,000 songs, those that people chose and those drawn for them in a survey."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from llm4rec.data.files import REJECTED
from llm4rec.data.sources import lines
from llm4rec.data.sources.lines import Field, Parsed
from llm4rec.data.sources.tables import TableWriter, find
from llm4rec.errors import InputError
from llm4rec.types import Progress

TERMS = (
    "Yahoo! R3 is Yahoo's, for approved research without commerce by those who signed its data sharing "
    "agreement: nobody may pass it on."
)
HOME = "https://webscope.sandbox.yahoo.com/catalog.php?datatype=r"
QUESTIONS = 7  # of the survey, each answered by a number from 1
_PREFIX = "ydata-ymusic-rating-study-v1_0-"
_RATINGS = ("user id", "song id", "rating")
_EVENTS = {
    "user_id": Field(("user id",), lines.name, "a whole number"),
    "item_id": Field(("song id",), lines.name, "a whole number"),
    "rating": Field(
        ("rating",), lambda text: lines.whole(1, 5)(text).cast(pl.Float32), "a whole number from 1 to 5"
    ),
}


def read(stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write the tables of the data set in `source_dir` into `stage`.

    Raises:
        InputError: if no folder is given, since Yahoo hands the files out for an agreement, or one is missing
            or not as published.
    """
    if source_dir is None:
        raise InputError(
            "Yahoo hands its R3 data out to researchers who sign an agreement, for use without commerce and "
            f"not to be passed on: ask for it at {HOME}, unpack it, and name its folder with --from DIR."
        )
    files = {split: _file(source_dir, split) for split in ("train", "test")}
    answers = find(source_dir, f"{_PREFIX}survey-answers.txt")
    raw = stage / ".raw"
    raw.mkdir()
    with TableWriter(stage, "rejected", REJECTED, keep_empty=False) as rejected:
        parts: list[tuple[Parsed, Mapping[str, str]]] = []
        for number, (split, path) in enumerate(files.items()):
            progress(f"reading {path.name}", number, len(files))
            into = raw / f"{split}.parquet"
            parsed = lines.parse(path, into, _RATINGS, _EVENTS, separator="\t", start=1)
            parts.append((parsed, {"split": split}))
        progress("reading ratings", len(parts), len(parts))
        lines.join(parts, (*_EVENTS, "split"), stage / "interactions.parquet", rejected)
        _write_users(stage, answers, raw, rejected)
    shutil.rmtree(raw)
    songs = pl.scan_parquet(stage / "interactions.parquet").select("item_id")
    songs.unique(maintain_order=True).sink_parquet(stage / "items.parquet")
    return [
        TERMS,
        "split is train for the songs that people chose to rate and test for those drawn at random, which "
        "only some of them were asked about.",
        "Nothing is told about the songs: items.parquet holds their ids alone.",
        f"survey_1 to survey_{QUESTIONS} of users.parquet are the numbers of the answers that people gave to "
        "the survey's questions."
        if answers
        else f"There is no {_PREFIX}survey-answers.txt in {source_dir}: users.parquet holds ids alone.",
        "There are no times, so the order of a person's ratings means nothing.",
        *lines.told(rejected),
    ]


def _file(folder: Path, split: str) -> Path:
    path = find(folder, f"{_PREFIX}{split}.txt")
    if path is None:
        raise InputError(f"{folder} lacks {_PREFIX}{split}.txt; unpack Yahoo's archive there.")
    return path


def _write_users(stage: Path, answers: Path | None, raw: Path, rejected: TableWriter) -> None:
    """Write those who rate, with their answers: those of user n are in line n."""
    people = pl.scan_parquet(stage / "interactions.parquet").select("user_id").unique(maintain_order=True)
    if answers is not None:
        questions = [f"survey_{number}" for number in range(1, QUESTIONS + 1)]
        fields = {question: Field((question,), lines.name, "a whole number") for question in questions}
        into = raw / "answers.parquet"
        parsed = lines.parse(answers, into, questions, fields, separator="\t", start=1)
        said = lines.rows(parsed, rejected)
        people = people.join(
            said.select(pl.col(lines.ROW).cast(pl.String).alias("user_id"), *questions),
            on="user_id",
            how="left",
            maintain_order="left",
        )
    people.sink_parquet(stage / "users.parquet")
