"""Where a publisher's files are: in a folder of the person's, in the archive there, or at their address."""

from __future__ import annotations

from pathlib import Path

from llm4rec.config import cache_dir
from llm4rec.data.sources.download import Remote, fetch
from llm4rec.data.sources.tables import find
from llm4rec.errors import InputError
from llm4rec.types import Progress


def locate(remote: Remote, family: str, source_dir: Path | None, *marks: str, progress: Progress) -> Path:
    """The first file of `marks`, or the publisher's archive where that is all there is.

    Args:
        remote: the archive.
        family: the folder of the cache to keep it in.
        source_dir: the person's folder; None to download the archive.
        marks: files, with the folder they lie in where need be, that tell of unpacked files.
        progress: told how far the download has come.

    Raises:
        InputError: if `source_dir` holds neither.
        DownloadError: if the archive can't be had.
    """
    if source_dir is None:
        return fetch(remote, cache_dir() / family, progress=progress)
    found = find(source_dir, *marks, remote.filename)
    if found is None:
        raise InputError(
            f"{source_dir} holds neither {marks[0]} nor {remote.filename}; get {remote.url} and name the "
            "folder it is in, packed or unpacked, with --from DIR."
        )
    return found


def unsigned(source_dir: Path | None) -> list[str]:
    """The sentence on a download whose publisher names no checksum."""
    if source_dir is not None:
        return []
    return [
        "The publisher names no checksum: the SHA-256 of the first download was recorded beside it, and "
        "later uses are held to that."
    ]
