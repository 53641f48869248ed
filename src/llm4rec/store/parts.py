"""One file of an artefact: checked against the manifest, then read."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file

from llm4rec.errors import ArtefactError
from llm4rec.store.manifest import Entry, Manifest
from llm4rec.types import Array

T = TypeVar("T")
SENSELESS = (
    SafetensorError, pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, TypeError,
    AttributeError, RecursionError,
)  # fmt: skip
"""What the libraries raise on content that was never written by them; a panic is no `Exception`."""


def check_size(directory: Path, kind: str, file: str, entry: Entry) -> None:
    """Presence and size of a file.

    Raises:
        ArtefactError: where it is missing, no plain file, or of another size than the manifest says.
    """
    try:
        found = (directory / file).lstat()
    except FileNotFoundError:
        raise _broken(directory, kind, file, "is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise _broken(directory, kind, file, "is not a plain file")
    if found.st_size < entry.size:
        raise _broken(directory, kind, file, f"is cut short ({found.st_size} of {entry.size} bytes)")
    if found.st_size > entry.size:
        raise _broken(directory, kind, file, "was altered (it has grown)")


def load(directory: Path, manifest: Manifest, file: str, parse: Callable[[BinaryIO], T]) -> T:
    """Check a file against its checksum, then parse the very bytes that were checked.

    Raises:
        ArtefactError: where the file is missing, altered, unreadable, or not what `parse` reads.
    """
    if file not in manifest.files:
        raise ArtefactError(
            f"The {manifest.kind} in {directory} has no {file}; another part of llm4rec wrote it."
        )
    try:
        check_size(directory, manifest.kind, file, manifest.files[file])
        with (directory / file).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != manifest.files[file].sha256:
                raise _broken(directory, manifest.kind, file, "was altered")
            stream.seek(0)
            return parse(stream)
    except OSError as error:
        why = error.strerror or error
        raise ArtefactError(
            f"The file {file} of the {manifest.kind} in {directory} can't be read: {why}."
        ) from error
    except SENSELESS as error:
        why = " ".join(str(error).split())[:200]
        raise _broken(directory, manifest.kind, file, f"can't be understood ({why})") from error


def values(stream: BinaryIO) -> dict[str, Any]:
    """The plain values of a JSON file."""
    found = json.load(stream)
    if not isinstance(found, dict):
        raise ValueError("it holds no names with values")
    return found  # pyright: ignore[reportUnknownVariableType]


def arrays(stream: BinaryIO) -> dict[str, Array]:
    """Arrays of a safetensors file, which the library opens by name and maps instead of reading it whole."""
    return mapped(stream, load_file)


def mapped(stream: BinaryIO, read: Callable[[Path], T]) -> T:
    """What `read` makes of an open file, given its name.

    Raises:
        ArtefactError: where another file has the name by then.
    """
    path = Path(stream.name)
    found = read(path)
    if path.stat().st_ino != os.fstat(stream.fileno()).st_ino:
        raise ArtefactError(f"{path.parent} was replaced while it was being read; load it again.")
    return found


def _broken(directory: Path, kind: str, file: str, how: str) -> ArtefactError:
    return ArtefactError(
        f"The file {file} of the {kind} in {directory} {how}. "
        "Copy the directory again from where it came, or write it anew."
    )
