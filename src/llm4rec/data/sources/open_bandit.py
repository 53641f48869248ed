"""Open Bandit Dataset: what two policies of ZOZOTOWN showed, with what chance, and who clicked."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import polars as pl

from llm4rec.data.files import REJECTED
from llm4rec.data.sources import lines
from llm4rec.data.sources.download import Remote
from llm4rec.data.sources.lines import Field, Parsed
from llm4rec.data.sources.origin import locate, unsigned
from llm4rec.data.sources.tables import TableWriter, complete_items, find
from llm4rec.errors import DownloadError, InputError
from llm4rec.types import Progress

TERMS = (
    "The Open Bandit Dataset is ZOZO's, published under CC BY 4.0: cite Saito et al. (NeurIPS 2021, Datasets "
    "and Benchmarks)."
)
ARCHIVE = Remote("https://research.zozo.com/data_release/open_bandit_dataset.zip")
POLICIES = ("random", "bts")
CAMPAIGNS = ("all", "men", "women")
POSITIONS = 3
_CONTEXT = "item_context.csv"
_AFFINITY = "user-item_affinity_"
_IMPRESSIONS = ("timestamp", "item_id", "position", "click", "propensity")
_USER_FEATURES = tuple(f"user_feature_{number}" for number in range(4))
_HASHED = ("item_feature_1", "item_feature_2", "item_feature_3")


def read(stage: Path, source_dir: Path | None, progress: Progress) -> list[str]:
    """Write `impressions.parquet` and `items.parquet` into `stage`.

    The impressions have policy, campaign, timestamp (UTC seconds), item_id, position (from 1), click (0 or
    1), propensity (the chance that the policy gave the item in that place), user_feature_0 to 3 (hashed
    categories) and user_item_affinity (one number for each item of the campaign, by its number).

    Args:
        stage: an empty folder.
        source_dir: a folder with the archive, or with `random` and `bts` as unpacked; None to download.
        progress: told how far downloading and reading have come.

    Returns:
        Notes for the person, one sentence each.

    Raises:
        InputError: naming the file, if there is no log at all or a file is not as published.
        DownloadError: if the archive is broken or can't be had.
    """
    logs = [(policy, campaign) for policy in POLICIES for campaign in CAMPAIGNS]
    marks = [f"{policy}/{campaign}/{campaign}.csv" for policy, campaign in logs]
    found = locate(ARCHIVE, "open-bandit", source_dir, *marks, progress=progress)
    raw = stage / ".raw"
    raw.mkdir()
    parts: list[tuple[Parsed, Mapping[str, str]]] = []
    items: dict[str, pl.DataFrame] = {}
    lacking: list[str] = []
    with TableWriter(stage, "rejected", REJECTED, keep_empty=False) as rejected:
        for number, (policy, campaign) in enumerate(logs):
            progress("reading logs", number, len(logs))
            log = _file(found, source_dir, f"{policy}/{campaign}/{campaign}.csv", raw)
            context = _file(found, source_dir, f"{policy}/{campaign}/{_CONTEXT}", raw)
            if log is None:
                lacking.append(f"{policy}/{campaign}")
                continue
            parsed = _read_log(log, raw / f"{policy}-{campaign}.parquet", policy, campaign)
            if context is not None and campaign not in items:
                items[campaign] = _read_items(context, raw / f"{campaign}-items.parquet", campaign, rejected)
            if found.suffix == ".zip":
                log.unlink()  # gigabytes each
            parts.append((parsed, {"policy": policy, "campaign": campaign}))
        progress("reading logs", len(logs), len(logs))
        if not parts:
            raise InputError(f"{found} holds no log such as {marks[0]}; get {ARCHIVE.url} again.")
        columns = ("policy", "campaign", *_IMPRESSIONS, *_USER_FEATURES, "user_item_affinity")
        lines.join(parts, columns, stage / "impressions.parquet", rejected)
    shutil.rmtree(raw)
    empty = pl.DataFrame(schema={"item_id": pl.String, "campaign": pl.String})
    pl.concat([empty, *items.values()], how="diagonal").write_parquet(stage / "items.parquet")
    bare = complete_items(stage, "impressions")
    notes = [
        TERMS,
        *unsigned(source_dir),
        "The publisher names no people: there are impressions, no interactions, so this is for estimates of "
        "what a policy earns and not for fitting a recommender.",
        "Each campaign numbers its items from 0, so an item is called by its campaign and its number.",
        "Each log hashes the items' categories anew: those of items.parquet are the codes of the random "
        "policy's log, where there is one.",
        "timestamp is in whole UTC seconds.",
    ]
    notes += [f"There is no log of {name}, so its impressions are not here." for name in lacking]
    if bare:
        notes.append(f"{bare:,} items that were shown are not described; they got a row with their id alone.")
    return [*notes, *lines.told(rejected)]


def _file(found: Path, source_dir: Path | None, name: str, raw: Path) -> Path | None:
    """The unpacked file `name`, or that of the archive, taken out into `raw`; None if there is none."""
    if found.suffix != ".zip":
        return None if source_dir is None else find(source_dir, name)
    target = raw / name
    try:
        with zipfile.ZipFile(found) as bundle:
            for member in bundle.namelist():
                # of the archive's own path only the end is read, so no member can be written elsewhere
                inside = PurePosixPath(member)
                if inside.parts[-3:] == PurePosixPath(name).parts and "__MACOSX" not in inside.parts:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with bundle.open(member) as source, target.open("wb") as into:
                        shutil.copyfileobj(source, into, 1 << 20)
                    return target
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{found} is no whole zip file ({error}). Delete it and run again.") from error
    return None


def _item(campaign: str) -> Field:
    return Field(("item_id",), lambda text: pl.lit(f"{campaign}:") + lines.name(text), "a whole number")


def _read_log(path: Path, into: Path, policy: str, campaign: str) -> Parsed:
    needed = ("timestamp", "item_id", "position", "click", "propensity_score", *_USER_FEATURES)
    columns = lines.header(path, ",", needed)
    affinities = [column for column in columns if column.startswith(_AFFINITY)]
    if affinities != [f"{_AFFINITY}{number}" for number in range(len(affinities))] or not affinities:
        raise InputError(
            f"{path}, row 1, must name {_AFFINITY}0 and so on, one for each item; get the publisher's file "
            "again."
        )
    fields = {
        "timestamp": Field(("timestamp",), _seconds, "a date-time with its zone"),
        "item_id": _item(campaign),
        "position": Field(("position",), lines.whole(1, POSITIONS), f"a whole number from 1 to {POSITIONS}"),
        "click": Field(("click",), lines.whole(0, 1), "0 or 1"),
        "propensity": Field(("propensity_score",), _probability, "a probability above 0"),
        **{feature: Field((feature,), _code, "a code") for feature in _USER_FEATURES},
        "user_item_affinity": Field(affinities, _affinity, "a finite number from 0 on"),
    }
    shown = f"{policy}/{campaign}/{path.name}"
    return lines.parse(path, into, columns, fields, separator=",", start=2, shown=shown)


def _read_items(path: Path, into: Path, campaign: str, rejected: TableWriter) -> pl.DataFrame:
    columns = lines.header(path, ",", ("item_id", "item_feature_0", *_HASHED))
    fields = {
        "item_id": _item(campaign),
        "item_feature_0": Field(("item_feature_0",), _number, "a finite number"),
        **{feature: Field((feature,), _code, "a code") for feature in _HASHED},
    }
    parsed = lines.parse(path, into, columns, fields, separator=",", start=2, shown=f"{campaign}/{path.name}")
    table = lines.rows(parsed, rejected).drop(lines.ROW).collect()
    table.insert_column(1, pl.Series("campaign", [campaign] * table.height, dtype=pl.String))
    return table


def _seconds(text: pl.Expr) -> pl.Expr:
    """UTC seconds of such as `2019-11-24 00:00:34.762830+00:00`."""
    moment = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="us", time_zone="UTC")
    return moment.dt.epoch("s")


def _number(text: pl.Expr) -> pl.Expr:
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _probability(text: pl.Expr) -> pl.Expr:
    number = _number(text)
    return pl.when((number > 0) & (number <= 1)).then(number)


def _code(text: pl.Expr) -> pl.Expr:
    return pl.when(text.str.len_bytes() > 0).then(text)


def _affinity(*texts: pl.Expr) -> pl.Expr:
    numbers = [lines.real(text).cast(pl.Float32) for text in texts]
    return pl.when(pl.all_horizontal(number.is_not_null() for number in numbers)).then(
        pl.concat_list(numbers)
    )
