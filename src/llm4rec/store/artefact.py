"""What a model is on disk: a directory of safetensors, Parquet and JSON, checksummed, never a pickle.

    manifest.json        format and package version, kind, and the size and SHA-256 of every other file
    meta.json            plain values
    <name>.safetensors   a set of named arrays
    <name>.parquet       a table
    <name>.index         what can be made again of the others: it may be missing
    <name>.<suffix>      a text
    versions/<number>/   earlier states of it, where they are kept

A directory is written beside its place and moved there when it is whole. The checksums guard against
accidents; whoever can write the directory can also write the manifest. Loading parses data only and runs
nothing that the directory holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import polars as pl
from safetensors.numpy import save_file

import llm4rec
from llm4rec.errors import ArtefactError
from llm4rec.store import parts, replace, versions
from llm4rec.store.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    META,
    Entry,
    Manifest,
    is_here,
    legal_name,
)
from llm4rec.types import Array

T = TypeVar("T")
_Part = Mapping[str, Array] | pl.DataFrame | str | Path | Callable[[Path], None]
INDEX = ".index"


def write(  # noqa: PLR0913  # all that an artefact is made of
    path: Path,
    *,
    kind: str,
    meta: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Array]] | None = None,
    tables: Mapping[str, pl.DataFrame] | None = None,
    texts: Mapping[str, str] | None = None,
    indexes: Mapping[str, Callable[[Path], None]] | None = None,
    linked: Mapping[str, Path] | None = None,
    overwrite: bool = True,
    keep: int = 0,
    by: str | None = None,
    unfinished: bool = False,
) -> None:
    """Write an artefact to `path`, whole or not at all.

    An artefact of the same kind that is already there is replaced; anything else is left alone. Only
    one process may write to a path at a time, any number may read.

    Args:
        path: the directory to make; parents are made too.
        kind: what it is ("model", "checkpoint"), asked for again by `read`.
        meta: values JSON can hold; NumPy scalars become numbers, and numbers that aren't finite become null.
        tensors: sets of named arrays of booleans, integers or floats, one file per set.
        tables: tables, one file each.
        texts: texts by file name, suffix included.
        indexes: what writes each index to the file it is given.
        linked: files of another state of this artefact that are taken over as they are, by name.
        overwrite: whether an artefact that is there may be replaced.
        keep: how many of the states before this one are kept within it.
        by: what makes this state; where it is said, the plain values tell its number and parent, too.
        unfinished: whether what makes it is still at work: the next state by the same replaces this one,
            under its number, and does not keep it.

    Raises:
        ArtefactError: where something else is in the way, or the disk refuses.
        ValueError: on a name that isn't a plain file name, or an array of Python objects.
    """
    path = _real(path)  # a link keeps pointing at the place that is written
    files = _names(tensors or {}, tables or {}, texts or {}, indexes or {}) | dict(linked or {})
    try:
        replace.recover(path)
        check_place(path, kind, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = replace.begin(path)
        try:
            carried = keep > 0 and is_here(path)
            if by is not None:
                record = versions.next_record(path, kind, by, carried=carried, unfinished=unfinished)
                meta = {**meta, versions.RECORD: record}
            entries = _fill(fresh, kind, meta, files)
            if carried:
                versions.share(entries, fresh, path, kind)
                versions.carry(path, fresh, kind, keep, by)
            replace.sync(fresh)
            replace.put(fresh, path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise ArtefactError(f"The {kind} can't be written to {path}: {error.strerror or error}.") from error


def _names(
    tensors: Mapping[str, Mapping[str, Array]],
    tables: Mapping[str, pl.DataFrame],
    texts: Mapping[str, str],
    indexes: Mapping[str, Callable[[Path], None]],
) -> dict[str, _Part]:
    """Every part by the name of its file."""
    files: dict[str, _Part] = {}
    for name, arrays in tensors.items():
        files[f"{name}.safetensors"] = {key: _plain(name, key, array) for key, array in arrays.items()}
    files |= {f"{name}.parquet": table for name, table in tables.items()}
    files |= {f"{name}{INDEX}": writes for name, writes in indexes.items()}
    for name, text in texts.items():
        if name in (MANIFEST, META) or name.endswith((".safetensors", ".parquet", INDEX)):
            raise ValueError(
                f"A text can't be called {name!r}: that name is taken or has a meaning of its own."
            )
        files[name] = text
    for name in files:
        if not legal_name(name):
            raise ValueError(f"{name!r} can't be the name of a file in an artefact.")
    return files


def _plain(name: str, key: str, array: Array) -> Array:
    """The same numbers laid out as safetensors writes them: row after row, little-endian."""
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 8:
        raise ValueError(f"The array {key!r} of {name!r} has the type {array.dtype}, which can't be stored.")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _fill(
    directory: Path, kind: str, meta: Mapping[str, Any], files: Mapping[str, _Part]
) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    everything = {META: json.dumps(_jsonable(meta), indent=1, allow_nan=False), **files}
    for name, part in everything.items():
        file = directory / name
        if isinstance(part, str):
            file.write_text(part, encoding="utf-8", newline="")
        elif isinstance(part, pl.DataFrame):
            with file.open("wb") as stream:
                part.write_parquet(stream)
        elif isinstance(part, Path):
            versions.link(part, file)
        elif callable(part):
            part(file)
        else:
            file.touch()
            mode = file.stat().st_mode
            save_file(dict(part), file)
            file.chmod(mode)  # the library's own would let nobody else read it
        entries[name] = _seal(file)
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        package_version=llm4rec.__version__,
        kind=kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=entries,
    )
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _seal(directory / MANIFEST)
    return entries


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seal(file: Path) -> Entry:
    """Force a file to the disk; its size and checksum."""
    with file.open("rb") as stream:
        entry = Entry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size=stream.tell())
        os.fsync(stream.fileno())
    return entry


def check_place(path: Path, kind: str, *, overwrite: bool = True) -> None:
    """Let nothing be replaced that `write` didn't write, nor anything be written into an artefact.

    Raises:
        ArtefactError: where something else is at `path`, or that lies in an artefact.
    """
    if not is_here(path):  # what lies in another and is there already is replaced as ever
        check_outside(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST).is_file():
        raise ArtefactError(
            f"{path} exists and isn't a {kind} written by llm4rec; choose another place for it."
        )
    manifest = Manifest.read(path, kind)
    if not overwrite:
        raise ArtefactError(f"There is a {kind} at {path} already; choose another place, or remove it first.")
    strangers = sorted(
        {entry.name for entry in path.iterdir()} - manifest.files.keys() - {MANIFEST, versions.FOLDER}
    )
    if strangers:
        raise ArtefactError(
            f"The {kind} at {path} can't be replaced, because {strangers[0]!r} lies in the directory and "
            "would be lost; move it elsewhere first."
        )


@dataclass(frozen=True)
class Artefact:
    """An artefact opened by `read`; each part is loaded and checked when it is asked for."""

    path: Path
    manifest: Manifest
    meta: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Array]:
        """The arrays of one set by name, exactly as they were written."""
        return self.built(name, lambda arrays: arrays)

    def built(self, name: str, build: Callable[[dict[str, Array]], T]) -> T:
        """What `build` makes of the arrays of one set.

        A ValueError or TypeError of it says that they are not what was written: an ArtefactError here.
        """
        return self._load(f"{name}.safetensors", lambda stream: build(parts.arrays(stream)))

    def table(self, name: str) -> pl.DataFrame:
        """One table, with the column types it was written with."""
        return self.listed(name, lambda table: table)

    def listed(self, name: str, build: Callable[[pl.DataFrame], T]) -> T:
        """What `build` makes of one table; its errors are taken as those of `built`."""
        return self._load(f"{name}.parquet", lambda stream: build(pl.read_parquet(stream)))

    def text(self, name: str) -> str:
        """One text by its file name."""
        return self._load(name, lambda stream: stream.read().decode("utf-8"))

    def index(self, name: str, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of an index's file, once it is checked; None where there is none, or no more.

        Raises:
            ArtefactError: where it was altered, or replaced meanwhile.
        """
        file = f"{name}{INDEX}"
        if file not in self or not (self.path / file).exists():
            return None
        return self._load(file, lambda stream: parts.mapped(stream, read))

    def __contains__(self, file: object) -> bool:
        """Whether there is a file of that name, suffix included."""
        return file in self.manifest.files

    def _load(self, file: str, parse: Callable[[BinaryIO], T]) -> T:
        return parts.load(self.path, self.manifest, file, parse)


