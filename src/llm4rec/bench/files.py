"""Files that appear whole or not at all, and what they are known by."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import polars as pl

CHUNK = 1 << 20  # bytes read at once


def write_text(text: str, file: Path) -> None:
    """Write a text file in one step: a reader sees the old one or the new one."""
    part = _part(file)
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


def write_json(document: Any, file: Path) -> None:
    """Write one JSON document in one step; NaN and infinity are errors, since JSON has neither."""
    write_text(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n", file)


def write_parquet(table: pl.DataFrame, file: Path) -> None:
    """Write a Parquet file in one step."""
    part = _part(file)
    table.write_parquet(part)
    os.replace(part, file)


def digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(CHUNK):
            found.update(block)
    return found.hexdigest()


def size(path: Path) -> int:
    """Bytes in a file or in all files under a directory."""
    return sum(part.stat().st_size for part in [path, *path.rglob("*")] if part.is_file())


def _part(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.part")
