"""KuaiRec: what people watched of what Kuaishou showed them, and a part where they were shown everything."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from llm4rec.data.files import REJECTED, read_table
from llm4rec.data.literals import listed
from llm4rec.data.sources import lines
from llm4rec.data.sources.download import Remote, unpack
from llm4rec.data.sources.lines import Field, Parsed
from llm4rec.data.sources.origin import locate
from llm4rec.data.sources.tables import TableWriter, complete_items
from llm4rec.errors import InputError
from llm4rec.types import Progress

TERMS = (
    "KuaiRec is published under CC BY-SA 4.0: cite Gao et al. (CIKM 2022), and pass on what you make of it "
    "under the same licence."
)
ARCHIVE = Remote("https://zenodo.org/records/18164998/files/KuaiRec.zip", "261550d472c48eff4990fb13c0e5bcf7")
_MATRICES = {"big_matrix.csv": "train", "small_matrix.csv": "test"}
_PEOPLE = "user_features.csv"
_CATEGORIES, _DAILY, _CAPTIONS = (
    "item_categories.csv", "item_daily_features.csv", "kuairec_caption_category.csv",
)  # fmt: skip
_EVENTS = {
    "user_id": Field(("user_id",), lines.name, "a whole number"),
    "item_id": Field(("video_id",), lines.name, "a whole number"),
    "rating": Field(
        ("watch_ratio",), lambda text: lines.real(text).cast(pl.Float32), "a finite number from 0 on"
    ),
    "timestamp": Field(
        ("timestamp",),
        lambda text: lines.real(text).floor().cast(pl.Int64, strict=False),
        "a time in UTC seconds",
        may_lack=True,
    ),
}
_OF_PEOPLE = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
"""Numbers of `user_features.csv`; its other columns are flags, ranges and encrypted codes."""
_OF_DAYS = {
    "author_id": "author_id", "video_type": "video_type", "upload_dt": "upload_date",
    "upload_type": "upload_type", "video_duration": "video_duration", "video_width": "video_width",
    "video_height": "video_height", "music_id": "music_id", "video_tag_name": "video_tag",
}  # fmt: skip
"""What stays the same from day to day → our name for it."""
_OF_CAPTIONS = {
    "manual_cover_text": "cover_text", "caption": "caption", "topic_tag": "topic_tags",
    "first_level_category_name": "category_1", "second_level_category_name": "category_2",
    "third_level_category_name": "category_3",
}  # fmt: skip
_KINDS = {
    "video_duration": pl.Float64, "video_width": pl.Int64, "video_height": pl.Int64,
    **dict.fromkeys(_OF_PEOPLE, pl.Int64),
}  # fmt: skip
_UNKNOWN = ("UNKNOWN", "")


def read(stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write the tables of the data set into `stage`.

    Args:
        stage: an empty folder.
        source_dir: a folder with the archive or its unpacked files; None to download.
        progress: told how far downloading and reading have come.

    Returns:
        Notes for the person, one sentence each.

    Raises:
        InputError: naming the file, if one of the two matrices is missing or a file not as published.
    """
    mark = next(iter(_MATRICES))
    found = locate(ARCHIVE, "kuairec", source_dir, mark, f"data/{mark}", progress=progress)
    folder, raw = found.parent, stage / ".raw"
    raw.mkdir()
    if found.suffix == ".zip":
        folder = raw
        unpack(found, (*_MATRICES, _PEOPLE, _CATEGORIES, _DAILY, _CAPTIONS), raw)
    with TableWriter(stage, "rejected", REJECTED, keep_empty=False) as rejected:
        _write_events(folder, raw, stage, rejected, progress)
        lacking = [
            name for name in (_PEOPLE, _CATEGORIES, _DAILY, _CAPTIONS) if not (folder / name).is_file()
        ]
        _write_users(folder, stage, rejected)
        _write_items(folder, stage, rejected)
    shutil.rmtree(raw)
    bare = complete_items(stage)
    timeless: int = (
        pl
        .scan_parquet(stage / "interactions.parquet")
        .select(pl.col("timestamp").is_null().sum())
        .collect()
        .item()
    )
    notes = [
        TERMS,
        "rating is the watch ratio: how long was watched, as a multiple of the video's length.",
        "split is train for what people watched of what they were shown (big_matrix) and test for the part "
        "where nearly everybody was shown everything (small_matrix).",
        "Both parts are of the same weeks, so in order of time a person's test comes between their train "
        "rows, which commands that read histories refuse: leave the timestamp out for those.",
        "The videos' counts by day are left out, since they would tell of the future.",
    ]
    if timeless:
        notes.append(f"{timeless:,} rows have no time in the publisher's files, and none here.")
    notes += [f"There is no {name} beside the matrices, so what it tells is not here." for name in lacking]
    if bare:
        notes.append(f"{bare:,} watched videos are not described; they got a row with their id alone.")
    return [*notes, *lines.told(rejected)]