def read(path: Path, kind: str) -> Artefact:
    """Open the artefact at `path`.

    The manifest, the plain values, and the presence and size of every file are checked here, the
    contents of the other files when they are loaded. An index may be missing.

    Raises:
        ArtefactError: where there is none, or it is incomplete, altered, of a newer format or another kind.
    """
    try:
        place = _find(_real(path), kind)
        manifest = Manifest.read(place, kind)
        for file, entry in manifest.files.items():
            if not file.endswith(INDEX) or os.path.lexists(place / file):
                parts.check_size(place, kind, file, entry)
    except OSError as error:
        raise ArtefactError(f"The {kind} at {path} can't be read: {error.strerror or error}.") from error
    meta: dict[str, Any] = parts.load(place, manifest, META, parts.values)
    return Artefact(place, manifest, meta)


def exists(path: Path) -> bool:
    """Whether an artefact is at `path`, also one whose replacement a crash interrupted."""
    path = _real(path)
    return any((place / MANIFEST).is_file() for place in (path, replace.previous(path)))


def check_outside(path: Path) -> None:
    """Let nothing else be written to an artefact or below: with a foreign file in it, it is not replaced.

    Raises:
        ArtefactError: naming the artefact `path` lies in.
    """
    place = _real(path)
    for above in (place, *place.parents):
        if is_here(above) or (above.name and is_here(replace.previous(above))):
            raise ArtefactError(
                f"{path} lies in {above}, which holds a model ({MANIFEST}) that could not be replaced any "
                "more with something else in it. Name another place."
            )


def _real(path: Path) -> Path:
    """Where links lead; unlike `Path.resolve` it raises nothing where they lead in a circle."""
    return Path(os.path.realpath(path))


def _find(path: Path, kind: str) -> Path:
    for place in (path, replace.previous(path), path):  # once more, should a writer have just finished
        if (place / MANIFEST).is_file():
            return place
    if not path.exists():
        raise ArtefactError(f"There is no {kind} at {path}: the directory doesn't exist. Check the path.")
    if not path.is_dir():
        raise ArtefactError(f"{path} is a file; a {kind} is a directory. Give the directory.")
    raise ArtefactError(
        f"{path} is not a complete {kind}: it has no {MANIFEST}. Check the path, or copy the directory again."
    )
