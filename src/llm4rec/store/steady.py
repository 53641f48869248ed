"""Reading an artefact while others may replace it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llm4rec.errors import ArtefactError
from llm4rec.store.manifest import MANIFEST

T = TypeVar("T")
ATTEMPTS = 8
"""How often reading begins, at most. It is in vain only where a writer is done again within every one."""


def steady(path: Path, read: Callable[[], T]) -> T:
    """What `read` makes of the artefact at `path`, from the beginning again where it was replaced.

    Files are checked against the manifest that was read first, so that what is read is one state or an error.
    An error of what nobody has replaced is raised at once.

    Raises:
        ArtefactError: as `read`, or where it was replaced time and again.
    """
    last: Exception | None = None
    for _ in range(ATTEMPTS):
        before = _mark(path)
        try:
            return read()
        except (ArtefactError, OSError) as error:
            if _mark(path) == before:
                raise
            last = error
    raise ArtefactError(f"{path} was replaced while it was being read; load it again.") from last


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What tells a state from the one in its place before; None where there is none, or just now none."""
    try:
        found = (path / MANIFEST).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