def _write_events(folder: Path, raw: Path, stage: Path, rejected: TableWriter, progress: Progress) -> None:
    needed = [column for field in _EVENTS.values() for column in field.columns]
    parts: list[tuple[Parsed, Mapping[str, str]]] = []
    for number, (name, split) in enumerate(_MATRICES.items()):
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder} lacks {name}, which belongs to KuaiRec; get {ARCHIVE.url} again.")
        progress(f"reading {name}", number, len(_MATRICES))
        columns = lines.header(path, ",", needed)
        parsed = lines.parse(path, raw / f"{split}.parquet", columns, _EVENTS, separator=",", start=2)
        parts.append((parsed, {"split": split}))
    progress("reading matrices", len(parts), len(parts))
    lines.join(parts, (*_EVENTS, "split"), stage / "interactions.parquet", rejected)


def _table(path: Path, names: Mapping[str, str] | None, key: str, rejected: TableWriter) -> pl.DataFrame:
    """The columns `names` of a CSV file under our names, or all of them: the first row of each `key`.

    Raises:
        InputError: if the file lacks one of the columns.
    """
    own = {"user_id": "user_id", "item_id": "video_id"}[key]

    def choose(columns: list[str]) -> list[str]:
        wanted = [own, *(names if names is not None else (c for c in columns if c != own))]
        lacking = [column for column in wanted if column not in columns]
        if lacking:
            raise InputError(
                f"{path}, row 1, does not name the column {lacking[0]!r}; get the publisher's file again."
            )
        return wanted

    table = read_table(str(path), choose)
    for _, row, column, reason in table.rejected.iter_rows():
        rejected.add((path.name, row, column, reason))
    frame = table.frame.with_columns(table.rows.alias("@row"))
    keyless = ~frame[own].str.contains(r"^[0-9]+$").fill_null(False)
    for row in frame.filter(keyless)["@row"]:
        rejected.add((path.name, row, own, "it is not a whole number"))
    frame = frame.filter(~keyless).drop("@row").unique(own, keep="first", maintain_order=True)
    frame = frame.rename({own: key, **(names or {})})
    return frame.with_columns(
        pl.col(column).cast(pl.Float64, strict=False).cast(_KINDS[column], strict=False)
        if column in _KINDS
        # pandas wrote codes as 4.0 where the column lacks some
        else pl.col(column).str.strip_chars().str.replace(r"^(-?\d+)\.0$", "$1").replace(_UNKNOWN, None)
        for column in frame.columns
        if column != key
    )


def _write_users(folder: Path, stage: Path, rejected: TableWriter) -> None:
    """Write everybody who watched anything, with what is told about them."""
    people = pl.scan_parquet(stage / "interactions.parquet").select("user_id").unique(maintain_order=True)
    if (folder / _PEOPLE).is_file():
        told = _table(folder / _PEOPLE, None, "user_id", rejected).lazy()
        people = people.join(told, on="user_id", how="full", coalesce=True, maintain_order="left_right")
    people.sink_parquet(stage / "users.parquet")


def _write_items(folder: Path, stage: Path, rejected: TableWriter) -> None:
    items = pl.DataFrame(schema={"item_id": pl.String})
    for name, names in ((_CATEGORIES, {"feat": "tags"}), (_DAILY, _OF_DAYS), (_CAPTIONS, _OF_CAPTIONS)):
        if (folder / name).is_file():
            table = _table(folder / name, names, "item_id", rejected)
            items = items.join(table, on="item_id", how="full", coalesce=True, maintain_order="left_right")
    lists = [listed(items[column]) for column in ("tags", "topic_tags") if column in items.columns]
    if "upload_date" in items.columns:
        lists.append(items["upload_date"].str.to_date("%Y-%m-%d", strict=False))
    items.with_columns(lists).write_parquet(stage / "items.parquet")
