"""Putting a finished directory in the place of an older one, so that a crash leaves the old or the new."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

ABANDONED = 3600.0
"""Age after which an unfinished directory is taken for a dead writer's [seconds]."""


def begin(path: Path) -> Path:
    """A new empty directory beside `path`, to be filled and then given to `put`."""
    sweep(path)
    fresh = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex[:12]}")
    fresh.mkdir()
    return fresh


def previous(path: Path) -> Path:
    """Where the directory at `path` waits while it is being replaced."""
    return path.with_name(f".{path.name}.previous")


def put(fresh: Path, path: Path) -> None:
    """Move a finished directory to its place; an older one there steps aside until it has arrived.

    A directory can't be renamed over one that has files, so there are two renames. Between them only
    `previous(path)` exists: readers look there too, and `recover` brings it back.
    """
    aside = previous(path)
    replacing = path.exists()
    if replacing:
        os.replace(path, aside)
    try:
        os.replace(fresh, path)
    except OSError:
        if replacing:
            os.replace(aside, path)
        raise
    sync(path.parent)
    if replacing:
        shutil.rmtree(aside, ignore_errors=True)


def recover(path: Path) -> None:
    """Finish what a crash interrupted: the older directory comes back where the newer never arrived."""
    if previous(path).exists() and not path.exists():
        os.replace(previous(path), path)


def sweep(path: Path) -> None:
    """Remove what dead writers left unfinished, and what a crash kept of a directory already replaced."""
    if path.exists():
        shutil.rmtree(previous(path), ignore_errors=True)
    for entry in path.parent.iterdir():
        unfinished = entry.name.startswith(f".{path.name}.partial-")
        if unfinished and time.time() - entry.stat().st_mtime > ABANDONED:
            shutil.rmtree(entry, ignore_errors=True)


def sync(directory: Path) -> None:
    """Force the names in a directory to the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
