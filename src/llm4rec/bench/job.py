"""One run of the bench: which data, which questions, which model; and how runs are told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog
from llm4rec.data.ingest import DataConfig, Ingested, ingest
from llm4rec.data.remarks import Manner
from llm4rec.data.split import Split, given, global_time, leave_last_out
from llm4rec.errors import InputError
from llm4rec.store.manifest import MANIFEST
from llm4rec.types import Progress, silent


@dataclass(frozen=True)
class Source:
    """The files a table is measured on; `given` where the events carry their own split column."""

    interactions: str
    items: str | None = None
    users: str | None = None
    given: bool = False
    reviews: str | None = None
    tags: str | None = None

    @classmethod
    def folder(cls, path: Path) -> Source:
        """A directory with interactions and maybe items, users, reviews and tags, as `data get` writes them.

        Raises:
            InputError: if the directory or its events are not there.
        """
        interactions = path / "interactions.parquet"
        if not interactions.is_file():
            raise InputError(
                f"{path} holds no interactions.parquet. `llm4rec data get NAME --out {path}` writes one."
            )
        files = {name: path / f"{name}.parquet" for name in ("items", "users", "reviews", "tags")}
        found = {name: str(file) if file.is_file() else None for name, file in files.items()}
        return cls(
            str(interactions), found["items"], found["users"], reviews=found["reviews"], tags=found["tags"]
        )

    @property
    def files(self) -> dict[str, str]:
        """Every file by what it holds."""
        named = {name: getattr(self, name) for name in ("interactions", "items", "users", "reviews", "tags")}
        return {name: file for name, file in named.items() if file is not None}

    @property
    def remarks(self) -> dict[Manner, str]:
        """The files of what people said."""
        named: dict[Manner, str | None] = {"review": self.reviews, "tag": self.tags}
        return {manner: file for manner, file in named.items() if file is not None}

    def content(self) -> str:
        """SHA-256 over the content of all files.

        Raises:
            InputError: naming a file that does not exist.
        """
        found = hashlib.sha256()
        for holds, file in self.files.items():
            if not Path(file).is_file():
                raise InputError(f"The file {file} does not exist.")
            found.update(f"{holds} {_digest(Path(file))}\n".encode())
        return found.hexdigest()


def _digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Study:
    """The data of a table as every model sees it."""

    data: Ingested
    split: Split

    @property
    def catalog(self) -> Catalog:
        return self.data.catalog

    @property
    def has_clock(self) -> bool:
        return self.data.log.times is not None


def read(source: Source, protocol: str, config: DataConfig, progress: Progress = silent) -> Study:
    """Ingest and split.

    Raises:
        InputError: if the split leaves nothing to fit on or nothing to ask.
    """
    data = ingest(
        source.interactions,
        source.items,
        source.users,
        remarks=source.remarks,
        config=config,
        only_items_with_events=source.given,
        progress=progress,
    )
    if source.given:
        if data.parts is None:
            raise InputError(
                f"{source.interactions} has no column 'split', which says of each event whether it is train, "
                "valid or test: add it, or rename the one that does."
            )
        split = given(data.log, data.parts)
    elif protocol == "global-time":
        split = global_time(data.log)
    else:
        split = leave_last_out(data.log)
    if not len(split.test) or not split.train.n_events:
        raise InputError(_lack(source, data, split))
    return Study(data, split)


def _lack(source: Source, data: Ingested, split: Split) -> str:
    """Why a split that lacks training or questions does, as far as the rows that count tell."""
    part = "train" if not split.train.n_events else "test"
    use = "fit on" if part == "train" else "ask"
    if source.given:
        rule = f"no event that counts is {part} in the column 'split'. Mark some so"
    else:
        rule = "under leave-last-out nobody has three events or more. Give longer histories"
    left_out = data.report.counts["left_out"]
    causes = [f"Events left out by data.min_rating or data.k_core: {left_out}"] if left_out else []
    aside = data.report.rejected.filter(pl.col("file") == source.interactions)
    for (column,), rows in aside.group_by("column", maintain_order=True):
        first = rows.row(0, named=True)
        where = "" if column is None else f" for their column {column!r}"
        causes.append(
            f"Rows set aside{where}: {rows.height}, the first of them row {first['row']}, since "
            f"{first['reason']}"
        )
    remedy = ", or mend what does not count" if causes else ""
    return ". ".join([f"{source.interactions} has nothing to {use}: {rule}{remedy}", *causes]) + "."


@dataclass(frozen=True)
class Job:
    """What a worker is told; `keep` names a directory for the fitted model, if it is to stay."""

    source: Source
    protocol: str
    model: str
    seed: int
    config: dict[str, Any]
    key: str
    out: str
    keep: str | None = None

    def to_json(self) -> str:
        """This job as JSON text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """A job from the text `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["source"] = Source(**values["source"])
        return cls(**values)


def key(content: str, protocol: str, model: str, seed: int, config: Mapping[str, Any], code: str) -> str:
    """What a run's figures depend on, as one hash: data, questions, model, seed, configuration, code."""
    parts = [content, protocol, model, seed, config, code]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def name(model: str, seed: int) -> str:
    """The file name of a run, without an ending."""
    return f"{model}-{seed}"


def train_counts(split: Split, catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """Training events of every item [i] and of every person [u]."""
    return split.train.item_counts(len(catalog)), split.train.lengths


def stamp(model: Path) -> str | None:
    """What tells a kept model from any other, the digest of its manifest; None where there is none."""
    try:
        return hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None
