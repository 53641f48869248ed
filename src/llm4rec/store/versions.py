"""Earlier states of an artefact, kept in the folder `versions` within it.

Every state is whole, a folder named by its number with the files of an artefact, but what two states have in
common is one file under two names (a hard link): a state costs what differs from the next one. Where a file
system has no hard links, or a copy does not keep them, they are files of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm4rec.errors import ArtefactError
from llm4rec.store import parts, replace
from llm4rec.store.manifest import MANIFEST, META, Entry, Manifest, is_here

FOLDER = "versions"
RECORD = "version"
"""The name in the plain values under which a state says which one it is."""


@dataclass(frozen=True)
class Version:
    """A state of an artefact.

    Attributes:
        number: from 1 on; a later state has a larger one.
        parent: the number of the state that it was made of; 0 for none.
        by: what made it.
        unfinished: whether that was still at work: where it goes on, this state is replaced, not kept.
        created: UTC time in ISO 8601.
        current: whether it is the one that is read.
        size: bytes on the disk that no other state shares.
        path: its directory.
        meta: its plain values.
    """

    number: int
    parent: int
    by: str
    unfinished: bool
    created: str
    current: bool
    size: int
    path: Path
    meta: Mapping[str, Any]


def of(path: Path, kind: str) -> list[Version]:
    """The states of an artefact, the oldest first; the current one is the last.

    Raises:
        ArtefactError: where there is no such artefact, or a state is damaged.
    """
    folder = path / FOLDER
    earlier = [entry for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    found = [_told(each, kind, current=False) for each in sorted(earlier, key=lambda each: int(each.name))]
    return [*found, _told(path, kind, current=True)]


def next_record(path: Path, kind: str, by: str, *, carried: bool, unfinished: bool) -> dict[str, Any]:
    """What a new state at `path` says of itself under `RECORD`.

    It follows the one that is there, or takes its number where it goes on with what that has begun.

    Args:
        path: the artefact.
        kind: what it is.
        by: what makes the new state.
        carried: whether earlier states are kept in it.
        unfinished: whether what makes it is still at work.
    """
    try:
        now = _told(path, kind, current=True) if is_here(path) else None
    except ArtefactError:  # it is damaged, and replaced
        now = None
    last, parent = (0, 0) if now is None else (now.number, now.parent)
    number, parent = (last, parent) if now is not None and goes_on(now, by) else (last + 1, last)
    record = {"number": number, "parent": parent if carried else 0, "by": by}
    return {**record, "unfinished": True} if unfinished else record


def goes_on(now: Version, by: str | None) -> bool:
    """Whether what makes a new state has begun with the one that is there, and was stopped."""
    return now.unfinished and now.by == by


def at(path: Path, kind: str, number: int) -> Version:
    """One of the earlier states.

    Raises:
        ArtefactError: where it is not there; the message names those that are.
    """
    found = of(path, kind)
    for version in found[:-1]:
        if version.number == number:
            return version
    if not found[:-1]:
        raise ArtefactError(f"The {kind} in {path} has no earlier version.")
    there = ", ".join(str(version.number) for version in found[:-1])
    raise ArtefactError(
        f"The {kind} in {path} has no earlier version {number}: there are {there}, and {found[-1].number} is "
        "the current one."
    )


def _told(path: Path, kind: str, *, current: bool) -> Version:
    manifest = Manifest.read(path, kind)
    meta = parts.load(path, manifest, META, parts.values)
    record = meta.get(RECORD) or {}
    own = [path / name for name in (MANIFEST, *manifest.files)]
    sizes = [file.stat() for file in own if file.exists()]
    return Version(
        number=int(record.get("number", 1)),
        parent=int(record.get("parent", 0)),
        by=str(record.get("by", "")),
        unfinished=bool(record.get("unfinished", False)),
        created=manifest.created,
        current=current,
        size=sum(each.st_size for each in sizes if each.st_nlink == 1),
        path=path,
        meta=meta,
    )


def share(entries: Mapping[str, Entry], fresh: Path, old: Path, kind: str) -> None:
    """Let the files of a new state that are those of the old one be the same on the disk."""
    before = Manifest.read(old, kind).files
    for name, entry in entries.items():
        if before.get(name) == entry and (old / name).is_file():
            (fresh / name).unlink()
            link(old / name, fresh / name)


def carry(old: Path, fresh: Path, kind: str, keep: int, by: str | None) -> None:
    """Keep the old state, and the newest of those it kept, in a new one made by `by`; `keep` in all."""
    found = of(old, kind)
    found = (found[:-1] if goes_on(found[-1], by) else found)[-keep:]
    if not found:
        return
    for version in found:
        place = fresh / FOLDER / str(version.number)
        place.mkdir(parents=True)
        for name in (MANIFEST, *Manifest.read(version.path, kind).files):
            if (version.path / name).is_file():  # an index may be missing
                link(version.path / name, place / name)
        replace.sync(place)
    replace.sync(fresh / FOLDER)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy of it where the file system can't."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
