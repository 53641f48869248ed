"""Single files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from llm4rec.errors import InputError


def write_text(text: str, file: Path) -> None:
    """Write a text file in one step: a reader sees the old one or the new one.

    Raises:
        InputError: where something that is no plain file is in the way.
    """
    with whole(file) as stream:
        stream.write(text.encode())


def write_json(document: Any, file: Path) -> None:
    """Write one JSON document in one step; NaN and infinity are errors, since JSON has neither."""
    write_text(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n", file)


def write_parquet(table: pl.DataFrame, file: Path) -> None:
    """Write a Parquet file in one step.

    Raises:
        InputError: where something that is no plain file is in the way.
    """
    with whole(file) as stream:
        table.write_parquet(stream)


def check_place(file: Path) -> None:
    """Let nothing but a file be replaced; the folder is made where it is not there.

    Raises:
        InputError: where a directory, a pipe or a device (/dev/null) is at `file`.
        OSError: where the folder can't be made.
    """
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is no plain file and is not replaced; give the name of a file.")
    file.parent.mkdir(parents=True, exist_ok=True)


def check_writable(path: Path) -> None:
    """Make sure, before work whose result is to be written to `path`, that something can be written there.

    Raises:
        InputError: naming the folder that takes no file.
    """
    folder = next(above for above in path.absolute().parents if above.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"Nothing can be written to {path}: {folder} takes no file ({error.strerror}). Name another "
            "place."
        ) from None


@contextmanager
def whole(file: Path) -> Generator[BinaryIO]:
    """A stream beside `file`, which takes its place once all of it is on the disk."""
    check_place(file)
    place = Path(os.path.realpath(file))  # a link keeps pointing at the place that is written
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, place)
    except OSError as error:
        error.filename = str(file)  # the person knows of no part
        raise
    finally:
        part.unlink(missing_ok=True)
